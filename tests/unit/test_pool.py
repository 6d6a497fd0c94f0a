"""The adapter pool: a mixed batch gives what each adapter gives alone, and few adapters move."""

import inspect
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import frozen_of
from test_stack import toy
from torch import Tensor

from conftest import FAMILIES, toy_recipe
from idat_zoo import pool as pool_module
from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.adapter_table import AdapterTable, Member
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.backbones.mixed import MixedNetwork, Mixture
from idat_zoo.backbones.network import Network
from idat_zoo.checkpoint.loading import Checkpoint, load_checkpoint
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.errors import CheckpointError, InputError, UnknownNameError, UsageError
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


def write_lora(folder: Path, backbone: FrozenBackbone, seed: int, rank: int, classes: int) -> None:
    """A LoRA checkpoint of its own rank, parts and number of classes."""
    recipe = toy_recipe("lora")
    task = recipe.task.model_copy(update={"num_classes": classes})
    options = {"rank": rank, "parts": ("q+v", "qkv", "k+fc1")[seed % 3], "scale": 0.5 + seed}
    choice = AdapterSpec(name="lora", options=options)
    recipe = recipe.model_copy(update={"task": task, "adapter": choice})
    network = build_network(
        backbone,
        build_adapter(choice),
        num_classes=classes,
        normalisation="model",
        seed=seed,
        role="student",
    )
    write_checkpoint(
        folder, shaken(network, seed), recipe, role="student", recipe_hash="0" * 64, seed=seed
    )


def test_no_image_is_answered_with_anothers_adapter(
    toy_student: FrozenBackbone, tmp_path: Path
) -> None:
    """With four times as many adapters as fit, of unlike ranks, parts, scales and classes."""
    pool, alone = AdapterPool(device="cpu", capacity=3), {}
    for seed in range(12):
        name = f"{seed}"
        write_lora(tmp_path / name, toy_student, seed, rank=1 + seed % 5, classes=2 + seed % 4)
        pool.add(name, tmp_path / name)
        alone[name] = load_checkpoint(tmp_path / name).network
    source = torch.Generator().manual_seed(0)
    for turn in range(12):
        names = [f"{k}" for k in torch.randint(12, (9,), generator=source).tolist()]
        images = pixels(9, seed=turn)
        for image, name, logits in zip(images, names, pool.predict(images, names), strict=True):
            expected = alone[name](image[None])[0]
            assert logits.shape == expected.shape
            assert (logits - expected).abs().max() < 1e-5
    assert pool.transfers > 24


def test_an_adapter_with_many_images_beside_others_gets_its_own_logits(
    checkpoints: dict[str, Path],
) -> None:
    pool = filled(checkpoints)
    names = ["lora"] * 20 + ["sequential", "linear"] + ["sequential"] * 17 + ["lora"]
    images = pixels(len(names))
    for image, name, logits in zip(images, names, pool.predict(images, names), strict=True):
        alone = load_checkpoint(checkpoints[name]).network(image[None])[0]
        assert (logits - alone).abs().max() < 1e-5


def test_files_may_be_removed_once_they_are_in_the_pool(checkpoints: dict[str, Path]) -> None:
    pool = filled(checkpoints, capacity=1)
    images, names = pixels(2), ["lora", "sequential"]
    before = pool.predict(images, names)
    for folder in checkpoints.values():
        shutil.rmtree(folder)
    after = pool.predict(images, names)
    assert pool.transfers == 2 + 1  # the one that had made room came back
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))


def test_large_heads_and_large_adapters_are_not_gathered_for_each_image(
    toy_student: FrozenBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take their own rows in turn, and answer as before."""
    pool = AdapterPool(device="cpu")
    for seed in range(3):
        write_lora(tmp_path / f"{seed}", toy_student, seed=3 * seed, rank=2, classes=4)
        pool.add(f"{seed}", tmp_path / f"{seed}")
    images, names = pixels(6), ["0", "1", "2", "1", "0", "0"]
    gathered = pool.predict(images, names)
    monkeypatch.setattr("idat_zoo.backbones.mixed.MOST_HEAD_BYTES", 0)
    heads = pool.predict(images, names)
    monkeypatch.setattr(AdapterTable, "bytes_of_a_block", lambda table: 10**9)
    nothing = pool.predict(images, names)
    for one, other, third in zip(gathered, heads, nothing, strict=True):
        assert (one - other).abs().max() < 1e-5
        assert (one - third).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(1, 3, 48, 48), r"torch\.float32"),
        (torch.zeros(1, 1, 48, 48, dtype=torch.uint8), r"the shape \[1, 1, 48, 48\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"the shape \[1, 3, 32, 32\]"),
        (torch.zeros(3, 48, 48, dtype=torch.uint8), r"the shape \[3, 48, 48\]"),
        ([torch.zeros(3, 48, 48, dtype=torch.uint8)], "list"),
    ],
)
def test_images_of_another_form_are_refused(images: Any, got: str) -> None:
    pool = AdapterPool(device="cpu")
    pool.add("digits", "builtin:digits-lora")
    predict = inspect.unwrap(
        AdapterPool.predict
    )  # without the check of annotations, as users have it
    with pytest.raises(InputError, match=rf"a pool takes uint8 images \[B, 3, 48, 48\]; got {got}"):
        predict(pool, images, ["digits"])
    with pytest.raises(UsageError, match="not 'digits' alone"):
        pool.predict(torch.zeros(6, 3, 48, 48, dtype=torch.uint8), "digits")
