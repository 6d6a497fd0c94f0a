"""`idat study --executor hf-jobs`, by the real client up to its requests; no job ever runs."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from command import idat
from hub_jobs import Bucket
from hub_server import TOKEN, Fault, Hub, ask_from_here, serving
from test_executors import CPU, SMALL, bits

BUCKET = "me/idat"
JOBS = ("study", "small.toml", *CPU, "--executor", "hf-jobs")
OURS = ("--executor-option", f"bucket={BUCKET}")
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
PAID = """
title = "What is not on a job's machine"
reference = "none"
pair = "vit_s_to_vit_b"

[[part]]
tasks = ["cifar100"]
adapters = ["linear"]
terms = ["none"]
seeds = [0]
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with a bucket; the working folder is empty, and someone is logged in."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    Path("small.toml").write_text(SMALL)
    with serving(Hub(large="xet", buckets={BUCKET: Bucket()})) as running:
        ask_from_here(running, tmp_path / "cache", monkeypatch)
        yield running


def submit(*words: str) -> Result:
    return idat(*JOBS, *OURS, *words)


def digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def asked_for(hub: Hub) -> list[dict[str, Any]]:
    """The bodies of the requests for jobs, in their order."""
    return [job["asked"] for job in reversed(hub.jobs)]


def end(hub: Hub, place: int, stage: str, message: str | None = None) -> None:
    """Let a job end, by its place in the order of the requests."""
    hub.jobs[-1 - place]["status"] = {"stage": stage, "message": message}


def train(hub: Hub, place: int, mount: Path) -> Result:
    """Run a job's command in a folder that stands for its mount, and let the job end."""
    asked = hub.jobs[-1 - place]["asked"]
    bucket = hub.buckets[BUCKET]
    assert hub.store is not None
    below = asked["volumes"][0]["path"]
    for path, (name, size) in bucket.files.items():
        file = mount / Path(path).relative_to(below)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(hub.store.read(name, size))
    words = [word.replace("/study", str(mount)) for word in asked["command"]]
    done = idat(*words[words.index("idat") + 1 :])
    for file in (file for file in mount.rglob("*") if file.is_file()):
        content = file.read_bytes()
        path = f"{below}/{file.relative_to(mount).as_posix()}"
        bucket.files[path] = (hub.store.write(content), len(content))
    shutil.rmtree(mount)
    end(hub, place, "COMPLETED" if done.exit_code == 0 else "ERROR")
    return done


def assert_one_error(result: Result, message: str, *, code: int) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert told == [f"error: {message}"]
    assert TOKEN not in result.output
    assert "Traceback" not in result.output


# Requests


def test_a_job_is_a_printed_command_on_a_mounted_folder(hub: Hub) -> None:
    result = submit("--executor-option", "cpus=1", "--no-prefix-cache")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"pass {n}: job {n:024x} (submitted) {hub.url}/jobs/me/{n:024x}" for n in (1, 2, 3, 4)
    ]
    plan = json.loads(Path("runs/small/plan.json").read_bytes())
    command = ["idat", "study", "small", "--out", "/study", "--pass", "2", "--device", "cpu"]
    assert asked_for(hub)[1] == {
        "command": [
            *("uv", "run", "--with", f"idat-zoo=={version('idat-zoo')}"),
            *(*command, "--no-prefix-cache"),
        ],
        "arguments": [],
        "environment": THREADS,
        "flavor": "cpu-basic",
        "timeoutSeconds": 3600,
        "labels": {
            "name": "idat-small-2",
            "idat-study": "small",
            "idat-pass": "2",
            "idat-folder": digest("hf://buckets/me/idat/small"),
            "idat-runs": digest(*plan["passes"][1]),
        },
        "volumes": [
            {
                "type": "bucket",
                "source": BUCKET,
                "mountPath": "/study",
                "readOnly": False,
                "path": "small",
            }
        ],
        "dockerImage": "ghcr.io/astral-sh/uv:python3.12-bookworm",
    }
    assert list(hub.buckets[BUCKET].files) == ["small/plan.json", "small/hf-jobs.json"]
    assert not list(Path().rglob("result.json"))
    assert not [one for one in hub.exchanges if one.leaks]


