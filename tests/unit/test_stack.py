"""Several tasks over one backbone, and toys of the forms that come next.

The stack equals solo passes to 1e-12 in float64: `bmm` and `mm` sum in different orders.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, get_args

import pytest
import torch
from pydantic.fields import FieldInfo
from torch import Tensor

from conftest import FAMILIES
from idat_zoo.adapters import find_adapter
from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Carry, Created, Tensors, trunc_normal
from idat_zoo.backbones.build import new_head
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.stack import StackedNetwork
from idat_zoo.errors import UsageError
from idat_zoo.randomness import Draws, generator
from idat_zoo.values import Frozen

TOLERANCE = 1e-12


def noisy(network: Network, seed: int) -> Network:
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(seed, "test", name))
    return network


def batches(count: int, size: int = 4) -> list[Tensor]:
    return [
        torch.rand(size, 3, 16, 16, dtype=torch.float64, generator=generator(i, "test", "images"))
        for i in range(count)
    ]


def gradients(networks: Sequence[Network], logits: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Gradients of each task's own loss, summed over tasks; the leaves are each network's own."""
    torch.stack([z.square().mean() for z in logits]).sum().backward()
    found = []
    for network in networks:
        named = network.trainable().items()
        found.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        for _, parameter in named:
            parameter.grad = None
    return found


def assert_stack_equals_solo(
    networks: list[Network], masks: list[dict[str, Tensor]], images: list[Tensor]
) -> None:
    solo = [n(x, m) for n, x, m in zip(networks, images, masks, strict=True)]
    solo_gradients = gradients(networks, solo)
    stacked = StackedNetwork(networks)(images, masks)
    stacked_gradients = gradients(networks, stacked)
    for alone, together in zip(solo, stacked, strict=True):
        assert alone.shape == together.shape
        assert (alone - together).abs().max() < TOLERANCE
    for alone, together in zip(solo_gradients, stacked_gradients, strict=True):
        assert alone.keys() == together.keys()
        assert all((alone[n] - together[n]).abs().max() < TOLERANCE for n in alone)


def drawn(networks: Sequence[Network], drop_path: Sequence[float]) -> list[dict[str, Tensor]]:
    return [
        network.draw_masks(4, drop_path=rate, draws=Draws(seed, "student", 7))
        for seed, (network, rate) in enumerate(zip(networks, drop_path, strict=True))
    ]


def test_a_task_without_dropout_and_drop_path_stands_beside_one_with_both(
    toy_network: Callable[..., Network],
) -> None:
    networks = [
        noisy(toy_network("sequential", bottleneck=2, dropout=0.4), 0),
        noisy(toy_network("sequential", bottleneck=6), 1),
    ]
    assert_stack_equals_solo(networks, drawn(networks, (0.4, 0.0)), batches(2))


def test_a_lora_without_the_key_stands_beside_one_with_it(
    toy_network: Callable[..., Network],
) -> None:
    networks = [
        noisy(toy_network("lora", rank=5, dropout=0.1), 0),
        noisy(toy_network("lora", rank=3, scale=0.4, dropout=0.1, key=True), 1),
    ]
    assert_stack_equals_solo(networks, drawn(networks, (0.3, 0.3)), batches(2))
    assert_stack_equals_solo(networks[::-1], drawn(networks[::-1], (0.3, 0.3)), batches(2))


class ToyOptions(Frozen):
    """Options of the toy."""

    rank: int = 2
    prompts: int = 2


class Toy(Adapter):
    """All that comes next in one: deep prompts, a shared and a frozen random tensor, a trained
    copy of a bias, and a state carried from block to block.
    """

    name, title, paper, year = "toy", "toy", "", 0
    Options = ToyOptions
    stacks_over = frozenset({"rank"})
    options: ToyOptions
    sites: ClassVar = frozenset({Site.PROMPT, Site.FC1, Site.AFTER_MLP})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        rank, width = self.options.rank, anatomy.blocks[0].width
        draw = {"std": 0.2, "generator": generator}
        trainable = {"shared.down": trunc_normal(rank, width, **draw)}
        for i in range(anatomy.depth):
            trainable[f"blocks.{i}.prompt"] = trunc_normal(self.options.prompts, width, **draw)
            trainable[f"blocks.{i}.fc1.bias"] = anatomy.frozen(Site.FC1, i)["bias"] + 1
        return Created(trainable=trainable, frozen={"shared.up": trunc_normal(width, rank, **draw)})

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        if site is not Site.AFTER_MLP:
            return {}
        return {"dropout": Mask(shape=(shape.tokens, 1), rate=0.1)}

    def copies(self, site: Site) -> tuple[str, ...]:
        return ("bias",) if site is Site.FC1 else ()

    @property
    def num_prompts(self) -> int:
        return self.options.prompts

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        return tensors["prompt"]

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        return y

    def apply_carrying(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        carry: Carry,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> tuple[Tensor, Carry]:
        if site is Site.FC1:
            return self.apply(site, tensors, x, y, frozen=frozen, masks=masks, block=block), carry
        side = y @ tensors["down"].T @ tensors["up"].T * masks.get("dropout", torch.ones(()))
        side = side + carry["side"] if carry else side
        return y + side, {"side": side}


def toy(
    backbone: FrozenBackbone, seed: int, family: type[Adapter] = Toy, **options: Any
) -> Network:
    adapter = family(**options)
    created = adapter.create(backbone.anatomy, generator(seed, "test", "toy"))
    head = new_head(backbone.anatomy.num_features, 5, generator(seed, "test", "head"))
    return Network(
        backbone, adapter, created, head, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ).double()


def test_prompts_shared_frozen_copied_and_carried_tensors_fit_the_protocol(
    toy_student: FrozenBackbone,
) -> None:
    network = toy(toy_student, seed=0, rank=3)
    logits = network(batches(1)[0])
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.trainable().values())
    assert "adapter.shared.up" in network.published()
    assert "adapter.shared.up" not in network.trainable()


