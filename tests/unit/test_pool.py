"""The adapter pool: a mixed batch gives what each adapter gives alone, and few adapters move."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kinds import frozen_of
from test_stack import toy
from torch import Tensor

from conftest import FAMILIES, toy_recipe
from idat_zoo import pool as pool_module
from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.adapter_table import Member
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.backbones.mixed import MixedNetwork, Mixture
from idat_zoo.backbones.network import Network
from idat_zoo.checkpoint.loading import Checkpoint, load_checkpoint
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.errors import CheckpointError, UnknownNameError, UsageError
from idat_zoo.pool import AdapterPool
from idat_zoo.recipe import Backbone
from idat_zoo.specs import AdapterSpec

CLASSES = {"sequential": 10, "shared_parallel": 3, "idat_adaptformer": 5, "lora": 7, "linear": 2}


def pixels(count: int, *, size: int = 16, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)


def shaken(network: Network, seed: int) -> Network:
    """With every trained tensor away from its start, where many adapters do nothing."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.trainable().values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=source, dtype=tensor.dtype)
    return network.eval()


@pytest.fixture
def checkpoints(toy_student: FrozenBackbone, tmp_path: Path) -> dict[str, Path]:
    """One of each family, with unlike numbers of classes."""
    for seed, (family, num_classes) in enumerate(CLASSES.items()):
        recipe = toy_recipe(family)
        task = recipe.task.model_copy(update={"num_classes": num_classes})
        recipe = recipe.model_copy(update={"task": task})
        network = build_network(
            toy_student,
            build_adapter(AdapterSpec(name=family)),
            num_classes=num_classes,
            normalisation="model",
            seed=seed,
            role="student",
        )
        write_checkpoint(
            tmp_path / family,
            shaken(network, seed),
            recipe,
            role="student",
            recipe_hash="0" * 64,
            seed=seed,
        )
    return {family: tmp_path / family for family in CLASSES}


def filled(checkpoints: dict[str, Path], **options: int) -> AdapterPool:
    pool = AdapterPool(device="cpu", **options)
    for name, folder in checkpoints.items():
        pool.add(name, folder)
    return pool


def test_all_families_are_tried() -> None:
    assert set(CLASSES) == set(FAMILIES)


def test_a_mixed_pass_equals_single_passes_in_float64(
    toy_network: Callable[..., Network],
) -> None:
    networks = [shaken(toy_network(f, num_classes=k), 1) for f, k in CLASSES.items()]
    networks += [shaken(toy_network("lora", rank=3, num_classes=4), 2)]
    batches = [pixels(count, seed=count) for count in (3, 1, 4, 2, 5, 1)]
    mixed = MixedNetwork(networks)(batches)
    for network, images, logits in zip(networks, batches, mixed, strict=True):
        assert (network(images) - logits).abs().max() < 1e-9
    swapped = MixedNetwork(networks[:2])([batches[1], batches[0]])
    assert (swapped[0] - networks[0](batches[1])).abs().max() < 1e-9


@pytest.mark.parametrize("form", ["swin padded", "swinv2 padded", "beit", "convnext"])
def test_so_it_does_in_windows_with_biases_and_on_grids(form: str) -> None:
    backbone, networks = frozen_of(form), []
    for seed, (family, num_classes) in enumerate(CLASSES.items()):
        adapter = build_adapter(AdapterSpec(name=family))
        if not adapter.misfit(backbone.anatomy):
            built = build_network(
                backbone,
                adapter,
                num_classes=num_classes,
                normalisation="model",
                seed=seed,
                role="student",
            )
            networks.append(shaken(built.double(), seed))
    batches = [
        pixels(seed + 1, size=backbone.spec.img_size, seed=seed) for seed in range(len(networks))
    ]
    assert len(networks) > 2
    mixed = MixedNetwork(networks)(batches)
    for network, images, logits in zip(networks, batches, mixed, strict=True):
        alone = network(images)
        assert (alone - logits).abs().max() < 1e-9 * alone.abs().max()


