"""VTAB-1K folders: read in the order of their lists, or refused with every fault by name."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fakes
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Notes
from idat_zoo.data.lists import read_listing
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError
from idat_zoo.recipe import Task
from idat_zoo.registry import load_registry

TOYS = Task(
    id="toys",
    suite="vtab1k",
    num_classes=3,
    num_train=(24,),
    num_val=(8,),
    num_test=(16, 17),
    folder="toys_dir",
)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vtab")
    fakes.write_vtab1k_task(root, TOYS)
    return root


@pytest.fixture
def own(toys: Path, tmp_path: Path) -> Path:
    """The toys' folder, to change as one likes."""
    return fakes.link_tree(toys / TOYS.folder, tmp_path / "data" / TOYS.folder)


def load(folder: Path, *, size: int = 8, listener: Listener | None = None) -> TaskData:
    return load_task(TOYS, img_size=size, data_dir=folder.parent, listener=listener)


def edit(path: Path, change: Callable[[list[str]], object]) -> None:
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines))


def relist(folder: Path, name: str, line: int = 4) -> None:
    """An image of the test list is another one now."""
    edit(folder / "test.txt", lambda lines: lines.__setitem__(line, f"{name} 1"))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(folder)
    return str(caught.value)


def image_bytes(colour: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "png")
    return buffer.getvalue()


# What is right


def test_a_folder_is_read_in_the_order_of_its_lists(own: Path) -> None:
    data = load(own, size=9)
    for split, name in (("train", "train800"), ("val", "val200"), ("test", "test")):
        lines = (own / f"{name}.txt").read_text().splitlines()
        found = getattr(data, split)
        assert found.index.tolist() == list(range(len(lines)))
        for line, image, target in zip(lines, found.held, found.targets, strict=True):
            path, _, label = line.rpartition(" ")
            assert int(target) == int(label)
            with Image.open(own / path) as source:
                expected = np.asarray(source.resize((9, 9), Image.Resampling.BICUBIC))
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert data.raw_pixels is None
    assert data.counts() == fakes.COUNTS | {"unreadable": 0, "test_in_training": 0}


@pytest.mark.slow
def test_all_19_fakes_are_read_by_the_shelf_that_comes_with_them(tmp_path: Path) -> None:
    fakes.write_vtab1k(tmp_path / "data", tmp_path / "shelf")
    builtin, registry = load_registry(), load_registry(tmp_path / "shelf")
    tasks = fakes.vtab1k_tasks(registry)
    assert len(tasks) == 19
    fingerprints = set()
    for task in tasks:
        data = load_task(task, img_size=8, data_dir=tmp_path / "data")
        assert data.counts() == fakes.COUNTS | {"unreadable": 0, "test_in_training": 0}
        assert {0, task.num_classes - 1} <= set(data.trainval.targets.tolist())
        fingerprints.add(data.fingerprint)
        counts = {"num_train", "num_val", "num_test"}
        assert task.model_dump(exclude=counts) == builtin.tasks[task.id].model_dump(exclude=counts)
    assert len(fingerprints) == 19
    assert registry.aliases == builtin.aliases


def test_a_real_size_is_not_a_fakes_size(tmp_path: Path) -> None:
    task = load_registry().tasks["caltech101"]
    assert task.num_test == (6084, 6085)
    fakes.write_vtab1k_task(tmp_path, task)
    with pytest.raises(DataError, match="task 'caltech101': 3 faults") as caught:
        load_task(task, img_size=8, data_dir=tmp_path)
    assert "test.txt: 16 images, expected 6,084 or 6,085" in str(caught.value)


def test_either_of_two_test_sizes_is_right_and_no_third(own: Path) -> None:
    assert len(load(own).test) == 16
    for count, name in enumerate(("more.png", "too_many.png")):
        (own / name).write_bytes(image_bytes((count, 0, 0)))
        edit(own / "test.txt", lambda lines, name=name: lines.append(f"{name} 0"))
        if count == 0:
            assert len(load(own).test) == 17
    assert "test.txt: 18 images, expected 16 or 17" in refusal(own)


