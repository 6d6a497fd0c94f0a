"""The commands as a person or a script gives them: output, exit codes, files."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import fakes
import pytest
from PIL import Image
from result_documents import common, write_document
from safetensors.torch import load_file
from test_screen import COMMANDS
from typer.testing import CliRunner, Result

from idat_zoo.cli import app, progress
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import DeviceError
from idat_zoo.hub.head import Head
from idat_zoo.runs.lock import alone_in

IDAT = Path(sys.executable).with_name("idat")
TINY = ("--pair", "tiny_random", "--device", "cpu")
LORA = ("train", "--task", "digits", "--adapter", "lora", *TINY, "epochs=2")
LINEAR = ("train", "--task", "digits", "--adapter", "linear", *TINY, "epochs=2")

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
        found[name] = json.dumps(common(found[name])).encode()
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


def test_a_slow_precision_is_a_line_on_stderr_of_train_and_eval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("idat_zoo.engine.timing.times_as_long", lambda precision, device: 43.7)
    told = "precision=bf16 is slow here: a small product takes 43.7 times as long as in float32"
    trained = idat(*LORA, "precision=bf16", "--json")
    (only,) = document(trained)["results"]
    assert trained.stderr.count(told) == 1
    assert "; precision=float32 is the better choice" in trained.stderr
    both = ("--checkpoint", only["folder"], "--checkpoint", only["folder"])
    evaluated = idat("eval", *both, "--device", "cpu", "--json")
    assert len(document(evaluated)["results"]) == 2
    assert evaluated.stderr.count(told) == 1
    assert "; what was trained so is evaluated so, faster on another --device" in evaluated.stderr
    image = "image.png"
    Image.new("RGB", (32, 32)).save(image)
    for silent in (
        idat(*LINEAR, "--json"),
        idat("eval", "--checkpoint", "builtin:digits-lora", "--device", "cpu", "--json"),
        idat("predict", only["folder"], image, "--device", "cpu"),  # in float32, always
    ):
        assert silent.exit_code == 0, silent.output
        assert "is slow here" not in silent.stderr


def test_json_is_one_document_and_progress_is_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    result = idat(*LORA, "--json")
    (only,) = document(result)["results"]
    on_disk = json.loads((Path(only.pop("folder")) / "result.json").read_bytes())
    assert not only.pop("standing")["too_few_images"]
    assert list(on_disk)[-1] == "digest"  # of the file, which is not what is printed
    assert only == {name: value for name, value in on_disk.items() if name != "digest"}
    assert "epoch 2/2" in result.stderr
    assert "distillation 0." in result.stderr
    assert "images/s" in result.stderr


def test_repeating_a_finished_run_prints_its_result_and_trains_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = below(runs)
    monkeypatch.setattr("idat_zoo.runs.turn.load_run", None)
    monkeypatch.setattr("idat_zoo.runs.inputs.load_task", None)
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


@pytest.mark.system
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


def test_adapters_spread_as_tasks_and_seeds_do(runs: Path) -> None:
    words = ("train", "--task", "digits", *TINY, "epochs=2", "--out", runs, "--dry-run", "--json")
    plans = document(idat(*words, "--adapter", "lora,linear", "--seeds", "0,1"))["plans"]
    assert [Path(plan["folder"]).relative_to(runs).parts[1::3] for plan in plans] == [
        ("lora", "seed0"),
        ("lora", "seed1"),
        ("linear", "seed0"),
        ("linear", "seed1"),
    ]
    both = idat("train", "--task", "digits", "--adapter", "lora,linear", *LORA[5:], "--out", runs)
    assert both.stderr.count("finished before") == 2
    done = idat(*words, "--adapter", "all")
    every = document(done)["plans"]
    assert "left out: adapter 'oft' cannot stand on backbone" in done.stderr
    listed = document(idat("list", "adapters", "--pair", "tiny_random", "--json"))["adapters"]
    assert [plan["recipe"]["adapter"]["name"] for plan in every] == [one["name"] for one in listed]
    some = document(
        idat("list", "recipes", "--task", "digits", "--adapter", "lora,linear", "--json")
    )
    assert [row["name"].split("/")[1] for row in some["recipes"]] == ["lora", "linear"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("lora,lora",), "'lora' is named twice"),
        (("lora,",), "expected names with commas"),
        (("all,lora",), "'all' stands alone"),
        (("lora,sequentail",), "Did you mean 'sequential'?"),
        (("lora,linear", "adapter.rank=2"), "linear has no option 'rank'"),
    ],
)
def test_adapters_that_cannot_be_spread_are_refused(words: tuple[str, ...], told: str) -> None:
    result = idat("train", "--task", "digits", *TINY, "--adapter", *words, "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


# idat list runs


@contextmanager
def training(epoch: int, ends_with: BaseException) -> Iterator[None]:
    """Trainings that are through with some epochs, and no more."""
    whole = Trainer.train_epoch

    def ending(self: Trainer, number: int, *more: Any) -> Any:
        if number == epoch:
            raise ends_with
        return whole(self, number, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", ending)
        yield


def listed(*words: str | Path) -> tuple[dict[str, str], list[str]]:
    """What `idat list runs` says: state by seed and adapter, and commands."""
    result = idat("list", "runs", *words)
    assert result.exit_code == 0, result.output
    table, _, commands = result.stdout.partition("\nTo go on:\n")
    rows = [line.split(maxsplit=2) for line in table.partition("\n\n")[0].splitlines()[1:]]
    return {f"{Path(run).parts[1]} {seed}": state for run, seed, state in rows}, [
        line for line in commands.splitlines() if line
    ]


def in_a_shell(command: str) -> None:
    """As a person pastes it."""
    *there, command = command.split(" && ")
    with chdir(shlex.split(there[0])[1] if there else "."):
        name, *words = shlex.split(command)
        result = idat(*words)
    assert name == "idat"
    assert result.exit_code == 0, result.output


def test_runs_are_listed_and_what_is_printed_goes_on_with_each(runs: Path) -> None:
    out = Path("my runs")
    shutil.copytree(runs, out)
    own = fakes.write_class_folders(Path("own images"), {"a": 12, "b": 12})
    ours = ("--task", "folder", "--adapter", "sequential", *TINY, "epochs=2", "--data-dir", own)
    several = (*LORA, "--seeds", "3,4", "--stack", "2", "--no-prefix-cache", "--out", out)
    with training(1, KeyboardInterrupt()):
        assert idat(*LORA, "--seed", "1", "--out", out).exit_code == 130
        assert idat("train", *ours, "--out", out).exit_code == 130
        assert idat(*several).exit_code == 130
    begun = lora_of(out).with_name("seed2")
    begun.mkdir()
    shutil.copy(lora_of(out) / "recipe.toml", begun)
    states, commands = listed(out)
    assert states["lora 0"].startswith("finished, top-1 ")
    assert states["lora 2"] == "not begun"
    half = {name for name, state in states.items() if state == "unfinished, epoch 1 of 2"}
    assert half == {"lora 1", "lora 3", "lora 4", "sequential 0"}
    assert len(commands) == 4  # one pass goes on as one
    for command in commands:
        in_a_shell(command)
    after = document(idat("list", "runs", out, "--json"))["runs"]
    assert [one["state"] for one in after] == ["finished"] * 7
    assert not any("resume" in one for one in after)
    assert not [*out.rglob("call.json"), *out.rglob("fault.json")]


def test_a_diverged_run_that_was_kept_is_listed_as_one(runs: Path) -> None:
    out = Path("kept")
    shutil.copytree(runs, out)
    file = lora_of(out) / "result.json"
    write_document(file, json.loads(file.read_bytes()) | {"diverged": True})
    states, commands = listed(out)
    assert states["lora 0"].endswith(" %, diverged")
    assert [name for name, state in states.items() if "diverged" in state] == ["lora 0"]
    assert not commands
    found = document(idat("list", "runs", out, "--json"))["runs"]
    assert ["diverged" in one for one in found] == ["/lora/" in one["folder"] for one in found]


def test_an_adapter_that_diverged_is_used_with_a_note(runs: Path) -> None:
    out = Path("kept to use")
    shutil.copytree(runs, out)
    place = lora_of(out)
    file = place / "config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"diverged": True}))
    fakes.write_image(Path("one.png"), 0, 2, seed=0)
    for words in (
        ("predict", place, "one.png", "--device", "cpu"),
        ("merge", place, "-o", "merged"),
        ("export", place, "--to", "peft", "-o", "exported"),
    ):
        done = idat(*words)
        assert done.exit_code == 0, done.output
        assert f"{place}: the training diverged" in done.stderr


def test_a_run_is_resumed_from_elsewhere_and_where_it_was_moved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fakes.write_class_folders(Path("own images"), {"a": 12, "b": 12})
    ours = ("--task", "folder", "--adapter", "lora", *TINY, "epochs=2")
    monkeypatch.setenv("IDAT_DATA_DIR", str(own))
    with training(1, KeyboardInterrupt()):
        assert idat("train", *ours).exit_code == 130
    monkeypatch.delenv("IDAT_DATA_DIR")
    shutil.copytree("runs", "moved/runs")
    with chdir("moved"):
        (command,) = listed(tmp_path / "runs")[1]
        assert command.startswith(f"cd {tmp_path} && idat train --resume --data-dir 'own images' ")
        in_a_shell(command)
        (command,) = listed()[1]
        in_a_shell(command)
    assert listed("moved")[0] == listed()[0]
    assert listed()[0]["lora 0"].startswith("finished")


def test_runs_that_ended_with_an_error_are_told_from_stopped_ones() -> None:
    with training(1, DeviceError("out of memory with batch_size = 64.")):
        assert idat(*LORA).exit_code == 1
    with training(1, KeyboardInterrupt()):
        assert idat(*LORA, "--seed", "1").exit_code == 130
    assert idat(*LINEAR, "lr=100000").exit_code == 1
    states, commands = listed()
    assert states == {
        "linear 0": "diverged, epoch 1 of 2",
        "lora 0": "failed, epoch 1 of 2",
        "lora 1": "unfinished, epoch 1 of 2",
    }
    first, second, third = document(idat("list", "runs", "--json"))["runs"]
    assert "the loss is not finite in epoch 2" in first["fault"]
    assert second["fault"] == "out of memory with batch_size = 64."
    assert "resume" not in first
    assert "fault" not in third
    assert [second["resume"], third["resume"]] == commands
    for command in commands:
        in_a_shell(command)
    assert "fault" not in document(idat("list", "runs", "--json"))["runs"][1]


def test_a_run_in_which_a_process_works_is_running(runs: Path) -> None:
    shutil.copytree(runs, "runs")
    folder = lora_of(Path("runs"))
    (folder / "result.json").unlink()
    with alone_in(folder, wait=False, note=print):
        listed = document(idat("list", "runs", "--json"))["runs"]
    (ours,) = (one for one in listed if Path(one["folder"]) == folder)
    assert ours["state"] == "running"
    assert "resume" not in ours


def test_what_is_no_run_is_told_and_the_others_are_listed(runs: Path) -> None:
    shutil.copytree(runs, "runs")
    (lora_of(Path("runs")) / "recipe.toml").write_text("lr = ")
    shutil.copytree(next(runs.glob("*/linear/digits/*/seed0")), "moved")
    result = idat("list", "runs", ".")
    assert result.exit_code == 0
    assert "broken TOML" in result.stderr
    assert "it was moved" in result.stderr
    assert "tiny_random/linear/digits/" in result.stdout
    for place in ("nowhere", "empty"):
        Path("empty").mkdir(exist_ok=True)
        nothing = idat("list", "runs", place)
        assert (nothing.exit_code, nothing.stdout) == (1, "")
        assert place in nothing.stderr


def test_listing_loads_no_torch(runs: Path) -> None:
    watch = (
        "import sys; from idat_zoo.cli import app\n"
        "try: app()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    for words in (("runs", runs), ("tasks",), ("recipes", "--adapter", "lora")):
        command = [sys.executable, "-c", watch, "list", *words]
        done = subprocess.run(command, env=outside(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# One way to say things


def test_a_checkpoint_is_a_word_or_an_option_of_every_command(runs: Path) -> None:
    for command, *more in (
        ("eval", "--device", "cpu"),
        ("merge", "-o", "out"),
        ("export", "--to", "peft", "-o", "out"),
    ):
        for said in ((lora_of(runs),), ("--checkpoint", lora_of(runs))):
            result = idat(command, *said, *more, "--json")
            assert result.exit_code == 0, result.output
            shutil.rmtree("out", ignore_errors=True)
        missing = idat(command, *more)
        assert missing.exit_code == 2
        assert missing.stderr.startswith("error: CHECKPOINT says which adapter")
        if command != "eval":
            several = idat(command, lora_of(runs), "--checkpoint", "builtin:digits-lora", *more)
            assert several.exit_code == 2
            assert "2 are named" in several.stderr
    both = idat(
        "eval", lora_of(runs), "--checkpoint", "builtin:digits-lora", "--device", "cpu", "--json"
    )
    assert [one["recipe"]["pair"]["name"] for one in document(both)["results"]] == [
        "tiny_random",
        "micro",
    ]


def test_a_folder_above_runs_is_taken_by_export_and_publish(runs: Path) -> None:
    exported = document(idat("export", runs, "--to", "onnx", "-o", "graphs", "--json"))["exported"]
    places = [path.parent for path in sorted(runs.glob("*/*/digits/*/seed0/config.json"))]
    assert [one["folder"] for one in exported] == [
        str("graphs" / place.relative_to(runs)) for place in places
    ]
    assert all(Path(one["folder"], "model.onnx").is_file() for one in exported)
    some = idat("export", runs, "--to", "peft", "-o", "peft", "--json")
    assert some.exit_code == 3
    assert "'linear' has no form in PEFT" in some.stderr
    assert len(document(some)["exported"]) == 1
    words = ("publish", "--repo", "me/both", "--dry-run", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("idat_zoo.cli.publish._head_or_new", lambda repo: Head(repo=repo))
        above = document(idat(*words, runs / "tiny_random" / "lora"))
        assert above == document(idat(*words, lora_of(runs)))
        nothing = idat(*words, Path("graphs"))
    assert nothing.exit_code == 1
    assert "'graphs' holds no result.json" in nothing.stderr


WITHOUT_JSON: dict[str, str] = {}
"""Commands that print no result, each with the reason: there is none."""
OTHER_TESTS = {
    "data pull": "test_pull.py",
    "study run": "test_study.py",
    "study status": "test_study.py",
    "study report": "test_study.py",
}
"""Commands whose document another file reads, because it needs a Hub or a trained study."""
DOCUMENTS = [  # words, exit code, what the document holds
    ("train --task digits --adapter lora --pair tiny_random epochs=2 --out {runs}", 0, "results"),
    ("train --task digits --adapter lora --dry-run", 0, "plans"),
    ("train --task dtd --adapter lora --seeds 0,1 --pair tiny_random", 1, "results"),
    ("eval {lora}", 0, "results"),
    ("eval {lora} --fail-under 1", 4, "results"),
    ("eval {lora} --data-dir nowhere --task digits", 0, "results"),
    ("predict {lora} images", 0, "predictions"),
    ("predict {lora} broken.png", 1, "predictions"),
    ("merge {lora} -o merged", 0, "folder"),
    ("export {lora} --to peft -o peft", 0, "folder"),
    ("export {runs} --to peft -o some", 3, "exported"),
    ("import peft --backbone tiny_random_student --task digits -o imported", 0, "folder"),
    ("publish {lora} --repo me/it --dry-run", 0, "files"),
    ("list", 0, "adapters"),
    ("list runs {runs}", 0, "runs"),
    ("list runs nowhere", 1, "runs"),
    ("list tasks zzz*", 1, "tasks"),
    ("list recipes zzz*", 1, "recipes"),
    ("show digits", 0, "task"),
    ("cp micro/lora/digits mine.toml", 0, "recipe"),
    ("validate", 0, "valid"),
    ("validate broken.toml", 2, "faults"),
    ("report {runs}", 0, "report"),
    ("compare {lora} {lora}", 0, "comparison"),
    ("env", 0, "env"),
    ("data verify digits", 0, "tasks"),
    ("data verify folder --data-dir images", 1, "tasks"),
    ("data info", 0, "tasks"),
    ("data info folder --data-dir nowhere", 0, "tasks"),
    ("data cache", 0, "entries"),
    ("data cache digits --clean", 0, "entries"),
    ("train --task digits --adapter nothing", 2, "error"),
    ("train --task dtd --adapter lora --pair tiny_random", 1, "error"),
    ("eval nowhere", 1, "error"),
    ("merge nowhere -o merged", 1, "error"),
    ("export {linear} --to peft -o none", 2, "error"),
    ("report nowhere", 1, "error"),
    ("show nothing", 2, "error"),
    ("data pull digits", 2, "error"),
    ("data verify --data-dir images", 1, "error"),
]


def test_every_command_has_json_and_a_case_above() -> None:
    options = {
        " ".join(words): {option for each in command.params for option in each.opts}
        for words, command in COMMANDS.items()
        if not hasattr(command, "commands")
    }
    assert {name for name in options if "--json" not in options[name]} == WITHOUT_JSON.keys()
    told = [f"{words} " for words, _, holds in DOCUMENTS if holds != "error"]
    untold = {name for name in options if not any(words.startswith(f"{name} ") for words in told)}
    assert untold == WITHOUT_JSON.keys() | OTHER_TESTS.keys()


@pytest.mark.parametrize(("words", "code", "holds"), DOCUMENTS)
def test_with_json_stdout_is_one_document(
    words: str, code: int, holds: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.cli.publish._head_or_new", lambda repo: Head(repo=repo))
    fakes.write_class_folders(Path("images"), {"a": 1})
    Path("broken.toml").write_text("lr = ")
    Path("broken.png").write_bytes(b"none")
    (linear,) = runs.glob("*/linear/digits/*/seed0")
    given = [word.format(runs=runs, lora=lora_of(runs), linear=linear) for word in words.split()]
    if given[0] == "import":
        assert idat("export", lora_of(runs), "--to", "peft", "-o", "peft").exit_code == 0
    result = idat(*given, "--json")
    assert result.exit_code == code, result.output
    assert holds in document(result)


def test_a_list_without_a_match_exits_1() -> None:
    for kind in ("tasks", "recipes", "adapters", "pairs", "backbones"):
        result = idat("list", kind, "zzz*")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: no {kind} match 'zzz*'.\n"


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
