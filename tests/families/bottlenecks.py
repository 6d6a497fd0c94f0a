"""Bottlenecks beside or behind branches and blocks."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from families import WIDE, Case, Facts, Names, Normal, Theirs, Uniform, renamed
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.quantised import code_table
from idat_zoo.adapters.sites import Site

CUT_AT_TWO = 0.8796
"""The standard deviation of a standard normal distribution that is cut at 2."""
KAIMING = Uniform(1 / math.sqrt(WIDE.D))

ADAPTFORMER = renamed(
    ("adaptmlp.adapter_layer_norm_before", "norm"),
    ("adaptmlp.down_proj", "down"),
    ("adaptmlp.up_proj", "up"),
    ("adaptmlp.scale", "scale"),
)


def adaptformer(variant: str = "", **more: Any) -> Case:
    options = {"bottleneck": 4, "dropout": 0.0, **more}
    stochastic = {} if variant else {"dropout": 0.1}
    return Case(
        file="adaptformer",
        variant=variant,
        names=ADAPTFORMER,
        options=options,
        stochastic=stochastic,
    )


def bi_adaptformer(bits: int) -> Case:
    variant = f"bit{bits}" if bits > 1 else ""
    return Case(
        file="bi_adaptformer",
        variant=variant,
        names=of_bits(bits, renamed(("adapter_mlp.adapter_", ""))),
        options={"bottleneck": 4, "scale": 0.7, "dropout": 0.0, "bits": bits},
        stochastic={} if variant else {"dropout": 0.1},
    )


def of_bits(bits: int, weights: Names) -> Names:
    """The weights, and the table of their levels."""

    def names(theirs: Theirs) -> dict[str, Tensor]:
        table = {
            f"shared.{name}": theirs[f"codebook.bit{bits}.{name}_f32"]
            for name in ("thresholds", "half_steps")
            if bits < 32
        }
        return weights(theirs) | table

    return names


def as_the_table(name: str, tensor: Tensor, anatomy: Anatomy) -> bool:
    """`test_quantised.py` holds the tables to the authors'."""
    return tensor.equal(code_table(1)[name.removeprefix("shared.")])


ADAPTER_PLUS = renamed(
    ("adapter.norm_a", "norm"),
    ("adapter.bottleneck.1", "down"),
    ("adapter.bottleneck.4", "up"),
    ("adapter.scaling", "scale"),
)
POSITIONS = ("post", "pre", "parallel", "intermediate")


def adapter_plus(variant: str = "", **more: Any) -> Case:
    return Case(
        file="adapter_plus",
        variant=variant,
        names=ADAPTER_PLUS,
        options={"bottleneck": 4, **more},
    )


def at_position(variant: str, position: str, **more: Any) -> Case:
    return Case(
        file="adapter_plus_positions",
        variant=variant,
        names=ADAPTER_PLUS,
        options={"bottleneck": 4, "position": position, "scaling": "fixed", **more},
    )


CONVPASS = renamed(("adapter_attn.adapter_", "attn."), ("adapter_mlp.adapter_", "mlp."))


SMALL = {"bottleneck": 8}
UNLIKE = ({"bottleneck": 2, "dropout": 0.1}, {"bottleneck": 5, "dropout": 0.4})
DROPPED = ({**UNLIKE[0], "drop_path": 0.0}, {**UNLIKE[1], "drop_path": 0.3})
NEAR_ZERO = Normal(0.01 * CUT_AT_TWO, cut=0.02)


def is_the_identity(name: str, kernel: Tensor, anatomy: Anatomy) -> bool:
    images = torch.arange(8.0 * 9).view(1, 8, 3, 3)
    return F.conv2d(images, kernel, padding=1).equal(images)


NORM = ("weight", "bias")
HOULSBY = renamed(
    ("adapter_attn.bottleneck.1", "attn.down"),
    ("adapter_attn.bottleneck.4", "attn.up"),
    ("adapter.bottleneck.1", "mlp.down"),
    ("adapter.bottleneck.4", "mlp.up"),
)


