"""The suite `real`: what ships, how the script makes it, and that no mean mixes it with others."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idat_zoo.data.image_file import as_rgb, resized
from idat_zoo.data.load import load_task
from idat_zoo.data.real import make_fashion
from idat_zoo.data.real.load import CLASS_NAMES, load_real, read_sheet
from idat_zoo.data.real.make_fashion import IMAGES_FILE, PER_CLASS, SPLITS_FILE, choose, make
from idat_zoo.errors import DataError, UsageError
from idat_zoo.registry import averaged_tasks, load_registry

FOLDER = Path(make_fashion.__file__).parent
SHIPPED = {
    IMAGES_FILE: "24abefe85751dc73bbe75490eafff171be9edd493b3cbe40c2661d5cd29278f2",
    SPLITS_FILE: "b82a736de67480f09fec884d60a204e1de70f89cbeb877918dcf7a7850b6d4fe",
}
PIXELS = "0c5d885d9e82a3f57f68c9425ecfcc5852dfc6c00f4429cb223e825a16e5c2f8"
"""Of the 2,000 images, whatever packed them."""


def test_what_ships_is_what_the_script_made() -> None:
    found = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in SHIPPED}
    assert found == SHIPPED
    pixels = read_sheet(FOLDER / IMAGES_FILE)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == PIXELS
    assert sum((FOLDER / name).stat().st_size for name in SHIPPED) < 2_000_000


def test_every_split_has_each_class_equally_often_and_no_image_twice() -> None:
    data = load_task(load_registry().tasks["fashion"], img_size=28)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    for name, split in splits.items():
        assert torch.bincount(split.targets).tolist() == [PER_CLASS[name][1]] * 10
    learnt = torch.cat([data.train.index, data.val.index]).tolist()
    assert len(set(learnt)) == len(learnt) == 1000
    assert max(learnt) < 60_000
    assert len(data.test.index.unique()) == 1000
    assert int(data.test.index.max()) < 10_000
    pixels = read_sheet(FOLDER / IMAGES_FILE)
    assert len({image.tobytes() for image in pixels}) == len(pixels) == 2000
    assert data.task.class_names == CLASS_NAMES


def test_images_are_brought_to_size_as_image_files_are() -> None:
    grey = Image.fromarray(read_sheet(FOLDER / IMAGES_FILE)[1000])
    data = load_task(load_registry().tasks["fashion"], img_size=32)
    expected = resized(as_rgb(grey), 32)
    assert np.array_equal(data.test.held[0].permute(1, 2, 0).numpy(), expected)
    assert data.raw_pixels is not None
    assert data.raw_pixels.trainval.shape == data.raw_pixels.test.shape == (1000, 784)


def test_another_task_is_not_of_the_suite() -> None:
    other = load_registry().tasks["fashion"].model_copy(update={"id": "shoes"})
    with pytest.raises(UsageError, match="'shoes' is said to be in the suite real"):
        load_real(other, 28)


def idx(array: np.ndarray) -> bytes:
    shape = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


@pytest.fixture
def official(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A small Fashion-MNIST: 110 images of each of 3 classes; one file is not packed."""
    source = np.random.default_rng(0)
    hashes = {}
    for of in ("train", "t10k"):
        labels = source.permutation(np.repeat(np.arange(3, dtype=np.uint8), 110))
        images = source.integers(0, 256, (330, 28, 28), dtype=np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, content = f"{of}-{what}-ubyte", idx(array)
            hashes[name] = hashlib.sha256(content).hexdigest()
            if of == "train":
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (tmp_path / name).write_bytes(content)
    return tmp_path, hashes


def test_the_script_makes_the_same_bytes_twice(official: tuple[Path, dict[str, str]]) -> None:
    folder, hashes = official
    sheet, splits = make(folder, sha256=hashes)
    assert (sheet, splits) == make(folder, sha256=hashes)
    (folder / IMAGES_FILE).write_bytes(sheet)
    found = read_sheet(folder / IMAGES_FILE)
    labels = {
        of: make_fashion.read_idx(folder, f"{of}-labels-idx1-ubyte", hashes)
        for of in ("train", "t10k")
    }
    images = make_fashion.read_idx(folder, "train-images-idx3-ubyte", hashes)
    chosen = choose(labels)
    assert {split: len(index) for split, index in chosen.items()} == {
        "train": 240,
        "val": 60,
        "test": 300,
    }
    assert not set(chosen["train"]) & set(chosen["val"])
    assert np.array_equal(found[:240], images[chosen["train"]])
    assert np.bincount(labels["train"][chosen["val"]]).tolist() == [20, 20, 20]


def test_the_script_refuses_other_files(official: tuple[Path, dict[str, str]]) -> None:
    folder, _ = official
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte: its unpacked bytes have SHA-256"
    ):
        make(folder)
    with pytest.raises(DataError, match="cannot be read"):
        make(folder / "elsewhere")


def test_no_mean_is_taken_over_the_suite_and_mini_keeps_its_six() -> None:
    averaged = averaged_tasks(load_registry())
    assert "real" not in averaged
    assert sum(map(len, averaged["mini"].values())) == 6
