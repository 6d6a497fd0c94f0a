"""All ways to the Hub and back: in Git, LFS and Xet, through faults, kills and a slow Hub."""

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_client import FETCHED
from hub_server import SIGNATURE, TOKEN, Fault, Hub, Repo, serving
from safetensors.torch import load_file
from test_hub import IDAT, Person, tells_one_error

from idat_zoo.registry import get_recipe
from idat_zoo.results import load_result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run
from idat_zoo.runs.progress import Progress

REPO = "zoo/tiny-lora"
CLIENT = Path(__file__).with_name("hub_client.py")
LIMIT = 200
"""Seconds in which whatever a command does must end."""
SHORT = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
FILES = {
    "README.md": b"---\nlibrary_name: idat-zoo\n---\n# A card",
    "adapter_model.safetensors": bytes(range(256)) * 400,
    "config.json": b"{}",
    "probe.safetensors": bytes(range(255)) * 30,
}
BEFORE = {"README.md": b"# What was there", "old.safetensors": b"old" * 1000}
CARD_TOO = ("--overwrite", "README.md")  # of BEFORE, and not ours


class Client(Person):
    """A person with a token, whose tools take what large files the Hub takes."""

    def __init__(self, hub: Hub, home: Path, **variables: str) -> None:
        usual = {
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "0" if hub.large == "xet" else "1",
            "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",  # of its own accord it tries for minutes
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "100ms",
        }
        super().__init__(hub, home, **usual, **variables)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            words,
            cwd=self.home,
            env=self.surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.run(*words, timeout=LIMIT)

    def upload(self, *tag: str) -> "subprocess.CompletedProcess[str]":
        folder = self.home / "to_upload"
        folder.mkdir(exist_ok=True)
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        return self.finish(sys.executable, str(CLIENT), "upload", REPO, str(folder), *tag)

    def fetch(self, reference: str) -> "subprocess.CompletedProcess[str]":
        return self.finish(sys.executable, str(CLIENT), "fetch", reference)


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    """A Hub that keeps large files in LFS, unless the test says how."""
    with serving(Hub(large=getattr(request, "param", "lfs"))) as running:
        yield running


@pytest.fixture
def repo(hub: Hub) -> Repo:
    """One with a commit, so that a head can stay where it is."""
    hub.repos[REPO] = Repo()
    hub.repos[REPO].commit(BEFORE)
    return hub.repos[REPO]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("finished")
    recipe = get_recipe(
        "digits", "lora", pair="tiny_random", overrides=["epochs=1", "precision=float32"]
    )
    run(recipe, seed=0, device="cpu", out=out, progress=Progress())
    return run_folder(out, recipe, 0)


def assert_no_token_got_out(
    hub: Hub, home: Path, *done: "subprocess.CompletedProcess[str]"
) -> None:
    """Only in the one header of requests to the Hub itself is it seen, and no file holds it."""
    leaks = [exchange for exchange in hub.exchanges if exchange.leaks]
    assert not leaks
    elsewhere = [exchange for exchange in hub.exchanges if "/_lfs/" in exchange.line]
    assert not [exchange for exchange in elsewhere if exchange.authorized]
    written = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    for one in done:
        assert TOKEN not in one.stdout + one.stderr
        assert "Traceback" in one.stderr or SIGNATURE not in one.stdout + one.stderr
    for kept in (hub.repos, hub.datasets):
        for repo in kept.values():
            for files in repo.commits.values():
                assert not [path for path in files if TOKEN.encode() in files[path]]


def is_whole(repo: Repo, *, name: str = "main") -> bool:
    """Whether a head holds all that was to be uploaded, and what was there before."""
    head = repo.commits[repo.names[name]]
    return head.items() >= FILES.items() and head.keys() - FILES.keys() <= {
        *BEFORE,
        ".gitattributes",
    }


# There and back


