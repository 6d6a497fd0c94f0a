"""The commands as a person or a script gives them: output, exit codes, files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from idat_zoo.cli import app, progress
from idat_zoo.engine.train import Trainer

IDAT = Path(sys.executable).with_name("idat")
TINY = ("--pair", "tiny_random", "--device", "cpu")
LORA = ("train", "--task", "digits", "--adapter", "lora", *TINY, "epochs=2")
LINEAR = ("train", "--task", "digits", "--adapter", "linear", *TINY, "epochs=2")
TIMES = ("seconds", "images_per_second", "finished")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


def idat(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def document(result: Result) -> dict[str, Any]:
    """The one JSON document that stdout is."""
    parsed: dict[str, Any] = json.loads(result.stdout)
    assert parsed["schema_version"] == 1
    return parsed


def outside(**variables: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | variables


def below(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, without the times in result.json."""
    found = {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }
    for name in [name for name in found if name.endswith("result.json")]:
        parsed = json.loads(found[name])
        found[name] = json.dumps({k: v for k, v in parsed.items() if k not in TIMES}).encode()
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, made by the command."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    for words in (LORA, LINEAR):
        assert idat(*words, "--out", out).exit_code == 0
    return out


def lora_of(runs: Path) -> Path:
    (folder,) = runs.glob("tiny_random/lora/digits/*/seed0")
    return folder


# idat train


def test_train_prints_its_result_and_where_it_lies() -> None:
    result = idat(*LORA)
    assert result.exit_code == 0, result.output
    first, *_, last = result.stdout.splitlines()
    assert first.startswith("tiny_random/lora/digits with tiny_random_teacher, seed 0: top-1 ")
    assert first.endswith(" on 797 test images")
    assert "raw-pixel logistic regression (9" in result.stdout
    assert Path(last.strip()).is_relative_to("runs/tiny_random/lora/digits")
    assert (Path(last.strip()) / "result.json").is_file()


def test_json_is_one_document_and_progress_is_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    result = idat(*LORA, "--json")
    (only,) = document(result)["results"]
    on_disk = json.loads((Path(only.pop("folder")) / "result.json").read_bytes())
    assert not only.pop("standing")["too_few_images"]
    assert only == on_disk
    assert "epoch 2/2" in result.stderr
    assert "distillation 0." in result.stderr
    assert "images/s" in result.stderr


def test_repeating_a_finished_run_prints_its_result_and_trains_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = below(runs)
    monkeypatch.setattr("idat_zoo.runs.begin", None)
    monkeypatch.setattr("idat_zoo.runs.load_task", None)
    result = idat(*LORA, "--out", runs, "--json")
    assert result.exit_code == 0, result.output
    assert "finished before" in result.stderr
    (only,) = document(result)["results"]
    assert only["folder"] == str(lora_of(runs))
    assert below(runs) == before


def test_words_and_options_come_in_any_order(runs: Path) -> None:
    moved = ("epochs=2", "--adapter", "lora", *TINY, "--task", "digits")
    result = idat("train", "--out", runs, *moved)
    assert result.exit_code == 0
    assert "finished before" in result.stderr


