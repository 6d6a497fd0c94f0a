"""Families on linear layers, but LoRA."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from families import (
    WIDE,
    Case,
    Facts,
    Form,
    Names,
    Normal,
    Size,
    Theirs,
    Uniform,
    renamed,
    through_blocks,
)
from families.bottlenecks import as_the_table, of_bits
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.sites import Site

ALL = "qkv+proj+fc1+fc2"
LAYERS = {"attn.qkv": "qkv", "attn.proj": "proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
"""All layers of a block, as PEFT's files adapt them, to our parts."""


def of_peft(**names: str) -> Names:
    """Tensors of every layer: ours, with __ for a dot, by the ends of theirs."""

    def ours(theirs: Theirs) -> dict[str, Tensor]:
        return {
            f"blocks.{i}.{part}.{own.replace('__', '.')}": theirs[name]
            for i in range(2)
            for layer, part in LAYERS.items()
            for own, end in names.items()
            if (name := f"blocks.{i}.{layer}.{end}") in theirs
        }

    return ours


def lone_terms(theirs: Theirs) -> dict[str, Tensor]:
    """KronA's factors are those of one product of several."""
    ours = of_peft(left="lokr_w1", right="lokr_w2")(theirs)
    return {name: tensor[None] for name, tensor in ours.items()}


