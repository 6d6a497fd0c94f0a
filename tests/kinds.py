"""Tiny forms of every kind of backbone, with weights on which nothing is trivial."""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch
from packaging.version import Version
from torch import nn

from idat_zoo.backbones.anatomy import measure
from idat_zoo.backbones.frozen import FrozenBackbone, hash_network
from idat_zoo.backbones.kinds import load_kind
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.network import Network
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone

WIDTHS = {"embed_dim": 32, "depth": 2, "num_heads": 2}
STAGES = {"depths": (2, 2), "embed_dim": 16, "num_heads": (1, 2)}
CONVOLUTIONS = {"depths": (1, 2, 1, 1), "dims": (8, 16, 16, 16)}


@dataclass(frozen=True)
class Form:
    """One of timm's networks, made small."""

    kind: str
    timm: str
    img_size: int
    args: dict[str, Any] = field(default_factory=dict)


def _vit(name: str, img_size: int = 32, **args: Any) -> Form:
    return Form("vit", name, img_size, WIDTHS | args)


def _eva(name: str, img_size: int = 32, **args: Any) -> Form:
    return Form("eva", name, img_size, WIDTHS | args)


def _beit(name: str, **args: Any) -> Form:
    return Form("beit", name, 32, WIDTHS | args)


FORMS = {
    "vit": _vit("vit_tiny_patch16_224"),
    "vit without class token": _vit("vit_base_patch16_siglip_gap_224"),
    "registers": _vit("vit_mediumd_patch16_reg4_gap_256"),
    "LayerScale": _vit("vit_tiny_patch16_224", init_values=0.3),
    "qk-norm": _vit("vit_tiny_patch16_224", qk_norm=True),
    "norm before": _vit("vit_tiny_patch16_224", pre_norm=True),
    "average pooling": _vit("vit_tiny_patch16_224", global_pool="avg"),
    "res-post-norm": _vit("vit_base_patch16_rpn_224"),
    "dynamic size": _vit("vit_tiny_patch16_224", dynamic_img_size=True),
    "dinov2": _vit("vit_small_patch14_dinov2", 28),
    "dinov2 registers": _vit("vit_small_patch14_reg4_dinov2", 28),
    "dinov2 SwiGLU": _vit("vit_giant_patch14_dinov2", 28),
    "distilled": _vit("deit_tiny_distilled_patch16_224"),
    "deit3": _vit("deit3_small_patch16_224"),
    "clip": _vit("vit_base_patch16_clip_224"),
    "clip quickgelu": _vit("vit_base_patch16_clip_quickgelu_224"),
    "siglip": _vit("vit_base_patch16_siglip_224"),
    "eva large": _vit("eva_large_patch14_196", 28),
    "eva02 tiny": _eva("eva02_tiny_patch14_224", 28),
    "eva02 small": _eva("eva02_small_patch14_224", 28),
    "eva02 base": _eva("eva02_base_patch14_224", 28),
    "eva02 clip": _eva("eva02_base_patch16_clip_224"),
    "eva giant": _eva("eva_giant_patch14_224", 28),
    "eva post-norm": _eva("eva_giant_patch14_224", 28, use_post_norm=True),
    "dinov3": _eva("vit_small_patch16_dinov3"),
    "dinov3 qkvb": _eva("vit_small_patch16_dinov3_qkvb"),
    "dinov3 plus": _eva("vit_small_plus_patch16_dinov3"),
    "dinov3 plus qkvb": _eva("vit_small_plus_patch16_dinov3_qkvb"),
    "rope axial": _eva("vit_small_patch16_rope_224"),
    "rope axial positions": _eva("vit_small_patch16_rope_ape_224"),
    "rope mixed": _eva("vit_small_patch16_rope_mixed_224"),
    "rope mixed positions": _eva("vit_small_patch16_rope_mixed_ape_224"),
    "rope registers": _eva("vit_medium_patch16_rope_reg1_gap_256"),
    "eva dynamic size": _eva("vit_small_patch16_dinov3", dynamic_img_size=True),
    "pe core": _eva("vit_pe_core_tiny_patch16_384"),
    "pe spatial": _eva("vit_pe_spatial_tiny_patch16_512"),
    "pe lang": _eva("vit_pe_lang_large_patch14_448", 28),
    "beit": _beit("beit_base_patch16_224"),
    "beit shared bias": _beit(
        "beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True
    ),
    "beit v2": _beit("beitv2_base_patch16_224"),
    "swin": Form("swin", "swin_tiny_patch4_window7_224", 64, STAGES | {"window_size": 4}),
    "swin padded": Form("swin", "swin_tiny_patch4_window7_224", 64, STAGES | {"window_size": 3}),
    "swinv2": Form("swinv2", "swinv2_tiny_window8_256", 64, STAGES),
    "swinv2 padded": Form("swinv2", "swinv2_tiny_window8_256", 64, STAGES | {"window_size": 3}),
    "convnext": Form("convnext", "convnext_tiny", 64, CONVOLUTIONS),
    "convnext 1x1": Form("convnext", "convnext_atto", 64, CONVOLUTIONS),
    "convnext v2": Form("convnext", "convnextv2_tiny", 64, CONVOLUTIONS),
}
"""What each is: the kind that walks it, timm's name, the size of its image, its arguments."""


