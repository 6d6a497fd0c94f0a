"""One's own images: class folders, split folders and CSV files, split once and the same again."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image
from timm.utils.misc import natural_key as timms_key

from conftest import Notes
from idat_zoo.data.class_names import natural_key
from idat_zoo.data.folder import describe_folder, read_folder, split_csv
from idat_zoo.data.listing import Listing
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError

READING = Reading(workers=1)
SPLITS = ("train", "val", "test")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fakes.write_class_folders(tmp_path / "pets", {"cat": 20, "dog": 10, "eel": 5})


def load(place: Path, *, reading: Reading = READING, listener: Listener | None = None) -> TaskData:
    task = describe_folder(place, reading)
    return load_task(task, img_size=8, data_dir=place, reading=reading, listener=listener)


def refusal(place: Path) -> str:
    with pytest.raises(DataError) as caught:
        describe_folder(place, READING)
    return str(caught.value)


def names(listing: Listing) -> dict[str, list[str]]:
    return {split: list(rows.names) for split, rows in listing.splits.items()}


def table(place: Path, rows: list[tuple[str, ...]], header: str = "path,label,split") -> Path:
    return fakes.write_csv(place, rows, header.split(","))


# Class folders, split here


def test_class_folders_are_a_task_of_their_own_name_and_classes(pets: Path) -> None:
    task = describe_folder(pets, READING)
    assert (task.title, task.suite, task.num_classes) == ("pets", "folder", 3)
    assert task.class_names == ("cat", "dog", "eel")
    assert describe_folder(pets, READING) == task


def test_a_fifth_of_each_class_is_test_and_a_tenth_of_the_rest_is_val(pets: Path) -> None:
    listing = read_folder(pets)
    counts = {
        split: Counter(name.split("/")[0] for name in found)
        for split, found in names(listing).items()
    }
    assert counts == {
        "train": {"cat": 14, "dog": 7, "eel": 3},
        "val": {"cat": 2, "dog": 1, "eel": 1},
        "test": {"cat": 4, "dog": 2, "eel": 1},
    }
    everything = sorted(name for found in names(listing).values() for name in found)
    assert everything == sorted(str(p.relative_to(pets)) for p in pets.rglob("*.*"))


def test_each_image_has_the_class_of_its_folder(pets: Path) -> None:
    listing = read_folder(pets)
    for rows in listing.splits.values():
        for name, target in zip(rows.names, rows.targets, strict=True):
            assert name.split("/")[0] == listing.class_names[target]


def test_the_split_depends_on_names_alone_and_not_on_the_place(pets: Path, tmp_path: Path) -> None:
    other = fakes.write_class_folders(
        tmp_path / "elsewhere", {"cat": 20, "dog": 10, "eel": 5}, seed=77
    )
    assert names(read_folder(other)) == names(read_folder(pets))
    assert describe_folder(other, READING).id != describe_folder(pets, READING).id


def test_an_image_that_is_added_moves_few_others(pets: Path) -> None:
    before = {name: s for s, found in names(read_folder(pets)).items() for name in found}
    fakes.write_image(pets / "cat" / "one_more.png", 0, 3)
    after = {name: s for s, found in names(read_folder(pets)).items() for name in found}
    assert len(after) == len(before) + 1
    assert sum(before[name] != after[name] for name in before) <= 2  # one a cut


def test_a_class_of_one_image_is_learnt_and_of_two_is_tested_too(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path, {"one": 1, "two": 2, "many": 9})
    listing = read_folder(tmp_path)
    found = {split: {n.split("/")[0] for n in part} for split, part in names(listing).items()}
    assert found["train"] == {"one", "two", "many"}
    assert found["test"] == {"two", "many"}


def test_deeper_folders_hidden_files_and_other_files(pets: Path) -> None:
    before = describe_folder(pets, READING)
    (pets / "cat" / "readme.txt").write_text("mine")
    (pets / ".cache").mkdir()
    (pets / ".DS_Store").touch()
    (pets / "cat" / "._000.jpg").touch()
    assert describe_folder(pets, READING) == before
    assert "left out: 1 files that are no images by name, as cat/readme.txt" in (
        read_folder(pets).notes
    )
    fakes.write_image(pets / "cat" / "deep" / "er" / "a.PNG", 0, 3)
    assert "cat/deep/er/a.PNG" in {
        name for part in names(read_folder(pets)).values() for name in part
    }


def test_images_beside_the_class_folders_are_not_lost_silently(pets: Path) -> None:
    fakes.write_image(pets / "stray.png", 0, 3)
    fakes.write_image(pets / "another.jpg", 0, 3)
    (pets / "notes.txt").touch()
    assert "left out: 2 images in no class's folder, as another.jpg" in read_folder(pets).notes


def test_images_beside_the_class_folders_of_a_split_are_not_lost_silently(tmp_path: Path) -> None:
    fakes.write_split_folders(tmp_path, {"train": {"a": 9, "b": 9}, "test": {"a": 1, "b": 1}})
    fakes.write_image(tmp_path / "test" / "stray.png", 0, 3)
    note = "left out: 1 images in no class's folder, as test/stray.png"
    assert note in read_folder(tmp_path).notes


def test_imbalance_and_tiny_classes_are_told(tmp_path: Path) -> None:
    place = fakes.write_class_folders(tmp_path / "own", {"many": 60, "few": 4})
    notes = Notes()
    load(place, listener=notes)
    told = "\n".join(notes.notes)
    assert "classes are unlike in size: 'many' has 48 training images, 'few' has 3" in told
    assert "1 classes have fewer than 5 training images: 'few'" in told
    assert "split here: 20 % of each class for test" in told


# Folders that are split already


def test_split_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    counts = {"train": {"a": 6, "b": 5}, "val": {"a": 2, "b": 2}, "test": {"a": 3, "b": 4}}
    fakes.write_split_folders(tmp_path, counts)
    (tmp_path / "notes").mkdir()
    listing = read_folder(tmp_path)
    for split, classes in counts.items():
        found = Counter(name.split("/")[1] for name in names(listing)[split])
        assert found == classes
        assert {name.split("/")[0] for name in names(listing)[split]} == {split}
    assert listing.notes == ["left out: notes beside the folders of the splits"]


def test_without_val_a_tenth_of_train_is_val(tmp_path: Path) -> None:
    fakes.write_split_folders(tmp_path, {"train": {"a": 20, "b": 10}, "test": {"a": 1, "b": 1}})
    listing = read_folder(tmp_path)
    assert [len(listing.splits[split]) for split in SPLITS] == [27, 3, 2]
    assert "10 % of each class of train are val" in listing.notes


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_without_test_val_is_test_and_this_is_told(name: str, tmp_path: Path) -> None:
    fakes.write_split_folders(tmp_path, {"train": {"a": 20, "b": 10}, name: {"a": 4, "b": 1}})
    listing = read_folder(tmp_path)
    assert [len(listing.splits[split]) for split in SPLITS] == [27, 3, 5]
    assert "val is used as test, as there is no test" in listing.notes


def test_a_class_that_only_test_has_is_a_class(tmp_path: Path) -> None:
    fakes.write_split_folders(tmp_path, {"train": {"a": 20, "b": 10}, "test": {"a": 4, "c": 1}})
    assert read_folder(tmp_path).class_names == ("a", "b", "c")


def test_train_alone_has_nothing_to_test_on(tmp_path: Path) -> None:
    fakes.write_split_folders(tmp_path, {"train": {"a": 20, "b": 10}})
    assert "no images for test" in refusal(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("train_set", "test_set"),
        ("training_data", "testing_data"),
        ("my_train", "my_test"),
        ("imagenet-train", "imagenet-test"),
        ("train2017", "test2017"),
        ("trn", "tst"),
        ("TrainSet", "TestSet"),
        ("trainset", "testset"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("photos/train", "photos/test"),
    ],
)
def test_splits_are_known_by_the_names_that_people_use(
    names: tuple[str, str], tmp_path: Path
) -> None:
    counts = {"a": 8, "b": 8}
    fakes.write_split_folders(tmp_path, dict.fromkeys(names, counts))
    listing = read_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    for split, folder in zip(("train", "test"), names, strict=True):
        assert all(name.startswith(f"{folder}/") for name in listing.splits[split].names)


@pytest.mark.parametrize("name", ["dev", "VAL", "valid_data", "Validation"])
def test_validation_has_many_names(name: str, tmp_path: Path) -> None:
    counts = {"a": 3, "b": 3}
    fakes.write_split_folders(tmp_path, dict.fromkeys(("Train", name, "Test"), counts))
    assert [len(read_folder(tmp_path).splits[split]) for split in SPLITS] == [6, 6, 6]


def test_a_class_named_as_a_split_stays_a_class_beside_classes(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path, dict.fromkeys(("train", "bus", "car", "truck"), 5))
    listing = read_folder(tmp_path)
    assert listing.class_names == ("bus", "car", "train", "truck")
    assert sum(len(rows) for rows in listing.splits.values()) == 20
    assert "'train' is taken as a class, like 'bus', 'car', 'truck' beside" in listing.notes
    fakes.write_class_folders(tmp_path / "own", dict.fromkeys(("valid", "invalid"), 5))
    assert read_folder(tmp_path / "own").class_names == ("invalid", "valid")


def test_names_that_only_hold_a_splits_word_are_classes(tmp_path: Path) -> None:
    names = ("test_tube", "train_station", "dev board")
    fakes.write_class_folders(tmp_path, dict.fromkeys(names, 4))
    assert set(read_folder(tmp_path).class_names) == set(names)


AB = {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (
            {"Entrenamiento": AB, "Prueba": AB},
            "'Entrenamiento', 'Prueba' hold the same folders ('a', 'b'), as splits do",
        ),
        ({"A": AB, "B": AB | {"c": 1}, "extra": {"": 2}}, "'A', 'B' hold the same folders"),
        ({f"fold{i}": AB for i in range(5)}, "'fold0', 'fold1', 'fold2', 'fold3', 'fold4' hold"),
        ({"train": AB, "holdout": AB}, "'train' is named for splits, 'holdout' beside is not"),
        (
            {"train": {"steam": 3, "diesel": 3}, "bus": {"": 4}, "car": {"": 4}},
            "'train' is named for splits, 'bus', 'car' beside are not",
        ),
        ({"train": AB, "test": {"": 3}}, "'test': 3 images in no class's folder; expected test/"),
        ({"train": {"": 5}, "test": {"": 3}}, "'test', 'train': 8 images in no class's folder"),
        ({"train": AB, "Training": AB, "test": AB}, "'Training', 'train' are one split"),
        ({"train": AB, "test": {"unknown": 3}}, "have no class in common: 'a', 'b' and 'unknown'"),
        ({"test": AB}, "no images for train beside 'test'; to have that folder split here"),
        (
            {"cat": {"train": 4, "test": 2}, "dog": {"train": 4, "test": 2}},
            "'cat' holds 'test', 'train': splits below a class",
        ),
    ],
)
def test_what_may_be_splits_or_classes_is_refused_by_name(
    folders: Mapping[str, Mapping[str, int]], words: str, tmp_path: Path
) -> None:
    fakes.write_split_folders(tmp_path, folders)
    assert words in refusal(tmp_path)


def test_classes_with_folders_of_their_own_are_no_splits(tmp_path: Path) -> None:
    kinds = {"animals": {"dog": 3, "cat": 3, "other": 3}, "plants": {"tree": 3, "other": 3}}
    fakes.write_split_folders(tmp_path / "kinds", kinds)
    assert read_folder(tmp_path / "kinds").class_names == ("animals", "plants")
    fakes.write_split_folders(tmp_path / "deep", {"cat": {"images": 4}, "dog": {"images": 4}})
    assert read_folder(tmp_path / "deep").class_names == ("cat", "dog")


def test_classes_that_lie_one_folder_deeper_are_found_and_this_is_told(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path / "archive" / "images", {"cat": 5, "dog": 5})
    fakes.write_class_folders(tmp_path / "__MACOSX" / "images", {"cat": 5})
    listing = read_folder(tmp_path)
    assert listing.class_names == ("cat", "dog")
    assert any("the classes are looked for in 'archive/images'" in n for n in listing.notes)


# Classes: none vanishes, none is doubled, numbers are in their order


def test_a_class_without_images_is_a_fault_with_its_name(pets: Path) -> None:
    (pets / "fox").mkdir()
    (pets / "gnu").mkdir()
    (pets / "gnu" / "a.mov").touch()
    (pets / "hen" / ".ipynb_checkpoints").mkdir(parents=True)
    message = refusal(pets)
    assert "class 'fox': no images in 'fox' (it is empty); fill or move it away" in message
    assert (
        "class 'gnu': no images in 'gnu' (1 files that are none by name, as gnu/a.mov)" in message
    )
    assert "class 'hen': no images in 'hen' (it is empty)" in message
    assert "cat" not in message.replace("'folder'", "")


def test_a_class_that_one_split_lacks_is_named(tmp_path: Path) -> None:
    counts = {"train": {"a": 6, "b": 6}, "test": {"a": 2, "c": 2}}
    fakes.write_split_folders(tmp_path, counts)
    (tmp_path / "train" / "c").mkdir()
    notes = Notes()
    load(tmp_path, listener=notes)
    told = "\n".join(notes.notes)
    assert "1 of 3 classes have no training image: 'c'" in told
    assert "1 of 3 classes have no test image: 'b'" in told


def test_a_class_of_an_unread_format_is_refused_by_its_name_with_or_without_skip(
    pets: Path,
) -> None:
    for path in (pets / "eel").iterdir():
        path.with_suffix(".jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n")
        path.unlink()
    with pytest.raises(DataError) as caught:
        load(pets)
    assert "class 'eel': none of its 4 training images can be read" in caught.value.message
    assert "eel/001.jp2 is not an image of a known format" in caught.value.message
    assert "--skip-corrupt" not in caught.value.hint
    with pytest.raises(DataError, match="class 'eel': none of its 4 training images") as caught:
        load(pets, reading=Reading(skip_corrupt=True))
    assert caught.value.hint == "Convert its images, or move its folder away."


def test_classes_are_told_as_they_are_after_unreadable_images_are_left_out(pets: Path) -> None:
    for name in read_folder(pets).splits["test"].names:
        if name.startswith("eel"):
            (pets / name).write_bytes(b"")
    notes = Notes()
    load(pets, reading=Reading(skip_corrupt=True), listener=notes)
    assert "1 of 3 classes have no test image: 'eel'" in "\n".join(notes.notes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("01", "1"),
        ("cat ", "cat"),
        ("class_01", "class_1"),
        ("golden retriever", "golden_retriever"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u200bcat", "cat"),
        ("1.0", "1"),
    ],
)
def test_two_names_that_are_likely_one_are_refused_with_both(
    one: str, other: str, pets: Path, tmp_path: Path
) -> None:
    counts = {"train": {one: 5, "zebra": 5}, "test": {other: 3, "zebra": 3}}
    place = fakes.write_split_folders(tmp_path / "splits", counts)
    rows = [("cat/000.jpg", one), ("cat/001.png", other), ("dog/000.jpg", "zebra")]
    for message in (refusal(place), refusal(table(pets / "own.csv", rows, "path,label"))):
        assert "likely one class under 2 names" in message
        assert repr(one) in message or ascii(one) in message
        assert repr(other) in message or ascii(other) in message


@pytest.mark.parametrize("labels", [("-1", "1", "0"), ("1.05", "1.5", "15"), ("a1", "a11", "b1")])
def test_unlike_names_stay_unlike(labels: tuple[str, ...], tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path, dict.fromkeys(labels, 3))
    assert set(read_folder(tmp_path).class_names) == set(labels)


def test_letters_of_both_cases_may_be_classes_if_both_are_learnt(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path / "all", dict.fromkeys(("a", "A", "b"), 5))
    listing = read_folder(tmp_path / "all")
    assert listing.class_names == ("A", "a", "b")
    assert any("classes that differ in case alone: 'A' (" in note for note in listing.notes)
    counts = {"train": {"a": 5, "b": 5}, "test": {"A": 3, "b": 3}}
    place = fakes.write_split_folders(tmp_path / "apart", counts)
    assert "likely one class under 2 names: 'A'" in refusal(place)


def test_numbered_classes_are_in_the_order_of_numbers_as_timm_sorts(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path, {str(k): 3 for k in range(1, 12)})
    assert describe_folder(tmp_path, READING).class_names == tuple(str(k) for k in range(1, 12))
    names = ["b10", "b9", "10", "9", "a", "B1", "c 2 d 10", "c 2 d 9", "é3"]
    assert sorted(names, key=natural_key) == sorted(names, key=timms_key)
    assert sorted(["x1²", "9" * 5000, "8"], key=natural_key) == ["8", "9" * 5000, "x1²"]


def test_a_run_of_the_old_order_keeps_its_order_and_its_id(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path, {str(k): 4 for k in range(1, 12)})
    new = describe_folder(tmp_path, READING)
    listing = read_folder(tmp_path)
    digest = hashlib.sha256(split_csv(listing))
    for rows in listing.splits.values():
        for name in rows.names:
            digest.update(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest().encode())
    old = new.model_copy(
        update={
            "id": f"folder-{digest.hexdigest()[:8]}",  # as it was counted before
            "class_names": tuple(sorted(new.class_names)),
        }
    )
    assert old.id != new.id
    data = load_task(old, img_size=8, data_dir=tmp_path, reading=READING)
    assert data.listing is not None
    named = [old.class_names[target] for target in data.test.targets.tolist()]
    assert named == [name.split("/")[0] for name in data.listing.splits["test"].names]
    wrong = old.model_copy(update={"class_names": old.class_names[::-1]})
    with pytest.raises(DataError, match="is another folder of images, or has changed"):
        load_task(wrong, img_size=8, data_dir=tmp_path, reading=READING)


def test_an_id_in_plain_order_is_counted_as_before(pets: Path) -> None:
    listing = read_folder(pets)
    digest = hashlib.sha256(split_csv(listing))
    for rows in listing.splits.values():
        for name in rows.names:
            digest.update(hashlib.sha256((pets / name).read_bytes()).hexdigest().encode())
    assert describe_folder(pets, READING).id == f"folder-{digest.hexdigest()[:8]}"


def test_avif_is_read_as_other_images_are(pets: Path) -> None:
    for path in (pets / "eel").iterdir():
        Image.open(path).save(path.with_suffix(".avif"))
        path.unlink()
    assert load(pets).task.class_names == ("cat", "dog", "eel")


# CSV


def test_splits_in_a_csv_may_have_the_names_that_people_use(pets: Path) -> None:
    rows = [
        (f"{label}/{i:03d}.{'png' if i % 2 else 'jpg'}", label, split)
        for label in ("cat", "dog")
        for i, split in enumerate(("Training", "train", "valid", "TEST"))
    ]
    listing = read_folder(table(pets / "own.csv", rows))
    assert [len(listing.splits[split]) for split in SPLITS] == [4, 2, 2]


def test_a_split_that_was_kept_is_the_same_split_again(pets: Path) -> None:
    first = load(pets)
    assert first.listing is not None
    kept = pets / "split.csv"
    kept.write_bytes(split_csv(first.listing))
    second = load(kept)
    assert second.listing is not None
    assert second.listing.splits == first.listing.splits
    assert (second.task.id, second.fingerprint) == (first.task.id, first.fingerprint)
    assert split_csv(second.listing) == kept.read_bytes()


def test_names_with_anything_in_them_survive_the_csv(tmp_path: Path) -> None:
    place = tmp_path / "odd"
    for label, name in enumerate(('a,"b"', "line\nend", "return\rend", " blanks ", "貓\t")):
        for i in range(4):
            fakes.write_image(place / name / f"{name}{i}.png", label, 5, seed=i)
    first = read_folder(place)
    kept = place / "split.csv"
    kept.write_bytes(split_csv(first))
    assert read_folder(kept).splits == first.splits
    assert read_folder(kept).class_names == first.class_names


def test_a_csv_of_path_and_label_is_split_here_as_folders_are(pets: Path, tmp_path: Path) -> None:
    listing = read_folder(pets)
    rows = [(name, name.split("/")[0]) for part in names(listing).values() for name in part]
    found = read_folder(table(pets / "all.csv", rows, "path,label"))
    assert {s: sorted(n) for s, n in names(found).items()} == {
        s: sorted(n) for s, n in names(listing).items()
    }


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_csv_of_any_system_is_read_alike(mark: bytes, end: bytes, pets: Path) -> None:
    content = split_csv(read_folder(pets))
    (pets / "own.CSV").write_bytes(mark + content.replace(b"\n", end))
    assert names(read_folder(pets / "own.CSV")) == names(read_folder(pets))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "own.csv: expected a first line 'path,label' or 'path,label,split', got ''"),
        ("cat/000.jpg,cat\n", "expected a first line"),
        ("path;label\n", "expected a first line"),
        ("path,label\n", "it has a first line alone; expected a line 'path,label' for each image"),
        ("path,label\ncat/000.jpg,  \n", "own.csv line 2: expected path,label"),
        ("path,label\ncat/000.jpg\n", "line 2: expected path,label, got 'cat/000.jpg,'"),
        ("path,label\ncat/000.jpg,cat,train\n", "path,label, got 'cat/000.jpg,cat,train'"),
        ("path,label\n,cat\n", "own.csv line 2: expected path,label"),
        ("path,label\ncat/000.jpg,\n", "own.csv line 2: expected path,label"),
        ("path,label,split\ncat/000.jpg,cat,trian\n", "or test), got 'cat/000.jpg,cat,trian'"),
        ("path,label\nabsent.jpg,cat\n", "absent.jpg: cannot be read: No such file"),
        ("path,label\n../x.jpg,cat\n", "../x.jpg: is not a path inside the task's folder"),
        ("path,label\n/etc/hostname,cat\n", "is not a path inside the task's folder"),
        ("path,label\ncat,cat\n", "cat: is not a file"),
        ("path,label\ncat/000.jpg,cat\ncat/001.png,cat\n", "all images are of one class, 'cat'"),
        ("path,label\ncat/000.jpg,a\ncat/000.jpg,b\n", "cat/000.jpg: is listed twice"),
        ("path,label\n" + "x" * 200_000 + ",a\n", "own.csv line 2: field larger than"),
        ("x" * 200_000, "own.csv line 1: field larger than"),
        ("path,label\na\0b,cat\n", "is not a path inside the task's folder"),
        ("path,label,split\ncat/000.jpg,a,test\ncat/001.png,b,val\n", "no images for train"),
    ],
)
def test_each_fault_of_a_csv_is_named(content: str, words: str, pets: Path) -> None:
    (pets / "own.csv").write_text(content)
    assert words in refusal(pets / "own.csv")


def test_a_csv_that_is_no_text_or_not_there_is_told(pets: Path) -> None:
    (pets / "own.csv").write_bytes(b"\xff\xfe\0")
    assert "own.csv: cannot be read: 'utf-8' codec" in refusal(pets / "own.csv")
    assert "absent.csv: cannot be read: No such file" in refusal(pets / "absent.csv").replace(
        "[Errno 2] ", ""
    )


# Wrong folders


def test_a_flat_folder_of_images_says_so_and_names_a_csv_beside(tmp_path: Path) -> None:
    for number in range(7):
        fakes.write_image(tmp_path / f"{number}.png", 0, 3)
    message = refusal(tmp_path)
    assert "holds 7 images itself, as 0.png, and none in a folder for its class" in message
    assert "no images" not in message
    (tmp_path / "labels.csv").touch()
    assert f"or a CSV as --data-dir: '{tmp_path}/labels.csv' lies there" in refusal(tmp_path)


def test_what_systems_leave_behind_is_passed_over(pets: Path) -> None:
    before = describe_folder(pets, READING)
    for name in ("__MACOSX/cat", "@eaDir", ".ipynb_checkpoints", "cat/.ipynb_checkpoints"):
        fakes.write_image(pets / name / "copy.png", 0, 3)
    for name in ("Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini", "cat/._000.jpg"):
        (pets / name).touch()
    assert describe_folder(pets, READING) == before
    assert not any("left out" in note for note in read_folder(pets).notes)


def test_a_place_that_holds_no_classes_is_told(tmp_path: Path) -> None:
    assert f"no images in '{tmp_path}'" in refusal(tmp_path)
    assert "is not a folder and not a .csv file" in refusal(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert "is not a folder and not a .csv file" in refusal(tmp_path / "file")
    fakes.write_class_folders(tmp_path, {"only": 9})
    assert "all images are of one class, 'only'; expected two classes" in refusal(tmp_path)


def test_links_are_named_and_lead_nowhere(pets: Path, tmp_path: Path) -> None:
    outside = fakes.write_class_folders(tmp_path / "outside", {"fox": 3})
    (pets / "fox").symlink_to(outside / "fox")
    (pets / "cat" / "deeper").symlink_to(outside / "fox")
    (pets / "dog" / "fox.jpg").symlink_to(outside / "fox" / "000.jpg")
    message = refusal(pets)
    assert "pets/fox: is a link to a folder; links are not followed" in message
    assert "pets/cat/deeper: is a link to a folder; links are not followed" in message
    assert "dog/fox.jpg: leaves the task's folder by a link" in message


def test_pipes_are_named_and_not_waited_for(pets: Path) -> None:
    os.mkfifo(pets / "cat" / "pipe.png")
    assert "cat/pipe.png: is not a file" in refusal(pets)


def test_a_name_that_is_no_unicode_is_named(pets: Path) -> None:
    content = (pets / "cat" / "000.jpg").read_bytes()
    Path(os.fsdecode(os.fsencode(pets / "cat") + b"/\xff.jpg")).write_bytes(content)
    assert "cat/\udcff.jpg: has a name that is no Unicode text" in refusal(pets)


def test_a_folder_that_changed_since_it_was_described_is_refused(pets: Path) -> None:
    task = describe_folder(pets, READING)
    fakes.write_image(pets / "cat" / "000.jpg", 1, 3)
    with pytest.raises(DataError, match="is another folder of images, or has changed"):
        load_task(task, img_size=8, data_dir=pets, reading=READING)


# Images that cannot be read


def test_without_skip_corrupt_all_unreadable_images_are_named(pets: Path) -> None:
    (pets / "cat" / "000.jpg").write_bytes(b"")
    (pets / "eel" / "001.png").write_bytes(b"hello")
    with pytest.raises(DataError) as caught:
        load(pets)
    assert "2 faults in its data" in caught.value.message
    assert "cat/000.jpg is empty (0 bytes)" in caught.value.message
    assert "eel/001.png is not an image of a known format" in caught.value.message
    assert caught.value.hint == "--skip-corrupt goes on without them."


def test_skip_corrupt_leaves_out_images_labels_and_places_alike(pets: Path, tmp_path: Path) -> None:
    whole = load(pets)
    assert whole.listing is not None
    hurt = {split: rows.names[len(rows) // 2] for split, rows in whole.listing.splits.items()}
    for name in hurt.values():
        (pets / name).write_bytes(b"")
    notes = Notes()
    reading = Reading(skip_corrupt=True)
    data = load(pets, reading=reading, listener=notes)
    assert data.unreadable == 3
    assert any(note.count(" is empty (0 bytes)") == 3 for note in notes.notes)
    for split in SPLITS:
        before, after = getattr(whole, split), getattr(data, split)
        kept = np.flatnonzero(np.arange(len(before)) != len(before) // 2)
        assert after.index.tolist() == kept.tolist()
        assert after.targets.equal(before.targets[kept])
        assert after.held.equal(before.held[kept])
    for name in hurt.values():
        (pets / name).unlink()
    without = fakes.link_tree(pets, tmp_path / "without")
    rows = [
        (name, name.split("/")[0], split)
        for split, part in names(whole.listing).items()
        for name in part
        if name != hurt[split]
    ]
    assert load(table(without / "own.csv", rows)).fingerprint == data.fingerprint


def test_nothing_readable_to_test_on_is_an_error_and_no_crash(pets: Path) -> None:
    for name in names(read_folder(pets))["test"]:
        (pets / name).write_bytes(b"")
    with pytest.raises(DataError, match="no images for test"):
        load(pets, reading=Reading(skip_corrupt=True))
