"""Every command that is printed works as it is printed."""

import ast
import contextlib
import io
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fakes
import pytest
import typer
from hub_server import TOKEN, Hub, serving
from test_hub import Person
from test_screen import COMMANDS, every_command
from typer.testing import CliRunner, Result

from idat_zoo.cli import app
from idat_zoo.data.image_file import SUFFIXES
from idat_zoo.errors import RunFolderError, ZooError
from idat_zoo.hub.head import Head
from idat_zoo.places import CACHE_VARIABLE
from idat_zoo.publishing.plan import plan
from idat_zoo.registry import FOLDER, load_registry, resolve_tasks

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "registry", "idat_zoo")
FILLED = "0"
"""What stands for a value of an f-string: a name, a path and a number."""
OWN_OPTIONS = ("idat_zoo/backbones/weights/", "registry/write_adapters.py")
"""Scripts that are no command of `idat`."""
OF_OTHERS = {
    *("--array", "--cpus-per-task", "--gres", "--noheader", "--states", "--partition", "--format"),
    *("--job", "--name", "--wait", "--output", "--exclusive", "--reservation", "--head"),
    *(
        "--private",
        "--logdir",
        "--no-python",
        "--nproc-per-node",
        "--rdzv-backend",
        "--rdzv-endpoint",
    ),
}
"""Options of Slurm's commands, of Ray, torchrun, TensorBoard and `hf`."""
QUOTED = re.compile(r"(?P<mark>[`'])(?P<command>idat (?:(?!(?P=mark)).)+)(?P=mark)")
CALL = re.compile(r"(?<![\w./-])(?<!Usage: )(?=idat --?\w|idat [a-z]+(?![\w:-]))")


def printed(text: str) -> list[str]:
    """The commands in a text: each in backticks or quotes, or from its `idat` to a line's end.

    There, two blanks, `&&` and `, e.g.` end one too. One that is told twice is one.
    """
    found = [match["command"] for match in QUOTED.finditer(text)]
    for line in QUOTED.sub("", text).splitlines():
        calls = CALL.split(line)[1:]
        found += [re.split(r" {2,}| && |, e\.g\. ", call)[0].strip() for call in calls]
    return list(dict.fromkeys(found))


def fault_of(command: str) -> str:
    """Why the command line would refuse a command before it does anything, or ''.

    Words that only name a command are no call of it. Tasks, adapters and pairs must be on the
    shelves; what is written in capitals stands for one.
    """
    words = shlex.split(command)[1:]
    if tuple(words) in COMMANDS:
        return ""
    if any(word[-1:] in tuple(".,;:)") for word in words):
        return "words of a sentence stand behind it: put it between backticks"
    taken: dict[str, Any] = {}
    group = typer.main.get_command(app)
    for _, one in every_command(group):
        if not hasattr(one, "commands"):
            one.callback = lambda **values: taken.update(values)
    told = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(told):
        group.main(words, prog_name="idat")
    return told.getvalue() if ended.value.code else _unknown_name(taken)


def _unknown_name(values: Mapping[str, Any]) -> str:
    """What is wrong with the first name that no shelf has, or ''."""
    registry = load_registry()
    finders: dict[str, Callable[[str], Any]] = {
        "task": lambda name: name == FOLDER or resolve_tasks(name, registry),
        "adapter": lambda names: [registry.find_adapter(name) for name in names.split(",")],
        "pair": registry.find_pair,
        "backbone": registry.find_backbone,
    }
    given = {kind: [values[kind]] for kind in finders if values.get(kind)}
    given["task"] = given.get("task", []) + list(values.get("tasks") or [])
    for kind, names in given.items():
        for name in names:
            if name != FILLED and not name.isupper():
                try:
                    finders[kind](name)
                except ZooError as error:
                    return error.message
    return ""


def texts_of(source: str) -> Iterator[str]:
    """Every string of a module, and every list of words that begins with `idat`."""
    tree = ast.parse(source)
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in node.values}
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr():
                yield _filled(node)
            case ast.List(elts=[ast.Constant("idat"), ast.Constant(name), *_]) if (
                name,
            ) in COMMANDS:
                yield shlex.join(
                    _filled(word) for word in node.elts if not isinstance(word, ast.Starred)
                )


