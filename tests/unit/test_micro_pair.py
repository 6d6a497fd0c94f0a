"""The micro pair: images made by formula, pretraining that resumes, the files that ship."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.weights.canvas import SIZE
from idat_zoo.backbones.weights.formulas import BLOCK, Formulas
from idat_zoo.backbones.weights.labels import LABELS, UNKNOWN
from idat_zoo.backbones.weights.pretrain import Run, Settings
from idat_zoo.registry import load_registry

SHIPPED = Path(str(resources.files("idat_zoo.backbones.weights")))
ROLES = ("teacher", "student")


@pytest.fixture(scope="module")
def formulas() -> Formulas:
    return Formulas(seed=0)


def test_a_block_follows_from_its_index_alone(formulas: Formulas) -> None:
    first = formulas.block(3)
    formulas.block(4)
    again = Formulas(seed=0).block(3)
    assert np.array_equal(first.images, again.images)
    assert all(np.array_equal(first.labels[name], again.labels[name]) for name in LABELS)


def test_other_blocks_and_other_seeds_hold_other_images(formulas: Formulas) -> None:
    images = formulas.block(3).images
    assert not np.array_equal(images, formulas.block(4).images)
    assert not np.array_equal(images, Formulas(seed=1).block(3).images)


def test_images_and_labels_are_in_range(formulas: Formulas) -> None:
    block = formulas.block(0)
    assert block.images.shape == (BLOCK, 3, SIZE, SIZE)
    assert block.images.dtype == np.uint8
    for name, bins in LABELS.items():
        labels = block.labels[name]
        assert labels.shape == (BLOCK,)
        assert labels.min() >= UNKNOWN
        assert labels.max() < bins
        assert len(np.unique(labels)) > 2


def test_drawing_leaves_numpys_global_generator_alone(formulas: Formulas) -> None:
    before = np.random.get_state()[1].copy()
    formulas.block(0)
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.slow
def test_pretraining_that_is_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = Settings(images=3 * BLOCK, seed=0)
    whole, stopped = Run(settings), Run(settings)
    for _ in range(2):
        whole.step()
    stopped.step()
    stopped.save(tmp_path / "state")
    resumed = Run(settings)
    resumed.load(tmp_path / "state")
    resumed.step()
    for name, learner in whole.learners.items():
        ours, theirs = learner.tensors(), resumed.learners[name].tensors()
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.parametrize("role", ROLES)
def test_the_shipped_weights_fit_the_registrys_backbone(role: str) -> None:
    backbone = load_backbone(load_registry().find_backbone(f"micro_{role}"))
    assert len(backbone.body.blocks) == 4
    assert backbone.body.embed_dim == {"teacher": 64, "student": 128}[role]
    saved = load_file(SHIPPED / f"micro_{role}.safetensors")
    assert {str(tensor.dtype) for tensor in saved.values()} == {"torch.float16"}


def test_both_files_are_small_and_say_how_they_were_made() -> None:
    size = sum((SHIPPED / f"micro_{role}.safetensors").stat().st_size for role in ROLES)
    assert size <= 6 * 2**20
    record = json.loads((SHIPPED / "micro.json").read_text())
    assert record["images_seen"] == record["settings"]["images"] > 100_000