def test_adapters_with_unlike_numbers_of_prompts_have_passes_of_their_own(
    toy_student: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = {
        f"{count} {seed}": toy(toy_student, seed, prompts=count)
        for count, seed in ((4, 0), (2, 1), (4, 2))
    }
    config = load_checkpoint("builtin:digits-lora").config  # any will do
    monkeypatch.setattr(
        pool_module,
        "load_checkpoint",
        lambda name, backbone: Checkpoint(network=networks[name], config=config),
    )
    pool = AdapterPool(device="cpu")
    for name in networks:
        pool.add(name, name)
    images, names = pixels(6), [*networks, *networks]
    for image, name, logits in zip(images, names, pool.predict(images, names), strict=True):
        assert (logits - networks[name](image[None])[0]).abs().max() < 1e-5
    with pytest.raises(AssertionError, match="of one length"):
        MixedNetwork(list(networks.values()))


def test_a_mixed_batch_in_any_order_gives_what_each_checkpoint_gives_alone(
    checkpoints: dict[str, Path],
) -> None:
    pool = filled(checkpoints)
    images = pixels(12)
    names = [list(CLASSES)[(5 * row) % 7 % 5] for row in range(12)]
    assert len(set(names)) == 5
    for image, name, logits in zip(images, names, pool.predict(images, names), strict=True):
        alone = load_checkpoint(checkpoints[name]).network(image[None])[0]
        assert logits.shape == (CLASSES[name],)
        assert (logits - alone).abs().max() < 1e-5  # float32, in a batch of another size
    assert pool.predict(images[:0], []) == []


def test_all_adapters_stand_on_one_backbone(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded once, and no adapter has a copy of it."""
    loaded: list[FrozenBackbone] = []

    def watched(spec: Backbone) -> FrozenBackbone:
        loaded.append(load_backbone(spec))
        return loaded[-1]

    monkeypatch.setattr("idat_zoo.checkpoint.loading.load_backbone", watched)
    pool = filled(checkpoints)
    assert len(loaded) == 1
    assert all(isinstance(own, Member) for own in pool._adapters.values())


def test_the_adapter_that_was_not_used_for_longest_makes_room(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, d, e = CLASSES
    pool = filled(checkpoints, capacity=2)
    moved: list[str] = []
    put, remove = Mixture.put, Mixture.remove

    def watched_put(mixture: Mixture, name: str, member: Member) -> None:
        moved.append(name)
        put(mixture, name, member)

    def watched_remove(mixture: Mixture, name: str) -> None:
        moved.append(name)
        remove(mixture, name)

    monkeypatch.setattr(Mixture, "put", watched_put)
    monkeypatch.setattr(Mixture, "remove", watched_remove)

    def ask(*names: str) -> int:
        """How many adapters are moved to the device."""
        before = pool.transfers
        pool.predict(pixels(len(names)), names)
        return pool.transfers - before

    assert ask(a, b) == 2
    assert ask(b, a, a) == 0
    assert ask(b) == 0
    moved.clear()
    assert ask(c) == 1
    assert moved == [a, c]  # b was used after a
    assert ask(b, c) == 0
    assert ask(a, b, c, d, e) == 3  # two lie there and go first; of the others two, then one
    assert len(pool._on_device) == 2
    assert ask(e) == 0


def test_adapters_come_and_go(checkpoints: dict[str, Path]) -> None:
    pool = filled(checkpoints)
    images = pixels(2)
    before = pool.predict(images, ["lora", "lora"])
    pool.remove("linear")
    with pytest.raises(UnknownNameError, match="unknown adapter of this pool 'linear'"):
        pool.predict(images, ["lora", "linear"])
    with pytest.raises(UnknownNameError):
        pool.remove("linear")
    pool.add("linear", checkpoints["lora"])
    after = pool.predict(images, ["linear", "lora"])
    assert (after[0] - before[0]).abs().max() < 1e-5
    assert pool.names() == ["sequential", "shared_parallel", "idat_adaptformer", "lora", "linear"]


def test_adding_and_removing_while_it_runs_disturbs_no_one(checkpoints: dict[str, Path]) -> None:
    pool = filled(checkpoints, capacity=2)
    images, names = pixels(4), ["lora", "linear", "lora", "sequential"]
    expected = pool.predict(images, names)
    faults: list[BaseException] = []

    def come_and_go() -> None:
        try:
            for _ in range(5):
                pool.add("guest", checkpoints["shared_parallel"])
                pool.predict(images[:1], ["guest"])
                pool.remove("guest")
        except BaseException as error:
            faults.append(error)

    guest = threading.Thread(target=come_and_go)
    guest.start()
    while guest.is_alive():
        got = pool.predict(images, names)
        for one, other in zip(got, expected, strict=True):  # which share a pass is not fixed
            assert (one - other).abs().max() < 1e-6
    guest.join()
    assert faults == []


def test_what_cannot_be_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="capacity is at least 1"):
        AdapterPool(capacity=0)
    pool = filled(checkpoints)
    with pytest.raises(UsageError, match="3 images need as many names"):
        pool.predict(pixels(3), ["lora"])
    with pytest.raises(CheckpointError, match="trained on other weights"):
        pool.add("digits", "builtin:digits-lora")
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        pool.add("lora", tmp_path / "none")
    assert len(pool.predict(pixels(1), ["lora"])) == 1