def _filled(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(map(_filled, node.values))
    return FILLED


def strings_below(value: Any) -> Iterator[str]:
    """Every string of a parsed TOML file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings_below(one)


def texts() -> Iterator[tuple[str, str]]:
    """Whatever our sources and shelves may say, and the blocks of our pages, by their files."""
    files = {file.resolve() for room in ROOMS for file in (ROOT / room).rglob("*.*")}
    for file in sorted(files):
        name = str(file.relative_to(ROOT))
        if file.suffix == ".py":
            yield from ((name, text) for text in texts_of(file.read_text()))
        elif file.suffix == ".toml":
            yield from ((name, text) for text in strings_below(tomllib.loads(file.read_text())))
    for page in sorted({ROOT / "README.md", *ROOT.glob("docs/*.md")} - {ROOT / "docs/plugins.md"}):
        found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        blocks = [block for language, block in found if not language]
        name = str(page.relative_to(ROOT))
        yield from ((name, block.replace(".venv/bin/", "")) for block in blocks)


TEXTS = list(texts())
OPTIONS = {"--help"} | {
    flag
    for command in COMMANDS.values()
    for parameter in command.params
    for flag in (*parameter.opts, *parameter.secondary_opts)
}
WRITTEN = sorted({(file, command) for file, text in TEXTS for command in printed(text)})


@pytest.mark.parametrize(("file", "command"), WRITTEN)
def test_the_command_line_takes_every_command_of_our_texts(file: str, command: str) -> None:
    assert fault_of(command) == ""


def test_no_text_names_an_option_that_no_command_has() -> None:
    told = {
        (file, option)
        for file, text in TEXTS
        if not file.startswith(OWN_OPTIONS)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    }
    assert {(file, option) for file, option in told if option not in OPTIONS | OF_OTHERS} == set()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("try `idat eval --checkpont x`", "unknown option '--checkpont'"),
        ("hint: idat evaluate x", "unknown command 'evaluate'"),
    ],
)
def test_a_wrong_command_is_seen(text: str, fault: str) -> None:
    (command,) = printed(text)
    assert fault in fault_of(command)


# Run as they are printed, where they are printed


TINY = ("--pair", "tiny_random", "--device", "cpu", "epochs=1")
PHOTOS = "my photos"
LORA, LINEAR = ("--adapter", "lora"), ("--adapter", "linear")
MEANT = {
    "CHECKPOINT": "builtin:digits-lora",
    "IMAGE…": "photo.png",
    "photo.jpg": "photo.png",
    "DIR": PHOTOS,
    "TASK": "dtd",
    "runs/…/seed0": "runs/A",
    "FILE|NAME": "inverse",
}
"""What a person puts where a printed command has a word in capitals, or a photo of theirs."""
WAYS = ["eval", "eval", "predict", "export", "merge"]
OWN = ("train", "--task", "folder", "--data-dir", PHOTOS, *TINY)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder with a photo and a folder of photos; no weights, no user's variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("idat_zoo.hub.weights.cached_weights", lambda *of: None)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    fakes.write_class_folders(Path(PHOTOS), {"cat": 9, "dog": 9})
    fakes.write_image(Path("photo.png"), 0, 2)
    return tmp_path


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, words, prog_name="idat", env={"COLUMNS": "200"})


def words_of(command: str) -> list[str]:
    return [MEANT.get(word, word) for word in shlex.split(command)[1:]]


def follow(told: str, *, code: int = 0) -> list[Result]:
    """What the commands of an output do; each must end with the exit code."""
    results = []
    for command in printed(told):
        results.append(idat(*words_of(command)))
        assert results[-1].exit_code == code, (command, results[-1].output)
    assert results, told
    return results


def refused(*words: str) -> str:
    result = idat(*words)
    assert result.exit_code in (1, 2), result.output
    return result.stderr


@pytest.mark.system
def test_the_examples_of_the_help_work(here: Path) -> None:
    """Not those of `publish` and `pull`, which ask the Hub. Trainings are planned alone.

    The status and the page of a study are refused, as nothing has been trained in this folder.
    """
    made = idat("export", "builtin:digits-lora", "--to", "peft", "-o", "digits-peft")
    assert made.exit_code == 0, made.output
    for out in ("runs/A", "runs/B"):  # what `compare` compares
        assert idat("train", "--task", "digits", *LINEAR, *TINY, "--out", out).exit_code == 0
    for words, command in COMMANDS.items():
        for example in printed(command.help):
            if words not in {("publish",), ("data", "pull")}:
                unplanned = example.startswith(("idat study status ", "idat report runs/inverse "))
                trains = example.startswith(("idat train ", "idat study ")) and not unplanned
                follow(example + " --dry-run" * trains, code=1 if unplanned else 0)


@pytest.mark.slow
def test_what_a_list_says_to_try_works(here: Path) -> None:
    """The training is `make demo`'s; it is planned alone here."""
    told = idat("list").stdout
    follow(re.sub(r"(idat train .*)", r"\1 --dry-run", told))
    follow(refused("list", "tasks", "--pair", "micro"))
    first, _ = printed(told.partition("try:\n")[2])
    for words in (("train",), ("train", "--task", "dtd", "--adapter", "lora")):
        assert printed(refused(*words).partition("hint: ")[2]) == [first]


@pytest.mark.slow
def test_a_copied_recipe_is_checked_and_trained_as_is_said(here: Path) -> None:
    told = idat("cp", "micro/linear/digits", "my recipe.toml").stderr
    file = Path("my recipe.toml")
    file.write_text(file.read_text().replace("epochs = 20", "epochs = 1"))
    _, trained = follow(told)
    assert "top-1" in trained.stdout


@pytest.mark.slow
def test_images_without_weights_are_trained_on_as_is_said(here: Path) -> None:
    (trained,) = follow(refused("train", "--task", "folder", "--data-dir", PHOTOS, *LINEAR))
    assert "micro/linear/folder-" in trained.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", [(*OWN, *LINEAR), ("train", "--task", "digits", *LINEAR, *TINY)])
def test_an_unfinished_run_that_is_to_be_published_goes_on_as_is_said(
    words: tuple[str, ...], here: Path
) -> None:
    assert idat(*words, "--out", "my runs").exit_code == 0
    (result,) = Path("my runs").rglob("result.json")
    before = json.loads(result.read_bytes())
    result.unlink()
    with pytest.raises(RunFolderError) as caught:
        plan([result.parent], Head(repo="me/mine"))
    follow(caught.value.hint)
    assert json.loads(result.read_bytes())["top1"] == before["top1"]


@pytest.mark.slow
def test_an_adapter_of_peft_is_imported_evaluated_and_not_published_as_is_said(here: Path) -> None:
    made = idat("export", "builtin:digits-lora", "--to", "peft", "-o", "peft's")
    assert made.exit_code == 0, made.output
    words = ("--backbone", "micro_student", "--task", "digits", "-o", "my digits")
    (evaluated,) = follow(idat("import", "peft's", *words).stdout)
    with pytest.raises(RunFolderError, match="imported") as caught:
        plan([Path("my digits")], Head(repo="me/mine"))
    (again,) = follow(caught.value.hint)
    assert again.stdout.splitlines()[0] == evaluated.stdout.splitlines()[0]


@pytest.mark.slow
def test_images_are_classified_as_is_said(here: Path) -> None:
    for words in (("photo.png",), (PHOTOS, "photo.png"), ("builtin:digits-lora",), ()):
        follow(refused("predict", *words))


@pytest.mark.slow
def test_all_faults_of_images_are_listed_as_is_said(
    here: Path, vtab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.link_tree(vtab / "data/dtd", Path("my data/dtd"))
    monkeypatch.setenv("IDAT_SHELF", str(vtab / "shelf"))
    dtd = ("train", "--task", "dtd", "--data-dir", "my data", *LINEAR, *TINY)
    for place, words in ((PHOTOS, (*OWN, *LINEAR)), ("my data", dtd)):
        images = [path for path in sorted(Path(place).rglob("*.*")) if path.suffix in SUFFIXES][:12]
        for image in images:
            image.unlink()  # a fake's own link, whose file others have
            image.write_bytes(b"no image")
        (found,) = follow(refused(*words), code=1)
        assert [image.name for image in images if image.name not in found.output] == []


@pytest.mark.slow
def test_a_spoilt_copy_is_removed_as_is_said(here: Path) -> None:
    assert idat(*OWN, *LINEAR).exit_code == 0
    for file in (here / "cache").rglob("*"):
        if file.is_file() and file.suffix != ".json":
            file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    check = ("data", "verify", "folder", "--data-dir", PHOTOS)
    follow(idat(*check).output)
    assert idat(*check).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("data", "info"),
        ("data", "verify"),
        ("data", "verify", "--data-dir", PHOTOS),
        ("eval", "--checkpoint", "builtin:digits-lora", "--device", "cuda:99"),
        ("eval", "--bogus"),
        ("import", "photo.png"),
        ("data", "pull", "--bogus"),
    ],
)
def test_where_more_is_told_is_found_as_is_said(words: tuple[str, ...], here: Path) -> None:
    follow(idat(*words).stderr)


@pytest.mark.system
def test_what_was_published_is_used_as_its_card_says(here: Path) -> None:
    assert idat(*OWN, *LORA).exit_code == 0
    (result,) = Path("runs").rglob("result.json")
    with serving(Hub()) as hub:
        person = Person(hub, here, HF_TOKEN=TOKEN)
        done = person.idat("publish", str(result.parent), "--repo", "me/mine")
        assert done.returncode == 0, done.stderr
        repo = hub.repos["me/mine"]
        card = repo.commits[repo.names["main"]]["README.md"].decode()
        commands = printed(done.stdout) + printed(card)
        assert [command.split()[1] for command in commands] == WAYS
        for command in commands:
            used = person.idat(*words_of(command))
            assert used.returncode == 0, (command, used.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("show", "folder"),
        ("show", "micro/lora/folder"),
        ("cp", "micro/lora/folder", "mine.toml"),
        ("list", "recipes", "--task", "folder"),
    ],
)
def test_where_the_recipe_of_ones_own_images_is_is_said(words: tuple[str, ...], here: Path) -> None:
    told = refused(*words)
    assert told.startswith("error: task 'folder' is the images of --data-dir: no shelf has it.")
    (shown,) = follow(told)
    assert 'suite = "folder"' in shown.stdout
