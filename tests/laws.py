"""The laws that every adapter family keeps, as plain functions of its name.

Each takes what it needs to know from `families`; each raises AssertionError. That they bite is
seen in `tests/unit/test_planted.py`, which plants faults in every family. Those of `Cell` hold on
every form of `kinds.FORMS` that carries the family.

Where float64 passes are compared, they agree to 1e-9, gradients of the largest of each tensor:
`bmm` and `mm` sum in different orders.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from families import VIT_B, VIT_S, WIDE, Facts, Normal, Start, Uniform, facts_of
from kinds import FORMS, frozen_of, randomise, tiny
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from zoo import (
    form_mismatches,
    golden_network,
    merge_mismatches,
    mismatches,
    probe_mismatches,
    read,
    read_golden,
)

from conftest import for_both, toy_recipe
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created
from idat_zoo.backbones.adapter_table import prompts_of
from idat_zoo.backbones.anatomy import measure
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import FrozenBackbone, describe_anatomy, hash_network, outline
from idat_zoo.backbones.kinds import load_kind
from idat_zoo.backbones.mixed import MixedNetwork
from idat_zoo.backbones.network import DROP_PATH, Network
from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.backbones.prefix import constant_until, walk_prefix
from idat_zoo.backbones.stack import StackedNetwork
from idat_zoo.backbones.walk import Partway, Place
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import autocast, cast_frozen
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.formats.timm_model import largest_difference, merge
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Backbone, Pair, Recipe
from idat_zoo.specs import AdapterSpec

TOLERANCE = 1e-9
BATCH = 4
SECOND = Place(1, Site.BLOCK_INPUT)


def adapter_of(family: str, options: Mapping[str, Any]) -> Adapter:
    return build_adapter(AdapterSpec(name=family, options=dict(options)))


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
        assert values.float().eq(start).all(), f"{pattern}: not all are {start}"
        return
    found_mean, found = values.mean().item(), values.std().item()
    assert abs(found - std) < 5 * std / (2 * n) ** 0.5, f"{pattern}: std {found:.4g}, not {std:.4g}"
    assert abs(found_mean - mean) < 5 * std / n**0.5, f"{pattern}: mean {found_mean:.3g}"


FLOAT32 = 1e-6
"""Of features near 1, in float64: copies and norms of frozen tensors are made in float32."""


def starts_as_the_frozen_network_where_it_says_so(family: str) -> None:
    """Identity at the start, or not."""
    facts = facts_of(family)
    network = golden_network(family, facts.small)
    images = read("backbone_a")[0]["input"]
    expected = network.body.forward_head(network.body.forward_features(images))
    moved = (network.features(images) - expected).abs().max().item()
    told = f"the features are off by {moved:.1e} at the start"
    assert moved < FLOAT32 if facts.identity else moved > 0, told


def is_drawn_from_its_generator_alone(family: str) -> None:
    """The same numbers from the same generator, whatever the global one; others from another."""
    adapter, anatomy = adapter_of(family, facts_of(family).small), wide().anatomy
    before = torch.random.get_rng_state()
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(made))
        created = adapter.create(anatomy, generator(seed, "test", "create"))
        made.append(created.trainable | created.frozen)
        assert all(tensor.dtype == torch.float32 for tensor in made[-1].values())
    torch.random.set_rng_state(before)
    first, second, other = made
    assert first.keys() == second.keys() == other.keys()
    assert all(tensor.equal(second[name]) for name, tensor in first.items())
    spread = any(isinstance(s, Normal | Uniform) for s in facts_of(family).initial.values())
    assert not spread or any(not tensor.equal(other[name]) for name, tensor in first.items())


# On a form


@dataclass(frozen=True)
class Cell:
    """A family with options of its own on a form of `kinds.FORMS`."""

    family: str
    form: str = "vit"
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        return facts_of(self.family)

    def choice(self, **options: Any) -> AdapterSpec:
        return AdapterSpec(name=self.family, options={**self.facts.small, **self.own, **options})

    def spec(self, role: str = "student") -> Backbone:
        """In float32, with other weights for the teacher."""
        spec = tiny(self.form)
        return spec.model_copy(update={"name": f"{spec.name}_{role}"})

    def recipe(self, **fields: Any) -> Recipe:
        """Two steps on a pair of the form, or as many as it may take until all learns."""
        choice = self.choice(**self.facts.dropout)
        epochs = -(-build_adapter(choice).lives_within // 2)
        steps = {
            "epochs": epochs,
            "warmup_epochs": 0,
            "batch_size": 2 * BATCH,
            "precision": "float32",
        }
        recipe = toy_recipe(self.family, options=choice.options, drop_path=0.1, **(steps | fields))
        pair = Pair(name="cross", teacher=self.spec("teacher"), student=self.spec())
        return recipe.model_copy(update={"pair": pair})

    def pixels(self, count: int = BATCH, *, seed: int = 0) -> Tensor:
        size = FORMS[self.form].img_size
        source = generator(seed, "test", "images")
        return torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)

    def network(self, *, seed: int = 0, num_classes: int = 5, **options: Any) -> Network:
        """In float64, every trained tensor away from its start."""
        network = build_network(
            backbone_of(self.form),
            build_adapter(self.choice(**options)),
            num_classes=num_classes,
            normalisation="model",
            seed=seed,
            role="student",
        ).double()
        with torch.no_grad():
            for name, parameter in network.trainable().items():
                parameter.normal_(std=0.3, generator=generator(seed, "test", name))
        return network

    def two_networks(self) -> list[Network]:
        """Of two tasks that are as unlike as they may be in one stack."""
        return [
            self.network(seed=seed, num_classes=classes, **self.facts.unlike[seed])
            for seed, classes in enumerate((5, 9))
        ]

    def learner(self) -> Learner:
        pair = build_pair(self.recipe(), seed=0, backbones=backbones_to_train())
        images = self.pixels(4 * BATCH)
        targets = torch.arange(4 * BATCH) % 10
        return Learner(pair, for_both(images), targets, self.recipe(), seed=0)


@cache
def backbone_of(form: str) -> FrozenBackbone:
    """For networks in float64."""
    return frozen_of(form)


@cache
def backbones_to_train() -> Backbones:
    return Backbones(torch.device("cpu"))


def untrained(network: Network) -> dict[str, Tensor]:
    """All that a network computes with and does not train."""
    body = network.body
    own = dict(network.adapter_tensors.named_buffers())
    return dict(body.named_parameters()) | dict(body.named_buffers()) | own


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def furthest(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape
    return (first - second).abs().max().item()


def gradients(networks: Sequence[Network], logits: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of one loss that all the logits are in; every trained tensor has one."""
    torch.stack([z.square().mean() for z in logits]).sum().backward()
    found = {}
    for number, network in enumerate(networks):
        for name, parameter in network.trainable().items():
            assert parameter.grad is not None, f"'{name}' has no gradient"
            found[f"{number}/{name}"] = parameter.grad
            parameter.grad = None
    return found


