"""The laws that every adapter family keeps, as plain functions of its name.

Each takes what it needs to know from `families`; each raises AssertionError. That they bite is
seen in `tests/unit/test_planted.py`, which plants faults in every family.

Where float64 passes are compared, they agree to 1e-9 of the largest: `bmm` and `mm` sum unlike.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from typing import Any

import torch
from families import VIT_B, VIT_S, WIDE, Normal, Start, Uniform, facts_of
from kinds import randomise
from torch import Tensor
from zoo import (
    form_mismatches,
    golden_network,
    merge_mismatches,
    mismatches,
    probe_mismatches,
    read,
    read_golden,
)

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.base import Adapter, Created
from idat_zoo.backbones.anatomy import measure
from idat_zoo.backbones.frozen import FrozenBackbone, describe_anatomy, hash_network, outline
from idat_zoo.backbones.kinds import load_kind
from idat_zoo.randomness import generator
from idat_zoo.recipe import AdapterChoice, Backbone

TOLERANCE = 1e-9


def adapter_of(family: str, options: Mapping[str, Any]) -> Adapter:
    return build_adapter(AdapterChoice(name=family, options=dict(options)))


# What it is


def is_the_authors(family: str) -> None:
    """Logits, loss and every gradient are those of the authors' code, or of a closed form."""
    facts = facts_of(family)
    assert facts.golden or facts.forms, f"'{family}' is held to nothing"
    faults = [f"{case.id}: {fault}" for case in facts.golden for fault in mismatches(family, case)]
    faults += [fault for form in facts.forms for fault in form_mismatches(family, form)]
    assert not faults, "\n".join(faults)
    for check in facts.more.values():
        check()


def merges_as_the_authors(family: str) -> None:
    """Merged weights are those of the authors' merge, or of the golden file's closed form."""
    faults = []
    for case in facts_of(family).golden:
        golden = read_golden(case.file, case.variant)
        if not (golden.merged or golden.deltas) or case.unmerged:
            continue
        assert adapter_of(family, case.options).mergeable, f"{case.id} has merged weights"
        faults += [f"{case.id}: {fault}" for fault in merge_mismatches(family, case)]
    assert not faults, "\n".join(faults)


def drops_where_the_authors_do(family: str) -> None:
    """Drop paths and dropouts act where theirs do, seen with every mask a half."""
    faults = []
    for case in facts_of(family).golden:
        probes = read_golden(case.file, case.variant).probes
        assert case.unprobed.keys() <= probes.keys(), f"{case.id} has no such probe"
        if probes.keys() - case.unprobed.keys():
            faults += [f"{case.id}: {fault}" for fault in probe_mismatches(family, case)]
    assert not faults, "\n".join(faults)


@cache
def backbone_of_size(name: str) -> Any:
    """The anatomy of ViT-B or ViT-S."""
    spec = Backbone(name=name, timm=f"vit_{name}_patch16_224", weights="random")
    return describe_anatomy(spec)


def counts_as_the_formula_says(family: str) -> None:
    """The numbers trained are those of the formula, and of the golden README."""
    facts = facts_of(family)
    assert facts.published or facts.unpublished, f"'{family}': no count is published, and why?"
    for name, letter, size in (("base", "B", VIT_B), ("small", "S", VIT_S)):
        found = count(family, {}, backbone_of_size(name))
        assert found == facts.count(size), f"{name}: {found}, by the formula {facts.count(size)}"
        if letter in facts.published:
            found = count(family, facts.published_options, backbone_of_size(name))
            expected = facts.published[letter]
            assert found == expected, f"{name}: {found}, published {expected}"


def count(family: str, options: Mapping[str, Any], anatomy: Any) -> int:
    created = adapter_of(family, options).create(anatomy, generator(0, "test", "count"))
    return sum(tensor.numel() for tensor in created.trainable.values())


@cache
def wide() -> FrozenBackbone:
    """WIDE, all weights random."""
    spec = Backbone(
        name="wide",
        timm="vit_tiny_patch16_224",
        weights="random",
        img_size=32,
        args={"embed_dim": WIDE.D, "depth": WIDE.L, "num_heads": WIDE.M},
    )
    body = randomise(outline(spec).to_empty(device="cpu"))
    kind = load_kind("vit")(body)
    anatomy = measure(kind, "vit", spec.img_size)
    return FrozenBackbone(
        spec=spec, body=body, sha256=hash_network(body), kind=kind, anatomy=anatomy
    )


def starts_as_the_authors_do(family: str) -> None:
    """Which tensors start at 0 or 1, and how the others are spread."""
    facts, anatomy = facts_of(family), wide().anatomy
    created: Created = adapter_of(family, {}).create(anatomy, generator(0, "test", "start"))
    tensors = created.trainable | created.frozen
    taken: dict[str, list[Tensor]] = {pattern: [] for pattern in facts.initial}
    for name, tensor in tensors.items():
        patterns = [pattern for pattern in facts.initial if fnmatch(name, pattern)]
        assert len(patterns) == 1, f"'{name}' is told of by {patterns or 'no pattern'}"
        start = facts.initial[patterns[0]]
        if callable(start):
            assert start(name, tensor, anatomy), f"'{name}' does not start as it should"
        taken[patterns[0]].append(tensor.detach().flatten())
    for pattern, values in taken.items():
        assert values, f"no tensor is named '{pattern}'"
        if not callable(facts.initial[pattern]):
            is_spread(pattern, torch.cat(values).double(), facts.initial[pattern])


def is_spread(pattern: str, values: Tensor, start: Start) -> None:
    """Within five standard deviations of what so many values show."""
    n = len(values)
    if isinstance(start, Normal):
        assert values.abs().max() <= start.cut, f"{pattern}: up to {values.abs().max():.3g}"
        mean, std = start.mean, start.std
    elif isinstance(start, Uniform):
        assert values.abs().max() <= start.bound, f"{pattern}: up to {values.abs().max():.3g}"
        mean, std = 0.0, start.bound / 3**0.5
    else:
        assert not callable(start)
        assert values.eq(start).all(), f"{pattern}: not all are {start}"
        return
    found_mean, found = values.mean().item(), values.std().item()
    assert abs(found - std) < 5 * std / (2 * n) ** 0.5, f"{pattern}: std {found:.4g}, not {std:.4g}"
    assert abs(found_mean - mean) < 5 * std / n**0.5, f"{pattern}: mean {found_mean:.3g}"


def starts_as_the_frozen_network_where_it_says_so(family: str) -> None:
    """Identity at the start, or not."""
    facts = facts_of(family)
    network = golden_network(family, facts.small)
    images = read("backbone_a")[0]["input"]
    expected = network.body.forward_head(network.body.forward_features(images))
    moved = (network.features(images) - expected).abs().max().item()
    assert (moved < 1e-12) == facts.identity, f"the features are off by {moved:.1e} at the start"
