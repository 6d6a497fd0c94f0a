"""The conversion of a merged network's changes to LoRA, for families that PEFT does not have.

Each linear layer's change of weight becomes B A of a rank, by its largest singular values, which is
the nearest of that rank; its change of bias is LoRA's own (`lora_bias`). Norms and other modules
without parts are saved whole, as PEFT saves a head. What remains has no place and is named, such as
position embeddings, class tokens and tables of relative positions.

Shape letters: D width, R rank.
"""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.network import Network
from idat_zoo.formats.peft_forms import Update
from idat_zoo.formats.timm_model import merge

NOTHING = 1e-6
"""Singular values below this fraction of the largest are rounding errors."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A merged network's changes as LoRA; `error` is the fraction that is lost (Frobenius norm).

    `modules` are those to be saved whole, `left_out` are parameters that have no place.
    """

    layers: dict[str, Update]
    modules: dict[str, nn.Module]
    error: float
    left_out: tuple[str, ...]


def linear_layers(kind: Kind) -> dict[str, Any]:
    """Blocks' linear layers by timm's names; of a gated MLP, its gate too."""
    names = {module: name for name, module in kind.body.named_modules()}
    owners = [branch.owners for branches in kind.branches for branch in branches]
    return {names[module]: module for own in owners for module in own.values()}


@torch.no_grad()
def convert(network: Network, called: set[str], rank: int | None = None) -> Converted:
    """The changes, of a rank, or of the least that has all. `called` are modules that timm calls.

    Raises: UsageError for a family that cannot be merged.
    """
    exact = copy.deepcopy(network).double()
    merged, body = merge(exact), exact.body
    before = dict(body.named_parameters())
    changed = {
        name
        for name, own in merged.named_parameters()
        if name in before and not own.equal(before[name])
    }
    linear = linear_layers(exact.kind)
    holders = {name.rpartition(".")[0] for name in changed}
    names = [name for name in linear if name in holders] or list(linear)[:1]
    layers, lost, whole = {}, 0.0, 0.0
    for name in names:
        old, new = linear[name], merged.get_submodule(name)
        change = (new.weight - old.weight).flatten(1)
        down, up = low_rank(change, rank)
        lost += (change - up @ down).square().sum().item()
        whole += change.square().sum().item()
        tensors = {"lora_A.weight": down, "lora_B.weight": up}
        if new.bias is not None:
            tensors["lora_B.bias"] = new.bias - (0 if old.bias is None else old.bias)
        layers[name] = Update(tensors, len(down), len(down))
    if not any(own.tensors.get("lora_B.bias", torch.zeros(1)).any() for own in layers.values()):
        for own in layers.values():
            own.tensors.pop("lora_B.bias", None)
    modules = {
        name: module
        for name in sorted(holders - set(linear))
        if name in called and not list((module := merged.get_submodule(name)).children())
    }
    placed = {*linear, *modules}
    return Converted(
        layers=layers,
        modules=modules,
        error=(lost / whole) ** 0.5 if whole else 0.0,
        left_out=told(n for n in changed if n.rpartition(".")[0] not in placed),
    )


def low_rank(change: Tensor, rank: int | None) -> tuple[Tensor, Tensor]:
    """A `[R, D]` and B `[.., R]` whose product is nearest to a matrix, by its Gram matrix.

    Directions in which it is nothing but rounding are left out; one stays.
    """
    if len(change) < change.shape[1]:
        up, down = low_rank(change.mT, rank)
        return down.mT, up.mT
    values, vectors = torch.linalg.eigh(change.mT @ change)  # ascending, squares
    kept = max(1, int((values > NOTHING**2 * values[-1].clamp_min(0)).sum()))
    kept = min(kept, rank or kept)
    down = vectors[:, -kept:].mT.flip(0)
    return down, change @ down.mT


def told(names: Iterable[str]) -> tuple[str, ...]:
    """Parameters' names; those that differ only in numbers are one: `blocks.*.ls1.gamma`."""
    return tuple(dict.fromkeys(re.sub(r"\d+", "*", name) for name in sorted(names)))
