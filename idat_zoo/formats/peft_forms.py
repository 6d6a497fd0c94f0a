"""Families that PEFT has as tuners of the same function: their tensors there, and its formulas.

PEFT adapts timm's fused qkv as one layer. Where q and v have factors of their own, most tuners
still have that function, with nothing approximated:

    A' = [A_q; A_v]  [2R, D]      B' = [[B_q, 0], [0, 0], [0, B_v]]  [3D, 2R]

is LoRA's (the scale goes with it, and with the key there are 3R), and that of both products of
LoHa; DoRA has the frozen rows' lengths for the key; (IA)3 has ones; VeRA's projections stand once
for q and once for v. LoKr and OFT have no such form: there `qkv` must be adapted as one.

The formulas of `Form.weights` are PEFT's own (0.21.2), from the names in its files: what is written
is proven by them before it is.

Shape letters: D width, R rank.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.kronecker import nearest_factors
from idat_zoo.adapters.tensors import Tensors

Weights = tuple[Tensor, Tensor | None]
"""A linear layer's weight and its bias."""
How = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One of timm's linear layers that is adapted: our tensors of its parts.

    `rows` are the parts that its outputs belong to, q, k and v or itself alone.
    """

    name: str
    module: Any  # a linear layer, or a convolution of 1 by 1
    rows: tuple[str, ...]
    parts: dict[str, dict[str, Tensor]]

    @property
    def weight(self) -> Tensor:
        """`[outputs, inputs]`."""
        weight: Tensor = self.module.weight.flatten(1)
        return weight

    @property
    def only(self) -> dict[str, Tensor]:
        """The tensors where there is one part."""
        (own,) = self.parts.values()
        return own

    def joined(self, name: str) -> Tensor:
        """A tensor of all parts, one above the other."""
        return torch.cat([own[name] for own in self.parts.values()])

    def in_rows(self, tensors: Mapping[str, Tensor], missing: Tensor | None = None) -> Tensor:
        """Tensors of parts in the rows that they belong to; others from `missing`, or zeros."""
        size = len(self.weight) // len(self.rows)
        if missing is None:
            missing = torch.zeros(len(self.weight), *next(iter(tensors.values())).shape[1:])
        rows = [
            tensors.get(row, own) for row, own in zip(self.rows, missing.split(size), strict=True)
        ]
        return torch.cat(rows)

    def blocks(self, name: str) -> Tensor:
        """B' of the tensors of a name."""
        found = torch.block_diag(*(own[name] for own in self.parts.values()))
        sizes = [len(own[name]) for own in self.parts.values()]
        return self.in_rows(dict(zip(self.parts, found.split(sizes), strict=True)))


class Update(NamedTuple):
    """A layer's tensors by PEFT's names, its rank, and its alpha."""

    tensors: dict[str, Tensor]
    rank: int = 0
    alpha: float = 0


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a form makes of all layers. `shared` are the tensors that belong to none."""

    layers: dict[str, Update]
    shared: dict[str, Tensor] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A tuner of PEFT: how its tensors are written, and its formula.

    `weights(tensors, W, b, how)`: W and b with the update; `how` has the configuration and `scale`,
    which is alpha / R. `alpha`: what the field of it is called, for those that have ranks.
    `why_not(layers, adapter)`: why layers have no such form, or ''.
    """

    tuner: str
    write: Callable[[list[Layer], Any], Written]
    weights: Callable[[Tensors, Tensor, Tensor | None, How], Weights]
    alpha: str = ""
    why_not: Callable[[list[Layer], Any], str] = lambda layers, adapter: ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def each(write: Callable[[Layer, Any], Update]) -> Callable[[list[Layer], Any], Written]:
    """A form's `write` from that of one layer."""
    return lambda layers, adapter: Written(layers={own.name: write(own, adapter) for own in layers})


def one_part(layers: list[Layer], adapter: Adapter) -> str:
    """Where rows of a layer are adapted apart."""
    apart = [own.name for own in layers if len(own.rows) > 1]
    if not apart:
        return ""
    return f"PEFT's has one update for {apart[0]}, of which q and v have their own (parts=qkv: one)"


# LoRA and DoRA


def _lora(layer: Layer, adapter: Any) -> Update:
    down, rank = layer.joined("down.weight"), len(layer.joined("down.weight"))
    tensors = {"lora_A.weight": down, "lora_B.weight": layer.blocks("up.weight")}
    return Update(tensors, rank, rank * adapter.constants["scale"])


