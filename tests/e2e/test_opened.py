"""A checkpoint is opened once: how often its config is read, and its reference handed on."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from idat_zoo import load, run
from idat_zoo.checkpoint.opened import Opened, open_checkpoint
from idat_zoo.cli import app
from idat_zoo.hub.head import Head
from idat_zoo.hub.references import HubReference
from idat_zoo.pool import AdapterPool
from idat_zoo.registry import get_recipe
from idat_zoo.runs.folder import run_folder

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / name) for name in ("idat_zoo", "cli", "registry"))
MOST_HANDED_ON = 30
NAMED = ("AdapterPool.predict", "AdapterPool._", "Predictor._")
"""Functions to which a reference is the name that an adapter goes by."""

Use = Callable[[str], object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with a teacher."""
    out = tmp_path_factory.mktemp("runs")
    recipe = get_recipe(
        "digits", "lora", pair="tiny_random", overrides=["epochs=1", "precision=float32"]
    )
    run(recipe, device="cpu", out=out)
    return run_folder(out, recipe, 0)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.new("L", (16, 16), 90).save(path)
    return path


def idat(*words: str | Path) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@pytest.fixture
def uses(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Use]:
    """Everything that takes a reference."""
    monkeypatch.setattr("idat_zoo.cli.publish._head_or_new", lambda repo: Head(repo=repo))

    def fill_pool(reference: str) -> None:
        AdapterPool(device="cpu").add("one", reference)

    on = ("--device", "cpu")
    return {
        "eval": lambda reference: idat("eval", reference, *on, "--out", tmp_path / "evaluated"),
        "predict": lambda reference: idat("predict", reference, photo, *on),
        "export": lambda reference: idat(
            "export", reference, "--to", "peft", "-o", tmp_path / "exported"
        ),
        "merge": lambda reference: idat("merge", reference, "-o", tmp_path / "merged"),
        "publish": lambda reference: idat(
            "publish", reference, "--repo", "me/digits", "--with-teacher", "--dry-run"
        ),
        "load": load,
        "pool": fill_pool,
    }


_opened_files: list[str] | None = None
"""The files opened meanwhile; None where nobody counts. An audit hook cannot be taken away."""


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened_files is not None and isinstance(arguments[0], str | Path):
        _opened_files.append(os.fspath(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _audited() -> None:
    sys.addaudithook(_note_opened)


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """The path of every file that is opened meanwhile, by whatever library."""
    global _opened_files
    _opened_files = found = []
    try:
        yield found
    finally:
        _opened_files = None


USES = ("eval", "predict", "export", "merge", "publish", "load", "pool")


@pytest.mark.parametrize("use", USES)
def test_a_config_is_read_once(use: str, uses: dict[str, Use], finished: Path) -> None:
    with files_opened() as found:
        uses[use](str(finished))
    configs = [name for name in found if name.startswith(f"{finished}{os.sep}")]
    configs = [name for name in configs if Path(name).name == "config.json"]
    assert configs.count(str(finished / "config.json")) == 1
    assert len(configs) == len(set(configs))  # the teacher's, too


def test_each_config_of_several_checkpoints_is_read_once(finished: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / "many" / name)
    with files_opened() as found:
        idat("eval", tmp_path / "many", "--task", "digits", "--device", "cpu")
    configs = [name for name in found if name.endswith(f"{os.sep}config.json")]
    configs = [name for name in configs if name.startswith(str(tmp_path))]
    assert sorted(configs) == sorted(str(path) for path in tmp_path.rglob("config.json"))


@dataclass(frozen=True)
class HandedOn:
    """One place in our source that gives a checkpoint's reference to a function of ours."""

    caller: str
    line: int
    callee: str
    opened: bool


def carries(value: object, references: frozenset[str]) -> bool:
    """Whether a value is a reference that is not opened yet, or holds one."""
    if isinstance(value, str | Path | HubReference):
        return str(value) in references
    if isinstance(value, dict):
        return any(carries(each, references) for each in value.values())
    return isinstance(value, list | tuple) and any(carries(each, references) for each in value)


def holds_opened(value: object) -> bool:
    """Whether a value is a checkpoint that was opened, or holds one."""
    values = list(value.values()) if isinstance(value, dict) else value
    several = isinstance(values, list | tuple)
    return isinstance(value, Opened) or (several and any(isinstance(v, Opened) for v in values))


@contextmanager
def handing_on(reference: str) -> Iterator[set[HandedOn]]:
    """The places of our source where a reference is an argument; it is not followed elsewhere."""
    found: set[HandedOn] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code, caller = frame.f_code, frame.f_back
        if event != "call" or caller is None or not code.co_filename.startswith(OURS):
            return
        if not caller.f_code.co_filename.startswith(OURS) or code.co_qualname.startswith(NAMED):
            return
        count = code.co_argcount + code.co_kwonlyargcount
        names = [name for name in code.co_varnames[:count] if name not in ("self", "cls")]
        given = [frame.f_locals[name] for name in names if name in frame.f_locals]
        opened = any(holds_opened(value) for value in given)
        if opened or any(carries(value, frozenset({reference})) for value in given):
            place = Path(caller.f_code.co_filename).name, caller.f_lineno
            found.add(HandedOn(*place, code.co_qualname, opened))

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(None)


def test_a_reference_is_handed_on_at_most_thirty_times(
    uses: dict[str, Use], finished: Path
) -> None:
    places: set[HandedOn] = set()
    for use in USES:
        with handing_on(str(finished)) as found:
            uses[use](str(finished))
        assert len(found) <= MOST_HANDED_ON, (use, found)  # before and after it is opened
        places |= found
    closed = [one for one in places if not one.opened]
    assert len(closed) > len(USES)
    assert len(closed) <= MOST_HANDED_ON, "\n".join(map(str, closed))  # by all uses together


def test_what_was_opened_is_not_opened_again() -> None:
    opened = open_checkpoint("builtin:digits-lora")
    assert open_checkpoint(opened) is opened
    own = Path(str(resources.files("idat_zoo.builtin") / "digits-lora"))
    assert (opened.folder, opened.on_hub) == (own, None)
    assert opened.content == (own / "config.json").read_bytes()
    assert str(opened) == str(own)