def masks_of(network: Network, *, drop_path: float, seed: int = 0) -> dict[str, Tensor]:
    return network.draw_masks(BATCH, drop_path=drop_path, draws=Draws(seed, "student", 7))


def learns_all_and_no_frozen_bit(cell: Cell) -> None:
    """In its first steps every trained tensor moves, and no bit of any other."""
    learner = cell.learner()
    before = {role: copied(untrained(network)) for role, network in learner.pair.roles()}
    begun = copied(learner.trainable())
    trainer = Trainer([learner])
    for epoch in range(learner.recipe.epochs):
        trainer.train_epoch(epoch)
    assert learner.fault is None, learner.fault
    assert not learner.watched
    still = [name for name, tensor in learner.trainable().items() if tensor.equal(begun[name])]
    assert not still, f"not trained: {still}"
    for role, network in learner.pair.roles():
        after = untrained(network)
        assert after.keys() == before[role].keys()
        changed = [name for name, own in after.items() if not own.equal(before[role][name])]
        assert not changed, f"frozen, but changed: {changed}"
        assert not any(tensor.requires_grad for tensor in after.values())


def is_read_as_it_was_written(cell: Cell) -> None:
    """A saved network's logits are those of the one that is loaded, to the bit."""
    learner = cell.learner()
    for role, network in learner.pair.roles():
        with torch.no_grad():
            for name, parameter in network.trainable().items():
                parameter.normal_(std=0.3, generator=generator(0, "test", name))
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / role
            write_checkpoint(place, network, cell.recipe(), role=role, recipe_hash="0" * 64, seed=0)
            read = load_checkpoint(place, backbone=network.backbone).network
            assert probe_logits(read).equal(probe_logits(network))
            assert read.published().keys() == network.published().keys()


