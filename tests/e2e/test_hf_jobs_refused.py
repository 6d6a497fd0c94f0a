"""What the executor `hf-jobs` refuses, and what it says where the Hub refuses."""

import json
import shutil
from pathlib import Path

import pytest
from command import idat
from hf_jobs_calls import (
    BUCKET,
    JOBS,
    OURS,
    PAID,
    assert_one_error,
    end,
    hub_with_a_bucket,  # noqa: F401 (the fixture `hub`)
    submit,
)
from hub_server import Fault, Hub
from test_executors import CPU, SMALL


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