def test_an_interrupted_run_exits_130_and_goes_on_with_resume(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer.train_epoch

    def stopping(self: Trainer, epoch: int, *more: Any) -> Any:
        if epoch == 1:
            raise KeyboardInterrupt
        return whole(self, epoch, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", stopping)
        result = idat(*LORA)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("interrupted")
    refused = idat(*LORA)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert "holds an unfinished run" in refused.stderr
    assert "--resume" in refused.stderr
    assert idat(*LORA, "--resume").exit_code == 0
    assert below(lora_of(Path("runs"))) == below(lora_of(runs))


def heed_interrupts() -> None:
    """A suite that runs in the background may hand down an ignored SIGINT; a terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_a_real_run_which_resumes_to_the_same_bits(tmp_path: Path) -> None:
    words = [*LORA[:-1], "epochs=20"]
    with subprocess.Popen(
        [IDAT, *words, "--out", "stopped"],
        env=outside(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as child:
        deadline = time.monotonic() + 120
        while not any(log.read_text().count("\n") > 2 for log in tmp_path.rglob("log.jsonl")):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not list(tmp_path.rglob("result.json"))
    for words_of_one in ((*words, "--out", "stopped", "--resume"), (*words, "--out", "whole")):
        assert idat(*words_of_one).exit_code == 0
    assert below(Path("stopped")) == below(Path("whole"))


def test_the_installed_command_prints_json_and_nothing_else(runs: Path) -> None:
    done = subprocess.run(
        [IDAT, *LORA, "--json"], env=outside(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["results"]
    assert below(Path(only["folder"])) == below(lora_of(runs))


def test_a_dry_run_writes_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    result = idat("train", "--task", "digits,dtd", "--adapter", "lora", *TINY, "--dry-run")
    assert result.exit_code == 0
    assert "# missing: nothing" in result.stdout
    assert "# missing: images of task 'dtd'" in result.stdout
    parsed = document(idat(*LORA, "--dry-run", "--json"))
    (plan,) = parsed["plans"]
    assert plan["missing"] == []
    assert plan["recipe"]["epochs"] == 2
    assert plan["decoded_bytes"] == {"32": {"train": 2457600, "val": 614400, "test": 2448384}}
    assert "# decoded images at 32 x 32: train 2.5 MB, val 614.4 kB, test 2.4 MB" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_names_the_very_folder_of_the_run(runs: Path) -> None:
    (plan,) = document(idat(*LORA, "--out", runs, "--dry-run", "--json"))["plans"]
    assert plan["folder"] == str(lora_of(runs))


def test_one_of_several_tasks_without_data_is_told_and_the_others_train() -> None:
    result = idat("train", "--task", "dtd,digits", *LORA[3:], "--json")
    assert result.exit_code == 3
    assert result.stderr.count("error: ") == 1
    assert "images of task 'dtd'" in result.stderr
    assert [r["recipe"]["task"]["id"] for r in document(result)["results"]] == ["digits"]


def test_when_every_task_lacks_its_data_nothing_is_written(tmp_path: Path) -> None:
    result = idat("train", "--task", "dtd,svhn", *LORA[3:])
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 2
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_without_network_or_data_one_message_names_all_that_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [IDAT, "train", "--task", "dtd", "--adapter", "lora"],
        env=outside(HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "hub")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    first, *rest = done.stderr.splitlines()
    assert first == "error: 'vit_s_to_vit_b/lora/dtd' needs what is not here:"
    assert len([line for line in rest if line.startswith("  - ")]) == 3
    for words in (
        "images of task 'dtd'",
        "--data-dir",
        "timm/vit_small_patch16_224.augreg_in21k",
        "timm/vit_base_patch16_224.augreg_in21k",
        "--yes downloads",
    ):
        assert words in done.stderr
    assert rest[-1].endswith("idat train --task digits --adapter lora")
    assert not list(tmp_path.iterdir())


# idat eval


def test_eval_of_a_run_gives_its_very_number(runs: Path) -> None:
    trained = json.loads((lora_of(runs) / "result.json").read_bytes())
    result = idat("eval", "--checkpoint", lora_of(runs), "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    (only,) = document(result)["results"]
    assert only["kind"] == "eval"
    for name in ("top1", "top1_interval", "student", "recipe", "data_fingerprint", "baselines"):
        assert only[name] == trained[name], name


def test_eval_prints_tables_by_class(runs: Path) -> None:
    result = idat("eval", "--checkpoint", lora_of(runs), "--device", "cpu")
    for words in ("top-1 ", "balanced accuracy", "calibration error", "precision", "confusion"):
        assert words in result.stdout
    table = result.stdout[result.stdout.index("confusion") :].splitlines()[2:]
    assert sum(int(cell) for line in table for cell in line.split()[1:]) == 797


def test_eval_writes_result_and_predictions_where_it_is_told(runs: Path) -> None:
    words = ("eval", "--checkpoint", lora_of(runs), "--device", "cpu", "--out", "evaluated")
    assert idat(*words).exit_code == 0
    written = {path.name for path in Path("evaluated").rglob("*")}
    assert written == {"result.json", "predictions.safetensors"}
    ours = load_file("evaluated/predictions.safetensors")
    theirs = load_file(lora_of(runs) / "predictions.safetensors")
    assert all(ours[name].equal(theirs[name]) for name in ("index", "target", "student"))


def test_fail_under_exits_4_only_below_the_threshold(runs: Path) -> None:
    top1 = json.loads((lora_of(runs) / "result.json").read_bytes())["top1"]
    words = ("eval", "--checkpoint", lora_of(runs), "--device", "cpu", "--json", "--fail-under")
    met, missed = idat(*words, repr(top1)), idat(*words, repr(top1 + 1e-6))
    assert (met.exit_code, missed.exit_code) == (0, 4)
    assert document(missed)["results"][0]["top1"] == top1
    assert "below the threshold" in missed.stderr


def test_eval_of_a_folder_takes_every_checkpoint_below_it(runs: Path) -> None:
    words = ("eval", "--checkpoint", runs, "--device", "cpu")
    parsed = document(idat(*words, "--out", "evaluated", "--json"))
    assert [r["recipe"]["adapter"]["name"] for r in parsed["results"]] == ["linear", "lora"]
    assert len(list(Path("evaluated").rglob("result.json"))) == 2
    assert len(document(idat(*words, "--task", "digits", "--json"))["results"]) == 2


def with_dtd(runs: Path, folder: Path) -> Path:
    """A copy of a checkpoint that says it is of `dtd`, whose images are not here."""
    shutil.copytree(lora_of(runs), folder)
    config = folder / "config.json"
    parsed = json.loads(config.read_bytes())
    task = {"id": "dtd", "suite": "vtab1k", "folder": "dtd", "num_test": [1880], "num_classes": 10}
    parsed["recipe"]["task"] |= task
    config.write_text(json.dumps(parsed))
    return folder


def test_eval_without_the_data_of_some_tasks_exits_3_and_of_all_1(
    runs: Path, tmp_path: Path
) -> None:
    with_dtd(runs, tmp_path / "all" / "dtd")
    alone = idat("eval", "--checkpoint", tmp_path / "all", "--device", "cpu", "--json")
    assert alone.exit_code == 1
    assert document(alone)["results"] == []
    shutil.copytree(lora_of(runs), tmp_path / "all" / "digits")
    some = idat("eval", "--checkpoint", tmp_path / "all", "--device", "cpu", "--json")
    assert some.exit_code == 3
    assert some.stderr.count("error: ") == 1
    assert "images of task 'dtd'" in some.stderr
    assert len(document(some)["results"]) == 1


def test_eval_takes_several_checkpoints_in_their_order(runs: Path) -> None:
    words = ("--checkpoint", lora_of(runs), "--checkpoint", "builtin:digits-lora")
    result = idat("eval", *words, "--device", "cpu", "--json", "--out", "evaluated")
    assert result.exit_code == 0
    found = json.loads(result.stdout)["results"]
    assert [one["recipe"]["pair"]["name"] for one in found] == ["tiny_random", "micro"]
    for number, one in enumerate(found, start=1):
        kept = json.loads(Path("evaluated", str(number), "result.json").read_text())
        assert kept["top1"] == one["top1"]


def test_eval_of_a_task_that_the_checkpoint_lacks_exits_2(runs: Path) -> None:
    result = idat("eval", "--checkpoint", runs, "--task", "digits,dtd")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: checkpoint '{runs}' has no task dtd.")
    assert "It has: digits" in result.stderr