def is_alive(cell: Cell) -> None:
    """Away from its start, in training, every tensor that learns and no other has a gradient."""
    network = cell.network()
    masks = masks_of(network, drop_path=0.0)
    found = gradients([network], [network(cell.pixels(), masks)])
    dead = [name for name, gradient in found.items() if not gradient.any()]
    assert not dead, f"no gradient: {dead}"
    assert all(parameter.grad is None for parameter in network.body.parameters())


def merges_to_the_same_logits(cell: Cell) -> None:
    """A mergeable family's logits are those of the merged, frozen network; its own stays as it was.

    Where the family or the backbone does not allow it, merging is refused with the reason.
    """
    network, why = cell.network(), cell.facts.unmerged.get(cell.form, "")
    if why or not network.adapter.mergeable:
        subject = "adapter" if network.adapter.mergeable else f"adapter '{cell.family}'"
        with pytest.raises(UsageError, match=f"{subject}.* cannot be merged: .*{why}"):
            merge(network)
        return
    before = copied(network.state_dict())
    merged = merge(network)
    assert largest_difference(network, merged) < 1e-12
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())


def shapes_of(network: Network) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.adapter_tensors.tensors().items()}


def stacks_as_alone(cell: Cell) -> None:
    """Two tasks in one pass have the logits and gradients that they have alone; or may not."""
    networks = cell.two_networks()
    if cell.facts.alone:
        with pytest.raises(UsageError, match="cannot share a pass"):
            StackedNetwork(networks)
        return
    shapes = [
        {n: t.shape for n, t in copied(one.adapter_tensors.tensors()).items()} for one in networks
    ]
    assert (shapes[0] == shapes[1]) == bool(cell.facts.alike), (
        "ranks are unlike, or it is said why not"
    )
    images = [cell.pixels(seed=seed) for seed in range(2)]
    masks = [
        masks_of(network, drop_path=rate, seed=seed)
        for seed, (network, rate) in enumerate(zip(networks, (0.3, 0.0), strict=True))
    ]
    alone = [n(x, m) for n, x, m in zip(networks, images, masks, strict=True)]
    expected = gradients(networks, alone)
    together = StackedNetwork(networks)(images, masks)
    found = gradients(networks, together)
    for one, other in zip(alone, together, strict=True):
        assert furthest(one, other) < TOLERANCE
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert furthest(gradient, found[name]) <= TOLERANCE * gradient.abs().max(), name


def mixes_as_alone(cell: Cell) -> None:
    """A batch of several adapters' images gives each its own logits."""
    networks = [*cell.two_networks(), Cell("sequential", cell.form).network(seed=2)]
    like = [one for one in networks if prompts_of(one) == prompts_of(networks[0])]
    if len(like) == 1:  # sequences of other lengths do not mix
        like.append(cell.network(seed=3, **cell.facts.unlike[0]))
    images = [cell.pixels(count, seed=count) for count in (3, 1, 2)[: len(like)]]
    with torch.inference_mode():
        together = MixedNetwork(like)(images)
        for network, own, found in zip(like, images, together, strict=True):
            assert furthest(network(own), found) < TOLERANCE


MIXES_TOKENS = {"convpass", "dtl", "inducer"}
"""The families that need every token after the last attention, or change that attention."""


def needs_only_what_is_pooled(cell: Cell) -> None:
    """The last block's tokens that are not pooled may stay uncomputed, without any difference."""
    network = cell.network(**cell.facts.dropout)
    assert network.pooled_only == (cell.family not in MIXES_TOKENS)
    images = cell.pixels()
    masks = masks_of(network, drop_path=0.3)
    few = network(images, masks)
    found = gradients([network], [few])
    network.pooled_only = False
    whole = network(images, masks)
    expected = gradients([network], [whole])
    assert furthest(few, whole) < TOLERANCE
    for name, gradient in expected.items():
        assert furthest(gradient, found[name]) <= TOLERANCE * gradient.abs().max(), name


