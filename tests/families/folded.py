"""Families that are affine in what a layer reads, with biases: they fold into linear layers."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from families import WIDE, Case, Facts, Form, Names, Theirs, Uniform, renamed, through_blocks
from families.foldable import TIMMS, UNMERGED, as_pretrained

NORM_LAST = frozenset({"swinv2", "res-post-norm", "eva post-norm"})
PADDED = {"swin padded": "windows of block 0 are padded"}


def repadapter(theirs: Theirs) -> dict[str, Tensor]:
    """Theirs are convolutions; ours have the groups first."""
    ours = {}
    for i in range(2):
        for norm, own in (("norm1", "attn"), ("norm2", "mlp")):
            at, of = f"blocks.{i}.{norm}", f"blocks.{i}.adapter_{own}"
            ours[f"{at}.down.weight"] = theirs[f"{of}.conv_A.weight"].view(2, 2, 24)
            ours[f"{at}.down.bias"] = theirs[f"{of}.conv_A.bias"].view(2, 2)
            ours[f"{at}.up.weight"] = theirs[f"{of}.conv_B.weight"].view(2, 12, 2)
            ours[f"{at}.up.bias"] = theirs[f"{of}.conv_B.bias"]
    return ours


def in_one_group(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """RepAdapter without groups, of scale 0.5."""

    def adapted(u: Tensor, at: str) -> Tensor:
        down, up = tensors[f"{at}.down.weight"][0], tensors[f"{at}.up.weight"][0]
        hidden = u @ down.T + tensors[f"{at}.down.bias"][0]
        return u + 0.5 * (hidden @ up.T + tensors[f"{at}.up.bias"])

    def block(own: Any, i: int, x: Tensor) -> Tensor:
        x = x + own.attn(adapted(own.norm1(x), f"blocks.{i}.norm1"))
        return x + own.mlp(adapted(own.norm2(x), f"blocks.{i}.norm2"))

    return through_blocks(model, images, tensors, block)


def arc(theirs: Theirs) -> dict[str, Tensor]:
    """Theirs are named by what comes next."""
    ours = {}
    for norm, own in (("norm1", "att"), ("norm2", "mlp")):
        ours[f"shared.{norm}.basis"] = theirs[f"transformer.left_u_{own}"]
        for i in range(2):
            of = f"transformer.layer.{i}.{own}_scale"
            ours[f"blocks.{i}.{norm}.scale"] = theirs[of].flatten()
            ours[f"blocks.{i}.{norm}.shift"] = theirs[f"{of}_bias"]
    return ours


def consolidator(*, tuned: bool) -> Names:
    """Theirs are grouped convolutions, and the backbone's own tensors where they are tuned."""

    def names(theirs: Theirs) -> dict[str, Tensor]:
        ours = {}
        for timm, own in TIMMS.items():
            if own.endswith(("qkv", "proj", "fc1", "fc2")):
                of = f"{timm}.fc_rep_branches.0.group_fc"
                weight = theirs[f"{of}.weight"]
                ours[f"{own}.group.weight"] = weight.view(12, -1, weight.shape[1])
                ours[f"{own}.group.bias"] = theirs[f"{of}.bias"]
            if tuned and own != "embed.patch_embed":
                ours[f"{own}.bias"] = theirs[f"weight.{timm}.bias"]
            if tuned and "norm" in own:
                ours[f"{own}.weight"] = theirs[f"weight.{timm}.weight"]
        return ours

    return names


HYDRA = renamed(
    ("attn.hydra_proj_", "proj."),
    ("mlp.hydra_mlp_", "fc2."),
    ("down_proj", "down"),
    ("up_proj", "up"),
)


def xavier(inputs: int, outputs: int) -> Uniform:
    return Uniform(math.sqrt(6 / (inputs + outputs)))


FACTS = {
    "repadapter": Facts(
        golden=(Case(file="repadapter", names=repadapter, options={"rank": 4, "scale": 0.5}),),
        forms=(
            Form(
                reference=in_one_group,
                options={"rank": 3, "groups": 1, "scale": 0.5},
                why="the authors' file is of two groups",
            ),
        ),
        count=lambda s: 2 * s.L * (s.D * 8 + 8 + s.D * 4 + s.D),
        published={"B": 239_808, "S": 120_000},
        initial={
            "blocks.*.down.weight": xavier(WIDE.D, 8),
            "blocks.*.down.bias": 0.0,
            "blocks.*.up.*": 0.0,
        },
        identity=True,
        dropout={"dropout": 0.5},
        unlike=({"rank": 2, "scale": 0.3, "dropout": 0.1}, {"rank": 6, "scale": 1.7}),
        refused_by=NORM_LAST,
        unmerged=UNMERGED | PADDED,
    ),
    "arc": Facts(
        golden=(Case(file="arc", names=arc, options={"rank": 6}),),
        count=lambda s: 2 * s.D * 50 + 2 * s.L * (50 + s.D),
        published={"B": 96_432, "S": 48_816},
        initial={
            "shared.*.basis": xavier(WIDE.D, 50),
            "blocks.*.norm1.scale": 0.0,
            "blocks.*.norm2.scale": xavier(1, 50),
            "blocks.*.shift": 0.0,
        },
        identity=False,
        small={"rank": 6},
        dropout={"dropout": 0.5},
        unlike=({"rank": 3, "dropout": 0.1}, {"rank": 5, "dropout": 0.0}),
        refused_by=NORM_LAST | {"swin", "convnext"},
        unmerged=UNMERGED,
    ),
    "hydra": Facts(
        golden=(Case(file="hydra", names=HYDRA, options={"scale": 0.5}),),
        count=lambda s: s.L * (3 * (5 * s.D + 2) + 2 * (s.H + s.D) + 2 + s.D),
        published={"B": 239_712, "S": 119_904},
        initial={
            "blocks.*.proj.*.down.weight": xavier(WIDE.D, 2),
            "blocks.*.fc2.par.down.weight": xavier(WIDE.H, 2),
            "blocks.*.fc2.seq.down.weight": xavier(WIDE.D, 2),
            "blocks.*.down.bias": 0.0,
            "blocks.*.up.*": 0.0,
        },
        identity=True,
        dropout={"dropout": 0.3},
        unlike=({"rank": 3, "scale": 0.3, "dropout": 0.1}, {"rank": 5, "scale": 1.7}),
    ),
    "consolidator": Facts(
        golden=(
            Case(file="consolidator", names=consolidator(tuned=True), options={"groups": 12}),
            Case(
                file="consolidator_shuffle",
                names=consolidator(tuned=False),
                options={"groups": 12, "shuffle": True, "tune_frozen": False},
            ),
        ),
        count=lambda s: s.L * (12 * s.D**2 // 384 + 9 * s.D) + (13 * s.L + 2) * s.D,
        published={"B": 304_128, "S": 96_768},
        published_options={"tune_frozen": False},
        initial={
            "blocks.*.group.*": Uniform(1e-3),
            "*[!p].weight": as_pretrained,
            "*[!p].bias": as_pretrained,
        },
        identity=False,
        small={"groups": 1},
        dropout={"drop_path": 0.3},
        unlike=({"drop_path": 0.1}, {"drop_path": 0.0}),
        alike="it has groups, and no rank",
        unmerged=UNMERGED | dict.fromkeys(("swinv2", "swinv2 padded"), "qkv of block 0 needs"),
    ),
}