@pytest.mark.parametrize(
    "hub",
    [
        pytest.param("", marks=pytest.mark.system, id="regular"),
        pytest.param("lfs", marks=pytest.mark.slow),
        pytest.param("xet", marks=pytest.mark.system),
    ],
    indirect=True,
)
def test_a_run_comes_back_to_the_bit(hub: Hub, finished: Path, tmp_path: Path) -> None:
    author, reader = Client(hub, tmp_path / "author"), Client(hub, tmp_path / "reader")
    done = author.idat("publish", str(finished), "--repo", REPO, "--tag", "v1", "--json")
    if hub.xet_trouble:
        pytest.skip(hub.xet_trouble)
    assert done.returncode == 0, done.stderr
    commit = json.loads(done.stdout)["commit"]
    result = reader.evaluate(f"hub:{REPO}@{commit}", "--require-pinned")
    assert result["top1"] == load_result(finished / "result.json").top1
    ours = load_file(finished / "predictions.safetensors")["student"]
    theirs = load_file(reader.home / "eval" / "predictions.safetensors")["student"]
    assert ours.equal(theirs)
    assert len(hub.repos[REPO].commits) == 2  # the empty repository, and all files at once
    asked = " ".join(hub.requests)
    assert ("/info/lfs/objects/batch" in asked) == (hub.large == "lfs")
    assert ("PUT /_lfs/" in asked) == (hub.large == "lfs")
    assert ("/info/lfs/objects/verify" in asked) == (hub.large == "lfs")
    assert ("GET /_lfs/" in asked) == (hub.large == "lfs")
    assert ("/xet-write-token/main" in asked) == (hub.large == "xet")
    assert (f"/xet-read-token/{commit}" in asked) == (hub.large == "xet")
    assert bool(hub.xet) == (hub.large == "xet")
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.slow
def test_what_is_there_already_is_not_sent_again(hub: Hub, repo: Repo, tmp_path: Path) -> None:
    client = Client(hub, tmp_path)
    assert client.upload("v1").returncode == 0
    assert is_whole(repo)
    asked = len(hub.requests)
    again = client.upload("v1")
    assert again.returncode == 0, again.stderr
    assert not [
        line for line in hub.requests[asked:] if line.startswith("PUT") or "/commit/" in line
    ]
    assert len(repo.commits) == 2


READ_ONE = """
import sys, zipfile
from huggingface_hub import HfFileSystem
with HfFileSystem().open(sys.argv[1], block_size=2**16) as file:
    assert zipfile.ZipFile(file).read("7.bin") == bytes([7]) * 50_000
"""