TRANSPOSED = {"res-post-norm"}
"""Its first qkv reads patches as the convolution laid them out in memory, and kept ones as rows:
its products differ in the last bit."""


def walks_on_from_its_prefix(cell: Cell, *, drop_path: float) -> None:
    """What comes before the first adapter may be kept: logits and gradients have the same bits."""
    network, images = cell.network(**cell.facts.dropout), cell.pixels()
    masks = masks_of(network, drop_path=drop_path)
    assert (DROP_PATH in masks) == (drop_path > 0)
    until = constant_until(network, drop_path)
    begun: Partway = walk_prefix(network, images, until=until, batch_size=BATCH)
    whole, rest = network(images, masks), network(begun, masks)
    expected, found = gradients([network], [whole]), gradients([network], [rest])
    pairs = [(whole, rest), *((gradient, found[name]) for name, gradient in expected.items())]
    if cell.form in TRANSPOSED:
        assert all(furthest(one, other) < TOLERANCE for one, other in pairs)
    else:
        assert all(one.equal(other) for one, other in pairs)


def is_random_in_training_alone(cell: Cell) -> None:
    """What is drawn acts where masks are given; where its facts name none, nothing is drawn."""
    network, images = cell.network(**cell.facts.dropout), cell.pixels()
    masks = masks_of(network, drop_path=0.0)
    assert bool(masks) == bool(cell.facts.dropout or cell.facts.noise), sorted(masks)
    assert network(images).equal(network(images))
    if masks:
        assert not network(images, masks).equal(network(images))
        for name, mask in masks.items():
            ones = {**masks, name: torch.ones_like(mask)}
            assert not network(images, ones).equal(network(images, masks)), f"'{name}' is not used"


def keeps_images_apart(cell: Cell) -> None:
    """An image's logits do not depend on the others of its batch, in training either."""
    network, images = cell.network(**cell.facts.dropout), cell.pixels()
    masks = masks_of(network, drop_path=0.3)
    others = cell.pixels(seed=1)
    others[1] = images[1]
    for own in (masks, {}):
        beside = network(others, own)
        assert furthest(network(images, own)[1], beside[1]) < 1e-12
        assert furthest(network(images, own)[0], beside[0]) > 1e-6
    assert furthest(network(images[1:2])[0], network(images)[1]) < 1e-12


def computes_again_what_it_computed(cell: Cell, passed: Callable[..., Tensor]) -> None:
    """Another way to pass forward gives the logits and gradients of the plain one."""
    network, images = cell.network(**cell.facts.dropout), cell.pixels()
    masks = masks_of(network, drop_path=0.3)
    plain = network(images, masks)
    expected = gradients([network], [plain])
    other = passed(network, images, masks)
    found = gradients([network], [other])
    assert furthest(plain, other) < TOLERANCE
    for name, gradient in expected.items():
        assert furthest(gradient, found[name]) <= TOLERANCE * gradient.abs().max(), name


def bears_gradient_checkpointing(cell: Cell) -> None:
    """Computed again in the backward pass, it is the same."""
    computes_again_what_it_computed(
        cell, lambda network, *args: checkpoint(network, *args, use_reentrant=False)
    )


def compiles(cell: Cell, backend: str) -> None:
    """Compiled in one graph, it is the same."""
    torch.compiler.reset()
    computes_again_what_it_computed(
        cell, lambda network, *args: torch.compile(network, backend=backend, fullgraph=True)(*args)
    )


