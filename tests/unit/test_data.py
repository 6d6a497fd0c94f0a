"""Tasks as data: the digits, the VTAB-1K folders, and every fault that either can have."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import DIGITS, toy_recipe
from idat_zoo.data import Split, TaskData, load_task, missing_data
from idat_zoo.errors import DataError, UsageError
from idat_zoo.recipe import Task
from idat_zoo.results import load_result
from idat_zoo.runs import run

TOYS = Task(
    id="toys", suite="vtab1k", group="natural", num_classes=3, num_test=(40, 41), folder="toys_dir"
)
SIZES = {"train800": 800, "val200": 200, "test": 40}

DIGITS_48 = "851ddc0069895e89f5b47ade8cc9340954ee5df632015f4b1449e99b97aa7b0d"


@pytest.fixture(scope="module")
def digits() -> TaskData:
    return load_task(DIGITS, img_size=48)


def test_digits_have_the_promised_sizes(digits: TaskData) -> None:
    sizes = [len(split) for split in (digits.train800, digits.val200, digits.test)]
    assert sizes == [800, 200, 797]
    assert digits.test.images.shape == (797, 3, 48, 48)
    assert digits.test.images.dtype == torch.uint8
    assert len(digits.trainval) == 1000


def test_no_digit_is_in_two_splits_and_none_is_lost(digits: TaskData) -> None:
    index = torch.cat([s.index for s in (digits.train800, digits.val200, digits.test)])
    assert index.sort().values.equal(torch.arange(1797))


def test_every_split_of_digits_is_stratified(digits: TaskData) -> None:
    everything = torch.cat([digits.trainval.targets, digits.test.targets])
    shares = everything.bincount() / 1797
    for split in (digits.train800, digits.val200, digits.test):
        counts = split.targets.bincount(minlength=10)
        assert (counts - shares * len(split)).abs().max() <= 1.5


def test_images_labels_and_raw_pixels_of_digits_belong_together(digits: TaskData) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    assert digits.raw_pixels is not None
    for split, raw in (
        (digits.trainval, digits.raw_pixels.trainval),
        (digits.test, digits.raw_pixels.test),
    ):
        index = split.index.numpy()
        assert np.array_equal(source.target[index], split.targets.numpy())
        assert np.array_equal(source.data[index], raw)
        small = torch.nn.functional.avg_pool2d(split.images[:, 0].float(), 6).flatten(1)
        wanted = torch.from_numpy(raw).float() * 255 / 16
        correlation = torch.corrcoef(torch.stack([small.flatten(), wanted.flatten()]))[0, 1]
        assert correlation > 0.98
    assert digits.test.images[:, 0].equal(digits.test.images[:, 2])


def test_the_fingerprint_of_digits_is_pinned(digits: TaskData) -> None:
    assert digits.fingerprint() == DIGITS_48
    assert load_task(DIGITS, img_size=16).fingerprint() != DIGITS_48


def one_pixel(split: Split) -> Split:
    images = split.images.clone()
    images[3, 1, 5, 5] ^= 1
    return replace(split, images=images)


def one_label(split: Split) -> Split:
    targets = split.targets.clone()
    targets[3] = (targets[3] + 1) % 10
    return replace(split, targets=targets)


def another_order(split: Split) -> Split:
    order = torch.arange(len(split))
    order[[0, 1]] = order[[1, 0]]
    return Split(images=split.images[order], targets=split.targets[order], index=split.index[order])


@pytest.mark.parametrize("part", ["train800", "val200", "test"])
@pytest.mark.parametrize("change", [one_pixel, one_label, another_order])
def test_one_pixel_label_or_place_moves_the_fingerprint(
    change: Callable[[Split], Split], part: str, digits: TaskData
) -> None:
    changed = replace(digits, **{part: change(getattr(digits, part))})
    assert changed.fingerprint() != digits.fingerprint()


def test_the_same_images_split_elsewhere_have_another_fingerprint(digits: TaskData) -> None:
    everything = digits.trainval
    cut = [
        Split(images=everything.images[s], targets=everything.targets[s], index=everything.index[s])
        for s in (slice(700), slice(700, None))
    ]
    moved = replace(digits, train800=cut[0], val200=cut[1])
    assert moved.fingerprint() != digits.fingerprint()


def test_a_task_that_only_says_it_is_built_in_is_refused() -> None:
    with pytest.raises(UsageError, match="'letters' is said to be built in"):
        load_task(DIGITS.model_copy(update={"id": "letters"}), img_size=16)


# VTAB-1K folders


def write_toys(root: Path) -> Path:
    """A folder in the layout all papers share: lists, and 1,040 tiny images, JPEG and PNG."""
    folder = root / TOYS.folder
    source = np.random.default_rng(0)
    for part, size in SIZES.items():
        images = folder / "images" / ("test" if part == "test" else "trainval")
        images.mkdir(parents=True, exist_ok=True)
        lines = []
        for i in range(size):
            label = i % 3
            pixels = source.integers(0, 60, (8, 8, 3), dtype=np.uint8)
            pixels[..., label] += 190
            suffix = "jpg" if i % 2 else "png"
            path = images / f"{part}{i:06d}.{suffix}"
            Image.fromarray(pixels).save(path)
            lines.append(f"{path.relative_to(folder)} {label}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toys(tmp_path_factory.mktemp("vtab"))


@pytest.fixture
def own_lists(toys: Path, tmp_path: Path) -> Path:
    """The toys' lists to change as one likes, over the same images."""
    folder = tmp_path / TOYS.folder
    folder.mkdir()
    (folder / "images").symlink_to(toys / TOYS.folder / "images")
    for part in SIZES:
        (folder / f"{part}.txt").write_bytes((toys / TOYS.folder / f"{part}.txt").read_bytes())
    return tmp_path