def test_names_may_hold_spaces_and_letters_of_any_script(own: Path) -> None:
    for line, name in enumerate((" a cat.png", "two  blanks.png", "ends .png ", "貓 1.png")):
        (own / name).write_bytes(image_bytes((line, 0, 0)))
        relist(own, name, line)
    assert load(own).test.held[:4, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_marks_of_other_systems_make_no_difference(
    last: bool, end: str, mark: str, own: Path
) -> None:
    expected = load(own).fingerprint
    for name in ("train800", "val200", "test", "train800val200"):
        lines = (own / f"{name}.txt").read_text().splitlines()
        text = mark + end.join(lines) + (end if last else "")
        (own / f"{name}.txt").write_bytes(text.encode())
    assert load(own).fingerprint == expected


def test_links_that_stay_inside_the_folder_are_followed(own: Path) -> None:
    expected = load(own).fingerprint
    (own / "images").rename(own / "stored")
    (own / "images").symlink_to("stored")
    image = own / "stored/test/000000.jpg"
    image.rename(own / "first.jpg")
    image.symlink_to(own / "first.jpg")
    own.rename(own.with_name("elsewhere"))
    own.symlink_to("elsewhere")
    image.unlink()
    image.symlink_to("../../first.jpg")
    assert load(own).fingerprint == expected


# Wrong lists


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("train800", lambda lines: lines.pop(), "train800.txt: 23 images, expected 24"),
        ("val200", lambda lines: lines.clear(), "val200.txt: 0 images, expected 8"),
        ("test", lambda lines: lines.__setitem__(4, "a.png 3"), "expected a class below 3, got"),
        ("test", lambda lines: lines.__setitem__(4, "a.png -1"), "got 'a.png -1'"),
        ("test", lambda lines: lines.__setitem__(4, "a.png"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "7"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, ""), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png 1.0"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png ²"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png ٣"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png,1"), "test.txt line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "a.png " + "1" * 9999), "line 5: expected"),
        ("test", lambda lines: lines.__setitem__(4, "no.png 1"), "test.txt: no.png: cannot be"),
        ("test", lambda lines: lines.__setitem__(4, "images 1"), "test.txt: images: is not a file"),
        ("test", lambda lines: lines.__setitem__(4, ". 1"), "test.txt: .: is not a file"),
        ("test", lambda lines: lines.__setitem__(4, "images/ 1"), "images/: is not a path inside"),
        ("test", lambda lines: lines.__setitem__(4, "x" * 300 + " 1"), "File name too long"),
        ("test", lambda lines: lines.__setitem__(4, "a\0b 1"), "is not a path inside"),
        ("test", lambda lines: lines.__setitem__(4, "\033[31ma 1"), "No such file or directory"),
        ("train800val200", lambda lines: lines.pop(), "train800val200.txt: its classes are not"),
        (
            "train800val200",
            lambda lines: lines.__setitem__(0, lines[1]),
            "train800val200.txt: its classes are not those of train800.txt and val200.txt",
        ),
        ("train800val200", lambda lines: lines.__setitem__(0, "?"), "train800val200.txt line 1"),
    ],
)
def test_each_fault_of_a_list_is_named(
    name: str, change: Callable[[list[str]], object], words: str, own: Path
) -> None:
    edit(own / f"{name}.txt", change)
    if name != "train800val200":
        (own / "train800val200.txt").unlink()  # it would disagree as well
    message = refusal(own)
    assert message.startswith("task 'toys': 1 fault in its data:")
    assert words in message
    assert len(message) < 1000


def test_a_list_of_other_columns_is_named_line_by_line(own: Path) -> None:
    (own / "test.txt").write_text((own / "test.txt").read_text().replace(" ", "\t"))
    assert "task 'toys': 16 faults" in refusal(own)


def test_all_faults_are_counted_ten_are_shown_and_the_list_of_all_is_named(own: Path) -> None:
    edit(own / "train800.txt", lambda lines: lines.__setitem__(slice(15), ["x 9"] * 15))
    edit(own / "test.txt", lambda lines: lines.pop())
    with pytest.raises(DataError) as caught:
        load(own)
    assert "17 faults in its data" in caught.value.message  # train800val200.txt disagrees too
    assert "… and 7 more" in caught.value.message
    assert len(caught.value.message.splitlines()) == 12
    assert "idat data verify" in caught.value.hint