def test_a_paid_job_has_the_token_as_a_secret_alone(hub: Hub) -> None:
    Path("small.toml").write_text(PAID)
    options = ("flavor=l4x1", "timeout=90m", "namespace=lab", "images=me/data/vtab")
    package = "package=idat-zoo @ git+https://example.org/zoo"
    words = [word for one in (*options, package) for word in ("--executor-option", one)]
    assert_one_error(
        submit(*words),
        "each job would download weights of timm/vit_small_patch16_224.augreg_in21k, "
        "weights of timm/vit_base_patch16_224.augreg_in21k.",
        code=2,
    )
    result = submit(*words, "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    (asked,) = asked_for(hub)
    assert asked.pop("secrets") == {"HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps(asked) + result.output
    assert asked["command"] == [
        *("uv", "run", "--with", "idat-zoo @ git+https://example.org/zoo"),
        *("idat", "study", "small", "--out", "/study", "--pass", "1", "--device", "cuda"),
        *("--yes", "--data-dir", "/images"),
    ]
    assert (asked["flavor"], asked["timeoutSeconds"], asked["environment"]) == ("l4x1", 5400, {})
    assert asked["volumes"][1] == {
        "type": "bucket",
        "source": "me/data",
        "mountPath": "/images",
        "readOnly": True,
        "path": "vtab",
    }
    assert json.loads(result.stdout) == {
        "schema_version": 1,
        "study": "small",
        "folder": "runs/small",
        "bucket": "hf://buckets/me/idat/small",
        "jobs": [
            {
                "pass": 1,
                "id": f"{1:024x}",
                "url": f"{hub.url}/jobs/lab/{1:024x}",
                "stage": "SCHEDULING",
                "submitted": True,
            }
        ],
        "not_submitted": [],
    }
    assert not any("whoami" in line for line in hub.requests)


# Results


@pytest.mark.slow
def test_jobs_train_the_passes_and_no_pass_twice(hub: Hub, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    assert submit().exit_code == 0
    again = submit()
    assert again.exit_code == 0, again.stderr
    assert len(hub.jobs) == 4
    assert "pass 3: job 000000000000000000000003 (scheduling) http" in again.stdout
    status = idat("study", "status", "small").stdout
    assert status.count("job 000000000000000000000003 of Hugging Face (scheduling)") == 1
    for place in (0, 1):
        done = train(hub, place, mount)
        assert done.exit_code == 0, done.output
    end(hub, 2, "ERROR", "Job timeout")
    third = submit()
    assert third.exit_code == 0, third.stderr
    assert "2 runs fetched from hf://buckets/me/idat/small\n" in third.stderr
    assert "pass 3: job 000000000000000000000003 ended (error): Job timeout\n" in third.stderr
    assert [line.partition(" http")[0] for line in third.stdout.splitlines()] == [
        "pass 3: job 000000000000000000000005 (submitted)",
        "pass 4: job 000000000000000000000004 (scheduling)",
    ]
    for place in (3, 4):
        assert train(hub, place, mount).exit_code == 0
    elsewhere = ("--out", "elsewhere")  # another machine: all it has comes from the bucket
    assert submit(*elsewhere).stdout == ""
    assert submit().stdout == ""
    assert len(hub.jobs) == 5
    assert idat("study", "small.toml", *CPU, "--out", "here").exit_code == 0
    assert bits(Path("here")) == without_record(Path("runs/small"))
    assert bits(Path("here")) == without_record(Path("elsewhere"))


def without_record(folder: Path) -> dict[str, object]:
    """What a study's folder holds beside the name of its bucket."""
    found = bits(folder)
    found.pop("hf-jobs.json", None)
    return found


def test_failures_in_jobs_are_counted_and_forgotten_by_retry(hub: Hub, tmp_path: Path) -> None:
    Path("small.toml").write_text(SMALL.replace('"mse"', '{name = "mse", lr = 1e30}'))
    for count in (1, 2, 3):
        assert submit().exit_code == 0
        place = next(n for n, one in enumerate(asked_for(hub)) if is_open(hub, n, "3"))
        assert train(hub, place, tmp_path / "mount").exit_code == 3, count
    left = submit()
    assert "left out, as it failed 3 times" in left.stderr
    assert "pass 3:" not in left.stdout
    assert "pass 3: job" in submit("--retry").stdout
    place = next(n for n, one in enumerate(asked_for(hub)) if is_open(hub, n, "3"))
    done = train(hub, place, tmp_path / "mount")
    assert "failed (1 of 3 times)" in done.stderr


def is_open(hub: Hub, place: int, number: str) -> bool:
    job = hub.jobs[-1 - place]
    return bool(job["labels"]["idat-pass"] == number and job["status"]["stage"] == "SCHEDULING")


def test_the_jobs_of_every_account_that_paid_are_known(hub: Hub) -> None:
    lab = ("--executor-option", "namespace=lab")
    assert submit(*lab).exit_code == 0
    shutil.rmtree("runs")
    result = submit()
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("(scheduling)") == 4
    assert {job["owner"]["name"] for job in hub.jobs} == {"lab"}
    assert len(hub.jobs) == 4


def test_a_job_fetches_the_images_of_its_pass_alone(hub: Hub) -> None:
    Path("small.toml").write_text(SMALL.replace('["digits"]', '["digits", "cifar100"]'))
    result = submit()
    assert_one_error(result, "each job would download images of 'cifar100'.", code=2)
    assert submit("--yes").exit_code == 0
    before = len(hub.requests)
    done = idat("study", "small", "--out", "runs/small", "--pass", "1", *CPU, "--yes")
    assert done.exit_code == 0, done.output
    assert not [line for line in hub.requests[before:] if "datasets" in line]


def test_the_status_does_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submit().exit_code == 0
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    status = idat("study", "status", "small")
    assert status.exit_code == 0
    assert "the Hub does not list its jobs: the Hub gives no answer" in status.stderr
    assert "waiting: 4 runs" in status.stdout


# Refusals


def test_without_a_token_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    result = submit()
    assert_one_error(result, "no one is logged in to the Hub, which jobs need.", code=1)
    assert "hint: `hf auth login`, or HF_TOKEN.\n" in result.stderr
    assert hub.requests == []


def test_a_bucket_that_is_not_there(hub: Hub) -> None:
    hub.buckets.clear()
    result = submit()
    assert_one_error(result, "the Hub has no bucket 'me/idat', or it is private.", code=1)
    assert "hint: `hf buckets create me/idat --private` makes it.\n" in result.stderr
    assert hub.jobs == []


def test_a_hub_that_gives_no_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    result = submit()
    assert_one_error(
        result,
        "the Hub gives no answer for 'hub:accounts/me': [Errno 111] Connection refused",
        code=1,
    )


@pytest.mark.parametrize(
    ("status", "told"), [(400, "Bad request: as asked for"), (402, "as asked for")]
)
def test_a_job_that_the_hub_refuses(hub: Hub, status: int, told: str) -> None:
    """A flavor that it does not have, and an account without credit."""
    hub.faults.append(Fault("POST /api/jobs/", times=1, status=status))
    result = submit("--executor-option", "flavor=none-such")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: the Hub refused 'hub:jobs/me': ")
    assert line.endswith(told)
    assert ("hint: Add credit to the account" in result.stderr) == (status == 402)
    assert (result.exit_code, result.stdout, hub.jobs) == (1, "", [])


def test_jobs_before_a_refusal_are_named_and_the_same_command_goes_on(hub: Hub) -> None:
    hub.faults.append(Fault("POST /api/jobs/", times=1, status=402))
    hub.faults.insert(0, Fault("POST /api/jobs/", times=2))  # of which nothing comes
    result = submit()
    assert result.exit_code == 3
    assert [line[:7] for line in result.stdout.splitlines()] == ["pass 1:", "pass 2:"]
    assert result.stderr.count("error: the Hub refused 'hub:jobs/me': ") == 1
    hub.faults.append(Fault("POST /api/jobs/", times=1, status=402))
    hub.faults.insert(0, Fault("POST /api/jobs/", times=1))
    document = json.loads(submit("--json").stdout)
    assert [job["submitted"] for job in document["jobs"]] == [False, False, True]
    assert document["not_submitted"] == [4]
    assert "as asked for" in document["error"]
    assert submit().exit_code == 0
    assert len(hub.jobs) == 4


def test_a_job_whose_answer_is_lost_is_not_submitted_again(hub: Hub) -> None:
    hub.faults.append(Fault("POST /api/jobs/", times=1, after=True))
    result = submit()
    assert result.exit_code == 1
    assert "error: the Hub gives no answer for 'hub:jobs/me': " in result.stderr
    assert submit().exit_code == 0
    assert len(hub.jobs) == 4


def test_a_job_of_an_earlier_plan_is_not_overtaken(hub: Hub) -> None:
    assert submit().exit_code == 0
    Path("small.toml").write_text(SMALL.replace("epochs = 2", "epochs = 3"))
    result = submit("--replan")
    assert_one_error(
        result,
        "job 000000000000000000000004 trains runs of an earlier plan of study 'small'.",
        code=2,
    )
    for place in range(4):
        end(hub, place, "CANCELED")
    assert submit("--replan").exit_code == 0
    assert len(hub.jobs) == 8


def test_a_bucket_with_another_plan(hub: Hub) -> None:
    assert submit().exit_code == 0
    shutil.rmtree("runs")
    Path("small.toml").write_text(SMALL.replace("epochs = 2", "epochs = 3"))
    taken_over = submit()
    assert taken_over.exit_code == 2
    assert "study 'small' is not as it was planned" in taken_over.stderr
    shutil.rmtree("runs")
    assert idat("study", "small.toml", *CPU, "--executor", "print").exit_code == 0
    for place in range(4):
        end(hub, place, "CANCELED")
    assert_one_error(
        submit(),
        "'hf://buckets/me/idat/small' holds another plan of study 'small' than 'runs/small'.",
        code=2,
    )
    assert len(hub.jobs) == 4


def test_what_only_this_machine_has(hub: Hub) -> None:
    Path("own.toml").write_text(PAID.replace("cifar100", "cub"))
    result = idat("study", "own.toml", *CPU, "--executor", "hf-jobs", *OURS, "--yes")
    assert_one_error(result, "jobs of Hugging Face do not have images of 'fgvc_cub'.", code=2)
    assert_one_error(
        submit("--tracker", "tensorboard"),
        "jobs of Hugging Face take no --tracker; leave it out.",
        code=2,
    )
    Path("own.whl").write_text("a wheel")
    assert_one_error(
        submit("--executor-option", "package=own.whl"),
        "package 'own.whl' is on this machine, which a job does not see.",
        code=2,
    )
    Path("study").write_text("a file of this name")
    assert_one_error(
        submit(),
        "'study' is a file here, which huggingface_hub would send in place of the word.",
        code=2,
    )
    assert hub.jobs == []
    assert hub.buckets[BUCKET].files == {}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("bucket=idat", "executor 'hf-jobs': bucket: write OWNER/NAME or OWNER/NAME/FOLDER"),
        ("timeout=1:00", "executor 'hf-jobs': timeout: write a number with s, m, h or d"),
        ("flavor=l4x1", "executor 'hf-jobs' needs the option 'bucket'."),
    ],
)
def test_wrong_options(hub: Hub, option: str, message: str) -> None:
    place = () if option.startswith("bucket") or "flavor" in option else OURS
    result = idat(*JOBS, *place, "--executor-option", option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")
    assert hub.requests == []