def edit(root: Path, part: str, change: Callable[[list[str]], object]) -> None:
    path = root / TOYS.folder / f"{part}.txt"
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines))


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_task(TOYS, img_size=8, data_dir=root)
    return str(caught.value)


def test_a_folder_is_read_in_the_order_of_its_lists(toys: Path) -> None:
    data = load_task(TOYS, img_size=8, data_dir=toys)
    assert [len(s) for s in (data.train800, data.val200, data.test)] == [800, 200, 40]
    assert data.train800.targets.tolist() == [i % 3 for i in range(800)]
    assert data.test.index.tolist() == list(range(40))
    brightest = data.test.images.float().mean((2, 3)).argmax(1)
    assert brightest.equal(data.test.targets)
    path = toys / TOYS.folder / "images" / "test" / "test000000.png"
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), data.test.images[0].permute(1, 2, 0).numpy())
    assert data.raw_pixels is None
    assert load_task(TOYS, img_size=16, data_dir=toys).test.images.shape == (40, 3, 16, 16)


def test_grey_palette_and_transparent_images_become_rgb(own_lists: Path, tmp_path: Path) -> None:
    for i, mode in enumerate(("L", "P", "RGBA", "CMYK")):
        name = f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (30, 7)).save(tmp_path / TOYS.folder / name)
        edit(own_lists, "test", lambda lines, i=i, name=name: lines.__setitem__(i, f"{name} 0"))
    assert load_task(TOYS, img_size=8, data_dir=own_lists).test.images.shape == (40, 3, 8, 8)


def test_a_name_may_hold_spaces(own_lists: Path) -> None:
    target = own_lists / TOYS.folder / "a cat .png"
    Image.new("RGB", (8, 8)).save(target)
    edit(own_lists, "test", lambda lines: lines.__setitem__(0, "a cat .png 2"))
    data = load_task(TOYS, img_size=8, data_dir=own_lists)
    assert data.test.targets[0] == 2


def test_either_of_two_test_sizes_is_right(own_lists: Path) -> None:
    edit(own_lists, "test", lambda lines: lines.append(lines[0]))
    assert len(load_task(TOYS, img_size=8, data_dir=own_lists).test) == 41


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("train800", lambda lines: lines.pop(), "train800.txt: 799 lines, expected 800"),
        ("val200", lambda lines: lines.append(lines[0]), "val200.txt: 201 lines, expected 200"),
        ("test", lambda lines: lines.clear(), "test.txt: 0 lines, expected 40 or 41"),
        ("test", lambda lines: lines.__setitem__(4, "a.png 3"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png -1"), "a class below 3, got 'a.png -1'"),
        ("test", lambda lines: lines.__setitem__(4, "a.png"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, ""), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png 1.0"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png ²"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "no.png 1"), "no.png: "),
        ("test", lambda lines: lines.__setitem__(4, "images 1"), "images: "),
    ],
)
def test_each_fault_of_a_list_is_named(
    part: str, change: Callable[[list[str]], object], words: str, own_lists: Path
) -> None:
    edit(own_lists, part, change)
    message = refusal(own_lists)
    assert message.startswith("task 'toys': 1 fault")
    assert words in message


