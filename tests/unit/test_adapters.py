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
        changed = (
            network.adapter.apply(Site.QKV, one, x, y, frozen={}, masks={}, block=VIT_S.blocks[0])
            != y
        )
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


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("krona", {"rows": 5}, "its query has 768 outputs, and rows=5 does not"),
        ("krona", {"columns": 9, "parts": "fc2"}, "its fc2 has 3072 inputs, and columns=9 does"),
        ("oft", {"block_size": 36}, "its query has 768 inputs, and block_size=36 does not"),
        ("oft", {"parts": "qkv", "block_size": 5}, "its qkv has 768 inputs, and block_size=5"),
        ("lokr", {"blocks": "0-12"}, "its blocks are 0 to 11, and blocks is 0-12"),
    ],
)
def test_what_does_not_fit_a_network_is_refused_by_name(
    family: str, options: dict[str, object], why: str
) -> None:
    adapter = build_adapter(AdapterChoice.model_construct(name=family, options=options))
    assert adapter.why_not(VIT_B).startswith(why)


def test_an_expert_that_is_masked_has_longer_to_learn() -> None:
    """Rank 1 at one in two: it was twice there, after n steps, but for (n + 1) / 2^n."""
    chances = [(n + 1) / 2**n for n in range(1, 60)]
    expected = next(n for n, chance in enumerate(chances, 1) if chance <= 1e-9)
    options = {"rank": 1, "dropout": 0.5}
    assert build_adapter(AdapterChoice(name="mlae", options=options)).lives_within == expected
    never = AdapterChoice(name="mlae", options={"dropout": 0.0})
    assert (
        build_adapter(never).lives_within == build_adapter(AdapterChoice(name="lora")).lives_within
    )


@pytest.mark.parametrize("family", [f for f in FAMILIES if not mergeable(f)])
def test_what_cannot_be_merged_says_so(family: str) -> None:
    adapter: Adapter = build_adapter(AdapterChoice(name=family))
    with pytest.raises(TypeError, match=f"'{family}' cannot be merged"):
        adapter.merge(Site.QKV, {}, {})


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
