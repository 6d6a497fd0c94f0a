"""Who may import whom (the arrows of the house), told from the source alone."""

import ast
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

RECIPE = {"recipe", "specs", "values"}
FLOOR = RECIPE | {"errors"}
MAY_KNOW = {
    "errors": set(),
    "values": set(),
    "specs": {"values"},
    "recipe": {"errors", "specs", "values"},
    "candidates": FLOOR,
    "option_words": RECIPE,
    "recipe_toml": FLOOR,
    "published_rows": RECIPE,
    "sources": RECIPE,
    "files": {"errors"},
    "randomness": set(),
    "joined_images": set(),
    "places": set(),
    "own_weights": FLOOR | {"files", "places"},
    "hub": {"errors"},
    "intervals": set(),
    "metrics": RECIPE,
    "result_files": {"errors", "file_names"},
    "contradictions": {"intervals", "metrics"},
    "digest": set(),
    "results": FLOOR
    | {"candidates", "contradictions", "digest", "files", "metrics", "file_names", "result_files"}
    | {"standing", "switches"},
    "versions": set(),
    "scoring": {"intervals", "metrics"},
    "standing": RECIPE | {"intervals"},
    "baselines": FLOOR | {"data", "files", "randomness", "results", "versions"},
    "switches": RECIPE,
    "outside": FLOOR,
    "plugins": FLOOR | {"adapters", "backbones", "data", "distillation", "outside", "trackers"},
    "trackers": FLOOR | {"file_names", "outside", "results"},
    "adapters": FLOOR | {"option_words", "outside"},
    "distillation": FLOOR | {"outside"},
    "data": FLOOR | {"files", "joined_images", "outside", "places"},
    "backbones": FLOOR
    | {"adapters", "distillation", "files", "hub", "joined_images", "outside", "places"}
    | {"own_weights", "randomness"},
    "builtin": set(),
    "engine": FLOOR | {"backbones", "distillation", "joined_images", "randomness", "switches"},
    "recipe_hash": RECIPE | {"adapters", "distillation"},
    "runs": FLOOR
    | {
        "adapters",
        "backbones",
        "baselines",
        "candidates",
        "checkpoint",
        "data",
        "distillation",
        "engine",
        "files",
        "joined_images",
        "logits",
        "metrics",
        "outside",
        "own_weights",
        "plugins",
        "recipe_hash",
        "recipe_toml",
        "results",
        "file_names",
        "runs.folder",
        "runs.lock",
        "runs.states",
        "scoring",
        "switches",
        "trackers",
        "versions",
    },
    "file_names": set(),
    "runs.folder": FLOOR
    | {"files", "recipe_hash", "recipe_toml", "results", "file_names"}
    | {"runs.lock", "runs.states"},
    "runs.lock": {"errors", "results"},
    "runs.states": FLOOR
    | {"candidates", "data", "digest", "engine", "recipe_toml", "file_names", "runs.lock"},
    "checkpoint": FLOOR
    | {"adapters", "backbones", "candidates", "data", "files", "hub", "outside", "randomness"}
    | {"versions"},
    "adapting": FLOOR | {"adapters", "backbones", "checkpoint", "formats", "randomness"},
    "formats": FLOOR | {"adapters", "backbones", "checkpoint", "files", "recipe_hash"},
    "publishing": {
        "backbones",
        "checkpoint",
        "errors",
        "files",
        "formats",
        "hub",
        "report",
        "results",
        "recipe_hash",
        "file_names",
        "runs.folder",
        "runs.states",
    },
    "pulling": FLOOR | {"data", "files", "hub", "sources"},
    "pictures": {"data", "errors"},
    "prediction": {"checkpoint", "data", "pictures", "pool"},
    "pool": {"backbones", "checkpoint", "engine", "errors", "switches"},
    "logits": FLOOR | {"backbones", "data", "engine", "metrics", "scoring"},
    "evaluation": FLOOR
    | {
        "backbones",
        "baselines",
        "checkpoint",
        "data",
        "engine",
        "files",
        "hub",
        "logits",
        "metrics",
        "results",
        "scoring",
        "switches",
        "versions",
    },
    "study": {"standing"}
    | FLOOR
    | {"backbones", "candidates", "data", "engine", "files", "file_names", "intervals", "outside"}
    | {"report", "results", "runs", "runs.folder", "runs.lock", "study.design", "study.plan"}
    | {"switches"},
    "executors": FLOOR
    | {"data", "engine", "executors.ray_options", "executors.slurm_arrays"}
    | {"executors.slurm_options", "executors.slurm_queue", "file_names", "files", "outside"}
    | {"results", "runs", "runs.folder"},
    "executors.names": FLOOR | {"executors"},
    "executors.command": RECIPE,
    "executors.hf_jobs": {"errors", "executors.command", "executors.hf_jobs_options", "file_names"}
    | {"files", "hub", "study", "study.plan", "values"},
    "executors.hf_jobs_options": RECIPE,
    "executors.ray_options": RECIPE,
    "executors.slurm_options": RECIPE,
    "executors.slurm_queue": {"errors"},
    "executors.slurm_arrays": {"executors.slurm_queue", "file_names", "files"},
    "study.design": RECIPE,
    "study.plan": FLOOR | {"files", "study.design"},
    "report": FLOOR
    | {"adapters", "checkpoint", "data", "distillation"}
    | {"intervals", "metrics", "published_rows", "recipe_hash", "result_files", "results"}
    | {"standing"},
    "page": {"standing"} | FLOOR | {"file_names", "files", "intervals", "report", "results"},
    "registry": FLOOR
    | {"data", "distillation", "option_words", "outside", "own_weights", "published_rows"}
    | {"recipe_toml", "registry.controls", "registry.families", "sources", "study.design"},
    "registry.families": FLOOR | {"adapters", "option_words", "outside", "registry"},
    "registry.controls": FLOOR | {"adapters", "backbones", "randomness", "registry"},
    "registry.write_pretrained": {"hub", "registry"},
    "registry.write_adapters": FLOOR
    | {"adapters", "backbones", "randomness", "registry", "registry.families"},
}
"""Rooms and the others they may import. `cli` may know all."""

