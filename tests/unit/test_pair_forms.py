"""The swapped form and the twins of a pair: how they are found, and what they train."""

import json

import pytest
import torch
from command import idat

from conftest import TOY_PAIR, learner_of, toy_recipe
from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.data.load import load_task
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import UnknownNameError
from idat_zoo.recipe import Pair, Recipe
from idat_zoo.registry import (
    Registry,
    compose_recipe,
    find_recipe,
    load_registry,
    swapped,
    twins,
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_every_pair_has_a_swapped_form_and_twins(registry: Registry) -> None:
    for pair in registry.pairs.values():
        turned, alike = (registry.find_pair(pair.name + end) for end in ("_swapped", "_twins"))
        assert (turned, alike) == (swapped(pair), twins(pair))
        assert (turned.teacher, turned.student) == (pair.student, pair.teacher)
        assert alike.teacher == alike.student == pair.student


@pytest.mark.parametrize("name", ["micro_swapped_twins", "_twins", "nothing_swapped", "swapped"])
def test_nothing_else_has_a_form(name: str, registry: Registry) -> None:
    with pytest.raises(UnknownNameError, match="unknown pair"):
        registry.find_pair(name)


def test_a_form_takes_the_recipes_of_its_pair(registry: Registry) -> None:
    for name in ("micro/lora/digits", "vit_s_to_vit_b/sequential/cifar100"):
        pair, rest = name.split("/", 1)
        base = find_recipe(registry, name)
        for end in ("_swapped", "_twins"):
            form = find_recipe(registry, f"{pair}{end}/{rest}")
            assert form == base.model_copy(update={"pair": form.pair})
            assert form.pair.name == pair + end


def test_swapping_by_hand_is_the_swapped_form(registry: Registry) -> None:
    recipe = compose_recipe(registry, "digits", "lora", pair="micro_twins", teacher="none")
    alone = compose_recipe(registry, "digits", "lora", pair="micro", teacher="none")
    assert recipe.pair.backbones() == alone.pair.backbones()


def test_the_commands_know_forms_and_list_no_more_pairs() -> None:
    listed = idat("list", "pairs")
    assert "micro_swapped" not in listed.stdout
    assert "PAIR_swapped" in listed.stderr
    shown = idat("show", "micro_swapped").stdout
    assert 'name = "micro_swapped"' in shown
    assert "pairs.toml" in shown
    assert "lr = 0.01" in idat("show", "micro_twins/lora/digits").stdout
    counts = {
        pair: next(row for row in json.loads(listed.stdout)["adapters"] if row["name"] == "lora")
        for pair in ("micro", "micro_swapped", "micro_twins")
        if (listed := idat("list", "adapters", "--pair", pair, "--json"))
    }
    own = {pair: (row["student"], row["teacher"]) for pair, row in counts.items()}
    assert own["micro_swapped"] == own["micro"][::-1]
    assert own["micro_twins"] == (own["micro"][0],) * 2


def test_twins_share_one_backbone_and_no_draw() -> None:
    recipe = toy_recipe(precision="float32", drop_path=0.2)
    recipe = recipe.model_copy(update={"pair": twins(recipe.pair)})
    pair = build_pair(recipe, seed=0, backbones=Backbones(torch.device("cpu")))
    assert pair.student.backbone is pair.network("teacher").backbone
    mine, other = (network.trainable() for _, network in pair.roles())
    assert mine.keys() == other.keys()
    drawn = [name for name, tensor in mine.items() if tensor.any()]
    assert {name.partition(".")[0] for name in drawn} == {"adapter", "head"}
    assert not any(torch.equal(mine[name], other[name]) for name in drawn)
    assert not {id(one) for one in mine.values()} & {id(one) for one in other.values()}


@pytest.mark.parametrize("form", [swapped, twins])
def test_without_a_term_the_student_is_that_backbone_trained_alone(form: object) -> None:
    assert callable(form)
    turned: Pair = form(TOY_PAIR)
    split = load_task(toy_recipe().task, img_size=16, seed=0).train

    def student(recipe: Recipe) -> dict[str, torch.Tensor]:
        learner = learner_of(recipe, split)
        trainer = Trainer([learner])
        for epoch in range(trainer.epochs):
            trainer.train_epoch(epoch)
        return dict(learner.pair.student.trainable())

    both = toy_recipe(distillation="none", drop_path=0.1)
    both = both.model_copy(update={"pair": turned})
    alone = toy_recipe(teacher=False, drop_path=0.1)
    alone = alone.model_copy(update={"pair": Pair(name="alone", student=turned.student)})
    mine, other = student(both), student(alone)
    assert all(torch.equal(mine[name], other[name]) for name in mine | other)