def with_norms(own: Names) -> Names:
    """Trained copies of all layer norms beside them."""

    def names(theirs: Theirs) -> dict[str, Tensor]:
        norms = {
            f"blocks.{i}.{norm}.{part}": theirs[f"weight.blocks.{i}.{norm}.{part}"]
            for i in range(2)
            for norm in ("norm1", "norm2")
            for part in NORM
        }
        last = {f"pool.final_norm.{part}": theirs[f"weight.norm.{part}"] for part in NORM}
        return own(theirs) | norms | last

    return names


def as_the_frozen_norm(name: str, tensor: Tensor, anatomy: Anatomy) -> bool:
    where, site, part = name.rsplit(".", 2)
    block = anatomy.depth if where == "pool" else int(where.removeprefix("blocks."))
    return tensor.double().equal(anatomy.frozen(Site(site), block)[part].float().double())


COMPACTER = renamed(
    ("phm_rule", "rule"),
    (".adapter.", "."),
    ("_sampler.W_", "."),
    ("_sampler.W", ".weight"),
    ("_sampler.", "."),
)


def compacter(theirs: Theirs) -> dict[str, Tensor]:
    """Our biases have an axis for the n terms; the shared A is named so."""
    ours = {}
    for name, tensor in COMPACTER(theirs).items():
        if name.endswith(".b"):
            ours[f"{name}ias"] = tensor.unflatten(0, (4, -1))
        else:
            ours["shared.rule" if name == "rule" else name] = tensor
    return ours


