"""Several runs in one pass: what each learns is what it would learn alone.

In float64 all ways agree to 1e-9 after 20 steps: `bmm` and `mm` sum in different orders, which
costs 1e-16 a step and is multiplied by AdamW where a gradient is near zero.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import FAMILIES, toy_pair, toy_recipe
from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.backbones.walk import Partway
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.state import state_of
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import TrainingError
from idat_zoo.randomness import generator
from idat_zoo.recipe import Recipe
from idat_zoo.switches import Switches

TOLERANCE = 1e-9
IMAGES, BATCH, EPOCHS = 40, 8, 4  # 20 steps
SIZES = {"sequential": "bottleneck", "shared_parallel": "bottleneck", "lora": "rank"}


def pixels(seed: int) -> Tensor:
    source = generator(seed, "test", "images")
    return torch.randint(256, (IMAGES, 3, 16, 16), generator=source, dtype=torch.uint8)


def recipe_of(family: str, number: int, **fields: Any) -> Recipe:
    """The recipe of one of several runs: unlike in size, classes, rates and decay."""
    options: dict[str, Any] = {"dropout": 0.1}
    if family != "linear":
        size = SIZES.get(family, "bottleneck")
        options |= {size: (2, 5, 3)[number], "scale": (0.3, 1.7, 1.0)[number]}
    chosen = {
        "options": options,
        "lr": (5e-3, 1e-3, 2e-2)[number],
        "weight_decay": (0.0, 1e-2, 1e-4)[number],
        "distillation_weight": (1.0, 0.5, 2.0)[number],
        "drop_path": 0.2,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "precision": "float32",
    }
    recipe = toy_recipe(family, **(chosen | fields))
    task = recipe.task.model_copy(update={"num_classes": (10, 3, 6)[number]})
    return recipe.model_copy(update={"task": task})


def learners_of(recipes: Sequence[Recipe], *, double: bool = True) -> list[Learner]:
    """Runs over one teacher and one student, in float64 but for exact comparisons."""
    backbones = Backbones(torch.device("cpu"))
    learners = []
    for number, recipe in enumerate(recipes):
        pair = build_pair(recipe, seed=number, backbones=backbones)
        for _, network in pair.roles():
            network.double() if double else network.float()
        images = pixels(number)
        classes = recipe.task.num_classes
        targets = torch.randint(classes, (IMAGES,), generator=generator(number, "test", "targets"))
        both = {role: images for role, _ in pair.roles()}
        learners.append(Learner(pair, both, targets, recipe, seed=number))
    return learners


def train(
    learners: Sequence[Learner],
    on_step: Callable[[], None] = lambda: None,
    *,
    prefixes: bool = False,
    switches: Switches | None = None,
) -> list[dict[str, Tensor]]:
    """Train to the end; values and moments of each run."""
    if prefixes:
        for learner in learners:
            learner.cache_prefixes()
    trainer = Trainer(learners, switches=switches)
    for epoch in range(trainer.epochs):
        trainer.train_epoch(epoch, on_step)
    return [state_of(trainer, learner) for learner in learners]


def alone(recipes: Sequence[Recipe], *, double: bool = True, **how: Any) -> list[dict[str, Tensor]]:
    return [train([one], **how)[0] for one in learners_of(recipes, double=double)]


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    assert all(first[name].shape == second[name].shape for name in first)
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


def breaking(learner: Learner, step: int) -> Callable[[], None]:
    """Makes a run's first tensor not a number once so many steps are done."""
    steps = iter(range(1, 1000))

    def on_step() -> None:
        if next(steps) == step:
            with torch.no_grad():
                next(iter(learner.trainable().values())).fill_(float("nan"))

    return on_step


@pytest.mark.parametrize("family", FAMILIES)
def test_three_runs_in_one_pass_equal_three_alone_though_one_fails_at_step_7(family: str) -> None:
    recipes = [recipe_of(family, number) for number in range(3)]
    together = learners_of(recipes)
    states = train(together, breaking(together[1], 7))
    for number, own in enumerate(alone(recipes)):
        if number != 1:
            assert together[number].fault is None
            assert furthest(states[number], own) < TOLERANCE
    assert isinstance(together[1].fault, TrainingError)
    assert "not finite in epoch 2" in together[1].fault.message
    assert together[1].done == 2


def test_the_comparison_bites() -> None:
    recipes = [recipe_of("lora", number) for number in range(3)]
    other = [recipe_of("lora", 0, lr=5.1e-3), *recipes[1:]]
    states, changed = train(learners_of(recipes)), train(learners_of(other))
    assert furthest(states[0], changed[0]) > 1e-6
    assert furthest(states[1], changed[1]) < TOLERANCE