def changes_its_own_blocks_alone(cell: Cell) -> None:
    """In the last block of two: no tensor for the first, which may be kept; other numbers refused.

    A family that stands outside blocks has no such option.
    """
    if cell.facts.outside:
        with pytest.raises(RecipeError, match="blocks"):
            build_adapter(cell.choice(blocks="last1"))
        return
    network, images = cell.network(blocks="last1"), cell.pixels()
    names = list(network.adapter_tensors.tensors())
    wrong = [name for name in names if re.search(r"(^|\.)blocks\.0\.|embed", name)]
    assert not wrong, f"not of the last block: {wrong}"
    assert constant_until(network, 0.0).block >= 1
    begun = walk_prefix(network, images, until=SECOND, batch_size=BATCH)
    assert network(images).equal(network(begun))
    plain = network.head(network.body(network.normalise(images)))
    assert not network(images).equal(plain)
    for beyond in ("last3", "0-5", "99"):
        with pytest.raises(UsageError, match="cannot stand on"):
            cell.network(blocks=beyond)


def is_in_one_block_what_it_is_in_all(cell: Cell) -> None:
    """In the last block of two, it does what it does there when it stands in both."""
    if cell.facts.outside:
        return
    last, both = cell.network(blocks="last1"), cell.network()
    begun = walk_prefix(last, cell.pixels(), until=SECOND, batch_size=BATCH)
    assert last(begun).equal(both(begun))


BF16 = 0.05
"""Of the largest logit: bfloat16 has 8 bits, so 0.4 % a rounding, through two blocks."""


def bears_bf16(cell: Cell) -> None:
    """Under autocast, with frozen weights held in bfloat16 as the engine does, near float32."""
    logits, device = {}, torch.device("cpu")
    for precision in ("float32", "bf16"):
        network = build_network(
            Backbones(device).load(cell.spec(), precision),
            build_adapter(cell.choice(**cell.facts.dropout)),
            num_classes=5,
            normalisation="model",
            seed=0,
            role="student",
        )
        with torch.no_grad():
            for name, parameter in network.trainable().items():
                noise = torch.empty_like(parameter)
                parameter += noise.normal_(std=0.05, generator=generator(0, "test", name))
        if precision == "bf16":
            cast_frozen(network, precision)
        with autocast(device, precision):
            logits[precision] = network(cell.pixels(), masks_of(network, drop_path=0.3)).float()
        logits[precision].square().mean().backward()
        for name, parameter in network.trainable().items():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), name
    expected = logits["float32"]
    assert furthest(logits["bf16"], expected) < BF16 * expected.abs().max()


# All of them


def on_vit(law: Callable[..., None], **more: Any) -> Callable[[str], None]:
    return lambda family: law(Cell(family), **more)


LAWS: dict[str, Callable[[str], None]] = {
    "is the authors'": is_the_authors,
    "merges as the authors'": merges_as_the_authors,
    "drops where the authors' does": drops_where_the_authors_do,
    "counts as the formula says": counts_as_the_formula_says,
    "starts as the authors' does": starts_as_the_authors_do,
    "starts as the frozen network, or not": starts_as_the_frozen_network_where_it_says_so,
    "is drawn from its generator alone": is_drawn_from_its_generator_alone,
    "learns all, and no frozen bit": on_vit(learns_all_and_no_frozen_bit),
    "has a gradient everywhere": on_vit(is_alive),
    "is read as it was written": on_vit(is_read_as_it_was_written),
    "merges to the same logits": on_vit(merges_to_the_same_logits),
    "stacks as alone": on_vit(stacks_as_alone),
    "mixes as alone": on_vit(mixes_as_alone),
    "needs only what is pooled": on_vit(needs_only_what_is_pooled),
    "walks on from its prefix": on_vit(walks_on_from_its_prefix, drop_path=0.0),
    "walks on from its prefix, with drop path": on_vit(walks_on_from_its_prefix, drop_path=0.3),
    "is random in training alone": on_vit(is_random_in_training_alone),
    "keeps images apart": on_vit(keeps_images_apart),
    "changes its own blocks alone": on_vit(changes_its_own_blocks_alone),
    "is in one block what it is in all": on_vit(is_in_one_block_what_it_is_in_all),
    "bears gradient checkpointing": on_vit(bears_gradient_checkpointing),
    "bears bf16": on_vit(bears_bf16),
}
"""Each by what a family does that keeps it."""

EXEMPT: dict[tuple[str, str], str] = {}
"""(law, family): why that family need not keep it. There are no other exemptions."""