FACTS = {
    "adaptformer": Facts(
        golden=(
            adaptformer(),
            adaptformer("sequential", position="sequential"),
            adaptformer("ln_in", norm="in"),
            adaptformer("ln_out", norm="out"),
            adaptformer("learnable_scalar", learned_scale=True),
        ),
        count=lambda s: s.L * (2 * s.D * 64 + 64 + s.D),
        published={"B": 1_189_632, "S": 595_200},
        initial={
            "blocks.*.down.weight": KAIMING,
            "blocks.*.down.bias": 0.0,
            "blocks.*.up.*": 0.0,
        },
        identity=True,
        small=SMALL,
        dropout={"dropout": 0.4},
        unlike=({"bottleneck": 2, "scale": 0.3, "dropout": 0.3}, {"bottleneck": 5, "scale": 1.7}),
    ),
    "houlsby": Facts(
        golden=(
            Case(
                file="houlsby",
                names=with_norms(HOULSBY),
                options={"bottleneck": 4},
            ),
        ),
        count=lambda s: 2 * s.L * (2 * s.D * 8 + 8 + s.D) + (4 * s.L + 2) * s.D,
        published={"B": 313_536, "S": 156_864},
        published_options={"train_norms": False},
        initial={
            "blocks.*.down.weight": NEAR_ZERO,
            "blocks.*.up.weight": NEAR_ZERO,
            "blocks.*.down.bias": 0.0,
            "blocks.*.up.bias": 0.0,
            "*norm*": as_the_frozen_norm,
        },
        identity=False,
        dropout={"dropout": 0.4, "drop_path": 0.4},
        unlike=DROPPED,
        refused_by=frozenset({"convnext"}),
    ),
    "pfeiffer": Facts(
        golden=(
            Case(file="pfeiffer", names=ADAPTER_PLUS, options={"bottleneck": 4, "drop_path": 0.1}),
        ),
        count=lambda s: s.L * (2 * s.D * 8 + 8 + 3 * s.D),
        published={"B": 175_200, "S": 87_648},
        initial={
            "blocks.*.down.weight": Normal(0.02),
            "blocks.*.up.weight": Normal(0.02),
            "blocks.*.bias": 0.0,
            "blocks.*.norm.weight": 1.0,
        },
        identity=False,
        dropout={"dropout": 0.4, "drop_path": 0.4},
        unlike=DROPPED,
    ),
    "adapter_plus": Facts(
        golden=(
            adapter_plus(),
            adapter_plus("scalar", scaling="scalar"),
            adapter_plus("fixed_scale", scaling="fixed", scale=0.7),
            adapter_plus("nobias", bias=False),
            adapter_plus("layernorm", norm=True),
            adapter_plus("linear", activation="none"),
            *(at_position(position, position) for position in POSITIONS),
            at_position("parallel_s0.1", "parallel", scale=0.1, start="lora"),
        ),
        count=lambda s: s.L * (2 * s.D * 8 + 8 + 2 * s.D),
        published={"B": 165_984, "S": 83_040},
        initial={
            "blocks.*.down.weight": NEAR_ZERO,
            "blocks.*.up.weight": NEAR_ZERO,
            "blocks.*.bias": 0.0,
            "blocks.*.scale": 1.0,
        },
        identity=False,
        dropout={"dropout": 0.4, "drop_path": 0.4},
        unlike=DROPPED,
    ),
    "convpass": Facts(
        golden=(
            Case(
                file="convpass",
                names=CONVPASS,
                options={"scale": 0.7, "dropout": 0.0},
                stochastic={"dropout": 0.1},
            ),
            Case(
                file="convpass",
                variant="attn_only",
                names=CONVPASS,
                options={"scale": 0.7, "branches": "attn"},
            ),
        ),
        count=lambda s: 2 * s.L * (2 * s.D * 8 + 9 * 8**2 + 2 * 8 + s.D),
        published={"B": 327_552, "S": 170_880},
        initial={
            "blocks.*.down.weight": Uniform(math.sqrt(6 / (WIDE.D + 8))),
            "blocks.*.conv.weight": is_the_identity,
            "blocks.*.up.weight": 0.0,
            "blocks.*.bias": 0.0,
        },
        identity=True,
        dropout={"dropout": 0.4},
        unlike=({"bottleneck": 2, "scale": 0.3, "dropout": 0.3}, {"bottleneck": 5, "scale": 1.7}),
        refused_by=frozenset({"convnext"}),
    ),
    "bi_adaptformer": Facts(
        golden=tuple(bi_adaptformer(bits) for bits in (1, 2, 4, 32)),
        count=lambda s: 2 * s.L * s.D * 32,
        published={"B": 589_824, "S": 294_912},
        initial={
            "blocks.*.down.weight": KAIMING,
            "blocks.*.up.weight": Normal(0.001 * CUT_AT_TWO, cut=0.002),
            "shared.*": as_the_table,
        },
        identity=False,
        small=SMALL,
        dropout={"dropout": 0.4},
        unlike=({"scale": 0.3, "dropout": 0.3}, {"scale": 1.7}),
        alike="mean and deviation are of the whole weight, padding among it",
    ),
    "compacter": Facts(
        golden=(
            Case(
                file="compacter",
                names=compacter,
                options={"reduction": 3, "train_norms": False},
            ),
            Case(
                file="compacter_phm",
                names=compacter,
                options={"reduction": 3, "train_norms": False, "form": "phm"},
            ),
        ),
        count=lambda s: (
            4**3 + 2 * s.L * (2 * (s.D + s.D // 32) + s.D // 32 + s.D) + (4 * s.L + 2) * s.D
        ),
        published={"B": 57_088, "S": 28_576},
        published_options={"train_norms": False},
        initial={
            "shared.rule": Normal(1e-4),
            "blocks.*.down.left": Uniform(math.sqrt(12 / (WIDE.D / 4 + 1))),
            "blocks.*.down.right": Uniform(math.sqrt(12 / (1 + WIDE.D / 32 / 4))),
            "blocks.*.up.left": Uniform(math.sqrt(12 / (WIDE.D / 32 / 4 + 1))),
            "blocks.*.up.right": Uniform(math.sqrt(12 / (1 + WIDE.D / 4))),
            "blocks.*.down.bias": 0.0,
            "blocks.*.up.bias": 0.0,
            "*norm*": as_the_frozen_norm,
        },
        identity=False,
        small={"terms": 2, "reduction": 2},
        unlike=({"rank": 1, "reduction": 4}, {"rank": 3, "reduction": 2}),
        refused_by=frozenset({"convnext"}),
    ),
}