def _dora(layer: Layer, adapter: Any) -> Update:
    lengths = {part: own["magnitude"] for part, own in layer.parts.items()}
    magnitude = layer.in_rows(lengths, layer.weight.norm(dim=1))
    own = _lora(layer, adapter)
    return own._replace(tensors={**own.tensors, "lora_magnitude_vector": magnitude})


def lora_weights(t: Tensors, weight: Tensor, bias: Tensor | None, how: How) -> Weights:
    """W + s B A, b + s b_B; DoRA's rows have lengths of their own."""
    weight = weight + how["scale"] * (t["lora_B.weight"].flatten(1) @ t["lora_A.weight"].flatten(1))
    if "lora_magnitude_vector" in t:
        weight = weight * (t["lora_magnitude_vector"] / weight.norm(dim=1))[:, None]
    if "lora_B.bias" in t:
        bias = how["scale"] * t["lora_B.bias"] + (0 if bias is None else bias)
    return weight, bias


# LoHa, LoKr and KronA


def _loha(layer: Layer, adapter: Any) -> Update:
    tensors = {}
    for i in (1, 2):
        tensors[f"hada_w{i}_a"] = layer.blocks(f"up{i}")
        tensors[f"hada_w{i}_b"] = layer.joined(f"down{i}")
    rank = len(tensors["hada_w1_b"])
    return Update(tensors, rank, rank * adapter.constants["scale"])


def _loha_weights(t: Tensors, weight: Tensor, bias: Tensor | None, how: How) -> Weights:
    first, second = (t[f"hada_w{i}_a"] @ t[f"hada_w{i}_b"] for i in (1, 2))
    return weight + how["scale"] * first * second, bias


def _lokr(layer: Layer, adapter: Any) -> Update:
    names = {"w1": "lokr_w1", "w2": "lokr_w2", "w2.up": "lokr_w2_a", "w2.down": "lokr_w2_b"}
    tensors = {names[name]: own for name, own in layer.only.items() if name in names}
    rank = adapter.options.rank
    return Update(tensors, rank, rank * adapter.constants["scale"])


def _krona(layer: Layer, adapter: Any) -> Update:
    (left,), (right,) = layer.only["left"], layer.only["right"]
    rank = max(right.shape)  # PEFT has w2 in full from half of that on
    scale = adapter.constants["scale"]
    return Update({"lokr_w1": left, "lokr_w2": right}, rank, rank * scale)


def _why_no_krona(layers: list[Layer], adapter: Any) -> str:
    apart = one_part(layers, adapter)
    if apart:
        return apart
    for layer in layers:
        terms, *shape = layer.only["left"].shape
        size = [nearest_factors(side)[0] for side in layer.weight.shape]
        if terms > 1:
            return f"PEFT's LoKr has one product, not {terms}"
        if shape != size:
            return (
                f"PEFT's LoKr has a first factor of {size[0]} by {size[1]} on {layer.name}, not of "
                f"{shape[0]} by {shape[1]} (factors=small is that)"
            )
    return ""


def _lokr_weights(t: Tensors, weight: Tensor, bias: Tensor | None, how: How) -> Weights:
    large = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
    return weight + how["scale"] * torch.kron(t["lokr_w1"], large), bias


# VeRA and PVeRA


def _vera(name: str, *downs: str) -> Callable[[list[Layer], Any], Written]:
    """Their `write`. The projections stand once for each of `slots`, rows that layers begin at."""

    def write(layers: list[Layer], adapter: Any) -> Written:
        slots: dict[tuple[int, int], int] = {}
        for layer in layers:
            for part in layer.parts:
                slots.setdefault(_slot(layer, part), len(slots))
        shared = next(iter(layers[0].parts.values()))
        up, height = shared["up"], max(len(layer.weight) for layer in layers)
        blocks = []
        for start, size in slots:
            block = torch.zeros(height, up.shape[1])
            rows = up[: size or height]
            block[start : start + len(rows)] = rows
            blocks.append(block)
        updates = {}
        for layer in layers:
            own = {_slot(layer, part): tensors for part, tensors in layer.parts.items()}
            inner = [
                own[slot][f"inner_{down}"] if slot in own else torch.zeros(up.shape[1])
                for down in downs
                for slot in slots
            ]
            outer = layer.in_rows({part: own["outer"] for part, own in layer.parts.items()})
            updates[layer.name] = Update(
                {f"{name}_lambda_d": torch.cat(inner), f"{name}_lambda_b": outer},
                rank=len(slots) * up.shape[1],
            )
        down = torch.cat([shared[down] for down in downs for _ in slots])
        return Written(
            layers=updates, shared={f"{name}_A": down, f"{name}_B": torch.cat(blocks, dim=1)}
        )

    return write


