"""Every command that is printed works as it is printed."""

import ast
import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from test_screen import COMMANDS, every_command

from idat_zoo.cli import app
from idat_zoo.errors import ZooError
from idat_zoo.registry import FOLDER, load_registry, resolve_tasks

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "registry", "idat_zoo")
FILLED = "0"
"""What stands for a value of an f-string: a name, a path and a number."""
OWN_OPTIONS = ("idat_zoo/backbones/weights/", "registry/write_adapters.py")
"""Scripts that are no command of `idat`."""
CALL = re.compile(r"(?<![\w./-])(?=idat --?\w|idat [a-z]+(?![\w:-]))")


def printed(text: str) -> list[str]:
    """The commands in a text: each between backticks, or from its `idat` to the end of a line.

    There, two blanks, `&&` and `, e.g.` end one too.
    """
    spoken = re.findall(r"`(idat [^`]+)`", text)
    found = []
    for line in re.sub(r"`[^`]*`", "`", text).splitlines():
        calls = CALL.split(line)[1:]
        found += [re.split(r" {2,}| && |, e\.g\. ", call)[0].strip() for call in calls]
    return spoken + found


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
    """Whatever our sources and shelves may say, by their files."""
    files = {file.resolve() for room in ROOMS for file in (ROOT / room).rglob("*.*")}
    for file in sorted(files):
        name = str(file.relative_to(ROOT))
        if file.suffix == ".py":
            yield from ((name, text) for text in texts_of(file.read_text()))
        elif file.suffix == ".toml":
            yield from ((name, text) for text in strings_below(tomllib.loads(file.read_text())))


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
    assert {(file, option) for file, option in told if option not in OPTIONS} == set()


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