def test_all_faults_are_counted_and_ten_are_shown(own_lists: Path) -> None:
    edit(own_lists, "train800", lambda lines: lines.__setitem__(slice(15), ["x 9"] * 15))
    edit(own_lists, "test", lambda lines: lines.pop())
    message = refusal(own_lists)
    assert "16 faults in its data" in message
    assert "… and 6 more" in message
    assert len(message.splitlines()) == 12


def test_a_list_that_is_no_text_is_named(own_lists: Path) -> None:
    (own_lists / TOYS.folder / "test.txt").write_bytes(b"\xff\xfe\x00\x01")
    assert "test.txt: cannot be read: 'utf-8' codec" in refusal(own_lists)


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_truncated_image_is_named_wherever_it_ends(
    kind: str, own_lists: Path, toys: Path
) -> None:
    content, path = encoded(kind), own_lists / TOYS.folder / "torn.img"
    whole = load_task(TOYS, img_size=8, data_dir=toys)
    task = TOYS.model_copy(update={"num_test": (len(range(0, len(content) - 20, 7)),)})
    names = []
    for length in range(0, len(content) - 20, 7):
        torn = path.with_name(f"torn{length}.img")
        torn.write_bytes(content[:length])
        names.append(f"{torn.name} 0")
    edit(own_lists, "test", lambda lines: lines.__setitem__(slice(None), names))
    with pytest.raises(DataError, match=rf"{len(names)} faults in its data"):
        load_task(task, img_size=8, data_dir=own_lists)
    assert len(whole.test) == 40


def test_a_png_with_a_broken_chunk_is_named(own_lists: Path) -> None:
    content = bytearray(encoded("png"))
    content[36] -= 100  # the pixels' chunk says it is shorter, so the next is read amid pixels
    (own_lists / TOYS.folder / "broken.png").write_bytes(content)  # Pillow raises a SyntaxError
    edit(own_lists, "test", lambda lines: lines.__setitem__(4, "broken.png 1"))
    assert "broken.png: broken PNG file" in refusal(own_lists)


def test_a_damaged_image_is_read_or_named_and_never_more(own_lists: Path) -> None:
    source = np.random.default_rng(2)
    names = []
    for i in range(300):
        content = bytearray(encoded(("png", "jpeg")[i % 2]))
        for place in source.integers(0, len(content), 3):
            content[place] = source.integers(0, 256)
        (own_lists / TOYS.folder / f"hurt{i}.img").write_bytes(content)
        names.append(f"hurt{i}.img 0")
    edit(own_lists, "test", lambda lines: lines.__setitem__(slice(None), names))
    task = TOYS.model_copy(update={"num_test": (300,)})
    with pytest.raises(DataError, match=r"hurt\d+\.img: "):
        load_task(task, img_size=8, data_dir=own_lists)


def test_what_is_missing_is_told_before_anything_is_read(toys: Path, tmp_path: Path) -> None:
    assert missing_data(DIGITS, None) == ""
    assert missing_data(TOYS, toys) == ""
    assert "no --data-dir was given" in missing_data(TOYS, None)
    told = missing_data(TOYS, tmp_path)
    assert told.count(str(tmp_path / "toys_dir")) == 3
    assert "train800.txt" in told
    with pytest.raises(DataError, match="images of task 'toys'"):
        load_task(TOYS, img_size=8, data_dir=tmp_path)


def test_a_run_trains_on_a_folder(toys: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("sequential", epochs=4, lr=2e-2).model_copy(update={"task": TOYS})
    result = run(recipe, device="cpu", data_dir=toys, out=tmp_path)
    assert result.top1 > 0.9  # three plain colours
    assert result.student.count == 40
    assert result.baselines == {}
    assert result.data_fingerprint == load_task(TOYS, img_size=16, data_dir=toys).fingerprint()
    (path,) = tmp_path.rglob("result.json")
    assert load_result(path) == result