SINCE = {"eva post-norm": "1.0.21", "swinv2 padded": "1.0.31"}
"""The first timm that can build and run a form, where an earlier one that we take cannot."""
LACKING = {
    form: version for form, version in SINCE.items() if Version(timm.__version__) < Version(version)
}
"""Those that the installed timm has not."""
for _form in LACKING:
    del FORMS[_form]


def tiny(form: str) -> Backbone:
    """A form as a backbone that can be loaded, with random weights."""
    own = FORMS[form]
    return Backbone(
        name=form.replace(" ", "_"),
        timm=own.timm,
        weights="random",
        img_size=own.img_size,
        args=own.args,
    )


def body_of(form: str) -> Any:
    """A form as timm builds it, in float64; every parameter, norms and scales too, is random."""
    own = FORMS[form]
    size = {} if own.kind == "convnext" else {"img_size": own.img_size}
    body = timm.create_model(own.timm, pretrained=False, num_classes=0, **size, **own.args)
    return randomise(body)


def randomise(body: nn.Module) -> nn.Module:
    """In float64, frozen, with every parameter drawn by its name."""
    body = body.double().eval().requires_grad_(False)
    for name, parameter in body.named_parameters():
        parameter.normal_(std=0.3, generator=generator(0, "test", name))
    module: Any
    for module in body.modules():
        if hasattr(module, "fused_attn"):  # as ours are built; by itself timm's Swin is not fused
            module.fused_attn = True
        if hasattr(module, "t_x"):  # timm before 1.0.31 has no rope_mixed in float64
            module.t_x, module.t_y = module.t_x.float(), module.t_y.float()
    return body


def kind_of_form(form: str) -> Kind:
    """The walk through `body_of(form)`."""
    return load_kind(FORMS[form].kind)(body_of(form))


def frozen_of(form: str) -> FrozenBackbone:
    """`body_of(form)` as a loaded backbone, to build networks on that are in float64."""
    own, kind = FORMS[form], kind_of_form(form)
    return FrozenBackbone(
        spec=tiny(form),
        body=kind.body,
        sha256=hash_network(kind.body),
        kind=kind,
        anatomy=measure(kind, own.kind, own.img_size),
    )


def images_of(form: str, count: int, *, seed: int = 0) -> torch.Tensor:
    """Normalised images for it, in float64."""
    size = FORMS[form].img_size
    source = generator(seed, "test", "images")
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=source)


def peft_logits(folder: Path, network: Network, images: torch.Tensor) -> torch.Tensor:
    """What the real PEFT makes of a folder, on timm's own network with the frozen weights."""
    spec = network.backbone.spec
    size = {"img_size": spec.img_size} if network.kind.takes_img_size else {}
    body = timm.create_model(spec.timm, num_classes=network.num_classes, **size, **spec.args)
    missing, unexpected = body.load_state_dict(network.body.state_dict(), strict=False)
    classifier = body.pretrained_cfg["classifier"]
    assert set(missing) == {f"{classifier}.weight", f"{classifier}.bias"}
    assert not unexpected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that PEFT imports
        from peft import PeftModel

        model = PeftModel.from_pretrained(body, str(folder)).eval()
    images = network.normalise(images)
    with torch.inference_mode():
        logits: torch.Tensor = model.to(images.dtype)(images)
    return logits


# Files of weights

CLASSES = 5
FILES = {
    "vit": 64,
    "dinov2 registers": 56,
    "dinov2 SwiGLU": 28,
    "deit3": 64,
    "clip": 64,
    "siglip": 64,
    "eva02 tiny": 56,
    "eva02 base": 56,
    "dinov3": 64,
    "dinov3 plus qkvb": 32,
    "rope mixed positions": 64,
    "pe core": 64,
    "beit": 64,
    "beit v2": 32,
    "swin": 224,
    "swin padded": 64,
    "swinv2": 128,
    "convnext": 32,
    "convnext 1x1": 64,
    "convnext v2": 64,
}
"""Forms, and the size of image that their files are of: for most, another than the network's."""
WINDOWS = {"swin padded": {"window_size": 4}}
"""How a file's network was built otherwise: its tables of relative positions have another size."""


def built(form: Form, **changes: Any) -> Any:
    """One of timm's networks as it is meant, with other arguments."""
    size = {} if form.kind == "convnext" else {"img_size": form.img_size}
    return timm.create_model(form.timm, **size, **form.args, **changes)


def file_of(form: str) -> dict[str, torch.Tensor]:
    """What timm saves of a network of 5 classes, of another size of image where it has one."""
    own = FORMS[form]
    args = own.args | WINDOWS.get(form, {})
    body = built(replace(own, img_size=FILES[form], args=args), num_classes=CLASSES)
    return {
        name: torch.randn(tensor.shape, generator=generator(0, "test", name))
        for name, tensor in body.state_dict().items()
    }


def pinned(form: str) -> Backbone:
    """The form with weights of a tag of timm's."""
    tag = timm.list_pretrained(f"{FORMS[form].timm}.*")[0].partition(".")[2]
    return tiny(form).model_copy(update={"weights": tag})
