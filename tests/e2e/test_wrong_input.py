"""Wrong input: one clear line, a documented exit code, no traceback, nothing written or lost."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_documents import common
from typer.testing import CliRunner, Result

from idat_zoo.cli import app
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.registry import get_recipe

TINY = ("--pair", "tiny_random", "--device", "cpu", "epochs=2")
LORA = ("train", "--task", "digits", "--adapter", "lora", *TINY)


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


def below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def without_times(folder: Path) -> dict[str, bytes]:
    found = below(folder)
    for name in [name for name in found if name.endswith("result.json")]:
        found[name] = json.dumps(common(found[name])).encode()
    return found


def idat(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def check_refusal(code: int, stdout: str, stderr: str) -> None:
    """One error, told first and on stderr, with a documented code."""
    assert code in (1, 2)
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.startswith("error: ")
    assert stderr.count("error: ") == 1


def refusal(*words: str | Path, code: int) -> str:
    """What a command that changes no file says when it is refused."""
    before = below(Path())
    result = idat(*words)
    assert isinstance(result.exception, SystemExit), result.exception
    check_refusal(result.exit_code, result.stdout, result.stderr)
    assert result.exit_code == code
    assert below(Path()) == before
    return result.stderr


# Names and values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "digit", "--adapter", "lora"), "unknown task 'digit'. Did you mean 'digits'"),
        (("--task", "digits", "--adapter", "lorra"), "unknown adapter 'lorra'. Did you mean"),
        (
            ("--task", "digits", "--adapter", "lora", "--pair", "mikro"),
            "unknown pair 'mikro'. Did you mean 'micro'?",
        ),
        (
            ("--task", "digits", "--adapter", "lora", "--teacher", "vit_x"),
            "unknown backbone 'vit_x'.",
        ),
        (("--task", "digits"), "--task and --adapter say what to train"),
        (("--adapter", "lora"), "--task and --adapter say what to train"),
        ((), "--task and --adapter say what to train"),
        (("--task", "digits,,dtd", "--adapter", "lora"), "task 'digits,,dtd': expected names with"),
    ],
)
def test_unknown_and_missing_names(words: tuple[str, ...], message: str) -> None:
    assert refusal("train", *words, code=2).startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lrr=1", "unknown key 'lrr'. Did you mean 'lr'?"),
        ("lr=fast", "lr: must be a number (got 'fast')"),
        ("epochs=1.5", "epochs: must be a whole number"),
        ("temperature_squared=1", "temperature_squared act only with distillation = 'kl'"),
        ("epochs=0", "epochs: must be greater than 0 (got 0)"),
        ("lr=-1", "lr: must be greater than 0 (got -1)"),
        ("lr=0", "lr: must be greater than 0 (got 0)"),
        ("lr=inf", "lr: must be a finite number (got inf)"),
        ("lr=nan", "lr: must be a finite number (got nan)"),
        ("drop_path=1", "drop_path: must be less than 1 (got 1)"),
        ("batch_size=-64", "batch_size: must be greater than 0"),
        ("distillation=l2", "unknown distillation term 'l2'. Did you mean 'kl_t2' or 'kl'?"),
        ("adapter.rank=0", "rank: must be greater than or equal to 1 (got 0)"),
        ("adapter.bottleneck=4", "unknown key 'adapter.bottleneck'."),
        ("lr", "'lr': expected KEY=VALUE"),
        ("lr=1e-3 epochs=3", "lr: must be a number"),
    ],
)
def test_wrong_words(word: str, message: str) -> None:
    assert message in refusal(*LORA[:-1], word, code=2).splitlines()[0]


@pytest.mark.parametrize(
    "words",
    [
        (*LORA, "--seed", "-1"),
        (*LORA, "--seed", "one"),
        ("merge", "x"),
        ("eval", "--checkpoint", "x", "--fail-under", "94"),
    ],
)
def test_what_the_parser_refuses_is_usage_and_no_traceback(words: tuple[str, ...]) -> None:
    result = idat(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert "error:" in result.stderr.lower()
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("--epochs 3", "epochs=3"),
        ("--lr 0.1", "lr=0.1"),
        ("--rank 4", "adapter.rank=4"),
        ("--batch-size=32", "batch_size=32"),
        ("--Weight-Decay 0", "weight_decay=0"),
        ("--teacher-adapter linear", "teacher_adapter=linear"),
        ("-lr 0.1", "lr=0.1"),
        ("--adapter.rank --yes", "adapter.rank=VALUE"),
    ],
)
def test_a_field_given_as_an_option_is_told_as_the_word_it_is(words: str, meant: str) -> None:
    told = refusal(*LORA, *words.split(), code=2)
    assert "is no option: fields of a recipe are set by words" in told.splitlines()[0]
    assert told.splitlines()[1:] == [f"hint: {meant}"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("train --Adapter lora", "unknown option '--Adapter'. Did you mean '--adapter'?"),
        ("train --data_dir x", "unknown option '--data_dir'. Did you mean '--data-dir'?"),
        ("train -adapter lora", "unknown option '-adapter'. Did you mean '--adapter'?"),
        ("eval --chekpoint x", "unknown option '--chekpoint'. Did you mean '--checkpoint'?"),
        ("eval --epochs 3", "unknown option '--epochs'."),
        ("data cache --claen", "unknown option '--claen'. Did you mean '--clean'?"),
        ("trian", "unknown command 'trian'. Did you mean 'train'?"),
        ("data puul", "unknown command 'puul'. Did you mean 'pull'?"),
    ],
)
def test_an_option_or_a_command_that_is_not_there_names_a_near_one(words: str, meant: str) -> None:
    told = refusal(*words.split(), code=2).splitlines()
    assert told[0] == f"error: {meant}"
    assert all(hint.endswith(" --help` lists all.") for hint in told[1:])


def test_a_batch_that_no_epoch_fills_is_made_smaller_and_said() -> None:
    result = idat(*LORA, "batch_size=1001")
    assert result.exit_code == 0, result.stderr
    said = "batches hold 1000 images instead of 1001: there are no more to train on"
    assert said in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("device", "code", "message"),
    [
        ("cuda:99", 1, "there is no device 'cuda:99' here"),
        ("cpu:1", 1, "there is no device 'cpu:1' here"),
        ("gpu", 2, "unknown device 'gpu'"),
        ("", 2, "unknown device ''"),
    ],
)
@pytest.mark.parametrize("also", [(), ("--dry-run",)])
def test_a_device_that_is_not_there(
    device: str, code: int, message: str, also: tuple[str, ...]
) -> None:
    told = refusal(*LORA, "--device", device, *also, code=code)
    assert told.startswith(f"error: {message}")


# Recipe files and shelves


def recipe_file(change: Callable[[str], str]) -> Path:
    path = Path("recipe.toml")
    path.write_text(change(dump_recipe(get_recipe("digits", "lora", pair="tiny_random"))))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr = 0.001", "lr = ", "broken TOML"),
        ("lr = 0.001", "lr = 0.001\nlr = 0.001", "broken TOML"),
        ("lr = 0.001", "lr = 0.001\nlrr = 1", "lrr: "),
        ('id = "digits"', 'id = "../../digits"', "task.id: "),
        ('name = "lora"', 'name = "../lora"', "adapter.name: "),
        ('name = "tiny_random"', 'name = "/x"', "pair.name: "),
        ('name = "tiny_random"', 'name = ".."', "pair.name: "),
        ("epochs = 100", "epochs = true", "epochs: must be a whole number"),
    ],
)
def test_faults_of_a_recipe_file_name_the_file(old: str, new: str, message: str) -> None:
    path = recipe_file(lambda text: text)
    assert old in path.read_text()
    path = recipe_file(lambda text: text.replace(old, new))
    assert f"{path}: {message}" in refusal("train", "--recipe", path, code=2)


def test_weights_are_looked_for_only_where_they_ship() -> None:
    path = recipe_file(lambda text: text.replace('"random"', '"builtin:../../secret"'))
    result = idat("train", "--recipe", path)
    check_refusal(result.exit_code, result.stdout, result.stderr)
    assert "pair.student.weights: holds characters that do not belong there" in result.stderr
    assert idat("train", "--recipe", path).stderr == result.stderr


def test_a_recipe_file_that_is_missing_empty_or_no_text() -> None:
    assert "cannot be read: No such file" in refusal("train", "--recipe", "absent.toml", code=2)
    Path("folder.toml").mkdir()
    assert "cannot be read: Is a directory" in refusal("train", "--recipe", "folder.toml", code=2)
    Path("binary.toml").write_bytes(b"\x80\x04\xff")
    assert "is not UTF-8 text" in refusal("train", "--recipe", "binary.toml", code=2)
    Path("empty.toml").touch()
    told = refusal("train", "--recipe", "empty.toml", code=2)
    for part in ("pair", "task", "adapter"):
        assert f"empty.toml: {part}: is missing" in told


def test_a_recipe_file_says_already_what_options_would() -> None:
    path = recipe_file(lambda text: text)
    told = refusal("train", "--recipe", path, "--task", "digits", code=2)
    assert told.startswith("error: --recipe FILE already says what --task would say.")


def test_a_wrong_shelf() -> None:
    assert "the shelf is not a folder" in refusal(*LORA, "--shelf", "absent", code=2)
    Path("shelf").mkdir()
    assert "no shelf" in refusal(*LORA, "--shelf", "shelf", code=2)
    Path("shelf/tasks.toml").write_text('[mine]\ngroup = "naturl"\n')
    told = refusal(*LORA, "--shelf", "shelf", code=2)
    assert "faults:" in told.splitlines()[0]
    assert "shelf/tasks.toml: [mine]: num_classes: is missing" in told


# Folders


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    assert idat(*LORA, "--out", out).exit_code == 0
    (result,) = out.rglob("result.json")
    return result.parent


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to damage, where the same command would put it."""
    out = trained.parents[4]
    copy = tmp_path / "runs" / trained.relative_to(out)
    shutil.copytree(trained, copy)
    return copy