def test_they_stack_too(toy_student: FrozenBackbone) -> None:
    networks = [toy(toy_student, seed=0, rank=2), toy(toy_student, seed=1, rank=4)]
    assert_stack_equals_solo(networks, drawn(networks, (0.2, 0.2)), batches(2))


class Sampling(Toy):
    """Adds noise, one draw to a token, and keeps half of its ranks, the same for all images."""

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        if site is not Site.AFTER_MLP:
            return {}
        return {
            "noise": Mask(shape=(shape.tokens, self.options.rank), noise=True),
            "kept": Mask(shape=(1, self.options.rank), rate=0.5, alike=True),
        }

    def apply_carrying(
        self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, carry: Carry, **more: Any
    ) -> tuple[Tensor, Carry]:
        if site is not Site.AFTER_MLP:
            return y, carry
        hidden, masks = y @ tensors["down"].T, more["masks"]
        if masks:
            hidden = (hidden + masks["noise"]) * masks["kept"]
        return y + hidden @ tensors["up"].T, carry


def test_noise_is_normal_and_what_is_alike_is_one_draw_for_all_images(
    toy_student: FrozenBackbone,
) -> None:
    network = toy(toy_student, 0, Sampling, rank=4)
    masks = network.draw_masks(400, drop_path=0.0, draws=Draws(0, "student", 7))
    noise = torch.cat([mask.flatten() for name, mask in masks.items() if "noise" in name])
    assert abs(noise.mean()) < 5 / len(noise) ** 0.5
    assert abs(noise.std() - 1) < 5 / (2 * len(noise)) ** 0.5
    kept = [mask for name, mask in masks.items() if "kept" in name]
    assert all(mask.shape == (400, 1, 4) and mask.eq(mask[:1]).all() for mask in kept)
    assert {value for mask in kept for value in mask.flatten().tolist()} == {0.0, 2.0}
    assert not noise[:100].equal(noise[100:200])
    again = network.draw_masks(400, drop_path=0.0, draws=Draws(0, "student", 7))
    other = network.draw_masks(400, drop_path=0.0, draws=Draws(0, "student", 8))
    assert all(
        mask.equal(again[name]) and not mask.equal(other[name]) for name, mask in masks.items()
    )


def test_beside_one_that_samples_one_that_rests_has_no_noise(toy_student: FrozenBackbone) -> None:
    networks = [toy(toy_student, seed, Sampling, rank=rank) for seed, rank in ((0, 2), (1, 4))]
    masks = drawn(networks, (0.2, 0.2))
    assert_stack_equals_solo(networks, masks, batches(2))
    assert_stack_equals_solo(networks, [masks[0], {}], batches(2))


class Forgetful(Toy):
    """Reads the rank where it may differ."""

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        return y / self.options.rank


def two_values(field: FieldInfo) -> tuple[Any, Any]:
    """An option's default and another value of it, within its range."""
    default, names = field.default, get_args(field.annotation)
    marks = field.json_schema_extra
    if isinstance(marks, dict) and "form" in marks:
        return default, {"blocks": "last1", "parts": "k+proj"}[str(marks["form"])]
    if names:
        return default, next(name for name in names if name != default)
    if isinstance(default, bool):
        return default, not default
    return default, default + 3 if isinstance(default, int) else default / 2 + 0.1


EVERY_FAMILY = {"toy": Toy} | {name: find_adapter(name) for name in FAMILIES}
EVERY_OPTION = [
    (f, option) for f, kind in EVERY_FAMILY.items() for option in kind.Options.model_fields
]


def test_options_that_may_differ_are_options() -> None:
    for family in EVERY_FAMILY.values():
        assert family.stacks_over <= family.Options.model_fields.keys()


@pytest.mark.parametrize(("family", "option"), EVERY_OPTION)
def test_tasks_share_a_pass_where_only_what_may_differ_does(
    family: str, option: str, toy_student: FrozenBackbone
) -> None:
    kind = EVERY_FAMILY[family]
    networks = [
        noisy(toy(toy_student, seed, kind, **{option: value}), seed)
        for seed, value in enumerate(two_values(kind.Options.model_fields[option]))
    ]
    first, second = (network.adapter.stack_key for network in networks)
    assert (first == second) == (option in kind.stacks_over)
    if first == second:
        assert_stack_equals_solo(networks, drawn(networks, (0.3, 0.3)), batches(2))
    else:
        with pytest.raises(UsageError, match=f"cannot share a pass: .*{option}="):
            StackedNetwork(networks)


def test_adapters_that_act_in_other_places_have_passes_of_their_own(
    toy_student: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [toy(toy_student, seed) for seed in (0, 1)]
    monkeypatch.setattr(networks[1].adapter, "sites", frozenset({Site.FC1}), raising=False)
    with pytest.raises(UsageError, match="cannot share a pass"):
        StackedNetwork(networks)


def test_a_family_that_reads_what_may_differ_fails_in_a_stack(toy_student: FrozenBackbone) -> None:
    networks = [toy(toy_student, seed, Forgetful) for seed in (0, 1)]
    with pytest.raises(AttributeError, match="'rank'"):
        StackedNetwork(networks)(batches(2))
