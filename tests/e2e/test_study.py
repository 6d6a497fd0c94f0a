"""`idat study`: what it trains, skips and leaves out, its status and report, and wrong words."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import idat
from result_documents import common
from terminal import on_terminal
from typer.testing import Result

IDAT = Path(sys.executable).with_name("idat")
SMALL = """
title = "A small study"
reference = "none"
pair = "tiny_random"

[[part]]
tasks = ["digits"]
adapters = ["linear"]
terms = ["none", "mse"]
controls = ["logit_ensemble"]
seeds = [0, 1]
set = {epochs = 2, warmup_epochs = 0}
"""
MIXED = """
title = "Runs that cannot be trained, and others"
reference = "none"
pair = "tiny_random"

[[part]]
tasks = ["digits", "dtd"]
adapters = ["linear"]
terms = ["none", {name = "mse", lr = 1e30}]
set = {epochs = 2, warmup_epochs = 0}
"""
LONG = SMALL.replace("epochs = 2", "epochs = 2000")
CPU = ("--device", "cpu")


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of the small study, which is finished in runs/small."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = idat("study", "small.toml", *CPU, "--json")
    assert result.exit_code == 0, result.stderr
    assert document(result)["finished"] == 4
    return folder


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.pop("schema_version") == 1
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(*words: str, code: int = 2) -> str:
    """What a command that changes no file says when it is refused: one error."""
    before = contents(Path())
    result = idat(*words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert contents(Path()) == before
    return result.stderr


# What is trained


def test_a_study_trains_each_run_once(trained: Path) -> None:
    results = sorted((trained / "runs" / "small").rglob("result.json"))
    assert len(results) == 4  # the ensemble of two networks that are trained apart is read of none
    plan = json.loads((trained / "runs" / "small" / "plan.json").read_bytes())
    assert len(plan["entries"]) == 6
    assert sorted({entry["folder"] for entry in plan["entries"]}) == sorted(
        str(file.parent.relative_to(trained / "runs" / "small")) for file in results
    )
    assert not (trained / "runs" / "small" / "failures.json").exists()


def test_its_runs_are_those_of_idat_train(trained: Path) -> None:
    words = ["--task", "digits", "--adapter", "linear", "--pair", "tiny_random", *CPU]
    words += ["--seeds", "0,1", "epochs=2", "warmup_epochs=0", "distillation=mse"]
    result = idat("train", *words, "--out", "alone")
    assert result.exit_code == 0, result.stderr
    for name, content in contents(Path("alone")).items():
        there = (trained / "runs" / "small" / name).read_bytes()
        if name.endswith("result.json"):
            assert common(content) == common(there)
        else:
            assert there == content, name


def test_finished_runs_are_skipped(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    before = contents(trained)
    for words in (["small.toml"], ["run", "small.toml"]):
        result = idat("study", *words, *CPU)
        assert result.exit_code == 0, result.stderr
        assert "study 'small': 4 of 4 runs are finished\n  runs/small\n" in result.stdout
    assert contents(trained) == before


def test_other_words_and_folders(trained: Path) -> None:
    """The file may lie elsewhere, and --out names the study's folder, in every command."""
    file, out = str(trained / "small.toml"), str(trained / "runs" / "small")
    for words in (["study", file, *CPU], ["study", "status", file], ["study", "report", file]):
        result = idat(*words, "--out", out)
        assert result.exit_code == 0, (words, result.stderr)
    assert not list(Path().iterdir())


# The dry run


def test_a_dry_run_of_what_is_not_begun_writes_nothing() -> None:
    Path("small.toml").write_text(SMALL)
    result = idat("study", "small.toml", *CPU, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "A small study",
        "  folder    runs/small",
        "  runs      4, of which 0 are finished",
        "  passes    4",
        "  expected  unknown for 4 runs",
        "  no finished run tells the time of tiny_random/linear with a teacher; --measure times a "
        "step",
    ]
    found = document(idat("study", "small.toml", *CPU, "--dry-run", "--json"))
    assert found == {
        "study": "small",
        "title": "A small study",
        "folder": "runs/small",
        "runs": 4,
        "passes": 4,
        "finished": 0,
        "left_out": 0,
        "missing": [],
        "hours": None,
        "hours_of_runs": 0,
        "unknown_hours_of": {"tiny_random/linear with a teacher": 4},
    }
    assert [path.name for path in Path().iterdir()] == ["small.toml"]