def _slot(layer: Layer, part: str) -> tuple[int, int]:
    """The first of a part's rows in its layer, and how many they are; 0: it has all."""
    size = len(layer.weight) // len(layer.rows) if len(layer.rows) > 1 else 0
    return layer.rows.index(part) * size, size


def _vera_weights(t: Tensors, weight: Tensor, bias: Tensor | None, how: How) -> Weights:
    """Of PVeRA, the first half of A and d: the means."""
    named = {name.removeprefix("p"): tensor for name, tensor in t.items()}
    up, rank = named["vera_B"][: len(weight)], named["vera_B"].shape[1]
    down = named["vera_A"][:rank, : weight.shape[1]]
    hidden = named["vera_lambda_d"][:rank, None] * down
    return weight + named["vera_lambda_b"][:, None] * (up @ hidden), bias


# (IA)3 and OFT


def _ia3(layers: list[Layer], adapter: Any) -> Written:
    updates, reading = {}, []
    for layer in layers:
        own = {
            part: tensors["scale"] for part, tensors in layer.parts.items() if "scale" in tensors
        }
        if own:
            scale = layer.in_rows(own, torch.ones(len(layer.weight)))[:, None]
        else:
            scale = layer.only["input_scale"][None]
            reading.append(layer.name)
        updates[layer.name] = Update({"ia3_l": scale})
    return Written(layers=updates, fields={"feedforward_modules": reading})


def _ia3_weights(t: Tensors, weight: Tensor, bias: Tensor | None, how: How) -> Weights:
    behind = t["ia3_l"].shape[0] == len(weight) and t["ia3_l"].shape[1] == 1
    return t["ia3_l"] * weight, t["ia3_l"][:, 0] * bias if behind and bias is not None else bias


def _oft(layers: list[Layer], adapter: Any) -> Written:
    options = adapter.options
    fields = {
        "oft_block_size": options.block_size,
        "block_share": options.share,
        "use_cayley_neumann": not options.exact,
    }
    updates = {own.name: Update({"oft_R.weight": own.only["skew"]}) for own in layers}
    return Written(layers=updates, fields={"r": 0, **fields})


def _oft_weights(t: Tensors, weight: Tensor, bias: Tensor | None, how: How) -> Weights:
    above = t["oft_R.weight"]
    size = round((1 + (1 + 8 * above.shape[1]) ** 0.5) / 2)
    skew = above.new_zeros(len(above), size, size)
    row, column = torch.triu_indices(size, size, 1)
    skew[:, row, column] = above
    skew = skew - skew.mT
    eye = torch.eye(size, dtype=above.dtype)
    if not how["use_cayley_neumann"]:
        turn = (eye - skew) @ torch.linalg.inv(eye + skew)
    else:
        square = skew @ skew
        turn = eye + 2 * (skew + square + square @ skew) + square @ square
    count = weight.shape[1] // size
    return weight @ torch.block_diag(*turn.expand(count, -1, -1)).mT, bias


LORA = Form(tuner="lora", write=each(_lora), weights=lora_weights, alpha="lora_alpha")
FORMS = {
    "lora": LORA,
    "dora": Form(
        tuner="lora",
        write=each(_dora),
        weights=lora_weights,
        alpha="lora_alpha",
        fields={"use_dora": True},
    ),
    "loha": Form(tuner="loha", write=each(_loha), weights=_loha_weights, alpha="alpha"),
    "lokr": Form(
        tuner="lokr", write=each(_lokr), weights=_lokr_weights, alpha="alpha", why_not=one_part
    ),
    "krona": Form(
        tuner="lokr",
        write=each(_krona),
        weights=_lokr_weights,
        alpha="alpha",
        why_not=_why_no_krona,
    ),
    "vera": Form(tuner="vera", write=_vera("vera", "down"), weights=_vera_weights),
    "pvera": Form(tuner="pvera", write=_vera("pvera", "down", "variance"), weights=_vera_weights),
    "ia3": Form(tuner="ia3", write=_ia3, weights=_ia3_weights),
    "oft": Form(tuner="oft", write=_oft, weights=_oft_weights, why_not=one_part),
}
"""The form of a family, by its name."""

LOW_RANK = frozenset(
    {"mlae", "bi_lora", "fact_tt", "fact_tk", "hydra", "repadapter", "arc", "bitfit", "layernorm"}
)
"""Families whose merged weights are the frozen ones with an update of low rank, and new biases and
norms: exactly a LoRA, whatever they are called."""
