"""Our walk through a backbone is timm's own forward pass."""

import pytest
import timm
import torch
from torch import nn

from conftest import TOY_PAIR, toy_backbone
from idat_zoo.adapters.base import Site
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.walk import embed, features
from idat_zoo.errors import UsageError
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
FORMS = {
    "class token": {},
    "registers": {"reg_tokens": 2},
    "LayerScale": {"init_values": 0.3},
    "qk-norm": {"qk_norm": True},
    "average pooling": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "norm before": {"pre_norm": True},
}


def passing(
    site: Site, block: int, x: torch.Tensor, y: torch.Tensor, module: nn.Module | None
) -> torch.Tensor:
    return y


@pytest.mark.parametrize("form", FORMS)
def test_the_walk_equals_timms_forward(form: str) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL, **FORMS[form])
    vit = vit.double().eval()
    for name, parameter in vit.named_parameters():
        with torch.no_grad():
            parameter.normal_(std=0.3, generator=generator(0, "test", name))
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=generator(0, "test", "x"))
    assert features(vit, embed(vit, x), passing, None).equal(vit(x))


def test_drop_path_scales_each_images_branches() -> None:
    vit = load_backbone(TOY_PAIR.student).vit
    x = torch.rand(2, 3, 16, 16, generator=generator(0, "test", "x"))
    kept = torch.ones(2, 2, 2)
    dropped = kept.clone()
    dropped[:, :, 1] = 0
    pooled = features(vit, embed(vit, x), passing, dropped)
    assert pooled[0].equal(features(vit, embed(vit, x), passing, kept)[0])
    embedded = vit.forward_head(vit.norm(vit._pos_embed(vit.patch_embed(x))), pre_logits=True)
    assert pooled[1].equal(embedded[1])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "resnet18"])
def test_a_backbone_that_is_no_plain_vit_is_refused(name: str) -> None:
    size = {"img_size": 224}
    with pytest.raises(UsageError, match=r"is not a plain ViT|cannot build"):
        load_backbone(Backbone(name="other", timm=name, weights="random", **size))


def test_random_weights_are_the_same_for_the_same_name_and_leave_the_global_generator() -> None:
    state = torch.random.get_rng_state()
    first = load_backbone(toy_backbone("a", embed_dim=24, num_heads=3))
    torch.manual_seed(1)
    again = load_backbone(toy_backbone("a", embed_dim=24, num_heads=3))
    other = load_backbone(toy_backbone("b", embed_dim=24, num_heads=3))
    assert first.sha256 == again.sha256 != other.sha256
    torch.random.set_rng_state(state)
    load_backbone(toy_backbone("a", embed_dim=24, num_heads=3))
    assert torch.random.get_rng_state().equal(state)


def test_no_tensor_of_a_backbone_can_learn() -> None:
    vit = load_backbone(TOY_PAIR.student).vit
    assert not any(parameter.requires_grad for parameter in vit.parameters())
