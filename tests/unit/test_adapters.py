"""What every family promises, and what each claims of itself."""

from collections.abc import Callable

import pytest
import torch

from conftest import FAMILIES
from idat_zoo.adapters import ADAPTERS, build_adapter, find_adapter
from idat_zoo.adapters.base import Adapter, Mask, Site
from idat_zoo.backbones.frozen import describe_anatomy
from idat_zoo.backbones.network import Network
from idat_zoo.errors import RecipeError, UnknownNameError
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import AdapterChoice, Backbone

VIT_B, VIT_S = (
    describe_anatomy(Backbone(name=size, timm=f"vit_{size}_patch16_224", weights="random"))
    for size in ("base", "small")
)

PUBLISHED_COUNTS = {  # adapter alone; iDAT's by running its code, LoRA's 4 L D R
    ("sequential", "B"): 82_992,
    ("sequential", "S"): 41_520,
    ("shared_parallel", "B"): 82_992,
    ("idat_adaptformer", "B"): 82_992,
    ("lora", "B"): 294_912,
    ("lora", "S"): 147_456,
    ("linear", "B"): 0,
}


def mergeable(family: str) -> bool:
    return build_adapter(AdapterChoice(name=family)).mergeable


def random_input(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, dtype=torch.float64, generator=generator(1, "test", "x"))


def fill_with_noise(network: Network) -> None:
    """Random non-zero values in every trainable tensor, so that no zero hides a fault."""
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(2, "test", name))


@pytest.mark.parametrize("family", ADAPTERS)
def test_a_family_is_listed_under_its_own_name(family: str) -> None:
    assert find_adapter(family).name == family


@pytest.mark.parametrize(("family", "size"), PUBLISHED_COUNTS)
def test_parameter_counts_are_the_published_ones(family: str, size: str) -> None:
    anatomy = {"B": VIT_B, "S": VIT_S}[size]
    created = build_adapter(AdapterChoice(name=family)).create(anatomy, generator(0, "t", "t"))
    count = sum(tensor.numel() for tensor in created.trainable.values())
    assert count == PUBLISHED_COUNTS[family, size]


def test_lora_updates_the_rows_of_the_key_where_that_is_asked_for(
    toy_network: Callable[..., Network],
) -> None:
    options = {"rank": 3, "key": True}
    created = build_adapter(AdapterChoice(name="lora", options=options)).create(
        VIT_S, generator(0, "t", "t")
    )
    assert sum(tensor.numel() for tensor in created.trainable.values()) == 6 * 12 * 384 * 3
    network = toy_network("lora", **options)
    own = network.local(0)
    y = torch.rand(1, 5, 72, dtype=torch.float64, generator=generator(0, "test", "y"))
    for rows, part in (("query", 0), ("key", 1), ("value", 2)):
        one = {name: tensor + float(name == f"{rows}.up.weight") for name, tensor in own.items()}
        x = torch.ones(1, 5, 24, dtype=torch.float64)
        changed = network.adapter.apply(Site.QKV, one, x, y, frozen={}, masks={}) != y
        assert [third.all().item() for third in changed.chunk(3, dim=-1)] == [
            i == part for i in range(3)
        ]


def test_an_unknown_family_answers_did_you_mean() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lora'"):
        build_adapter(AdapterChoice(name="loar"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": "8"}, "rank"),
        ({"rnak": 8}, "rnak"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(RecipeError, match=f"adapter 'lora': {named}"):
        build_adapter(AdapterChoice.model_construct(name="lora", options=options))


@pytest.mark.parametrize("family", FAMILIES)
def test_creating_reads_no_global_generator(family: str) -> None:
    adapter = build_adapter(AdapterChoice(name=family))
    before = torch.random.get_rng_state()
    first = adapter.create(VIT_S, generator(5, "t", "t")).trainable
    torch.manual_seed(99)
    second = adapter.create(VIT_S, generator(5, "t", "t")).trainable
    torch.random.set_rng_state(before)
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize("family", ["lora", "linear"])
def test_families_that_start_as_the_frozen_network_do(
    family: str, toy_network: Callable[..., Network]
) -> None:
    network = toy_network(family)
    x = random_input()
    assert network.features(x).equal(network.body.forward_head(network.body.forward_features(x)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_tensor_and_no_other_gets_a_gradient(
    family: str, toy_network: Callable[..., Network]
) -> None:
    network = toy_network(family)
    fill_with_noise(network)
    network(random_input()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.trainable().values())
    assert all(p.grad is None for p in network.body.parameters())


@pytest.mark.parametrize(
    ("family", "options"),
    [*((f, {}) for f in FAMILIES if mergeable(f)), ("lora", {"key": True})],
)
def test_merging_gives_the_same_logits(
    family: str, options: dict[str, object], toy_network: Callable[..., Network]
) -> None:
    network = toy_network(family, **options)
    fill_with_noise(network)
    x = random_input()
    adapted = network(x)
    plain = toy_network("linear")
    with torch.no_grad():
        plain.head.load_state_dict(network.head.state_dict())
    saved = {name: value.clone() for name, value in plain.body.state_dict().items()}
    try:
        for i, block in enumerate(plain.body.blocks):
            frozen = dict(block.attn.qkv.named_parameters())
            merged = network.adapter.merge(Site.QKV, network.local(i), frozen)
            block.attn.qkv.load_state_dict(merged)
        assert torch.allclose(plain(x), adapted, atol=1e-12, rtol=0)
    finally:
        plain.body.load_state_dict(saved)


@pytest.mark.parametrize("family", [f for f in FAMILIES if not mergeable(f)])
def test_what_cannot_be_merged_says_so(family: str) -> None:
    adapter: Adapter = build_adapter(AdapterChoice(name=family))
    with pytest.raises(TypeError, match=f"'{family}' cannot be merged"):
        adapter.merge(Site.QKV, {}, {})


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_in_training_and_not_in_evaluation(
    family: str, toy_network: Callable[..., Network]
) -> None:
    network = toy_network(family, dropout=0.5)
    fill_with_noise(network)
    x = random_input()
    masks = network.draw_masks(3, drop_path=0.0, draws=Draws(0, "student", 0))
    assert masks
    assert not network(x, masks).equal(network(x))
    assert network(x).equal(network(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_has_the_rate_it_was_declared_with(family: str) -> None:
    adapter = build_adapter(AdapterChoice(name=family, options={"dropout": 0.25}))
    (site, *_) = sorted(adapter.sites & VIT_S.sites)
    (mask,) = adapter.masks(site, VIT_S.shape(site, 0)).values()
    assert isinstance(mask, Mask)
    drawn = Draws(0, "student", 3).keep("x", mask.rate, 64, *mask.shape)
    assert drawn.unique().tolist() == pytest.approx([0, 1 / 0.75])
    # 24,576 values at least: five standard deviations of a share are below 0.014
    assert (drawn == 0).float().mean().item() == pytest.approx(0.25, abs=0.014)
