"""Adapters from the Hub, by the real client against a Hub on loopback (tests/hub_server.py)."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Fault, Hub, Repo, serving
from safetensors.torch import load_file

from idat_zoo.hub.references import HubReference, parse_reference

IDAT = Path(sys.executable).with_name("idat")
NAME = "zoo/digits-lora"
PINNED = "0123456789abcdef0123456789abcdef01234567"
BAR = re.compile(r"\d%\||B/s|it/s\]|B /")


def checkpoint_files(below: str = "") -> dict[str, bytes]:
    """The adapter that ships, as files of a repository."""
    folder = Path(str(resources.files("idat_zoo.builtin") / "digits-lora"))
    return {f"{below}{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """One public repository with one adapter, a README and a pickle that nobody asks for."""
    repo = Repo()
    repo.commit({**checkpoint_files(), "README.md": b"# LoRA", "pytorch_model.bin": b"\x80\x04K."})
    with serving(Hub(repos={NAME: repo})) as running:
        yield running


class Person:
    """Someone with a cache of their own, who runs `idat` in a process of its own."""

    def __init__(self, hub: Hub, home: Path, **variables: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.surroundings = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home / "hf"),
            "XDG_DATA_HOME": str(home / "share"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            **variables,
        }
        for name in ("HF_TOKEN", "IDAT_SHELF", "IDAT_DATA_DIR"):
            if name not in variables:
                self.surroundings.pop(name, None)

    def run(self, *words: str, timeout: float | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words,
            cwd=self.home,
            env=self.surroundings,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def idat(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.run(str(IDAT), *words)

    def evaluate(self, reference: str, *words: str) -> dict[str, Any]:
        done = self.idat(
            "eval", "--checkpoint", reference, "--device", "cpu", "--out", "eval", "--json", *words
        )
        assert done.returncode == 0, done.stderr
        self.told = done.stderr
        (result,) = json.loads(done.stdout)["results"]
        found: dict[str, Any] = result
        return found


def tells_one_error(done: "subprocess.CompletedProcess[str]") -> bool:
    """One sentence, and a hint perhaps; above them at most the bars of what was moved."""
    told = [line for line in done.stderr.splitlines() if line.strip() and not BAR.search(line)]
    return told[0].startswith("error: ") and all(line.startswith("hint: ") for line in told[1:])


# References


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub:org/name", HubReference(repo="org/name")),
        ("hub:org/name@v1", HubReference(repo="org/name", revision="v1")),
        (
            "hub:org/name@main/dtd/seed0",
            HubReference(repo="org/name", revision="main", subfolder="dtd/seed0"),
        ),
        ("hub:org/name@refs/pr/3", HubReference(repo="org/name", revision="refs/pr/3")),
        ("hf://org/name/dtd", HubReference(repo="org/name", subfolder="dtd")),
        (
            "https://huggingface.co/org/name/tree/main/dtd",
            HubReference(repo="org/name", revision="main", subfolder="dtd"),
        ),
        ("builtin:digits-lora", None),
        ("runs/hub:org", None),
        ("./org/name", None),
    ],
)
def test_references_follow_the_hubs_own_grammar(text: str, expected: HubReference | None) -> None:
    assert parse_reference(text) == expected


def test_a_reference_reads_back_as_it_is_written() -> None:
    for text in ("hub:org/name", "hub:org/name@v1", "hub:org/name@main/dtd/seed0"):
        assert str(parse_reference(text)) == text


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["hub:name", "hub:", "hub:datasets/org/name", "hub:a/b/../c"])
def test_what_is_no_reference_is_refused_without_a_request(
    reference: str, hub: Hub, tmp_path: Path
) -> None:
    done = Person(hub, tmp_path).idat("eval", "--checkpoint", reference)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: '{reference}'")
    assert not hub.requests


# Fetching


@pytest.mark.system
def test_an_adapter_from_the_hub_gives_the_same_bits_as_on_disk(hub: Hub, tmp_path: Path) -> None:
    person = Person(hub, tmp_path / "a")
    result = person.evaluate(f"hub:{NAME}")
    commit = hub.repos[NAME].names["main"]
    assert result["checkpoint"] == {
        "repo": NAME,
        "commit": commit,
        "subfolder": "",
        "asked": "main",
    }
    local = Person(hub, tmp_path / "b")
    other = local.evaluate("builtin:digits-lora")
    assert other["top1"] == result["top1"]
    assert "checkpoint" not in other
    ours, theirs = (load_file(p.home / "eval" / "predictions.safetensors") for p in (person, local))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.system
def test_only_what_is_needed_is_fetched_and_a_pinned_one_makes_no_second_request(
    hub: Hub, tmp_path: Path
) -> None:
    person, commit = Person(hub, tmp_path), hub.repos[NAME].names["main"]
    first = person.evaluate(f"hub:{NAME}@{commit}")
    assert not [line for line in hub.requests if "README" in line or "pytorch_model" in line]
    assert not list(tmp_path.rglob("pytorch_model.bin"))
    asked = len(hub.requests)
    assert asked
    again = person.evaluate(f"hub:{NAME}@{commit}", "--require-pinned")
    assert len(hub.requests) == asked
    assert f"'hub:{NAME}@{commit}' is in the cache; the Hub is not asked" in person.told
    assert again["top1"] == first["top1"]
    assert again["checkpoint"]["asked"] == commit


@pytest.mark.system
def test_what_others_cached_of_a_commit_is_not_taken_for_all_of_it(
    hub: Hub, tmp_path: Path
) -> None:
    person, commit = Person(hub, tmp_path), hub.repos[NAME].names["main"]
    hf = str(IDAT.with_name("hf"))
    done = person.run(hf, "download", NAME, "README.md", "--revision", commit)
    assert done.returncode == 0, done.stderr
    person.evaluate(f"hub:{NAME}@{commit}")
    assert "is in the cache" not in person.told


@pytest.mark.system
def test_offline_the_commit_that_was_seen_last_is_used(hub: Hub, tmp_path: Path) -> None:
    first = Person(hub, tmp_path).evaluate(f"hub:{NAME}")
    asked = len(hub.requests)
    offline = Person(hub, tmp_path, HF_HUB_OFFLINE="1")
    later = offline.evaluate(f"hub:{NAME}")
    assert len(hub.requests) == asked
    assert f"Using cached commit hash for '{NAME}'" in offline.told
    assert later["checkpoint"] == first["checkpoint"]
    other = Person(hub, tmp_path / "new", HF_HUB_OFFLINE="1")
    done = other.idat("eval", "--checkpoint", f"hub:{NAME}")
    assert done.returncode == 1
    assert tells_one_error(done)
    assert "Traceback" not in done.stderr


@pytest.mark.system
def test_a_repository_of_several_adapters_is_all_of_them(hub: Hub, tmp_path: Path) -> None:
    hub.repos["zoo/many"] = Repo()
    hub.repos["zoo/many"].commit(checkpoint_files("digits/seed0/") | checkpoint_files("other/"))
    person = Person(hub, tmp_path)
    done = person.idat("eval", "--checkpoint", "hub:zoo/many", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [r["checkpoint"]["subfolder"] for r in results] == ["digits/seed0", "other"]
    (one,) = [person.evaluate("hub:zoo/many@main/other")]
    assert one["checkpoint"]["subfolder"] == "other"


@pytest.mark.slow
def test_images_are_classified_by_an_adapter_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    person = Person(hub, tmp_path)
    (tmp_path / "photo.png").write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d7"
            "63f8cfc000000301010018dd8db00000000049454e44ae426082"
        )
    )
    done = person.idat("predict", "--checkpoint", f"hub:{NAME}", "photo.png", "--json")
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["predictions"]
    assert len(only["ranked"]) == 5


# Faults


@pytest.mark.system
@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("hub:zoo/nothing", "the Hub has no repository 'zoo/nothing', or it is private"),
        (f"hub:{NAME}@v9", f"'{NAME}' has no revision 'v9'"),
        (f"hub:{NAME}@{PINNED}", f"'{NAME}' has no revision '{PINNED}'"),
        (f"hub:{NAME}@main/sub", "holds no config.json"),
        ("hub:zoo/private", "the Hub has no repository 'zoo/private', or it is private"),
    ],
)
def test_what_the_hub_has_not_is_one_sentence(
    reference: str, told: str, hub: Hub, tmp_path: Path
) -> None:
    hub.repos["zoo/private"] = Repo(private=True)
    hub.repos["zoo/private"].commit(checkpoint_files())
    done = Person(hub, tmp_path).idat("eval", "--checkpoint", reference)
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_token_opens_a_private_repository_and_is_written_nowhere(
    hub: Hub, tmp_path: Path
) -> None:
    hub.repos["zoo/private"] = Repo(private=True)
    hub.repos["zoo/private"].commit(checkpoint_files())
    person = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    done = person.idat(
        "eval", "--checkpoint", "hub:zoo/private", "--device", "cpu", "--out", "eval", "--json"
    )
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.system
@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /api/models", times=2, status=503),
        Fault("HEAD .*safetensors", times=2, status=500),
        Fault("GET .*safetensors", times=1, status=429, headers={"Retry-After": "1"}),
        Fault("GET .*safetensors", times=1, cut_after=2000),
    ],
    ids=["503", "500", "429", "cut"],
)
def test_a_passing_fault_ends_in_success(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(fault)
    result = Person(hub, tmp_path).evaluate(f"hub:{NAME}")
    assert fault.times == 0
    assert result["checkpoint"]["commit"] == hub.repos[NAME].names["main"]


@pytest.mark.system
def test_what_is_larger_than_it_has_to_be_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.repos["zoo/large"] = Repo()
    hub.repos["zoo/large"].commit(checkpoint_files() | {"config.json": b" " * (16 * 2**20 + 1)})
    done = Person(hub, tmp_path).idat("eval", "--checkpoint", "hub:zoo/large", "--device", "cpu")
    assert done.returncode == 1
    assert tells_one_error(done)
    assert "has 16,777,217 bytes; up to 16,777,216 are fetched" in done.stderr
    assert not [line for line in hub.requests if line.startswith("GET /zoo/large")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "adapter_model.safetensors"])
def test_wrong_bytes_are_never_used(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(Fault(f"GET .*{name}", times=9, wrong_bytes=True))
    done = Person(hub, tmp_path).idat("eval", "--checkpoint", f"hub:{NAME}", "--device", "cpu")
    assert done.returncode == 1, done.stdout
    assert tells_one_error(done)
    assert name in done.stderr


@pytest.mark.system
def test_a_hub_that_is_not_there_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    person = Person(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    done = person.idat("eval", "--checkpoint", f"hub:{NAME}@{PINNED}")
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["eval", "predict"])
def test_what_may_move_is_refused_where_a_commit_is_asked_for(
    command: str, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "x.png").touch()
    words = ["--checkpoint", f"hub:{NAME}@main", "--require-pinned"]
    done = Person(hub, tmp_path).idat(command, *words, *(["x.png"] if command == "predict" else []))
    assert done.returncode == 2, done.stderr
    assert "names no commit" in done.stderr
    assert not hub.requests
