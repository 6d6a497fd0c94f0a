"""Fixtures all rooms share: a toy pair with random weights, recipes for it, a fast CPU."""

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import checked_shapes  # noqa: F401  before what it checks
import fakes
import latex
import numpy as np
import pytest
import torch
from hub_server import Hub, serving
from slurm_node import Node, running_slurm, why_not

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import Backbones, NetworkPair, Role, build_pair
from idat_zoo.data.task_data import Split
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.places import CACHE_VARIABLE
from idat_zoo.recipe import Backbone, Pair, Recipe, Task, check_recipe
from idat_zoo.runs.progress import Progress
from idat_zoo.specs import AdapterSpec

pytest.register_assert_rewrite("families", "laws", "zoo")

FAMILIES = ("sequential", "shared_parallel", "idat_adaptformer", "lora", "linear")
"""Those that stand for all where the engine is tested. Each family's laws: test_families.py."""

DIGITS = Task(id="digits", suite="mini", group="natural", num_classes=10, num_test=(797,))


def toy_backbone(name: str, *, embed_dim: int, num_heads: int) -> Backbone:
    args = {"patch_size": 8, "embed_dim": embed_dim, "depth": 2, "num_heads": num_heads}
    return Backbone(
        name=name, timm="vit_tiny_patch16_224", weights="random", img_size=16, args=args
    )


def for_both(images: torch.Tensor) -> dict[Role, torch.Tensor]:
    """The same images for a student and a teacher of one input size."""
    return {"student": images, "teacher": images}


TOY_PAIR = Pair(
    name="toy",
    teacher=toy_backbone("toy_teacher", embed_dim=12, num_heads=2),
    student=toy_backbone("toy_student", embed_dim=24, num_heads=3),
)


def toy_recipe(adapter: str = "lora", *, teacher: bool = True, **fields: Any) -> Recipe:
    """A recipe on the toy pair that trains in a second."""
    choice = AdapterSpec(name=adapter, options=fields.pop("options", {}))
    pair = TOY_PAIR if teacher else TOY_PAIR.model_copy(update={"teacher": None})
    changes = {"epochs": 2, "warmup_epochs": 1, "lr": 5e-3} | fields
    changes["distillation"] = changes.get("distillation", "mse" if teacher else "none")
    parts = {"pair": pair, "task": DIGITS, "adapter": choice} | changes
    if teacher:
        parts["teacher_adapter"] = choice
    return check_recipe(parts, where="test")


def toy_pair(recipe: Recipe, *, seed: int = 0) -> NetworkPair:
    """The recipe's networks on CPU, on backbones of their own."""
    return build_pair(recipe, seed=seed, backbones=Backbones(torch.device("cpu")))


def learner_of(recipe: Recipe, split: Split, *, seed: int = 0) -> Learner:
    """A run on the images of a split, on CPU in float32 unless the recipe says otherwise."""
    recipe = resolve_precision(recipe, torch.device("cpu"))
    pair = toy_pair(recipe, seed=seed)
    return Learner(pair, for_both(split.held), split.targets, recipe, seed=seed)


class Notes(Progress):
    """Keeps what people are told of reading, and the images it was told of, by list."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.heard: dict[str, list[int]] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def decoding(self, what: str, done: int, total: int) -> None:
        assert done <= total
        self.heard.setdefault(what, []).append(done)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Toy tensors are slower on two threads, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Whatever a library draws from the global generators is the same in every run of a test."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is decoded or pulled lies in folders of the tests' own, also for child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def toy_student() -> FrozenBackbone:
    return load_backbone(TOY_PAIR.student)


@pytest.fixture
def toy_network(toy_student: FrozenBackbone) -> Callable[..., Network]:
    """A float64 network on the toy student: `toy_network("lora", rank=3)`."""

    def build(family: str, *, num_classes: int = 5, seed: int = 0, **options: Any) -> Network:
        adapter = build_adapter(AdapterSpec(name=family, options=options))
        network = build_network(
            toy_student,
            adapter,
            num_classes=num_classes,
            normalisation="model",
            seed=seed,
            role="student",
        )
        return network.double()

    return build


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that others may enter; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)  # a test may have closed it


@pytest.fixture(scope="module")
def vtab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 19 fakes in `data` and their shelf in `shelf`."""
    root = tmp_path_factory.mktemp("vtab")
    fakes.write_vtab1k(root / "data", root / "shelf")
    return root


def skip_or_fail(why: str) -> NoReturn:
    """Skip a test that cannot run here; in CI, it fails."""
    if "CI" in os.environ:
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty Hub on loopback."""
    with serving(Hub()) as running:
        yield running


@pytest.fixture(scope="session")
def slurm() -> Iterator[Node]:
    """A Slurm of one node, whose commands the tests and their children call."""
    if why := why_not():
        skip_or_fail(why)
    with running_slurm() as node, pytest.MonkeyPatch.context() as patch:
        for name, value in node.environment.items():
            patch.setenv(name, value)
        yield node


@pytest.fixture(scope="session")
def pdflatex() -> None:
    """LaTeX with booktabs, which `latex.compiled` calls."""
    if why := latex.why_not():
        (pytest.fail if "CI" in os.environ else pytest.skip)(why)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a CUDA device are left out where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
