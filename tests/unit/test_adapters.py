"""What every family promises, and what each claims of itself."""

from collections.abc import Callable

import pytest
import torch
from laws import Cell, backbone_of, merges_to_the_same_logits, mixes_as_alone, stacks_as_alone

from conftest import FAMILIES
from idat_zoo.adapters import ADAPTERS, build_adapter, find_adapter
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site
from idat_zoo.backbones.frozen import describe_anatomy
from idat_zoo.backbones.network import Network
from idat_zoo.errors import RecipeError, UnknownNameError
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Backbone
from idat_zoo.specs import AdapterSpec

VIT_B, VIT_S = (
    describe_anatomy(Backbone(name=size, timm=f"vit_{size}_patch16_224", weights="random"))
    for size in ("base", "small")
)


def mergeable(family: str) -> bool:
    return build_adapter(AdapterSpec(name=family)).mergeable


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
    created = build_adapter(AdapterSpec(name="lora", options=options)).create(
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
        build_adapter(AdapterSpec(name="loar"))


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
        build_adapter(AdapterSpec.model_construct(name="lora", options=options))


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
    adapter = build_adapter(AdapterSpec.model_construct(name=family, options=options))
    assert adapter.why_not(VIT_B).startswith(why)


def test_an_expert_that_is_masked_has_longer_to_learn() -> None:
    """Rank 1 at one in two: it was twice there, after n steps, but for (n + 1) / 2^n."""
    chances = [(n + 1) / 2**n for n in range(1, 60)]
    expected = next(n for n, chance in enumerate(chances, 1) if chance <= 1e-9)
    options = {"rank": 1, "dropout": 0.5}
    assert build_adapter(AdapterSpec(name="mlae", options=options)).lives_within == expected
    never = AdapterSpec(name="mlae", options={"dropout": 0.0})
    assert build_adapter(never).lives_within == build_adapter(AdapterSpec(name="lora")).lives_within


@pytest.mark.parametrize(
    ("family", "options", "told"),
    [
        ("repadapter", {"rank": 7}, "rank 7 does not divide into 2 groups"),
        ("repadapter", {"groups": 0}, "groups"),
        ("consolidator", {"drop_path": 1.0}, "drop_path"),
        ("arc", {"rank": 0}, "rank"),
        ("hydra", {"parts": "head"}, "expected parts among"),
        ("ia3", {"parts": "qkv+k"}, "qkv is q, k and v as one layer"),
        ("ssf", {"rank": 8}, "rank"),
    ],
)
def test_options_that_a_family_cannot_have_are_refused(
    family: str, options: dict[str, object], told: str
) -> None:
    with pytest.raises(RecipeError, match=f"adapter '{family}': .*{told}"):
        build_adapter(AdapterSpec.model_construct(name=family, options=options))


@pytest.mark.parametrize(
    ("family", "options", "form", "told"),
    [
        ("repadapter", {"rank": 15, "groups": 5}, "vit", "its width 32 does not divide into 5"),
        ("consolidator", {"groups": 5}, "vit", "32 inputs and 96 outputs, not groups of 5"),
        ("arc", {}, "swin", "one matrix serves all blocks, and they are 16 to 32 wide"),
        ("arc", {"blocks": "0-1"}, "swin", ""),
        ("arc", {}, "swinv2", "16 to 32 wide"),
        ("arc", {"blocks": "0"}, "swinv2", "its norms come behind attention and MLP"),
        ("repadapter", {}, "res-post-norm", "its norms come behind attention and MLP"),
        ("repadapter", {"mlp": False}, "convnext", "it has no norm1"),
        ("ia3", {"parts": "k+v"}, "convnext", "it has no attention, and so no key"),
    ],
)
def test_a_network_that_a_family_does_not_fit_is_told_why(
    family: str, options: dict[str, object], form: str, told: str
) -> None:
    adapter = build_adapter(AdapterSpec(name=family, options=options))
    why = adapter.why_not(backbone_of(form).anatomy)
    assert told in why
    assert bool(told) == bool(why)


@pytest.mark.parametrize(
    ("family", "options", "count"),
    [
        ("repadapter", {"mlp": False}, 119_904),
        ("consolidator", {}, 425_472),
        ("ia3", {}, 55_296),
        ("bitfit", {"blocks": "last1"}, 11 * 768 + 768),
        ("ssf", {"blocks": "0"}, 22 * 768 + 2 * 768),
    ],
)
def test_options_that_change_where_it_stands_change_what_is_trained(
    family: str, options: dict[str, object], count: int
) -> None:
    created = build_adapter(AdapterSpec(name=family, options=options)).create(
        VIT_B, generator(0, "t", "t")
    )
    assert sum(tensor.numel() for tensor in created.trainable.values()) == count


@pytest.mark.parametrize("form", ["vit", "eva02 base", "eva02 tiny", "beit", "swinv2"])
def test_biases_that_are_trained_are_timms_own_also_where_the_key_has_none(form: str) -> None:
    anatomy = backbone_of(form).anatomy
    created = build_adapter(AdapterSpec(name="bitfit")).create(anatomy, generator(0, "t", "t"))
    ours = [tensor.tolist() for tensor in created.trainable.values()]
    timms = {
        name: tensor.float().tolist()
        for i in range(-1, anatomy.depth + 1)
        for name, tensor in anatomy.parameters(i).items()
        if name.endswith("bias")
    }
    assert all(own in timms.values() for own in ours)
    parts = ("qkv.bias", "q_bias", "v_bias", "q_proj.bias", "v_proj.bias")
    assert all(own in ours for name, own in timms.items() if name.endswith(parts))


@pytest.mark.parametrize("options", [{"groups": 4}, {"groups": 4, "shuffle": True}])
@pytest.mark.parametrize("form", ["vit", "swin padded", "convnext"])
def test_a_consolidator_of_several_groups_merges_and_stacks(
    form: str, options: dict[str, object]
) -> None:
    cell = Cell("consolidator", form, options)
    merges_to_the_same_logits(cell)
    stacks_as_alone(cell)
    mixes_as_alone(cell)


@pytest.mark.parametrize("family", [f for f in FAMILIES if not mergeable(f)])
def test_what_cannot_be_merged_says_so(family: str) -> None:
    adapter: Adapter = build_adapter(AdapterSpec(name=family))
    with pytest.raises(TypeError, match=f"'{family}' cannot be merged"):
        adapter.merge(Site.QKV, {}, {})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_has_the_rate_it_was_declared_with(family: str) -> None:
    adapter = build_adapter(AdapterSpec(name=family, options={"dropout": 0.25}))
    (site, *_) = sorted(adapter.sites & VIT_S.sites)
    (mask,) = adapter.masks(site, VIT_S.shape(site, 0)).values()
    assert isinstance(mask, Mask)
    drawn = Draws(0, "student", 3).keep("x", mask.rate, 64, *mask.shape)
    assert drawn.unique().tolist() == pytest.approx([0, 1 / 0.75])
    # 24,576 values at least: five standard deviations of a share are below 0.014
    assert (drawn == 0).float().mean().item() == pytest.approx(0.25, abs=0.014)