@pytest.fixture
def archive(hub: Hub) -> str:
    """The place of a zip of 2 MB in a data set; its members are not compressed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(40):
            archive.writestr(f"{number}.bin", bytes([number]) * 50_000)
    hub.datasets["zoo/images"] = Repo()
    commit = hub.datasets["zoo/images"].commit({"big.zip": packed.getvalue()})
    return f"datasets/zoo/images@{commit}/big.zip"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("", times=0),
        Fault("GET /_lfs/.* bytes=350", times=1, cut_after=1000),
        Fault("GET /_lfs/.* bytes=350", times=1, cut_after=1000, stall=2 * LIMIT),
    ],
    ids=["", "cut", "stalled"],
)
def test_a_part_of_a_data_sets_zip_is_read(
    fault: Fault, hub: Hub, archive: str, tmp_path: Path
) -> None:
    hub.faults.append(replace(fault))
    done = Client(hub, tmp_path, **SHORT).finish(sys.executable, "-c", READ_ONE, archive)
    assert done.returncode == 0, done.stderr
    assert hub.faults[0].times == 0
    read = [exchange for exchange in hub.exchanges if exchange.line.startswith("GET /_lfs/")]
    assert all(exchange.span and exchange.status == 206 for exchange in read)
    assert 50_000 < sum(exchange.sent for exchange in read) < 400_000
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.slow
def test_wrong_bytes_in_a_range_are_noticed(hub: Hub, archive: str, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /_lfs/.* bytes=350", times=9, wrong_bytes=True))
    done = Client(hub, tmp_path).finish(sys.executable, "-c", READ_ONE, archive)
    assert done.returncode == 1
    assert "BadZipFile" in done.stderr


# Faults of an upload

CREATING = "POST /api/repos/create"
UPLOADING = {
    "head": rf"GET /api/models/{REPO}(\?|$)",
    "card": "POST /api/validate-yaml",
    "preupload": "POST .*/preupload/",
    "batch": "POST .*/objects/batch",
    "put": "PUT /_lfs/",
    "verify": "POST .*/objects/verify",
    "commit": "POST .*/commit/",
    "tag": "POST .*/tag/",
}
PASSING = {
    "429": Fault("", times=1, status=429, headers={"Retry-After": "0"}),
    "500": Fault("", times=2, status=500),
    "503": Fault("", times=2, status=503),
    "lost": Fault("", times=1, status=0, after=True),
}


@pytest.mark.system
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("step", UPLOADING)
def test_an_upload_outlasts_what_passes(
    step: str, fault: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    asked = replace(PASSING[fault], matching=UPLOADING[step])
    hub.faults.append(asked)
    done = Client(hub, tmp_path).upload("v1")
    assert asked.times == 0
    assert done.returncode == 0, done.stderr
    assert is_whole(repo)
    assert repo.names["v1"] == repo.names["main"] == done.stdout.strip()
    assert len(repo.commits) == 2
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.system
@pytest.mark.parametrize("status", [401, 403, 404, 409, 412])
@pytest.mark.parametrize("step", UPLOADING)
def test_an_upload_that_is_refused_is_one_sentence(
    step: str, status: int, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(UPLOADING[step], times=99, status=status))
    done = Client(hub, tmp_path).upload("v1")
    assert_told_and_whole(done, repo, step)
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.system
@pytest.mark.parametrize("step", UPLOADING)
def test_an_upload_to_a_hub_that_stays_down_is_one_sentence(
    step: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(UPLOADING[step], times=99, status=503))
    done = Client(hub, tmp_path).upload("v1")
    assert_told_and_whole(done, repo, step)
    assert done.returncode == 1


@pytest.mark.slow
def test_of_two_who_make_a_repository_at_once_one_is_told(
    hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    client = Client(hub, tmp_path)
    assert client.upload().returncode == 0  # on the head that was read
    assert is_whole(repo)
    again = client.finish(
        sys.executable, str(CLIENT), "upload-new", REPO, str(tmp_path / "to_upload")
    )
    assert again.returncode == 0, again.stderr  # it holds the very same
    (tmp_path / "to_upload" / "config.json").write_bytes(b'{"other": 1}')
    other = client.finish(
        sys.executable, str(CLIENT), "upload-new", REPO, str(tmp_path / "to_upload")
    )
    assert other.returncode == 1
    assert tells_one_error(other)
    assert "was changed by someone else meanwhile" in other.stderr
    assert len(repo.commits) == 2


@pytest.mark.system
@pytest.mark.parametrize("fault", PASSING)
def test_a_new_repository_is_made_in_spite_of_what_passes(
    fault: str, hub: Hub, tmp_path: Path
) -> None:
    asked = replace(PASSING[fault], matching=CREATING)
    hub.faults.append(asked)
    done = Client(hub, tmp_path).upload()
    assert asked.times == 0
    assert done.returncode == 0, done.stderr
    assert is_whole(hub.repos[REPO])
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.system
@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_new_repository_that_is_refused_is_one_sentence(
    status: int, hub: Hub, tmp_path: Path
) -> None:
    hub.faults.append(Fault(CREATING, times=99, status=status))
    done = Client(hub, tmp_path).upload()
    assert done.returncode == 1
    assert tells_one_error(done), done.stderr
    assert REPO not in hub.repos
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.system
def test_a_pull_request_whose_answer_is_lost_is_not_made_twice(
    hub: Hub, repo: Repo, finished: Path, tmp_path: Path
) -> None:
    hub.faults.append(Fault(UPLOADING["commit"], times=1, after=True))
    client = Client(hub, tmp_path)
    done = client.idat("publish", str(finished), "--repo", REPO, "--create-pr", *CARD_TOO)
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done), done.stderr
    assert repo.names.keys() == {"main", "refs/pr/1"}
    assert repo.commits[repo.names["main"]] == BEFORE


def assert_told_and_whole(done: "subprocess.CompletedProcess[str]", repo: Repo, step: str) -> None:
    """One sentence; the head is the old one, or the whole new one where the tag was refused."""
    if done.returncode:
        assert done.returncode == 1, done.stderr
        assert tells_one_error(done), done.stderr
        assert "Traceback" not in done.stderr
        assert (len(repo.commits) == 2) == (step == "tag")
    else:
        assert step == "card"  # which is not judged then
    assert repo.commits[repo.names["main"]] == BEFORE or is_whole(repo)


# Faults of a fetch

FETCHING = {
    "revision": rf"GET /api/models/{REPO}(\?|$)",
    "tree": f"GET /api/models/{REPO}/tree/",
    "head": "HEAD .*adapter_model",
    "get": "GET /zoo/.*/config.json",
    "large": "GET /_lfs/",
}


@pytest.fixture
def there(repo: Repo) -> Repo:
    repo.commit(FILES)
    return repo


def fetched_whole(done: "subprocess.CompletedProcess[str]") -> bool:
    folder = Path(done.stdout.strip())
    return all((folder / name).read_bytes() == FILES[name] for name in FETCHED)


def assert_told_and_nothing_kept(done: "subprocess.CompletedProcess[str]", home: Path) -> None:
    """One sentence; and a later command finds no file that is not a whole one."""
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done), done.stderr
    assert "Traceback" not in done.stderr
    for path in home.rglob("snapshots/*/*"):
        assert path.read_bytes() == FILES[path.name]


@pytest.mark.system
@pytest.mark.parametrize(
    "fault",
    [
        Fault("", times=1, status=429, headers={"Retry-After": "0"}),
        Fault("", times=2, status=500),
        Fault("", times=2, status=503),
        Fault("", times=2, status=0, after=True),
    ],
    ids=["429", "500", "503", "lost"],
)
@pytest.mark.parametrize("step", FETCHING)
def test_a_fetch_outlasts_what_passes(
    step: str, fault: Fault, hub: Hub, there: Repo, tmp_path: Path
) -> None:
    asked = replace(fault, matching=FETCHING[step])
    hub.faults.append(asked)
    done = Client(hub, tmp_path).fetch(f"hub:{REPO}")
    assert asked.times == 0
    assert done.returncode == 0, done.stderr
    assert fetched_whole(done)
    assert_no_token_got_out(hub, tmp_path, done)


@pytest.mark.slow
def test_a_fetch_that_is_cut_goes_on_where_it_was(hub: Hub, repo: Repo, tmp_path: Path) -> None:
    """Twice: the second time it is a range that ends too early. The client keeps whole 10 MiB."""
    step = 10 * 2**20
    content = bytes(range(256)) * (5 * step // 512)
    repo.commit(FILES | {"adapter_model.safetensors": content})
    hub.faults.append(Fault("GET /_lfs/", times=2, cut_after=step + 1000))
    done = Client(hub, tmp_path).fetch(f"hub:{REPO}")
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "adapter_model.safetensors").read_bytes() == content
    spans = [exchange.span for exchange in hub.exchanges if "GET /_lfs/" in exchange.line]
    assert spans == ["", f"bytes={step}-", f"bytes={2 * step}-"]


@pytest.mark.system
@pytest.mark.parametrize("status", [401, 403, 404, 409, 412, 503])
@pytest.mark.parametrize("step", FETCHING)
def test_a_fetch_that_is_refused_is_one_sentence(
    step: str, status: int, hub: Hub, there: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(FETCHING[step], times=99, status=status))
    done = Client(hub, tmp_path).fetch(f"hub:{REPO}")
    assert_told_and_nothing_kept(done, tmp_path)
    assert_no_token_got_out(hub, tmp_path, done)


# Faults of Xet


@pytest.mark.system
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
@pytest.mark.parametrize("step", ["write", "read"])
def test_xet_that_is_refused_is_one_sentence_and_then_goes_on(
    step: str, status: int, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    fault = Fault(f"GET .*/xet-{step}-token/", times=99, status=status)
    hub.faults.append(fault)
    author, reader = Client(hub, tmp_path / "author"), Client(hub, tmp_path / "reader")
    done = author.upload()
    if step == "write":
        assert_told_and_whole(done, repo, step)
        assert done.returncode == 1
        fault.times = 0
        done = author.upload()
    if hub.xet_trouble:
        pytest.skip(hub.xet_trouble)
    assert done.returncode == 0, done.stderr
    assert is_whole(repo)
    fetched = reader.fetch(f"hub:{REPO}")
    if step == "read":
        assert_told_and_nothing_kept(fetched, reader.home)
        fault.times = 0
        fetched = reader.fetch(f"hub:{REPO}")
    assert fetched.returncode == 0, fetched.stderr
    assert fetched_whole(fetched)
    assert "GET /_lfs/" not in " ".join(hub.requests)
    assert_no_token_got_out(hub, tmp_path, done, fetched)


# A client that is killed


@pytest.mark.system
@pytest.mark.parametrize(
    ("hub", "fault"),
    [
        ("lfs", Fault("PUT /_lfs/", times=99, cut_after=1000, stall=LIMIT)),
        ("lfs", Fault("PUT /_lfs/", times=1, delay=LIMIT)),
        ("lfs", Fault("POST .*/commit/", times=1, delay=LIMIT)),
        ("xet", Fault("POST .*/commit/", times=1, delay=LIMIT)),
    ],
    ids=["in-an-object", "after-an-object", "before-the-commit", "before-the-commit-xet"],
    indirect=["hub"],
)
def test_a_killed_upload_changes_nothing_and_may_be_repeated(
    fault: Fault, hub: Hub, repo: Repo, finished: Path, tmp_path: Path
) -> None:
    fault = replace(fault)
    hub.faults.append(fault)
    author, before = Client(hub, tmp_path), dict(repo.names)
    words = [str(IDAT), "publish", str(finished), "--repo", REPO, "--tag", "v1", *CARD_TOO]
    started = author.start(*words)
    hub.wait_for(fault.matching, timeout=LIMIT)
    os.kill(started.pid, signal.SIGKILL)
    told, complained = started.communicate(timeout=LIMIT)
    assert started.returncode == -signal.SIGKILL
    assert repo.names == before
    fault.times = 0
    again = author.finish(*words)
    if hub.xet_trouble:
        pytest.skip(hub.xet_trouble)
    assert again.returncode == 0, again.stderr
    assert repo.names["v1"] == repo.names["main"] != before["main"]
    assert len(repo.commits) == 2
    written = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    head = repo.commits[repo.names["main"]]
    assert head["adapter_model.safetensors"] == written["adapter_model.safetensors"]
    assert head["result.json"] == written["result.json"]
    killed = subprocess.CompletedProcess(words, 1, told, complained)
    assert_no_token_got_out(hub, tmp_path, killed, again)


# A slow Hub


@pytest.mark.system
@pytest.mark.parametrize("step", UPLOADING)
def test_an_upload_to_a_hub_that_does_not_answer_at_first_succeeds(
    step: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(UPLOADING[step], times=1, delay=2 * LIMIT))
    done = Client(hub, tmp_path, **SHORT).upload("v1")
    assert done.returncode == 0, done.stderr
    assert is_whole(repo)
    assert len(repo.commits) == 2


@pytest.mark.system
@pytest.mark.parametrize("step", UPLOADING)
def test_an_upload_to_a_hub_that_never_answers_is_one_sentence(
    step: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(UPLOADING[step], times=99, delay=2 * LIMIT))
    done = Client(hub, tmp_path, **SHORT).upload("v1")
    assert_told_and_whole(done, repo, step)
    assert done.returncode == 1


@pytest.mark.system
@pytest.mark.parametrize("step", FETCHING)
def test_a_fetch_from_a_hub_that_never_answers_is_one_sentence(
    step: str, hub: Hub, there: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(FETCHING[step], times=99, delay=2 * LIMIT))
    done = Client(hub, tmp_path, **SHORT).fetch(f"hub:{REPO}")
    assert_told_and_nothing_kept(done, tmp_path)


@pytest.mark.slow
def test_a_file_that_hangs_in_the_middle_is_gone_on_with(
    hub: Hub, there: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault("GET /_lfs/", times=1, cut_after=30_000, stall=2 * LIMIT))
    done = Client(hub, tmp_path, **SHORT).fetch(f"hub:{REPO}")
    assert done.returncode == 0, done.stderr
    assert fetched_whole(done)


# The token


@pytest.mark.system
@pytest.mark.parametrize("step", ["preupload", "put", "commit"])
def test_a_traceback_that_was_asked_for_shows_no_token(
    step: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.faults.append(Fault(UPLOADING[step], times=99, status=403))
    done = Client(hub, tmp_path, IDAT_DEBUG="1").upload()
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert_no_token_got_out(hub, tmp_path, done)