@pytest.mark.parametrize("name", ["test", "train800val200"])
def test_a_list_that_is_no_text_is_named(name: str, own: Path) -> None:
    (own / f"{name}.txt").write_bytes(b"\xff\xfe\x00\x01")
    assert f"{name}.txt: cannot be read: 'utf-8' codec" in refusal(own)


def test_train800val200_may_be_absent_and_may_have_another_order(own: Path) -> None:
    expected = load(own).fingerprint
    edit(own / "train800val200.txt", lambda lines: lines.reverse())
    assert load(own).fingerprint == expected
    (own / "train800val200.txt").unlink()
    assert load(own).fingerprint == expected


@pytest.mark.parametrize("name", ["train800", "val200", "test"])
def test_a_list_that_is_not_there_or_no_file_is_told(name: str, own: Path) -> None:
    (own / f"{name}.txt").unlink()
    told = f"missing: images of task 'toys': no {own}/{name}.txt"
    assert refusal(own).splitlines()[0] == told
    os.mkfifo(own / f"{name}.txt")
    assert refusal(own).splitlines()[0] == told


# Images listed twice, or in training and in test


def test_an_image_listed_twice_is_named_with_both_lists(own: Path) -> None:
    first = (own / "train800.txt").read_text().split()[0]
    relist(own, first)
    assert f"test.txt: {first}: is listed twice, there and in train800.txt" in refusal(own)
    test = (own / "test.txt").read_text().split()[0]
    relist(own, test)
    assert f"test.txt: {test}: is listed twice, there and in test.txt" in refusal(own)


@pytest.mark.parametrize("way", ["./{}", "images//{}", "images/./{}", "by_link/{}"])
def test_another_spelling_hides_no_duplicate(way: str, own: Path) -> None:
    (own / "by_link").symlink_to("images")
    inside = "test/000000.jpg" if "{}" in way and way != "./{}" else "images/test/000000.jpg"
    relist(own, way.format(inside))
    assert "is listed twice, there and in test.txt" in refusal(own)


def test_a_link_to_a_listed_image_is_a_duplicate(own: Path) -> None:
    (own / "link.jpg").symlink_to("images/train800/000000.jpg")
    relist(own, "link.jpg")
    assert "test.txt: link.jpg: is listed twice, there and in train800.txt" in refusal(own)


def test_copies_of_training_images_in_test_are_counted_and_told(own: Path) -> None:
    for line, source in ((0, "train800/000003.png"), (1, "val200/000001.png")):
        name = f"copy{line}.png"
        shutil.copyfile(own / "images" / source, own / name)
        relist(own, name, line)
    notes = Notes()
    assert load(own, listener=notes).test_in_training == 2
    assert notes.notes == [
        "toys: 2 of 16 test images have the same bytes as an image that is learnt from"
    ]


# Paths that leave the folder


@pytest.mark.parametrize(
    "name", ["../outside.png", "images/../../outside.png", "images/..", "..", "/etc/hostname"]
)
def test_a_path_that_leaves_the_folder_is_refused(name: str, own: Path) -> None:
    (own.parent / "outside.png").write_bytes(image_bytes())
    relist(own, name)
    assert f"test.txt: {name}: is not a path inside the task's folder" in refusal(own)


def test_an_absolute_path_is_refused_even_where_it_leads_inside(own: Path) -> None:
    relist(own, str(own / "images/test/000000.jpg"))
    assert "is not a path inside the task's folder" in refusal(own)


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_that_leaves_the_folder_is_refused(relative: bool, own: Path) -> None:
    outside = own.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(image_bytes())
    target = Path("../outside") if relative else outside
    (own / "file.png").symlink_to(target / "a.png")
    (own / "folder").symlink_to(target)
    for name in ("file.png", "folder/a.png"):
        relist(own, name)
        assert f"test.txt: {name}: leaves the task's folder by a link" in refusal(own)