def test_an_output_folder_that_is_a_file() -> None:
    Path("file").write_text("mine")
    for out in ("file", "file/below"):
        told = refusal(*LORA, "--out", out, code=1)
        assert told.startswith("error: cannot write 'file/")
        assert told.endswith("hint: A file or folder stands in the way: choose another --out.\n")


def test_an_output_folder_that_holds_another_run(own: Path) -> None:
    recipe = own / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 2", "epochs = 3"))
    for more in ((), ("--resume",)):
        assert "holds another run" in refusal(*LORA, *more, code=1)
    recipe.unlink()
    assert "is not empty and holds no recipe.toml" in refusal(*LORA, code=1)


def test_an_output_folder_that_is_itself_a_run(own: Path) -> None:
    assert "is itself a run's folder" in refusal(*LORA, "--out", own, code=1)


def test_a_result_that_is_damaged_is_not_trusted(own: Path) -> None:
    (own / "result.json").write_text('{"schema_version": 1')
    assert "is damaged, and no JSON document" in refusal(*LORA, code=1)


# Checkpoints


def newer(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))


def truncated(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def of_another_backbone(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"tiny_random_student"', '"another"'))


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(pickle.dumps({"head.bias": [0.0]}))


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_tensors(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (newer, "has schema 2; this idat-zoo reads up to 1."),
        (truncated, "is damaged: not a whole safetensors file"),
        (of_another_backbone, "was trained on other weights of backbone 'another'"),
        (pickled, "is a pickle (torch.save), not safetensors; it is not opened."),
        (without_config, "holds no config.json: not a checkpoint."),
        (without_tensors, "No such file or directory"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted(
    damage: Callable[[Path], None], message: str, own: Path
) -> None:
    shutil.rmtree(own / "teacher")
    damage(own)
    told = refusal("eval", "--checkpoint", own, "--device", "cpu", "--out", "evaluated", code=1)
    assert message in told.splitlines()[0]


def test_a_checkpoint_that_is_not_there() -> None:
    told = refusal("eval", "--checkpoint", "absent", code=1)
    assert told.startswith("error: there is no checkpoint folder 'absent'.")
    told = refusal("eval", "--checkpoint", "builtin:nothing-like-it", code=2)
    assert told.startswith("error: unknown built-in checkpoint 'nothing-like-it'.")


def test_eval_into_a_file(trained: Path) -> None:
    Path("file").write_text("mine")
    told = refusal("eval", "--checkpoint", trained, "--device", "cpu", "--out", "file", code=1)
    assert told.startswith("error: cannot write 'file/")
    assert "stands in the way" in told
    assert "--resume" not in told


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        (errno.EROFS, "That disk is read-only: choose another "),
        (errno.EACCES, "where you may write."),
        (errno.ENOSPC, "Free space on that disk, or choose another "),
    ],
)
@pytest.mark.parametrize(
    ("words", "other"),
    [
        ((*LORA, "--out", "runs"), "--out"),
        (("eval", "--checkpoint", "builtin:digits-lora", "--out", "evaluated"), "--out"),
        (("report", "builtin", "--out", "report.md"), "--out"),
        (("cp", "micro/lora/digits", "mine.toml"), "FILE"),
        (("merge", "builtin:digits-lora", "--out", "merged"), "--out"),
    ],
    ids=lambda words: words[0],
)
def test_what_to_do_follows_from_why_a_file_cannot_be_written(
    reason: int,
    hint: str,
    words: tuple[str, ...],
    other: str,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(path: Path, target: Any = None, **_: Any) -> None:
        raise OSError(reason, os.strerror(reason), str(path))

    words = tuple(str(trained) if word == "builtin" else word for word in words)
    monkeypatch.setattr(Path, "replace", refused)
    monkeypatch.setattr(Path, "rename", refused)
    result = idat(*words)
    assert result.exit_code == 1
    assert os.strerror(reason) in result.stderr
    told = next(line for line in result.stderr.splitlines() if line.startswith("hint: "))
    assert hint in told
    assert f"another {other}" in told
    assert "--resume" not in told


# What the machine refuses


def run_outside(code: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


# Loads all modules and the data while it may read them, then gives up root.
AS_NOBODY = """
import os, sys
from idat_zoo.cli import app
def idat(*more):
    try: app([*sys.argv[1:], *more], prog_name="idat")
    except SystemExit as end: return end.code
from idat_zoo.runs import inputs, many
load_task = inputs.load_task
def remembered(task, **options): return loaded
from idat_zoo.registry import get_recipe
loaded = load_task(get_recipe("digits", "lora").task, img_size=32)
inputs.load_task = remembered
stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
assert not idat("--dry-run")
sys.stdout = stdout
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(idat())
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", [pytest.param(0o555, marks=pytest.mark.system), 0o000])
def test_without_permission_to_write_or_enter(mode: int, public: Path) -> None:
    out = public / "runs"
    out.mkdir()
    out.chmod(mode)
    done = run_outside(AS_NOBODY, *LORA, "--out", out / "below")
    out.chmod(0o755)
    check_refusal(done.returncode, done.stdout, done.stderr)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr.splitlines()[0]
    assert not list(out.iterdir())


LIMITED = """
import resource, sys
from idat_zoo.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
app(sys.argv[2:], prog_name="idat")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "refused", "kept"),
    [
        pytest.param(
            8_000,
            "resume.safetensors",
            {"recipe.toml", "log.jsonl"},
            marks=pytest.mark.system,
        ),
        (
            70_000,
            "predictions.safetensors",
            {"recipe.toml", "log.jsonl", "resume.safetensors", "config.json"},
        ),
    ],
)
def test_a_full_disk_keeps_what_was_saved_and_the_run_goes_on_later(
    limit: int, refused: str, kept: set[str], trained: Path
) -> None:
    done = run_outside(LIMITED, str(limit), *LORA, "--out", "runs")
    check_refusal(done.returncode, done.stdout, done.stderr)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("error: cannot write 'runs/")
    assert done.stderr.splitlines()[0].endswith(f"{refused}': File too large")
    assert "--resume" in done.stderr
    (recipe,) = Path("runs").rglob("recipe.toml")
    left = below(recipe.parent)
    assert kept <= left.keys()
    assert not [name for name in left if name.endswith(".part") or name == "result.json"]
    assert all(len(content) <= limit for content in left.values())
    assert idat(*LORA, "--out", "runs", "--resume").exit_code == 0
    assert without_times(recipe.parent) == without_times(trained)


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError])
def test_memory_that_runs_out(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("idat_zoo.engine.train.Trainer._step", full)
    result = idat(*LORA)
    check_refusal(result.exit_code, result.stdout, result.stderr)
    assert result.stderr.startswith("error: out of memory with batch_size = 64.")
    assert "batch_size=32" in result.stderr
