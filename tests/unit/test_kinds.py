"""Every kind of backbone: its walk is timm's own forward pass, to the bit, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from kinds import FORMS, LACKING, SINCE, images_of
from on_kinds import known, plain
from torch import Tensor, nn

from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.backbones.anatomy import Everywhere, everywhere
from idat_zoo.backbones.kinds import KINDS, kind_of
from idat_zoo.backbones.kinds.base import ROLES
from idat_zoo.backbones.sites import Compute, Visitor
from idat_zoo.backbones.walk import begin, features
from idat_zoo.randomness import generator


def nobody() -> Visitor:
    return Visitor((), lambda site, block, x, compute, frozen: compute(x, {}))


@pytest.mark.parametrize("form", FORMS)
def test_the_walk_is_timms_own_forward_to_the_bit(form: str) -> None:
    kind = known(form).kind
    for count in (1, 3):
        images = images_of(form, count)
        expected = plain(form, images)
        assert expected.isfinite().all()
        assert expected.std() > 0.05
        for visitor in (everywhere(), nobody()):
            assert features(kind, begin(images), visitor, None).equal(expected)


@pytest.mark.parametrize("form", [f for f in FORMS if "dynamic size" in f])
def test_the_walk_takes_images_of_other_sizes_where_the_network_does(form: str) -> None:
    images = images_of(form, 2)[:, :, :, :16]
    found = features(known(form).kind, begin(images), everywhere(), None)
    assert found.equal(plain(form, images))


FEATURES: dict[str, Callable[[Any], bool]] = {
    "a class token": lambda body: getattr(body, "cls_token", None) is not None,
    "no class token": lambda body: getattr(body, "cls_token", 0) is None,
    "registers": lambda body: getattr(body, "reg_token", None) is not None,
    "a norm before": lambda body: hasattr(getattr(body, "norm_pre", None), "weight"),
    "pooling by attention": lambda body: getattr(body, "attn_pool", None) is not None,
    "average pooling": lambda body: getattr(body, "global_pool", "") == "avg",
    "pooling by the class token": lambda body: getattr(body, "global_pool", "") == "token",
    "no last norm": lambda body: (
        not hasattr(getattr(body, "norm", body), "weight")
        and not hasattr(getattr(body, "fc_norm", body), "weight")
    ),
    "rotations": lambda body: getattr(body, "rope", None) is not None,
    "rotations of each block": lambda body: getattr(body, "rope_mixed", False),
    "a bias that is shared": lambda body: getattr(body, "rel_pos_bias", None) is not None,
    "a size that changes": lambda body: getattr(body, "dynamic_img_size", False),
}
"""What a network may have, asked of what timm built."""
BLOCKS: dict[str, Callable[[Any], bool]] = {
    "LayerScale": lambda block: hasattr(getattr(block, "ls1", None), "gamma"),
    "a scale as a vector": lambda block: getattr(block, "gamma_1", None) is not None,
    "norms of queries and keys": lambda block: hasattr(
        getattr(getattr(block, "attn", None), "q_norm", None), "weight"
    ),
    "a packed gate": lambda block: type(block.mlp).__name__ == "GluMlp",
    "a gate of its own": lambda block: type(block.mlp).__name__ == "SwiGLU",
    "a norm that comes last": lambda block: type(block).__name__ == "ResPostBlock",
    "a norm that comes last in EVA": lambda block: type(block).__name__ == "EvaBlockPostNorm",
    "a bias of its own": lambda block: (
        getattr(getattr(block, "attn", None), "relative_position_bias_table", None) is not None
    ),
    "a fused weight read past its module": lambda block: (
        getattr(getattr(block, "attn", None), "q_bias", None) is not None
    ),
    "q, k and v apart": lambda block: (
        getattr(getattr(block, "attn", None), "q_proj", None) is not None
    ),
    "shifted windows": lambda block: any(getattr(block, "shift_size", ())),
    "linear layers as convolutions": lambda block: isinstance(block.mlp.fc2, nn.Conv2d),
    "response normalisation": lambda block: type(block.mlp).__name__.startswith("GlobalResponse"),
}
FAMILIES_OF_TIMM = (
    "vit_tiny_",
    "dinov2",
    "reg4_dinov2",
    "deit3",
    "clip",
    "siglip",
    "eva02_tiny",
    "eva02_small",
    "eva02_base",
    "small_patch16_dinov3",
    "dinov3_qkvb",
    "plus_patch16_dinov3",
    "rope_224",
    "rope_mixed",
    "vit_pe_",
    "beit_",
    "beitv2_",
    "swin_",
    "swinv2_",
    "convnext_tiny",
    "convnext_atto",
    "convnextv2_",
)


def test_the_forms_cover_every_kind_and_all_that_a_network_may_have() -> None:
    assert {form.kind for form in FORMS.values()} == KINDS.keys()
    assert len(FORMS) >= 46
    for form, own in FORMS.items():
        assert kind_of(KINDS, type(known(form).body)) == own.kind
    names = [form.timm for form in FORMS.values()]
    bodies = [known(form).body for form in FORMS]
    blocks = [block for form in FORMS for block in known(form).kind.blocks]
    lacking = [part for part in FAMILIES_OF_TIMM if not any(part in name for name in names)]
    lacking += [what for what, has in FEATURES.items() if not any(map(has, bodies))]
    lacking += [what for what, has in BLOCKS.items() if not any(map(has, blocks))]
    assert not lacking


@pytest.mark.parametrize("form", SINCE)
def test_the_installed_timm_has_every_form(form: str) -> None:
    if form in LACKING:
        pytest.skip(f"timm {timm.__version__} has no {form}; {LACKING[form]} has")
    assert form in FORMS


def test_a_size_that_windows_do_not_divide_is_among_the_forms() -> None:
    for form in ("swin padded", "swinv2 padded"):
        (side, _), (window, _) = (
            known(form).anatomy.blocks[0].grid,
            known(form).kind.blocks[0].window_size,
        )
        assert side % window


NOT_MET = ("cpb_mlp.", "attn.gate")  # SwinV2's bias of positions, and a gate of EVA's attention


@pytest.mark.parametrize("form", FORMS)
def test_every_linear_layer_of_a_block_is_met_once(form: str) -> None:
    kind = known(form).kind
    met: list[tuple[int, int]] = []

    def note(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
        if site in ROLES.values():
            met.append((block, id(frozen["weight"])))
        return compute(x, {})

    features(kind, begin(images_of(form, 1)), Visitor(Everywhere(), note), None)
    expected = [
        (i, id(module.weight))
        for i, block in enumerate(kind.blocks)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) or getattr(module, "kernel_size", 0) == (1, 1)
        if not any(part in f"{name}." for part in NOT_MET)
    ]
    assert sorted(met) == sorted(expected)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_put_in_at_any_site_changes_the_features(form: str) -> None:
    kind, anatomy = known(form).kind, known(form).anatomy
    images = images_of(form, 1)
    expected = plain(form, images)
    last = anatomy.depth - 1
    places = [(site, last) for site in anatomy.blocks[last].sites]
    places += [(site, -1 if site is Site.PATCH_EMBED else anatomy.depth) for site in anatomy.ends]

    def at(place: tuple[Site, int]) -> Tensor:
        def stir(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
            y = compute(x, {})
            noise = torch.randn(y.shape, generator=generator(0, "test", site), dtype=y.dtype)
            return y + noise if block == place[1] else y

        return features(kind, begin(images), Visitor({Place(place[1], place[0])}, stir), None)

    dead = [place for place in places if place[0] is not Site.PROMPT and at(place).equal(expected)]
    assert not dead