def updates_of(
    delta: Callable[[Mapping[str, Tensor], str], Tensor],
) -> Callable[[Any, Mapping[str, Tensor], Tensor], Tensor]:
    """timm's network with matrices added to the rows of q and v, as a closed form."""

    def reference(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        def block(own: Any, i: int, x: Tensor) -> Tensor:
            weight = own.attn.qkv.weight
            query, value = (delta(tensors, f"blocks.{i}.{part}") for part in ("query", "value"))
            rows = torch.cat([query, torch.zeros_like(query), value])
            names = {"attn.qkv.weight": weight + rows}
            y: Tensor = torch.func.functional_call(own, names, (x,))
            return y

        return through_blocks(model, images, tensors, block)

    return reference


def three_products(tensors: Mapping[str, Tensor], layer: str) -> Tensor:
    left, right = tensors[f"{layer}.left"], tensors[f"{layer}.right"]
    products = [torch.kron(a, b) for a, b in zip(left, right, strict=True)]
    return 0.7 * torch.stack(products).sum(0)


def rows_lengths(name: str, tensor: Tensor, anatomy: Anatomy) -> bool:
    block, part = name.split(".")[1:3]
    rows = anatomy.frozen(Site.QKV, int(block))["weight"].chunk(3)[part == "value" and 2]
    return tensor.equal(rows.square().sum(1).sqrt().float())


def of_vera(theirs: Theirs) -> dict[str, Tensor]:
    ours = of_peft(inner_down="vera_lambda_d", outer="vera_lambda_b")(theirs)
    shared = {"down": "A", "up": "B"}
    return ours | {
        f"shared.{own}": theirs[f"frozen.blocks.0.attn.qkv.vera_{name}"]
        for own, name in shared.items()
    }


def of_pvera(theirs: Theirs) -> dict[str, Tensor]:
    """Means and variances are halves of theirs."""
    ours = of_peft(inner="pvera_lambda_d", outer="pvera_lambda_b")(theirs)
    ours["shared"] = theirs["frozen.blocks.0.attn.qkv.pvera_A"]
    for name in [name for name in ours if name.endswith(("inner", "shared"))]:
        joint = "." if name == "shared" else "_"
        down, variance = ours.pop(name).chunk(2)
        ours |= {f"{name}{joint}down": down, f"{name}{joint}variance": variance}
    return ours | {"shared.up": theirs["frozen.blocks.0.attn.qkv.pvera_B"]}


def of_mlae(theirs: Theirs) -> dict[str, Tensor]:
    """Theirs has B the other way round."""
    ours = of_peft(down__weight="lora_A", up__weight="lora_B", factor="lora_lamda")(theirs)
    return {n: t.mT if n.endswith("up.weight") else t for n, t in ours.items()}


def oft(file: str, **options: Any) -> Case:
    names = of_peft(skew="oft_R.weight")
    return Case(file=file, names=names, options={"block_size": 4, "parts": ALL, **options})


def of_bi_lora(theirs: Theirs) -> dict[str, Tensor]:
    ours = renamed(("attn.lora_q.adapter", "query"), ("attn.lora_v.adapter", "value"))(theirs)
    return {n.replace("_down", ".down").replace("_up", ".up"): t for n, t in ours.items()}


def bi_lora(bits: int) -> Case:
    variant = f"bit{bits}" if bits > 1 else ""
    return Case(
        file="bi_lora",
        variant=variant,
        names=of_bits(bits, of_bi_lora),
        options={"rank": 4, "scale": 0.7, "dropout": 0.0, "bits": bits},
        stochastic={} if variant else {"dropout": 0.1},
    )


def low_rank(s: Size) -> int:
    return 4 * s.L * s.D * 8


DIVISORS = {768: (24, 32), 384: (16, 24)}
"""Those nearest to the square root."""
A = Uniform(1 / math.sqrt(WIDE.D))

FACTS = {
    "dora": Facts(
        golden=(
            Case(
                file="peft_dora",
                names=of_peft(
                    down__weight="lora_A.weight",
                    up__weight="lora_B.weight",
                    magnitude="lora_magnitude_vector.weight",
                ),
                options={"rank": 4, "scale": 2.0, "parts": ALL},
            ),
        ),
        count=lambda s: low_rank(s) + 2 * s.L * s.D,
        published={"B": 322_560, "S": 161_280},
        published_options={"parts": "qkv"},
        initial={
            "blocks.*.down.weight": A,
            "blocks.*.up.weight": 0.0,
            "blocks.*.magnitude": rows_lengths,
        },
        identity=True,
        dropout={"dropout": 0.4},
        unlike=({"rank": 2, "scale": 0.3, "dropout": 0.1}, {"rank": 5, "scale": 1.7}),
    ),
    "krona": Facts(
        golden=(
            Case(
                file="peft_lokr_full", names=lone_terms, options={"factors": "small", "parts": ALL}
            ),
        ),
        forms=(
            Form(
                reference=updates_of(three_products),
                options={"scale": 0.7, "terms": 3},
                why="the authors released no code; this is torch.kron's product",
            ),
            Form(
                reference=updates_of(three_products),
                options={"scale": 0.7, "rows": 2, "columns": 12},
                why="the same, of other factors",
            ),
        ),
        count=lambda s: 4 * s.L * s.D,
        published={"B": 32_256, "S": 16_512},
        published_options={"factors": "small", "parts": "qkv"},
        initial={"blocks.*.left": Normal(1 / 24), "blocks.*.right": 0.0},
        identity=True,
        unlike=({"terms": 1, "scale": 0.3}, {"terms": 3, "scale": 1.7}),
    ),
    "lokr": Facts(
        golden=(
            Case(
                file="peft_lokr",
                names=of_peft(w1="lokr_w1", w2__up="lokr_w2_a", w2__down="lokr_w2_b"),
                options={"rank": 2, "scale": 2.0, "parts": ALL},
            ),
            Case(
                file="peft_lokr_full",
                names=of_peft(w1="lokr_w1", w2="lokr_w2"),
                options={"rank": 64, "parts": ALL},
            ),
        ),
        count=lambda s: 2 * s.L * (DIVISORS[s.D][0] ** 2 + 2 * 8 * DIVISORS[s.D][1]),
        published={"B": 21_504, "S": 11_904},
        published_options={"parts": "qkv"},
        initial={
            "blocks.*.w1": 0.0,
            "blocks.*.w2.up": Uniform(1 / math.sqrt(8)),
            "blocks.*.w2.down": Uniform(1 / math.sqrt(24)),
        },
        identity=True,
        unlike=({"rank": 1, "scale": 0.3}, {"rank": 2, "scale": 1.7}),
    ),
    "loha": Facts(
        golden=(
            Case(
                file="peft_loha",
                names=of_peft(
                    up1="hada_w1_a", down1="hada_w1_b", up2="hada_w2_a", down2="hada_w2_b"
                ),
                options={"rank": 2, "scale": 2.0, "parts": ALL},
            ),
        ),
        count=lambda s: 2 * low_rank(s),
        published={"B": 589_824, "S": 294_912},
        published_options={"parts": "qkv"},
        initial={
            "blocks.*.down1": A,
            "blocks.*.up?": Uniform(1 / math.sqrt(8)),
            "blocks.*.down2": 0.0,
        },
        identity=True,
        unlike=({"rank": 2, "scale": 0.3}, {"rank": 5, "scale": 1.7}),
    ),
    "vera": Facts(
        golden=(Case(file="peft_vera", names=of_vera, options={"rank": 8, "parts": ALL}),),
        count=lambda s: 2 * s.L * (256 + s.D),
        published={"B": 30_720, "S": 16_896},
        published_options={"parts": "qkv"},
        initial={
            "blocks.*.inner_down": 0.1,
            "blocks.*.outer": 0.0,
            "shared.down": Uniform(math.sqrt(6 / WIDE.D)),
            "shared.up": Uniform(math.sqrt(6 / 256)),
        },
        identity=True,
        small={"rank": 8},
        dropout={"dropout": 0.4},
        unlike=({"rank": 3, "dropout": 0.1}, {"rank": 7, "inner": 0.3}),
    ),
    "pvera": Facts(
        golden=(Case(file="peft_pvera", names=of_pvera, options={"rank": 8, "parts": ALL}),),
        count=lambda s: 2 * s.L * (2 * 256 + s.D),
        published={"B": 33_792},
        published_options={"parts": "qkv"},
        initial={
            "blocks.*.inner_*": 0.1,
            "blocks.*.outer": 0.0,
            "shared.down": Uniform(math.sqrt(6 / WIDE.D)),
            "shared.variance": Uniform(math.sqrt(6 / WIDE.D)),
            "shared.up": Uniform(math.sqrt(6 / 256)),
        },
        identity=True,
        small={"rank": 8},
        dropout={"dropout": 0.4},
        noise=True,
        unlike=({"rank": 3, "dropout": 0.1}, {"rank": 7, "inner": 0.3}),
    ),
    "mlae": Facts(
        golden=(
            Case(file="mlae", names=of_mlae, options={"rank": 4, "dropout": 0.0, "parts": ALL}),
        ),
        count=lambda s: low_rank(s) + 2 * s.L * 8,
        published={"B": 295_008},
        published_options={"parts": "qkv"},
        initial={
            "blocks.*.down.weight": A,
            "blocks.*.up.weight": 0.0,
            "blocks.*.factor": 1.0,
        },
        identity=True,
        dropout={"dropout": 0.5},
        unlike=({"rank": 2, "dropout": 0.3}, {"rank": 5, "factor": 1.7, "dropout": 0.0}),
    ),
    "oft": Facts(
        golden=(
            oft("peft_oft"),
            oft("peft_oft_exact", exact=True),
            # COFT's tensors have been shortened already: from there on it is this
            oft("peft_oft_coft", exact=True, share=True),
        ),
        count=lambda s: s.L * s.D * 31,
        published={"B": 142_848, "S": 71_424},
        published_options={"parts": "qkv"},
        initial={"blocks.*.skew": 0.0},
        identity=True,
        small={"block_size": 4},
        alike="a block of another size turns other channels",
    ),
    "bi_lora": Facts(
        golden=tuple(bi_lora(bits) for bits in (1, 2, 4, 32)),
        count=lambda s: 4 * s.L * s.D * 32,
        published={"B": 1_179_648, "S": 589_824},
        initial={
            "blocks.*.down.weight": A,
            "blocks.*.up.weight": Normal(0.00088, cut=0.002),
            "shared.*": as_the_table,
        },
        identity=False,
        small={"rank": 4},
        dropout={"dropout": 0.4},
        unlike=({"scale": 0.3, "dropout": 0.3}, {"scale": 1.7}),
        alike="mean and deviation are of the whole weight, padding among it",
    ),
}
