"""Our walk through a backbone is timm's own forward pass."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from jaxtyping import TypeCheckError

from conftest import TOY_PAIR, toy_backbone
from idat_zoo import files
from idat_zoo.backbones.anatomy import everywhere
from idat_zoo.backbones.frozen import faults_of, hash_network, hash_tensors, load_backbone
from idat_zoo.backbones.kinds.vit import ViT
from idat_zoo.backbones.pinned import weights_size
from idat_zoo.backbones.walk import begin, features
from idat_zoo.errors import UsageError, WeightsError
from idat_zoo.hub import weights as hub_weights
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
    "attention pooling": {"global_pool": "map", "class_token": False},
    "dynamic size": {"dynamic_img_size": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_walk_equals_timms_forward(form: str) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL, **FORMS[form])
    vit = vit.double().eval()
    for name, parameter in vit.named_parameters():
        with torch.no_grad():
            parameter.normal_(std=0.3, generator=generator(0, "test", name))
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=generator(0, "test", "x"))
    with torch.no_grad():
        expected = vit(x)
        assert features(ViT(vit), begin(x), everywhere(), None).equal(expected)
    with_gradients = features(ViT(vit), begin(x), everywhere(), None)  # few tokens: in parts
    assert (with_gradients - expected).abs().max() < 1e-12 * expected.abs().max()


def test_drop_path_scales_each_images_branches() -> None:
    backbone = load_backbone(TOY_PAIR.student)
    kind, vit = backbone.kind, backbone.body
    x = torch.rand(2, 3, 16, 16, generator=generator(0, "test", "x"))
    kept = torch.ones(2, 2, 2)
    dropped = kept.clone()
    dropped[:, :, 1] = 0
    pooled = features(kind, begin(x), everywhere(), dropped)
    assert pooled[0].equal(features(kind, begin(x), everywhere(), kept)[0])
    embedded = vit.forward_head(vit.norm(vit._pos_embed(vit.patch_embed(x))), pre_logits=True)
    assert pooled[1].equal(embedded[1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet18", "ResNet"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos"),
        ("naflexvit_base_patch16_gap", "NaFlexVit"),
    ],
)
def test_a_backbone_of_no_kind_is_refused_by_its_class(name: str, kind: str) -> None:
    with pytest.raises(
        UsageError, match=rf"no kind that adapters know: it is a {kind}\."
    ) as caught:
        load_backbone(Backbone(name="other", timm=name, weights="random"))
    assert "ViT, EVA, BEiT, Swin, SwinV2, ConvNeXt" in caught.value.hint


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"global_pool": ""}, "args: global_pool: without pooling there is no single feature"),
        ({"global_pool": "mean"}, "args: global_pool: must be '', 'avg'"),
        ({"class_token": "no"}, "args: class_token: must be true or false (got 'no')"),
        ({"depth": "two"}, "args: depth: must be a whole number (got 'two')"),
        ({"depht": 2}, "args: unknown argument of a ViT 'depht'. Did you mean 'depth'?"),
        ({"num_classes": 2}, "args: unknown argument of a ViT 'num_classes'."),
        ({"class_token": False}, "class_token = False"),
        ({"pos_embed": "x"}, "pos_embed = 'x'"),
        ({"norm_layer": "batchnorm2d"}, "cannot take an image of 16 x 16"),
        ({"patch_size": 32}, "cannot take an image of 16 x 16"),
    ],
)
def test_args_that_do_not_make_a_vit_are_named(args: dict[str, Any], told: str) -> None:
    fields = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3} | args
    spec = toy_backbone("mine", embed_dim=24, num_heads=3).model_copy(update={"args": fields})
    with pytest.raises(UsageError) as caught:
        load_backbone(spec)
    assert "backbone 'mine'" in caught.value.message
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("timm_name", "weights", "told"),
    [
        ("vit_small_patch14_dinov2", "lvd142", "'lvd142'. Did you mean 'lvd142m'?"),
        ("vit_smal_patch16_224", "augreg_in21k", "unknown network 'vit_smal_patch16_224'. Did you"),
        ("resnet18", "a1_in1k", "it is a ResNet"),
        ("vit_base_patch32_clip_quickgelu_224", "openai", "has them at 'timm/vit_base_patch32_c"),
        ("vit_tiny_patch16_224", "builtin:micro", "no weights named 'micro' ship"),
    ],
)
def test_what_keeps_a_backbone_from_being_had_is_told_without_a_fetch(
    timm_name: str, weights: str, told: str
) -> None:
    (fault,) = faults_of(Backbone(name="mine", timm=timm_name, weights=weights))
    assert told in fault


def test_nothing_keeps_these_from_being_had() -> None:
    for weights in ("augreg_in21k", "random"):
        assert not faults_of(Backbone(name="a", timm="vit_tiny_patch16_224", weights=weights))


# Weights


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the file of any tag."""
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(hub_weights, "fetch_weights", lambda name, tag: file)
    return file


