"""Families that scale and shift what the network has, or train copies of it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from families import Case, Facts, Form, Normal, Theirs
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.sites import Site

SITES = {
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attn.proj": "proj",
    "norm2": "norm2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
"""timm's names of what a block of a plain ViT has, and ours of the places."""

TIMMS = {
    "patch_embed.proj": "embed.patch_embed",
    "norm": "pool.final_norm",
    **{f"blocks.{i}.{timm}": f"blocks.{i}.{own}" for i in range(2) for timm, own in SITES.items()},
}
"""All that the golden backbones have, by timm's names: ours."""


def with_copies(model: nn.Module, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """timm's network with parameters replaced."""
    named = {
        f"{timm}.{part}": tensors[f"{own}.{part}"]
        for timm, own in TIMMS.items()
        for part in ("weight", "bias")
        if f"{own}.{part}" in tensors
    }
    assert len(named) == len(tensors) - 2
    head = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    logits: Tensor = functional_call(model, named | head, (images,))
    return logits


def as_pretrained(name: str, tensor: Tensor, anatomy: Anatomy) -> bool:
    """A copy of what is frozen there."""
    where, _, part = name.rpartition(".")
    home, _, site = where.rpartition(".")
    block = {"embed": -1, "pool": anatomy.depth}.get(home)
    number = int(home.removeprefix("blocks.")) if block is None else block
    return tensor.equal(anatomy.frozen(Site(site), number)[part].float())


def ssf(theirs: Theirs) -> dict[str, Tensor]:
    """Their pairs are numbered within a block, its attention and its MLP."""
    theirs_of = {
        "patch_embed.proj": "patch_embed.ssf_{}_1",
        "norm": "ssf_{}_1",
        "norm1": "ssf_{}_1",
        "norm2": "ssf_{}_2",
        "attn.qkv": "attn.ssf_{}_1",
        "attn.proj": "attn.ssf_{}_2",
        "mlp.fc1": "mlp.ssf_{}_1",
        "mlp.fc2": "mlp.ssf_{}_2",
    }
    ours = {}
    for timm, own in TIMMS.items():
        block = ".".join(timm.split(".")[:2]) + "." if timm.startswith("blocks.") else ""
        name = theirs_of[timm.removeprefix(block)]
        for part in ("scale", "shift"):
            ours[f"{own}.{part}"] = theirs[block + name.format(part)]
    return ours


def ia3(theirs: Theirs) -> dict[str, Tensor]:
    """Theirs are columns and rows of the matrices that they scale."""
    ours = {}
    for i in range(2):
        ours[f"blocks.{i}.qkv.scale"] = theirs[f"blocks.{i}.attn.qkv.ia3_l"].flatten()
        ours[f"blocks.{i}.fc2.input_scale"] = theirs[f"blocks.{i}.mlp.fc2.ia3_l"].flatten()
    return ours


def copies(**more: Any) -> Facts:
    return Facts(
        forms=(Form(reference=with_copies, why="there is no authors' file for ViT"),),
        initial={"*": as_pretrained},
        identity=True,
        alike="copies are of one shape",
        **more,
    )


PATCHLESS = ("norm before", "clip", "clip quickgelu", "pe core", "pe spatial", "pe lang")
BIASLESS = ("res-post-norm", "dinov3", "dinov3 plus", "eva dynamic size")
KEYLESS = ("eva02 tiny", "eva02 small", "dinov3 qkvb", "dinov3 plus qkvb", "rope registers")
UNMERGED = {
    **dict.fromkeys(BIASLESS, "qkv of block 0 needs a bias,"),
    **dict.fromkeys(("eva02 base", "eva02 clip"), "k of block 0 needs a bias,"),
    **dict.fromkeys(KEYLESS, "qkv of block 0 needs a bias of k,"),
}
"""Forms whose layers lack the bias that a shift of q, k and v would need, and how that is told."""

FACTS = {
    "ssf": Facts(
        golden=(Case(file="ssf", names=ssf),),
        count=lambda s: (22 * s.L + 4) * s.D,
        published={"B": 205_824, "S": 102_912},
        initial={"*.scale": Normal(0.02, mean=1.0), "*.shift": Normal(0.02)},
        identity=False,
        alike="a scale has the width of what it scales",
        unmerged=UNMERGED
        | dict.fromkeys(PATCHLESS, "patch_embed needs a bias,")
        | dict.fromkeys(("swinv2", "swinv2 padded"), "qkv of block 0 needs a bias of k,"),
    ),
    "bitfit": copies(
        count=lambda s: (11 * s.L + 2) * s.D,
        published={"B": 102_912},
    ),
    "layernorm": copies(
        count=lambda s: (4 * s.L + 2) * s.D,
        published={"B": 38_400, "S": 19_200},
    ),
    "ia3": Facts(
        golden=(Case(file="peft_ia3", names=ia3, options={"parts": "qkv+fc2"}),),
        count=lambda s: s.L * (2 * s.D + s.H),
        published={"B": 64_512, "S": 32_256},
        published_options={"parts": "qkv+fc2"},
        initial={"blocks.*.scale": 1.0, "blocks.*.input_scale": 1.0},
        identity=True,
        alike="a scale has the width of what it scales",
    ),
}