def test_a_dry_run_counts_passes_by_the_stack() -> None:
    Path("small.toml").write_text(SMALL)
    found = document(idat("study", "small.toml", *CPU, "--dry-run", "--json", "--stack", "3"))
    assert (found["runs"], found["passes"]) == (4, 2)


def test_hours_come_from_runs_that_are_finished(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    found = document(idat("study", "small.toml", *CPU, "--dry-run", "--json"))
    assert (found["finished"], found["hours"], found["unknown_hours_of"]) == (4, None, {})
    text = idat("study", "small.toml", *CPU, "--dry-run").stdout
    assert "runs      4, of which 4 are finished" in text
    assert "expected  nothing is left" in text
    more = trained / "more.toml"
    more.write_text(SMALL.replace("[0, 1]", "[0, 1, 2, 3]").replace('"linear"', '"linear", "lora"'))
    words = ["study", str(more), *CPU, "--out", "runs/small", "--replan", "--dry-run", "--json"]
    found = document(idat(*words))
    assert (found["runs"], found["finished"]) == (16, 4)
    assert found["hours_of_runs"] == 4
    assert found["unknown_hours_of"] == {"tiny_random/lora with a teacher": 8}
    results = [json.loads(p.read_bytes()) for p in (trained / "runs").rglob("result.json")]
    each = sum(one["seconds"] for one in results) / len(results) / 3600
    assert found["hours"] == pytest.approx(4 * each)
    halved = document(idat(*words, "--jobs", "2"))
    assert halved["hours"] == pytest.approx(found["hours"] / 2)
    assert json.loads(Path("runs/small/plan.json").read_bytes())["name"] == "small"


@pytest.mark.slow
def test_a_step_is_measured_where_no_run_tells_the_time() -> None:
    Path("small.toml").write_text(SMALL)
    found = document(idat("study", "small.toml", *CPU, "--dry-run", "--json", "--measure"))
    assert found["unknown_hours_of"] == {}
    assert found["hours_of_runs"] == 4
    assert 0 < found["hours"] < 1
    assert [path.name for path in Path().iterdir()] == ["small.toml"]


# What fails


def test_a_run_that_fails_is_one_line_and_the_rest_goes_on() -> None:
    Path("mixed.toml").write_text(MIXED)
    fails = "linear on digits, mse, seed 0: the loss is not finite in epoch 1: "
    for count in (1, 2, 3):
        result = idat("study", "mixed.toml", *CPU)
        assert result.exit_code == 3, result.output
        lines = result.stderr.splitlines()
        waits = "2 runs wait for images of task 'dtd' (no --data-dir was given"
        assert len([line for line in lines if line.startswith(waits)]) == 1
        assert [line for line in lines if fails in line] == [
            line for line in lines if line.startswith(f"failed ({count} of 3 times): {fails}")
        ]
        assert "Traceback" not in result.stderr
        assert result.stdout.splitlines() == [
            "study 'mixed': 1 of 4 runs are finished, 1 failed, 2 not begun, as inputs are missing",
            "  runs/mixed",
        ]
    left_out = idat("study", "mixed.toml", *CPU)
    assert left_out.exit_code == 3
    assert f"left out, as it failed 3 times (--retry tries again): {fails}" in left_out.stderr
    assert "1 left out after three failures" in left_out.stdout
    found = document(idat("study", "mixed.toml", *CPU, "--json"))
    assert (found["runs"], found["finished"], found["failed"]) == (4, 1, {})
    assert [message.partition(":")[0] for message in found["left_out"].values()] == [
        "the loss is not finite in epoch 1"
    ]
    assert [own[0].partition(" (")[0] for own in found["missing"].values()] == [
        "images of task 'dtd'"
    ] * 2
    dry = ["study", "mixed.toml", *CPU, "--dry-run"]
    told = document(idat(*dry, "--json"))
    assert (told["runs"], told["finished"], told["left_out"], told["hours_of_runs"]) == (4, 1, 1, 2)
    text = idat(*dry).stdout
    assert "runs      4, of which 1 are finished, 1 left out after three failures" in text
    assert "expected  under a minute for 2 runs, by 1 process" in text
    told = document(idat(*dry, "--retry", "--json"))
    assert (told["left_out"], told["hours_of_runs"]) == (0, 3)
    again = idat("study", "mixed.toml", *CPU, "--retry", "--json")
    assert again.exit_code == 3
    assert len(document(again)["failed"]) == 1
    assert f"failed (1 of 3 times): {fails}" in again.stderr
    _check_status_of_failures(fails)


def _check_status_of_failures(fails: str) -> None:
    result = idat("study", "status", "mixed.toml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:6] == [
        "Runs that cannot be trained, and others",
        "runs/mixed: 1 of 4 runs are finished",
        "",
        "arm   digits  dtd",
        "none  1/1     0/1",
        "mse   0/1     0/1",
    ]
    line, *rest = result.stdout.splitlines()[7:]
    assert rest == ["", "waiting: 2 runs"]
    assert line.startswith(f"failed (1 failure): {fails}")
    found = document(idat("study", "status", "mixed.toml", "--json"))
    assert (found["runs"], found["finished"]) == (4, 1)
    assert {"arm": "mse", "task": "digits", "finished": 0, "of": 1} in found["cells"]
    states = {own["run"]: own["state"] for own in found["unfinished"]}
    assert states == {
        "linear on digits, mse, seed 0": "failed",
        "linear on dtd, none, seed 0": "open",
        "linear on dtd, mse, seed 0": "open",
    }
    report = idat("study", "report", "mixed.toml")
    assert report.exit_code == 0, report.stderr
    assert "1 of 4 runs are finished." in report.stdout


@pytest.mark.slow
def test_worker_processes_count_failures_too() -> None:
    Path("mixed.toml").write_text(MIXED)
    result = idat("study", "mixed.toml", *CPU, "--jobs", "2")
    assert result.exit_code == 3, result.output
    assert result.stderr.count("failed (1 of 3 times): linear on digits, mse, seed 0: ") == 1
    assert "1 of 4 runs are finished, 1 failed, 2 not begun" in result.stdout


def test_a_result_that_cannot_be_read_is_one_line(trained: Path) -> None:
    Path("small.toml").write_text(SMALL)
    assert idat("study", "small.toml", *CPU).exit_code == 0
    broken = sorted(Path("runs/small").rglob("result.json"))[0]
    broken.write_text("{")
    result = idat("study", "small.toml", *CPU)
    assert result.exit_code == 3, result.output
    assert len(re.findall(r"^cannot be used: .*result\.json", result.stderr, re.MULTILINE)) == 1
    assert "3 of 4 runs are finished, 1 failed" in result.stdout
    assert idat("study", "small.toml", *CPU, "--dry-run").exit_code in (0, 1)


# Status and report


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_the_status_fits_a_terminal(columns: int) -> None:
    Path("mixed.toml").write_text(MIXED.replace(', "dtd"', ""))  # no question is asked
    code, text = on_terminal("study", "mixed.toml", *CPU, columns=columns)
    assert code == 3, text
    code, text = on_terminal("study", "status", "mixed.toml", columns=columns)
    assert code == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert all(len(line.rstrip()) <= columns for line in plain.splitlines()), plain
    assert "failed (1 failure): linear on digits, mse, seed 0: the loss is not finite" in plain
    code, text = on_terminal("study", "mixed.toml", *CPU, "--dry-run", columns=columns)
    assert code == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line for row in plain.split("\n") for line in row.split("\r")]
    assert all(len(line.rstrip()) <= columns for line in lines), plain


