"""What a person sees: help, first screens, and names that hold whatever names may hold."""

import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
import typer
from terminal import on_terminal
from typer.testing import CliRunner, Result

from idat_zoo.cli import app, progress, screen

ROOT = Path(__file__).resolve().parents[2]
MARKUP = ("[/red]", "[bold]", "[link=x]", "[/]", "a[0]", ":smile:")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


def idat(*words: str | Path, columns: int = 80) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": str(columns)})


Words = tuple[str, ...]


def every_command(command: Any, path: Words = ()) -> Iterator[tuple[Words, Any]]:
    """Commands and sub-commands of the whole program, with the words that call them."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, (*path, name))


COMMANDS = dict(every_command(typer.main.get_command(app)))


def squeezed(text: str) -> str:
    """Without the white space that wrapping brings."""
    return re.sub(r"\s", "", text)


def unstyled(text: str) -> str:
    """Without what steers a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


# Help


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_every_word_of_every_command(words: Words, columns: int) -> None:
    result = idat(*words, "--help", columns=columns)
    assert result.exit_code == 0, result.exception
    shown = squeezed(result.stdout)
    command = COMMANDS[words]
    assert squeezed(command.help.replace("\b", "")) in shown
    for parameter in command.params:
        assert squeezed(parameter.help) in shown, parameter.name
        assert parameter.param_type_name == "option" or squeezed(parameter.metavar) in shown
    assert not re.search(r"<\w+(\[\w+\])?>", result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= columns


def test_the_installed_command_shows_its_help_on_a_terminal() -> None:
    for words in (("eval",), ("predict",), ("merge",), ("export",), ()):
        code, text = on_terminal(*words, "--help")
        assert code == 0, text
        assert text.startswith(f"Usage: {' '.join(('idat', *words))} ")


def test_a_first_sentence_of_each_command_fits_a_line() -> None:
    for words, command in COMMANDS.items():
        if hasattr(command, "commands"):
            assert "..." not in idat(*words, "--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize("group", [(), ("data",)])
def test_a_group_alone_is_its_first_screen(group: Words) -> None:
    result = idat(*group)
    assert result.exit_code == 0
    assert result.stdout == idat(*group, "--help").stdout
    assert result.stderr == ""


def test_the_first_screen_says_what_to_try_before_what_there_is() -> None:
    lines = idat().stdout.splitlines()
    tries = [line.strip() for line in lines if line.startswith("    idat ")]
    assert any(line.startswith("idat train --task digits") for line in tries)
    assert lines.index("Commands:") > max(lines.index(f"    {line}") for line in tries)
    assert lines.index("Commands:") < lines.index("Options:")


# Names that look like markup


@pytest.mark.parametrize("name", MARKUP)
def test_a_table_shows_names_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        screen.print_table([name, f"of {name}"], [[name, f"in {name}"], ["x", name]])
        shown = unstyled(capsys.readouterr().out)
        assert [line.split() for line in shown.splitlines()] == [
            [name, "of", name],
            [name, "in", name],
            ["x", name],
        ]


@pytest.mark.parametrize("name", MARKUP)
def test_a_bar_shows_names_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with progress.LiveProgress() as shown:
        shown.decoding(name, 1, 4)
        shown.fetching(name, 1, 4)
        shown.stage(name, done=0, epochs=1, steps=2, images=8)
        shown.step()
        shown.note(f"note {name}")
    told = unstyled(capsys.readouterr().err)
    for words in (f"decoding {name}", f"fetching {name}", f"\n{name} ", f"note {name}"):
        assert words in told, words


@pytest.mark.parametrize("name", ["[/red]", "[bold]"])
def test_an_error_shows_names_as_they_are(name: str) -> None:
    for words in (
        ("show", name),
        (name,),
        ("data", name),
        ("eval", "--fail-under", name),
        ("train", "--task", name, "--adapter", "lora"),
        ("train", "--task", "digits", "--adapter", "lora", f"{name}=1"),
        ("validate", name),
        ("report", name),
        ("publish", name, "--repo", name),
    ):
        code, text = on_terminal(*words, columns=120)
        assert code in (1, 2), words
        assert "Traceback" not in text, text
        assert name in text or words[0] == "eval", text  # Typer names the option alone


# Notes and errors on stderr


@pytest.mark.parametrize("stderr_alone", [False, True])
@pytest.mark.parametrize("columns", [40, 100])
def test_an_error_is_wrapped_between_words_at_the_width_of_stderr(
    columns: int, stderr_alone: bool
) -> None:
    words = ("show", "nothing-at-all")
    message, hint = idat(*words, columns=columns).stderr.splitlines()  # no terminal
    assert len(hint) > 200
    code, text = on_terminal(*words, columns=columns, stderr_alone=stderr_alone)
    assert code == 2
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert all(line.startswith(("error: ", "hint: ", "  ")) for line in lines)
    assert text.split() == f"{message} {hint}".split()
    begun = [place for place, line in enumerate(lines) if not line.startswith("  ")]
    for line, following in itertools.pairwise(lines):
        if following.startswith("  "):
            assert len(line) + len(following.split()[0]) + 1 > columns  # as full as it may be
    assert [lines[place].split()[0] for place in begun] == ["error:", "hint:"]


def test_a_word_wider_than_the_terminal_is_not_cut(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / ("a" * 40)
    message, *_ = idat("report", nowhere).stderr.splitlines()
    code, text = on_terminal("report", nowhere, columns=40)
    assert code == 1
    assert f"{nowhere}'" in text
    assert "\n" in text[: text.index(f"{nowhere}")]
    assert text.split()[: len(message.split())] == message.split()


def test_a_note_above_a_bar_is_wrapped_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    with progress.LiveProgress() as shown:
        shown.stage("a run", done=0, epochs=1, steps=2, images=8)
        shown.note("one run was finished before this command\n  of two")
    lines = [line.rstrip() for line in unstyled(capsys.readouterr().err).splitlines()]
    assert [line for line in lines if line and "━" not in line] == [
        "one run was finished before",
        "  this command",
        "  of two",
    ]


@pytest.mark.system
def test_classes_shelves_and_folders_may_look_like_markup(tmp_path: Path) -> None:
    classes = {"[/red]": 8, "[bold]": 8}
    rows = []
    for label, (name, count) in enumerate(classes.items()):
        for i in range(count):
            place = f"images/[{label}]_{i}.png"
            fakes.write_image(tmp_path / "data" / place, label, len(classes), seed=i)
            rows.append((place, name, ("train", "val", "test", "test")[i % 4]))
    listed = fakes.write_csv(tmp_path / "data" / "[i].csv", rows, ("path", "label", "split"))
    out = tmp_path / "[/out]"  # a folder in a folder
    words = ("--pair", "tiny_random", "--device", "cpu", "--data-dir", listed, "--out", out)
    code, text = on_terminal(
        "train", "--task", "folder", "--adapter", "linear", *words, "epochs=2", columns=120
    )
    assert code == 0, text
    ((folder),) = (path.parent for path in out.rglob("result.json"))
    for command in (
        ("eval", "--checkpoint", folder, "--device", "cpu", "--data-dir", listed),
        ("report", out),
        ("data", "info", "folder", "--data-dir", listed),
        ("data", "verify", "folder", "--data-dir", listed),
        ("data", "cache"),
        ("show", folder / "recipe.toml"),
        ("predict", "--checkpoint", folder, "--device", "cpu", tmp_path / "data" / rows[0][0]),
    ):
        code, text = on_terminal(*command, columns=120)
        assert code == 0, text
        assert "Traceback" not in text
    assert "[0]_0.png" in text
    assert all(name in text for name in classes)


def test_words_of_a_shelf_may_look_like_markup(tmp_path: Path) -> None:
    shelf = tmp_path / "[/shelf]"
    fakes.write_shelf(shelf, {"dtd": {"title": "[/red]", "licence": "[bold]"}})
    for words in (("list", "tasks", "dtd"), ("show", "dtd"), ("data", "info", "dtd"), ("list",)):
        code, text = on_terminal(*words, "--shelf", shelf, columns=200)
        assert code == 0, text
    code, text = on_terminal("data", "info", "dtd", "--shelf", shelf)
    assert "[/red]" in text
    assert "[bold]" in text


# The oldest libraries that are allowed


@pytest.mark.system
def test_all_of_this_holds_with_the_oldest_typer_and_rich_that_are_allowed(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = [
        needed.replace(">=", "==")
        for needed in project["dependencies"]
        if re.match("(typer|rich)>=", needed)
    ]
    assert len(oldest) == 2
    place = tmp_path / "oldest"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--target", place)
    subprocess.run([*pip, *oldest], check=True)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "not oldest", __file__],
        env=os.environ | {"PYTHONPATH": str(place)},
        cwd=ROOT,
        check=True,
    )