def test_a_neighbour_whose_name_begins_alike_is_outside(own: Path) -> None:
    neighbour = own.with_name(f"{own.name}_too")
    neighbour.mkdir()
    (neighbour / "a.png").write_bytes(image_bytes())
    (own / "folder").symlink_to(neighbour)
    relist(own, "folder/a.png")
    assert "leaves the task's folder by a link" in refusal(own)


def test_links_to_nothing_and_in_circles_are_named(own: Path) -> None:
    (own / "nothing.png").symlink_to("absent.png")
    (own / "circle.png").symlink_to("circle.png")
    for name in ("nothing.png", "circle.png"):
        relist(own, name)
        assert f"test.txt: {name}: cannot be read: " in refusal(own)


def test_pipes_devices_and_sockets_are_not_opened(own: Path) -> None:
    os.mkfifo(own / "pipe.png")
    (own / "zero.png").symlink_to("/dev/zero")
    relist(own, "pipe.png", 0)
    relist(own, "zero.png", 1)
    message = refusal(own)
    assert "pipe.png: is not a file" in message
    assert "zero.png: leaves the task's folder by a link" in message


# Images that cannot be read


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello", "is not an image of a known format"),
        (image_bytes()[:45], "is damaged: "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image of a known"),
    ],
)
def test_images_that_cannot_be_read_are_all_named(content: bytes, words: str, own: Path) -> None:
    (own / "hurt one.png").write_bytes(content)
    (own / "hurt two.png").write_bytes(content + b"\n")
    relist(own, "hurt one.png")
    edit(own / "train800.txt", lambda lines: lines.__setitem__(0, "hurt two.png 0"))
    (own / "train800val200.txt").unlink()
    message = refusal(own)
    assert message.startswith("task 'toys': 2 faults in its data:")
    assert f"test.txt: hurt one.png {words}" in message
    assert "train800.txt: hurt two.png " in message


def test_the_limit_of_megapixels_is_the_readers_choice(own: Path) -> None:
    (own / "large.png").write_bytes(image_bytes())
    relist(own, "large.png")
    strict = Reading(max_megapixels=109e-6)  # the others have 108 pixels, this one 64
    assert len(load_task(TOYS, img_size=8, data_dir=own.parent, reading=strict).test) == 16
    stricter = Reading(max_megapixels=65e-6)
    with pytest.raises(DataError, match="47 faults") as caught:
        load_task(TOYS, img_size=8, data_dir=own.parent, reading=stricter)
    assert "large.png" not in str(caught.value)
    assert "12 x 9 pixels are more than 6.5e-05 megapixels" in str(caught.value)


def test_an_unreadable_image_is_never_left_out_of_a_task_of_fixed_size(own: Path) -> None:
    (own / "hurt.png").write_bytes(b"")
    relist(own, "hurt.png")
    with pytest.raises(DataError) as caught:
        load_task(TOYS, img_size=8, data_dir=own.parent, reading=Reading(skip_corrupt=True))
    assert "hurt.png is empty" in caught.value.message
    assert "--skip-corrupt" not in caught.value.hint


def test_lists_are_checked_without_opening_any_image(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = Path.read_bytes

    def only_lists(path: Path) -> bytes:
        assert path.suffix == ".txt"
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", only_lists)
    monkeypatch.setattr(Image, "open", None)
    faults: list[str] = []
    listing = read_listing(TOYS, own.parent, faults)
    assert faults == []
    assert [len(rows) for rows in listing.splits.values()] == [24, 8, 16]


def test_the_same_images_as_jpeg_and_as_png_have_unlike_fingerprints(tmp_path: Path) -> None:
    fingerprints = set()
    for place, options in (("a", {"quality": 95}), ("b", {"quality": 75}), ("c", None)):
        folder = fakes.write_vtab1k_task(tmp_path / place, TOYS)
        path = folder / "images/test/000001.png"
        with Image.open(path) as image:
            image.load()
        if options is not None:
            image.save(path, "JPEG", **options)
        data = load(folder)
        fingerprints.add(data.fingerprint)
        assert data.test.held.dtype == torch.uint8
    assert len(fingerprints) == 3