def test_the_status_of_a_finished_study(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    for what in ("small", "small.toml"):
        result = idat("study", "status", what)
        assert result.stdout.splitlines() == [
            "A small study",
            "runs/small: 4 of 4 runs are finished",
            "",
            "arm             digits",
            "none            2/2",
            "mse             2/2",
            "logit_ensemble  2/2",
        ]
    found = document(idat("study", "status", "small", "--json"))
    assert (found["study"], found["runs"], found["finished"]) == ("small", 4, 4)
    assert found["unfinished"] == []


def test_the_report_in_its_three_forms(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    text = idat("study", "report", "small")
    assert text.exit_code == 0, text.stderr
    assert text.stdout.startswith("A small study (study small)\n4 of 4 runs are finished.\n")
    assert "gain of each arm over 'none'" in text.stdout
    table = idat("study", "report", "small.toml", "--format", "markdown")
    assert table.exit_code == 0, table.stderr
    assert "| adapter | arm | digits |" in table.stdout
    found = document(idat("study", "report", "small", "--json"))["report"]
    assert (found["name"], found["reference"], found["finished"]) == ("small", "none", 4)
    arms = {one["setting"]["arm"]: one["top1"] for one in found["scores"]}
    assert set(arms) == {"none", "mse", "logit_ensemble"}
    results = [json.loads(p.read_bytes()) for p in Path("runs/small").rglob("result.json")]
    for arm in ("none", "mse"):
        own = [one["top1"] for one in results if _term(one) == arm]
        assert arms[arm] == pytest.approx(sum(own) / 2)
    wrong = idat("study", "report", "small", "--json", "--format", "markdown")
    assert wrong.exit_code == 2
    assert document(wrong)["error"] == "--json and --format exclude each other"


def _term(result: dict[str, Any]) -> str:
    term = result["recipe"].get("distillation", "mse")
    return str(term["name"]) if isinstance(term, dict) else str(term)


# Wrong words


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.toml"], 2, "there is no study file 'nowhere.toml'."),
        (["a/nowhere"], 2, "there is no study file 'a/nowhere'."),
        (["invers"], 2, "unknown study 'invers'. Did you mean 'inverse'"),
        (["status", "invers"], 2, "unknown study 'invers'. Did you mean 'inverse'"),
        (["stats", "small.toml"], 2, "unknown command of `idat study` 'stats'. Did you mean"),
        (["small.toml", "zoo"], 2, "one study at a time; 2 are named: small.toml, zoo"),
        (["status", "small.toml", "zoo"], 2, "one study at a time; 2 are named: small.toml, zoo"),
        (["status", "small.toml"], 1, "'runs/small' holds no study: there is no plan.json."),
        (["report", "small.toml"], 1, "'runs/small' holds no study: there is no plan.json."),
        (["report", "zoo"], 1, "'runs/zoo' holds no study: there is no plan.json."),
        (["report", "small", "--out", "x"], 1, "'x' holds no study: there is no plan.json."),
        (["small.toml", "--measure"], 2, "--measure belongs to --dry-run"),
        (["small.toml", "--device", "cuda:99"], 1, "there is no device 'cuda:99' here: found "),
        (["wrong.toml"], 2, "2 faults:\n  wrong.toml: unknown key 'tile'"),
        (["status", "small.toml", "--retyr"], 2, "unknown option"),
    ],
)
def test_wrong_words_are_one_clear_error(words: list[str], code: int, message: str) -> None:
    Path("small.toml").write_text(SMALL)
    wrong = SMALL.replace('"mse"', '"mze"').replace("title =", 'tile = "x"\ntitle =')
    Path("wrong.toml").write_text(wrong)
    assert refusal("study", *words, code=code).startswith(f"error: {message}")


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("name", ["zoo", "zzz", "invers", "zzz.toml"])
def test_a_study_without_a_folder_is_told_where_it_was_looked_for(command: str, name: str) -> None:
    said = refusal("study", command, name, code=1 if name == "zoo" else 2)
    assert f"'runs/{Path(name).stem}' holds no study" in said
    assert "--out names another folder." in said