@pytest.mark.slow
def test_passes_of_two_and_one_equal_a_pass_of_three() -> None:
    recipes = [recipe_of("sequential", number) for number in range(3)]
    whole = train(learners_of(recipes))
    runs = learners_of(recipes)
    parts = train(runs[:2]) + train(runs[2:])
    assert all(furthest(a, b) < TOLERANCE for a, b in zip(whole, parts, strict=True))


def test_runs_may_end_at_unlike_epochs() -> None:
    recipes = [recipe_of("lora", number, epochs=(2, 4, 3)[number]) for number in range(3)]
    together = learners_of(recipes)
    states = train(together)
    assert [learner.done for learner in together] == [2, 4, 3]
    for own, other in zip(alone(recipes), states, strict=True):
        assert furthest(own, other) < TOLERANCE


@pytest.mark.slow
def test_runs_without_a_teacher_share_a_pass_too() -> None:
    recipes = [recipe_of("lora", n, teacher=False, distillation_weight=1.0) for n in range(3)]
    for own, other in zip(alone(recipes), train(learners_of(recipes)), strict=True):
        assert furthest(own, other) < TOLERANCE


@pytest.mark.slow
def test_the_paper_protocol_doubles_its_own_teachers_gradient_alone() -> None:
    recipes = [
        recipe_of("sequential", 0, protocol="paper", epochs=1),
        recipe_of("sequential", 1, epochs=11),
    ]
    for own, other in zip(alone(recipes), train(learners_of(recipes)), strict=True):
        assert furthest(own, other) < TOLERANCE


def test_no_bit_of_a_run_depends_on_what_becomes_of_the_others() -> None:
    """In float32: a run with a fault keeps its rows, so every shape stays as it was."""
    recipes = [recipe_of("lora", number) for number in range(3)]
    whole = train(learners_of(recipes, double=False))
    runs = learners_of(recipes, double=False)
    broken = train(runs, breaking(runs[1], 7))
    assert runs[1].fault is not None
    assert equal(whole[0], broken[0])
    assert equal(whole[2], broken[2])


def test_a_run_that_is_ahead_rests_and_no_bit_changes() -> None:
    """As after a kill between the saves of two runs of a pass."""
    recipes = [recipe_of("sequential", number) for number in range(3)]
    runs = learners_of(recipes, double=False)
    trainer = Trainer(runs)
    for epoch in range(2):
        trainer.train_epoch(epoch)
    for run in runs[1:]:  # the first was saved one epoch further on than the others
        run.done = 1
    ahead = {name: value.clone() for name, value in state_of(trainer, runs[0]).items()}
    first, *others = trainer.train_epoch(1)
    assert first is None
    assert all(log is not None for log in others)
    assert equal(ahead, state_of(trainer, runs[0]))
    logs = trainer.train_epoch(2)
    assert all(log is not None for log in logs)
    assert [run.done for run in runs] == [3, 3, 3]


def test_an_epoch_in_which_no_one_learns_is_passed_over() -> None:
    """As after a kill where one run had ended and the other was saved further on."""
    runs = learners_of([recipe_of("lora", 0), recipe_of("lora", 1, epochs=2)], double=False)
    runs[0].done, runs[1].done = 3, 2
    trainer = Trainer(runs)
    assert trainer.train_epoch(2) == [None, None]
    first, second = trainer.train_epoch(3)
    assert first is not None
    assert second is None


def test_an_adapter_without_gradient_is_a_fault_of_its_own_run() -> None:
    recipes = [recipe_of("lora", number) for number in range(3)]
    runs = learners_of(recipes)
    dead = runs[1].pair.student.adapter_tensors.tensors()["blocks.0.query.down.weight"]
    dead.register_hook(torch.zeros_like)
    dead.register_hook(lambda gradient: gradient * 0)
    states = train(runs)
    assert runs[1].fault is not None
    assert "student/adapter.blocks.0.query.down.weight" in runs[1].fault.message
    assert furthest(states[0], alone(recipes)[0]) < TOLERANCE


# What comes before the first adapter, computed once


@pytest.mark.slow
@pytest.mark.parametrize("drop_path", [0.0, 0.2])
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(f, marks=() if f in ("lora", "linear") else pytest.mark.system)
        for f in FAMILIES
    ],
)
def test_cached_prefixes_change_nothing(family: str, drop_path: float) -> None:
    recipes = [recipe_of(family, number, drop_path=drop_path) for number in range(3)]
    plain = alone(recipes)
    cached = alone(recipes, prefixes=True)
    stacked = train(learners_of(recipes), prefixes=True)
    for own, others in zip(plain, zip(cached, stacked, strict=True), strict=True):
        assert all(furthest(own, other) < TOLERANCE for other in others)