def tagged(args: dict[str, Any], *, img_size: int = 16, name: str = "vit_tiny_patch16_224") -> Any:
    small = {key: value for key, value in SMALL.items() if key != "img_size"}
    return Backbone(
        name="mine", timm=name, weights="augreg_in21k", img_size=img_size, args=small | args
    )


def write_weights(file: Path, args: dict[str, Any], **changes: Any) -> dict[str, torch.Tensor]:
    """What timm saves of a network of 5 classes at 16 x 16."""
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=5, **{**SMALL, **args})
    tensors = {
        name: torch.randn(tensor.shape, generator=generator(0, "test", name))
        for name, tensor in vit.state_dict().items()
    }
    kept = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    file.write_bytes(files.dump_tensors(kept))
    return tensors


@pytest.mark.parametrize("form", ["class token", "registers", "norm before", "attention pooling"])
@pytest.mark.parametrize(("img_size", "patch_size"), [(16, 8), (40, 8), (32, 16)])
def test_weights_of_another_size_are_resampled_just_as_timm_does(
    form: str, img_size: int, patch_size: int, weights_file: Path
) -> None:
    args = FORMS[form] | ({"no_embed_class": True} if form == "registers" else {})
    write_weights(weights_file, args)
    args = args | {"patch_size": patch_size}
    spec = tagged(args, img_size=img_size)
    ours = load_backbone(spec).body.state_dict()
    theirs = timm.create_model(
        spec.timm,
        pretrained=True,
        num_classes=0,
        img_size=img_size,
        pretrained_cfg_overlay={"file": str(weights_file), "num_classes": 5},
        **spec.args,
    ).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("written", "built", "told"),
    [
        ({"depth": 1}, {}, "they lack blocks.1.attn.proj.bias"),
        ({"depth": 3}, {}, "there is no place for blocks.2.attn.proj.bias"),
        ({"embed_dim": 12}, {}, "blocks.0.attn.proj.bias is [12], expected [24]"),
        ({}, {"reg_tokens": 2}, "they lack reg_token"),
        ({}, {"global_pool": "avg"}, "they lack fc_norm.bias, fc_norm.weight; there is no place"),
    ],
)
def test_weights_that_do_not_fit_are_told_in_our_words(
    written: dict[str, Any], built: dict[str, Any], told: str, weights_file: Path
) -> None:
    write_weights(weights_file, written)
    with pytest.raises(WeightsError) as caught:
        load_backbone(tagged(built))
    assert "the weights of backbone 'mine' do not fit vit_tiny_patch16_224" in caught.value.message
    assert told in caught.value.message
    assert "size mismatch" not in caught.value.message
    assert "\n" not in caught.value.message


def test_weights_that_timm_resamples_in_a_way_of_its_own_are_taken_at_their_size_alone(
    weights_file: Path,
) -> None:
    write_weights(weights_file, {"no_embed_class": True})  # as flexivit_small is built
    load_backbone(tagged({}, name="flexivit_small"))
    with pytest.raises(WeightsError, match="flexivit_small is taken at its own size alone"):
        load_backbone(tagged({}, name="flexivit_small", img_size=32))


def test_buffers_that_are_not_saved_count_and_a_backbone_without_any_keeps_its_hash() -> None:
    vit = load_backbone(TOY_PAIR.student).body
    plain = hash_network(vit)
    assert plain == hash_tensors(vit.state_dict())
    vit.register_buffer("periods", torch.ones(3), persistent=False)
    assert "periods" not in vit.state_dict()
    first = hash_network(vit)
    vit.periods[0] = 2
    assert len({plain, first, hash_network(vit)}) == 3


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
    vit = load_backbone(TOY_PAIR.student).body
    assert not any(parameter.requires_grad for parameter in vit.parameters())


@pytest.mark.parametrize(
    ("timm_name", "tag", "numbers"),
    [
        ("vit_small_patch16_224", "augreg_in21k", 21_665_664 + 385 * 21_843),
        ("vit_base_patch16_224", "orig_in21k", 85_798_656),
        ("vit_tiny_patch16_224", "none_such", 0),
    ],
)
def test_the_size_of_weights_is_told_before_they_are_fetched(
    timm_name: str, tag: str, numbers: int
) -> None:
    spec = Backbone(name="mine", timm=timm_name, weights=tag, img_size=48)
    assert weights_size(spec) == 4 * numbers


def test_annotated_shapes_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError, match="images"):
        begin(torch.zeros(3, 8, 8))