def test_without_words_there_is_help() -> None:
    result = idat("study")
    assert result.exit_code == 0
    assert "idat study FILE|NAME" in result.stdout
    assert {"run", "status", "report"} <= set(result.stdout.split())


@pytest.mark.parametrize("word", ["run", "status", "report"])
def test_a_command_without_a_study_is_refused(word: str) -> None:
    result = idat("study", word)
    assert result.exit_code == 2
    assert "FILE|NAME" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_study_that_was_changed_is_told_and_accepted_on_request() -> None:
    Path("small.toml").write_text(SMALL.replace("[0, 1]", "[0]"))
    assert idat("study", "small.toml", *CPU).exit_code == 0
    Path("small.toml").write_text(SMALL)
    for more in ([], ["--dry-run"]):
        told = refusal("study", "small.toml", *CPU, *more)
        assert "is not as it was planned in 'runs/small': added 3 runs (" in told
        assert "--replan" in told
    result = idat("study", "small.toml", *CPU, "--replan")
    assert result.exit_code == 0, result.stderr
    assert "4 of 4 runs are finished" in result.stdout
    Path("runs/small/plan.json").write_text("{")
    for words in (["small.toml", *CPU], ["status", "small"], ["report", "small"]):
        assert "plan.json" in refusal("study", *words, code=1).splitlines()[0]


