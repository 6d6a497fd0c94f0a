"""The laws bite: faults are planted in every family, and a law fails.

A wrong start, in every tensor; a wrong scale; a wrong term of the merge.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import Any

import laws
import pytest
import torch
from families import facts_of
from laws import Cell
from torch import Tensor

from idat_zoo.adapters import ADAPTERS, find_adapter
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.low_rank import WeightUpdate
from idat_zoo.adapters.tensors import Created
from idat_zoo.randomness import generator

COPIES = "it puts trained copies in the place of frozen tensors, and adds nothing"
SCALELESS = {
    "linear": "it changes nothing",
    **dict.fromkeys(("bitfit", "layernorm", "full"), COPIES),
}
"""Families whose output cannot be scaled wrongly, and why."""
TERMLESS = {
    "linear": "there is nothing to fold in",
    **dict.fromkeys(("bitfit", "layernorm", "full"), COPIES),
}
"""Mergeable families whose merge adds no term, and why."""

STARTS = [(family, pattern) for family in ADAPTERS for pattern in facts_of(family).initial]
SCALED = [family for family in ADAPTERS if family not in SCALELESS]
CONSTANTS = [
    (family, name) for family in ADAPTERS for name in Cell(family).network().adapter.constants
]
MERGED = [
    family
    for family in ADAPTERS
    if Cell(family).network().adapter.mergeable and family not in TERMLESS
]


def test_every_family_is_planted_with_what_it_can_have() -> None:
    assert {family for family, _ in STARTS} == {f for f in ADAPTERS if facts_of(f).initial}
    assert (len(STARTS), len(SCALED), len(CONSTANTS), len(MERGED)) == (106, 34, 22, 18)


@pytest.mark.parametrize(("family", "pattern"), STARTS)
def test_a_wrong_start_is_seen(family: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts at one number starts near it, and what is spread starts at zero."""
    create, names = find_adapter(family).create, []

    def planted(self: Adapter, *args: Any) -> Created:
        created = create(self, *args)
        for tensors in (created.trainable, created.frozen):
            for name in [name for name in tensors if fnmatch(name, pattern)]:
                names.append(name)
                tensors[name] = wrong(name, tensors[name])
        return created

    def wrong(name: str, tensor: Tensor) -> Tensor:
        if tensor.unique().numel() > 1 and not callable(facts_of(family).initial[pattern]):
            return torch.zeros_like(tensor)
        noise = torch.empty_like(tensor).normal_(std=0.01, generator=generator(0, "test", name))
        return tensor + noise

    laws.starts_as_the_authors_do(family)
    monkeypatch.setattr(find_adapter(family), "create", planted)
    with pytest.raises(AssertionError):
        laws.starts_as_the_authors_do(family)
    assert names


@pytest.mark.parametrize("family", SCALED)
def test_half_as_much_again_is_seen(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it adds to y is 1.5 times as much; its prompts are."""
    cls = find_adapter(family)
    apply, prompt, whole = cls.apply_carrying, cls.prompt, cls.weight_update

    def scaled(self: Adapter, site: Any, tensors: Any, x: Any, y: Tensor, *more: Any, **named: Any):  # noqa: ANN202
        out, carry = apply(self, site, tensors, x, y, *more, **named)
        return y + 1.5 * (out - y), carry

    def longer(self: Adapter, *args: Any, **named: Any) -> Tensor | None:
        tokens = prompt(self, *args, **named)
        return None if tokens is None else 1.5 * tokens

    def larger(self: Adapter, *args: Any) -> WeightUpdate | None:
        update = whole(self, *args)
        return update and update._replace(up=1.5 * update.up)

    monkeypatch.setattr(cls, "apply_carrying", scaled)
    monkeypatch.setattr(cls, "prompt", longer)
    monkeypatch.setattr(cls, "weight_update", larger)
    with pytest.raises(AssertionError):
        laws.is_the_authors(family)


@pytest.mark.parametrize(("family", "name"), CONSTANTS)
def test_a_wrong_constant_is_seen(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = find_adapter(family)
    constants: Callable[[Adapter], Mapping[str, float]] = cls.constants.fget

    def wrong(self: Adapter) -> dict[str, float]:
        return {n: value * (1.5 if n == name else 1.0) for n, value in constants(self).items()}

    monkeypatch.setattr(cls, "constants", property(wrong))
    with pytest.raises(AssertionError):
        laws.is_the_authors(family)


@pytest.mark.parametrize("family", MERGED)
def test_a_wrong_merge_is_seen(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is folded into each frozen tensor is 1.5 times as much."""
    cls = find_adapter(family)
    merge = cls.merge

    def wrong(
        self: Adapter, site: Any, tensors: Any, frozen: Mapping[str, Tensor], **named: Any
    ) -> dict[str, Tensor]:
        merged = merge(self, site, tensors, frozen, **named)
        return {name: frozen[name] + 1.5 * (own - frozen[name]) for name, own in merged.items()}

    monkeypatch.setattr(cls, "merge", wrong)
    with pytest.raises(AssertionError):
        laws.merges_to_the_same_logits(Cell(family))