ABOVE_ALL = {"cli", "registry"}
HEAVY = {"torch", "timm", "sklearn", "huggingface_hub", "ray", "submitit", "matplotlib", "jinja2"}
WITH_TORCH = {"registry.write_adapters", "registry.write_pretrained"}
"""Commands of their own, which no other module imports."""


class Import(NamedTuple):
    """One imported module, the line, and whether it is loaded as soon as its file is."""

    module: str
    line: int
    at_once: bool


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name within idat_zoo ('' is the package)."""
    found = {}
    for room, folder in (("", "idat_zoo"), ("cli", "cli"), ("registry", "registry")):
        top = root / folder
        for path in top.rglob("*.py"):
            parts = [*([room] if room else []), *path.relative_to(top).with_suffix("").parts]
            if room or parts[0] not in ABOVE_ALL:  # the links to cli and registry
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """All imports of a file, in functions and under TYPE_CHECKING too."""

    def walk(node: ast.AST, *, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = "." * child.level + (child.module or "")
                for alias in child.names:
                    inner = f"{module}.{alias.name}"
                    is_module = inner.removeprefix("idat_zoo.") in known
                    yield Import(inner if is_module else module, child.lineno, at_once)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, at_once=False)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_once=at_once and not function)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), at_once=True)


def room_of(module: str) -> str:
    """`backbones.frozen` -> `backbones`."""
    return module if module in MAY_KNOW else module.partition(".")[0]


def wrong_arrows(root: Path) -> list[str]:
    """Every import that goes against the arrows, as 'file:line: what'."""
    known = modules(root)
    found = {name: list(imports(path, known)) for name, path in known.items()}
    wrong = []
    for name, path in sorted(known.items()):
        room, where = room_of(name), path.relative_to(root)
        for module, line, _ in found[name]:
            top, _, inner = module.partition(".")
            target = room_of(inner)
            if top == "":
                wrong.append(f"{where}:{line}: a relative import")
            elif top in ABOVE_ALL:
                wrong.append(f"{where}:{line}: {top} is idat_zoo.{top}")
            elif top == "huggingface_hub" and room != "hub":
                wrong.append(f"{where}:{line}: only the package hub imports huggingface_hub")
            elif top != "idat_zoo" or target in ("", room) or room == "cli":
                continue
            elif target.partition(".")[0] in ABOVE_ALL and target not in MAY_KNOW.get(room, set()):
                wrong.append(f"{where}:{line}: idat_zoo never imports {target}")
            elif room in MAY_KNOW and target not in MAY_KNOW[room]:
                wrong.append(f"{where}:{line}: {room} does not know {target}")
    return wrong + _heavy_on_import(root, known, found)


def _heavy_on_import(
    root: Path, known: dict[str, Path], found: dict[str, list[Import]]
) -> list[str]:
    """Paths by which importing the command line or the registry would load torch and its like."""
    light = {n for n in known if n == "cli" or room_of(n) == "registry"} - WITH_TORCH
    wrong, seen, waiting = [], set(light), sorted(light)
    while waiting:
        name = waiting.pop()
        for module, line, at_once in found.get(name, []):
            top, _, inner = module.partition(".")
            if at_once and top in HEAVY:
                where = known[name].relative_to(root)
                wrong.append(f"{where}:{line}: importing cli or registry loads {top}")
            if at_once and top == "idat_zoo":
                parents = {".".join(inner.split(".")[: i + 1]) for i in range(inner.count(".") + 1)}
                waiting += parents - seen
                seen |= parents
    return wrong


def circle(root: Path) -> str:
    """The first circle of imports at module level, as 'idat_zoo.a -> idat_zoo.b -> idat_zoo.a'.

    It is '' where there is none. An import for type checkers alone, or inside a function, closes
    no circle, since it is not run while its module is loaded.
    """
    known = modules(root)
    files = {f"idat_zoo.{name}" if name else "idat_zoo": path for name, path in known.items()}
    graph = {
        name: {module for module, _, at_once in imports(path, known) if at_once} & files.keys()
        for name, path in files.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


def test_every_import_follows_the_arrows() -> None:
    assert wrong_arrows(ROOT) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circle(ROOT) == ""


@pytest.mark.parametrize(
    ("planted", "closes"),
    [
        ("import idat_zoo.first", True),
        ("from idat_zoo import first", True),
        ("from idat_zoo.first import name", True),
        ("if True:\n    import idat_zoo.first", True),
        ("class C:\n    import idat_zoo.first", True),
        ("import first", False),
        ("import json", False),
        ("if TYPE_CHECKING:\n    import idat_zoo.first", False),
        ("def f():\n    import idat_zoo.first", False),
    ],
)
def test_a_planted_circle_is_named(tmp_path: Path, planted: str, closes: bool) -> None:
    package = tmp_path / "idat_zoo"
    package.mkdir()
    (package / "first.py").write_text("import idat_zoo.second", encoding="utf-8")
    (package / "second.py").write_text("from idat_zoo.third import name", encoding="utf-8")
    (package / "third.py").write_text(planted, encoding="utf-8")
    first, second, third = ("idat_zoo.first", "idat_zoo.second", "idat_zoo.third")
    around = {
        " -> ".join(names)
        for names in (
            (first, second, third, first),
            (second, third, first, second),
            (third, first, second, third),
        )
    }
    assert circle(tmp_path) in (around if closes else {""})


def test_every_room_is_on_the_plan() -> None:
    rooms = {name.partition(".")[0] for name in modules(ROOT)} - {""}
    assert rooms == {room for room in MAY_KNOW if "." not in room} | {"cli"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("house")
    ignored = shutil.ignore_patterns("__pycache__", "cli", "registry", "*.safetensors")
    shutil.copytree(ROOT / "idat_zoo", root / "idat_zoo", ignore=ignored)
    for name in ("cli", "registry"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.toml")
        )
    return root


@pytest.mark.parametrize(
    ("file", "planted", "named"),
    [
        ("idat_zoo/runs/many.py", "from idat_zoo.cli import screen", "idat_zoo never imports cli"),
        ("idat_zoo/runs/many.py", "import idat_zoo.registry", "idat_zoo never imports registry"),
        (
            "idat_zoo/recipe.py",
            "from idat_zoo.registry.load import load_registry",
            "idat_zoo never imports registry",
        ),
        ("idat_zoo/data/mini/load.py", "from cli import app", "cli is idat_zoo.cli"),
        ("idat_zoo/adapters/lora.py", "import idat_zoo.data", "adapters does not know data"),
        (
            "idat_zoo/adapters/base.py",
            "from idat_zoo.backbones.walk import walk",
            "adapters does not know backbones",
        ),
        (
            "idat_zoo/distillation/kl.py",
            "from idat_zoo.adapters import base",
            "distillation does not know adapters",
        ),
        (
            "idat_zoo/data/suites/vtab1k.py",
            "from idat_zoo import distillation",
            "data does not know distillation",
        ),
        (
            "idat_zoo/backbones/pair.py",
            "from idat_zoo.engine import train",
            "backbones does not know engine",
        ),
        (
            "idat_zoo/backbones/pair.py",
            "if TYPE_CHECKING:\n    import idat_zoo.results",
            "backbones does not know results",
        ),
        ("idat_zoo/engine/train.py", "import idat_zoo.runs", "engine does not know runs"),
        ("idat_zoo/recipe.py", "import idat_zoo.engine.train", "recipe does not know engine"),
        ("idat_zoo/errors.py", "import idat_zoo.recipe", "errors does not know recipe"),
        ("idat_zoo/results.py", "from idat_zoo import engine", "results does not know engine"),
        ("idat_zoo/report/rows.py", "import idat_zoo.runs", "report does not know runs"),
        (
            "registry/load.py",
            "def f():\n    from idat_zoo.adapters import ADAPTERS",
            "registry does not know adapters",
        ),
        ("registry/load.py", "import idat_zoo.cli", "idat_zoo never imports cli"),
        ("registry/local.py", "import torch.nn", "importing cli or registry loads torch"),
        ("cli/train.py", "from timm import create_model", "importing cli or registry loads timm"),
        (
            "cli/train.py",
            "from idat_zoo.scoring import score",
            "importing cli or registry loads torch",
        ),
        (
            "idat_zoo/recipe.py",
            "class C:\n    import sklearn",
            "importing cli or registry loads sklearn",
        ),
        (
            "idat_zoo/checkpoint/opened.py",
            "def f():\n    import huggingface_hub.errors",
            "only the package hub imports huggingface_hub",
        ),
        ("idat_zoo/runs/many.py", "from . import files", "a relative import"),
    ],
)
def test_a_wrong_arrow_is_named(copied: Path, file: str, planted: str, named: str) -> None:
    path = copied / file
    before = path.read_text(encoding="utf-8")
    lines = before.count("\n")
    path.write_text(before + planted + "\n", encoding="utf-8")
    try:
        wrong = wrong_arrows(copied)
    finally:
        path.write_text(before, encoding="utf-8")
    assert any(text.endswith(named) for text in wrong), wrong
    own = [text for text in wrong if text.startswith(f"{file}:")]
    assert all(int(text.split(":")[1]) > lines for text in own)


@pytest.mark.parametrize(
    "planted", ["if TYPE_CHECKING:\n    import torch", "def f():\n    import torch", "import json"]
)
def test_what_is_loaded_later_or_light_is_no_fault(copied: Path, planted: str) -> None:
    path = copied / "registry" / "load.py"
    before = path.read_text(encoding="utf-8")
    path.write_text(before + planted + "\n", encoding="utf-8")
    try:
        assert wrong_arrows(copied) == wrong_arrows(ROOT)
    finally:
        path.write_text(before, encoding="utf-8")