def test_a_damaged_result_counts_as_unfinished_in_status_report_and_dry_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, "here")
    monkeypatch.chdir("here")
    damaged = sorted(Path("runs/small").rglob("result.json"))[0]
    damaged.write_text("{")
    said = f"cannot be used: '{damaged}' is damaged"
    result = idat("study", "small.toml", *CPU)
    assert result.exit_code == 3
    assert said in result.stderr
    assert "3 of 4 runs are finished, 1 failed" in result.stdout
    shown = idat("study", "status", "small")
    assert shown.exit_code == 0, shown.stderr
    assert "3 of 4 runs are finished" in shown.stdout
    assert said in shown.stdout
    (own,) = document(idat("study", "status", "small", "--json"))["unfinished"]
    assert own["state"] == "unusable"
    dry = idat("study", "small.toml", *CPU, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert said in dry.stderr
    assert "runs      4, of which 3 are finished" in dry.stdout
    reported = idat("study", "report", "small")
    assert reported.exit_code == 0, reported.stderr
    assert "3 of 4 runs are finished" in reported.stdout
    assert said in " ".join(reported.stdout.split())
    (fault,) = document(idat("study", "report", "small", "--json"))["report"]["unusable"]
    assert fault.startswith(said.removeprefix("cannot be used: "))
    damaged.unlink()
    again = idat("study", "small.toml", *CPU)
    assert again.exit_code == 0, again.stderr


def test_a_run_that_begins_anew_is_not_compared_with_another_arms(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arms of a study lie side by side; none of them was meant for another."""
    shutil.copytree(trained, "here")
    monkeypatch.chdir("here")
    shutil.rmtree(sorted(Path("runs/small").rglob("seed0"))[0])
    result = idat("study", "small.toml", *CPU)
    assert result.exit_code == 0, result.stderr
    assert "nothing to resume" not in result.stderr


# Interrupts


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_exits_with_130_and_the_same_command_goes_on(jobs: str) -> None:
    Path("long.toml").write_text(LONG)
    with subprocess.Popen(
        [IDAT, "study", "long.toml", *CPU, "--jobs", jobs],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        try:
            deadline = time.monotonic() + 120
            while not any(log.stat().st_size for log in Path().rglob("log.jsonl")):
                assert child.poll() is None, child.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            status = document(idat("study", "status", "long.toml", "--json"))
            running = [own for own in status["unfinished"] if own["state"] == "running"]
            assert 1 <= len(running) <= int(jobs)
            assert all("process" in own["holder"] for own in running)
            shown = idat("study", "status", "long.toml").stdout
            assert re.search(r"^running: linear on digits, none, seed 0: process", shown, re.M)
            other = refusal_while_others_write("study", "long.toml", *CPU)
            assert "'runs/long' is in use by process" in other
            assert "--wait" not in other  # which `idat study` has not
            os.killpg(child.pid, signal.SIGINT)
            stdout, stderr = child.communicate(timeout=60)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130, stderr
    assert stdout == ""
    assert "interrupted; the same command goes on" in stderr
    assert "Traceback" not in stderr
    assert not list(Path().rglob(".owner.json"))
    assert not Path("runs/long/failures.json").exists()
    states = {
        own["state"] for own in document(idat("study", "status", "long", "--json"))["unfinished"]
    }
    assert states == {"open"}
    assert list(Path().rglob("resume.safetensors"))


def refusal_while_others_write(*words: str) -> str:
    result = idat(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("error: ") == 1
    return result.stderr


# How to go on with one of its runs


def test_the_command_of_an_unfinished_run_is_that_of_the_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Options from the environment are added, after the name of the command."""
    Path("mixed.toml").write_text(MIXED.replace('"digits", "dtd"', '"digits"'))
    Path("images").mkdir()
    monkeypatch.setenv("IDAT_DATA_DIR", "images")
    assert idat("study", "run", "mixed.toml", *CPU).exit_code == 3
    (call,) = Path("runs/mixed").rglob("call.json")
    words = json.loads(call.read_bytes())["words"]
    assert words == ["study", "run", "--data-dir", "images", "mixed.toml", *CPU]
    monkeypatch.delenv("IDAT_DATA_DIR")
    assert idat(*words).exit_code == 3


def test_show_and_validate_know_studies(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "wrong.toml").write_text(SMALL.replace("epochs = 2", "epoks = 2, lr = -1"))
    dry = json.loads(idat("study", "small.toml", "--dry-run", "--json").stdout)
    shown = json.loads(idat("show", "small.toml", "--json").stdout)
    assert shown["kind"] == "study"
    own = shown["study"]
    assert (own["runs"], own["passes"]) == (dry["runs"], dry["passes"])
    assert own["arms"] == ["none", "mse", "logit_ensemble"]
    assert own["seeds"] == [0, 1]
    assert "arms = [" in idat("show", "inverse").stdout
    assert idat("validate", "small.toml").stdout == "ok  small.toml\n"
    refused = idat("validate", "wrong.toml")
    assert refused.exit_code == 2
    assert "unknown key 'epoks'" in refused.stderr
    assert "lr: must be greater than 0" in refused.stderr