@pytest.mark.parametrize(
    ("family", "drop_path", "place"),
    [
        ("lora", 0.2, (0, "block_input")),
        ("shared_parallel", 0.2, (0, "block_input")),
        ("sequential", 0.2, (0, "after_mlp")),
        ("idat_adaptformer", 0.0, (0, "after_mlp")),
        ("linear", 0.2, (1, "block_input")),
        ("linear", 0.0, (2, "features")),
    ],
)
def test_a_prefix_ends_before_all_that_changes(
    family: str, drop_path: float, place: tuple[int, str]
) -> None:
    (run,) = learners_of([recipe_of(family, 0, drop_path=drop_path)])
    run.cache_prefixes()
    for start in run.starts.values():
        assert isinstance(start, Partway)
        assert tuple(start.place) == place
        assert all(len(tensor) == IMAGES for tensor in start.tensors)
    calls: list[int] = []
    run.pair.student.body.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    Trainer([run]).train_epoch(0)
    assert not calls


# Other ways to the same numbers


@pytest.mark.slow
def test_fused_adamw_equals_the_plain_one() -> None:
    recipes = [recipe_of("lora", number) for number in range(3)]
    plain = train(learners_of(recipes), switches=Switches(fused=False))
    fused = train(learners_of(recipes), switches=Switches(fused=True))
    # learning rates on the device are float32
    assert all(furthest(a, b) < 1e-6 for a, b in zip(plain, fused, strict=True))
    assert any(not equal(a, b) for a, b in zip(plain, fused, strict=True))


def compiled_distance(count: int) -> tuple[float, list[str]]:
    """How far a compiled pass of so many runs leads from a plain one, and what was told."""
    recipes = [recipe_of("lora", number) for number in range(count)]
    told: list[str] = []
    runs = learners_of(recipes)
    trainer = Trainer(runs, switches=Switches(compile=True), note=told.append)
    for epoch in range(trainer.epochs):
        trainer.train_epoch(epoch)
    states = [state_of(trainer, run) for run in runs]
    plain = train(learners_of(recipes))
    return max(furthest(a, b) for a, b in zip(plain, states, strict=True)), told


@pytest.mark.system
@pytest.mark.parametrize("count", [1, 2])
def test_a_compiled_pass_equals_the_plain_one(count: int) -> None:
    """In a process of its own: what checks shapes under pytest cannot be compiled."""
    tests = Path(__file__).parents[1]
    code = (
        f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'unit')!r}]; "
        f"from test_cotraining import compiled_distance; print(*compiled_distance({count}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    distance, told = done.stdout.split(maxsplit=1)
    assert told.strip() == "[]"
    assert 0 < float(distance) < TOLERANCE


@pytest.mark.slow
def test_where_the_compiler_fails_training_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config, "force_disable_caches", True)
    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-such-compiler"),))
    recipes = [recipe_of("linear", 0, teacher=False, distillation_weight=1.0)]
    told: list[str] = []
    runs = learners_of(recipes)
    trainer = Trainer(runs, switches=Switches(compile=True), note=told.append)
    for epoch in range(trainer.epochs):
        trainer.train_epoch(epoch)
    (note,) = told
    assert note.startswith("torch.compile failed; training goes on without it (")
    assert equal(state_of(trainer, runs[0]), alone(recipes)[0])


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_bf16_is_near_float32(stacked: bool) -> None:
    """bf16 keeps 8 bits, so one product is off by up to 1/256; the losses of a first epoch, which
    some hundred of them go into, stay within a few of these.
    """
    losses = {}
    for precision in ("float32", "bf16"):
        recipes = [recipe_of("lora", number, precision=precision) for number in range(2)]
        runs = learners_of(recipes, double=False)
        trainers = [Trainer(runs)] if stacked else [Trainer([run]) for run in runs]
        logs = [log for trainer in trainers for log in trainer.train_epoch(0)]
        losses[precision] = [log.loss for log in logs if log is not None]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=4 / 256)
    assert losses["bf16"] != losses["float32"]


def test_runs_of_one_pass_stand_on_the_same_backbones() -> None:
    first, *others = learners_of([recipe_of("lora", number) for number in range(3)])
    for role, network in first.pair.roles():
        assert all(run.pair.network(role).body is network.body for run in others)


def test_other_backbones_have_copies_of_their_own() -> None:
    assert (
        toy_pair(recipe_of("lora", 0)).student.body
        is not toy_pair(recipe_of("lora", 1)).student.body
    )
