"""What each command may load: heavy packages by name, and how many modules in all.

A ceiling lies a little above what was counted with Python 3.11, torch 2.14.1 and timm 1.0.31.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from idat_zoo.cli.list_shelves import Kind
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.registry import get_recipe

HEAVY = frozenset(
    {"torch", "torch._dynamo", "torch._inductor", "timm", "torchvision", "peft", "transformers"}
    | {"sympy", "sklearn", "scipy", "scipy.stats", "pandas", "matplotlib", "numpy", "PIL"}
    | {"huggingface_hub", "httpx", "pydantic", "rich"}
)
SHELVES = frozenset({"pydantic"})
IMAGES = SHELVES | {"numpy", "PIL", "rich"}
HUB = IMAGES | {"huggingface_hub"}
REPORT = SHELVES | {"numpy", "scipy"}  # scipy.special, not scipy.stats
NETWORK = HUB | {"torch", "timm", "torchvision"}
COMPILER = frozenset({"torch._dynamo", "torch._inductor", "sympy"})

CODE = """
import json, sys
from idat_zoo.cli import app
code = 0
try: app(json.loads(sys.argv[1]))
except SystemExit as end: code = end.code or 0
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
RESULTS = str(Path(__file__).parents[2] / "benchmarks/results/digits")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a recipe and a cache, in which all commands run."""
    folder = tmp_path_factory.mktemp("loaded")
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    (folder / "recipe.toml").write_text(dump_recipe(get_recipe("digits", "lora")))
    return folder


def loaded(words: list[str], place: Path) -> tuple[int, set[str]]:
    """The exit code of a command in a folder, and the names of all modules that it loaded."""
    cache = {"IDAT_CACHE_DIR": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(words)],
        cwd=place,
        env=os.environ | cache,
        capture_output=True,
        text=True,
        check=False,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


def check(words: list[str], may: frozenset[str], most: int, place: Path, *, exits: int = 0) -> None:
    code, modules = loaded(words, place)
    assert code == exits
    assert modules & HEAVY <= may
    assert len(modules) <= most


@pytest.mark.parametrize(
    ("words", "may", "most"),
    [
        (["--help"], frozenset(), 250),
        (["list"], SHELVES, 370),
        *((["list", kind.value], SHELVES, 375) for kind in Kind if kind != Kind.RUNS),
        (["list", "adapters", "--pair", "micro"], SHELVES, 370),
        *((["show", name], SHELVES, 370) for name in ("micro/lora/digits", "lora", "dtd")),
        (["validate"], SHELVES, 370),
        (["validate", "recipe.toml"], SHELVES, 370),
        (["cp", "micro/lora/digits", "mine.toml"], SHELVES, 390),
        (["data", "info"], SHELVES, 370),
        (["data", "cache"], SHELVES | {"numpy"}, 545),
        (["data", "verify", "mini"], IMAGES, 645),
        (["report", RESULTS], REPORT, 660),
        (["report", RESULTS, "--json"], REPORT, 660),
    ],
)
def test_a_command_that_computes_nothing(
    words: list[str], may: frozenset[str], most: int, place: Path
) -> None:
    check(words, may, most, place)


def test_pulling_of_images_before_anything_comes(place: Path) -> None:
    check(["data", "pull", "dtd", "--yes"], HUB | {"httpx"}, 1000, place, exits=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "may", "most"),
    [
        (["env"], SHELVES | {"numpy", "torch"}, 1450),
        (["train", "--task", "digits", "--adapter", "lora", "--dry-run"], NETWORK | COMPILER, 3250),
        (["predict", "builtin:digits-lora", "one.png"], NETWORK, 2180),
        (["merge", "builtin:digits-lora", "-o", "merged"], NETWORK, 2180),
        (["export", "builtin:digits-lora", "--to", "peft", "-o", "exported"], NETWORK, 2180),
    ],
)
def test_a_command_that_loads_a_network(
    words: list[str], may: frozenset[str], most: int, place: Path
) -> None:
    check(words, may, most, place)


@pytest.mark.slow
def test_evaluation_loads_scikit_learn_once_for_a_tasks_baselines(place: Path) -> None:
    words = ["eval", "builtin:digits-lora"]
    check(words, NETWORK | {"sklearn", "scipy", "scipy.stats"}, 3250, place)
    check(words, NETWORK, 2290, place)
