"""Families in some of the blocks, and on some of the layers: how that is said, and what it does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kinds import frozen_of
from typer.testing import CliRunner

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.backbones.build import check_carries
from idat_zoo.backbones.network import DROP_PATH, Network
from idat_zoo.backbones.prefix import constant_until, walk_prefix
from idat_zoo.cli import app
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.option_words import canonical_blocks, canonical_parts, chosen_blocks
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.specs import AdapterSpec


def recipe_with(adapter: str, **options: object) -> Recipe:
    overrides = {f"adapter.{name}": value for name, value in options.items()}
    return get_recipe("digits", adapter, overrides=overrides)


SPELT = {
    "all": "all",
    "last6": "last6",
    "0-5": "0-5",
    "5+0+2": "0+2+5",
    "0+1+2": "0-2",
    "0-2+3": "0-3",
    "4+0-1": "0-1+4",
    "7-7": "7",
    "3+3": "3",
}


@pytest.mark.parametrize(("said", "written"), SPELT.items())
def test_a_choice_of_blocks_has_one_spelling(said: str, written: str) -> None:
    assert canonical_blocks(said) == written
    assert canonical_blocks(written) == written
    said_so = recipe_with("lora", blocks=said)
    assert said_so == recipe_with("lora", blocks=written)
    assert recipe_with("lora", blocks=7) == recipe_with("lora", blocks="7")
    assert ("blocks" in said_so.adapter.options) == (written != "all")


@pytest.mark.parametrize(
    "wrong", ["", "last0", "last", "-1", "0,2", "5-3", "a", "0+", "1000", "all+1", "last2+0", " 0"]
)
def test_other_words_for_blocks_are_refused_by_name(wrong: str) -> None:
    with pytest.raises(RecipeError, match="adapter 'lora': blocks: "):
        recipe_with("lora", blocks=wrong)


def test_the_blocks_that_are_meant() -> None:
    assert chosen_blocks("all", 3) == (0, 1, 2)
    assert chosen_blocks("last2", 5) == (3, 4)
    assert chosen_blocks("0-1+4", 5) == (0, 1, 4)


@pytest.mark.parametrize("blocks", ["99", "last13", "3-12"])
def test_more_blocks_than_there_are_are_refused_before_weights_load(
    blocks: str, tmp_path: Path
) -> None:
    words = ["train", "--task", "dtd", "--adapter", "lora", f"adapter.blocks={blocks}"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--yes"])
    assert result.exit_code == 2
    assert f"blocks is {blocks}" in result.stderr
    assert "adapter 'lora' cannot stand on backbone" in result.stderr


def test_a_family_outside_blocks_takes_none() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'adapter\.blocks'"):
        recipe_with("linear", blocks="last1")


@pytest.mark.parametrize(
    ("said", "written"), [("v+q", "q+v"), ("fc2+q+q", "q+fc2"), ("qkv", "qkv"), ("proj", "proj")]
)
def test_a_choice_of_parts_has_one_spelling(said: str, written: str) -> None:
    assert canonical_parts(said) == written
    one, other = (recipe_with("lora", parts=parts) for parts in (said, written))
    assert one == other


@pytest.mark.parametrize("wrong", ["", "query", "q,v", "qkv+q", "head"])
def test_other_words_for_parts_are_refused_by_name(wrong: str) -> None:
    with pytest.raises(RecipeError, match="adapter 'lora': parts: "):
        recipe_with("lora", parts=wrong)


def noisy(network: Network) -> Network:
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(2, "test", name))
    return network


def pixels(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, dtype=torch.float64, generator=generator(1, "test", "x"))


@pytest.mark.parametrize("family", ["sequential", "shared_parallel", "lora"])
def test_a_block_that_is_left_out_has_no_tensors_and_stays_as_it_is(
    family: str, toy_network: Callable[..., Network]
) -> None:
    network = noisy(toy_network(family, blocks="1"))
    own = [name for name in network.trainable() if name.startswith("adapter.")]
    assert own
    assert all(name.startswith("adapter.blocks.1.") for name in own)
    assert {place.block for place in network.places} == {1}
    everywhere = noisy(toy_network(family))
    with torch.no_grad():
        for name, parameter in everywhere.trainable().items():
            if name in network.trainable():
                parameter.copy_(network.trainable()[name])
            else:
                parameter.zero_()
    assert torch.allclose(network(pixels()), everywhere(pixels()), atol=1e-12, rtol=0)


def test_the_prefix_reaches_to_the_first_block_and_has_the_same_bits(
    toy_network: Callable[..., Network],
) -> None:
    network = noisy(toy_network("lora", blocks="last1", dropout=0.1))
    for drop_path in (0.0, 0.3):
        until = constant_until(network, drop_path)
        assert until == Place(1, Site.BLOCK_INPUT)
        masks = network.draw_masks(3, drop_path=drop_path, draws=Draws(0, "student", 7))
        images = (pixels() * 255).to(torch.uint8)
        begun = walk_prefix(network, images, until=until, batch_size=3)
        assert network(begun, masks).equal(network(images, masks))


def test_blocks_before_the_first_are_never_dropped(toy_network: Callable[..., Network]) -> None:
    draws = Draws(0, "student", 7)
    whole = toy_network("lora").draw_masks(64, drop_path=0.5, draws=draws)[DROP_PATH]
    last = toy_network("lora", blocks="last1").draw_masks(64, drop_path=0.5, draws=draws)[DROP_PATH]
    assert last.equal(whole)  # of two blocks the first is never dropped anyway
    assert last[0].eq(1).all()
    assert last[1].eq(0).any()


@pytest.mark.parametrize("parts", ["q+k+v+proj+fc1+fc2", "qkv", "proj", "fc1+fc2"])
def test_lora_learns_on_the_layers_that_are_named(
    parts: str, toy_network: Callable[..., Network]
) -> None:
    network = noisy(toy_network("lora", parts=parts, rank=2))
    names = {"q": "query", "k": "key", "v": "value"}
    layers = {name.split(".")[3] for name in network.trainable() if name.startswith("adapter.")}
    assert layers == {names.get(part, part) for part in parts.split("+")}
    network(pixels()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.trainable().values())


def test_the_scale_over_the_rank_and_over_its_root(toy_network: Callable[..., Network]) -> None:
    found = {
        scaling: toy_network("lora", scale=8.0, rank=4, scaling=scaling).constants.tensors()
        for scaling in ("none", "alpha", "rslora")
    }
    assert {name: own["scale"].item() for name, own in found.items()} == {
        "none": 8,
        "alpha": 2,
        "rslora": 4,
    }


def test_lora_on_no_attention_is_on_the_mlp_unless_other_parts_are_named() -> None:
    anatomy = frozen_of("convnext").anatomy
    lora = build_adapter(AdapterSpec(name="lora"))
    assert lora.sites_on(anatomy) == {Site.FC1, Site.FC2}
    for options in ({"key": True}, {"parts": "q"}, {"parts": "proj+fc1"}):
        with pytest.raises(UsageError, match="it has no attention, and so no "):
            check_carries(anatomy, build_adapter(AdapterSpec(name="lora", options=options)), "x")
