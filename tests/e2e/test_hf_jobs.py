"""The executor `hf-jobs`, by the real client up to its requests; no job ever runs."""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from command import idat
from hf_jobs_calls import (
    BUCKET,
    PAID,
    assert_one_error,
    end,
    hub_with_a_bucket,  # noqa: F401 (the fixture `hub`)
    submit,
)
from hub_server import TOKEN, Hub
from test_executors import CPU, SMALL, bits

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def asked_for(hub: Hub) -> list[dict[str, Any]]:
    """The bodies of the requests for jobs, in their order."""
    return [job["asked"] for job in reversed(hub.jobs)]


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
