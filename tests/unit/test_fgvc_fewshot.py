"""JSON splits as VPT reads them, and few-shot lists as iDAT reads them."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch

from conftest import Notes
from idat_zoo.data.load import load_task
from idat_zoo.data.suites import suite_of
from idat_zoo.data.suites.fewshot import FEWSHOT_TEST, fewshot_train
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError
from idat_zoo.recipe import Task
from idat_zoo.registry import load_registry

BIRDS = Task(
    id="birds",
    suite="fgvc",
    num_classes=4,
    num_train=(),
    num_val=(8,),
    num_test=(16,),
    folder="birds_dir",
    images="images",
)
SHOTS = Task(
    id="shots_2",
    suite="fewshot",
    num_classes=3,
    num_test=(),
    folder="shots_dir",
    images="images",
    shots=2,
)


def load(task: Task, folder: Path, **options: Any) -> TaskData:
    return load_task(task, img_size=8, data_dir=folder.parent, **options)


def refusal(task: Task, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(task, folder)
    return str(caught.value)


# Fine-grained tasks


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return fakes.write_fgvc(tmp_path, BIRDS, [1, 2, 3, 4])


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    rows = json.loads(path.read_text())
    alter(rows)
    path.write_text(json.dumps(rows))


def test_json_splits_are_read_in_their_order(birds: Path) -> None:
    data = load(BIRDS, birds)
    assert data.counts() == fakes.COUNTS | {"unreadable": 0, "test_in_training": 0}
    assert data.listing is not None
    for split in ("train", "val", "test"):
        rows = json.loads((birds / f"{split}.json").read_text())
        assert list(data.listing.splits[split].names) == [f"images/{name}" for name in rows]
        assert getattr(data, split).targets.tolist() == [label - 1 for label in rows.values()]


def test_images_may_lie_beside_the_lists(tmp_path: Path) -> None:
    task = BIRDS.model_copy(update={"images": ""})
    assert len(load(task, fakes.write_fgvc(tmp_path, task, [1, 2, 3, 4])).test) == 16


@pytest.mark.parametrize("labels", [[1, 2, 3, 4], [7, 30, 200, 1000], ["a", "b", "c", "d"]])
def test_only_the_order_of_the_classes_counts(labels: list[int | str], tmp_path: Path) -> None:
    plain = load(BIRDS, fakes.write_fgvc(tmp_path / "plain", BIRDS, [0, 1, 2, 3]))
    other = load(BIRDS, fakes.write_fgvc(tmp_path / "other", BIRDS, labels))
    assert other.fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 2, 3], ()),  # our own numbers
        ([1, 2, 3, 10], ("1", "2", "3", "10")),
        (["a", "b", "c", "d"], ("a", "b", "c", "d")),
    ],
)
def test_classes_keep_the_names_that_the_lists_have(
    labels: list[int | str], names: tuple[str, ...], tmp_path: Path
) -> None:
    folder = fakes.write_fgvc(tmp_path, BIRDS, labels)
    assert load(BIRDS, folder).task.class_names == names
    own = BIRDS.model_copy(update={"class_names": ("w", "x", "y", "z")})
    assert load(own, folder).task.class_names == ("w", "x", "y", "z")


def test_numbers_as_strings_are_sorted_as_strings_as_vpt_does(tmp_path: Path) -> None:
    labels = ["1", "10", "2", "20"]
    plain = load(BIRDS, fakes.write_fgvc(tmp_path / "plain", BIRDS, [0, 1, 2, 3]))
    other = load(BIRDS, fakes.write_fgvc(tmp_path / "other", BIRDS, labels))
    assert other.fingerprint == plain.fingerprint


def test_a_class_that_one_file_does_not_show_moves_no_other(birds: Path) -> None:
    change(birds / "val.json", lambda rows: rows.update(dict.fromkeys(list(rows), 4)))
    assert load(BIRDS, birds).val.targets.tolist() == [3] * 8


@pytest.mark.parametrize(
    ("name", "alter", "words"),
    [
        ("val", lambda rows: rows.popitem(), "val.json: 7 images, expected 8"),
        ("test", lambda rows: rows.update(x=1), "test.json: 17 images, expected 16"),
        ("train", lambda rows: rows.update({"x.png": 5}), "5 classes in all, expected 4"),
        ("train", lambda rows: rows.update({"x.png": "5"}), "partly numbers and partly strings"),
        ("train", lambda rows: rows.update({"x.png": 1.0}), "train.json: x.png: expected a class"),
        ("train", lambda rows: rows.update({"x.png": True}), "train.json: x.png: expected a class"),
        ("train", lambda rows: rows.update({"x.png": None}), "train.json: x.png: expected a class"),
        ("train", lambda rows: rows.update({"x.png": [1]}), "train.json: x.png: expected a class"),
        ("train", lambda rows: rows.update({"x.png": 1}), "images/x.png: cannot be read: No such"),
        ("train", lambda rows: rows.update({"": 1}), "is not a path inside the task's folder"),
        ("train", lambda rows: rows.update({"../train.json": 1}), "is not a path inside"),
        ("train", lambda rows: rows.update({"/etc/hostname": 1}), "images//etc/hostname: cannot"),
        ("train", lambda rows: rows.update({"\ud800": 1}), "has a name that is no Unicode text"),
        ("train", lambda rows: rows.update({"\ud800/a": 1}), "has a name that is no Unicode text"),
        ("train", lambda rows: rows.update({"a\0/b": 1}), "is not a path inside"),
    ],
)
def test_each_fault_of_a_json_split_is_named(
    name: str, alter: Callable[[dict[str, Any]], object], words: str, birds: Path
) -> None:
    change(birds / f"{name}.json", alter)
    assert words in refusal(BIRDS, birds)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "train.json: cannot be read: "),
        (b"[]", "train.json: expected an object of image names and classes"),
        (b'{"a": 1', "train.json: cannot be read: "),
        (b'{"a": ' + b"1" * 5000 + b"}", "train.json: cannot be read: "),
        (b"[" * 100_000, "train.json: cannot be read: "),
        (b"\xff\xfe\xff", "train.json: cannot be read: "),
        (b'{"000.class/train_0000.jpg": 1, "000.class/train_0000.jpg": 1}', "is listed twice"),
    ],
)
def test_a_json_split_that_is_none_is_named(content: bytes, words: str, birds: Path) -> None:
    (birds / "train.json").write_bytes(content)
    assert words in refusal(BIRDS, birds)


def test_every_wrong_class_of_a_large_file_is_found_soon(birds: Path) -> None:
    (birds / "train.json").write_text(json.dumps({f"{i}.png": None for i in range(20_000)}))
    assert "task 'birds': 20" in refusal(BIRDS, birds)


def test_an_image_in_two_json_splits_is_named(birds: Path) -> None:
    first = next(iter(json.loads((birds / "train.json").read_text())))
    change(birds / "val.json", lambda rows: (rows.popitem(), rows.update({first: 1})))
    assert f"val.json: images/{first}: is listed twice, there and in train.json" in (
        refusal(BIRDS, birds)
    )


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_without_images_is_an_error(name: str, birds: Path) -> None:
    (birds / f"{name}.json").write_text("{}")
    task = BIRDS.model_copy(update={"num_test": ()})
    assert f"no images for {name}" in refusal(task, birds)


# Few-shot tasks


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    return fakes.write_fewshot(tmp_path, SHOTS, seeds=[0, 1, 2])


def test_the_seed_chooses_the_list(shots: Path) -> None:
    drawn = {}
    for seed in (0, 1, 2):
        data = load(SHOTS, shots, seed=seed)
        assert data.train.targets.bincount().tolist() == [2, 2, 2]
        assert len(data.val) == 0
        assert data.trainval.held.equal(data.train.held)
        assert data.test.targets.tolist() == [0, 1, 2]
        assert data.listing is not None
        lines = (shots / fewshot_train(2, seed)).read_text().splitlines()
        names = data.listing.splits["train"].names
        assert [f"images/{line.split()[0]}" for line in lines] == list(names)
        drawn[seed] = data.fingerprint
    assert len(set(drawn.values())) > 1
    assert load(SHOTS, shots, seed=0).fingerprint == drawn[0]


def test_a_list_of_another_seed_or_of_other_shots_is_not_taken(shots: Path) -> None:
    missing = fewshot_train(2, 3)
    absent = suite_of(SHOTS).missing(SHOTS, shots.parent, seed=3)
    assert absent.endswith(f"no {shots / missing}")
    with pytest.raises(DataError, match=r"num_shot_2\.seed_3"):
        load(SHOTS, shots, seed=3)
    four = SHOTS.model_copy(update={"shots": 4})
    assert "num_shot_4.seed_0" in refusal(four, shots)


def test_another_number_of_images_a_class_is_told(shots: Path) -> None:
    path = shots / fewshot_train(2, 0)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    notes = Notes()
    assert Counter(load(SHOTS, shots, listener=notes).train.targets.tolist()) == {0: 1, 1: 2, 2: 2}
    assert f"shots_2: {Path(path).name}: not every class has 2 images" in notes.notes


def test_each_fault_of_a_few_shot_list_is_named(shots: Path) -> None:
    path = shots / fewshot_train(2, 0)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["../x 0", "class_0/9.png 0", "class_0/1.png 3", *lines[3:], "?"]))
    message = refusal(SHOTS, shots)
    assert message.startswith("task 'shots_2': 4 faults")
    for words in (
        "images/../x: is not a path inside the task's folder",
        "images/class_0/9.png: cannot be read: No such file or directory",
        "line 3: expected a class below 3, got 'class_0/1.png 3'",
        "line 7: expected 'path class', got '?'",
    ):
        assert words in message
    (shots / FEWSHOT_TEST).write_text("")
    path.write_text("\n".join(lines))
    assert "no images for test" in refusal(SHOTS, shots)


def test_the_registrys_few_shot_tasks_are_read_with_every_number_of_shots(tmp_path: Path) -> None:
    registry = load_registry()
    tasks = [task for name, task in registry.tasks.items() if name.startswith("fewshot_pets_")]
    assert [task.shots for task in tasks] == [1, 2, 4, 8, 16]
    task = tasks[0]
    data = load(task, fakes.write_fewshot(tmp_path, task, seeds=[5], pool=2), seed=5)
    assert data.train.targets.equal(torch.arange(37))
