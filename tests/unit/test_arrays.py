"""`run(recipe, data=…)`: images and labels that a Python program holds."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from typer.testing import CliRunner

from conftest import TOY_PAIR, Notes, toy_recipe
from idat_zoo import evaluate, run, run_many
from idat_zoo.backbones import pair as pair_module
from idat_zoo.cli import app
from idat_zoo.data.arrays import Arrays, Data, read_arrays
from idat_zoo.data.image_file import prepare
from idat_zoo.data.reading import Listener
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError, RecipeError, UsageError, ZooError
from idat_zoo.hub import Head
from idat_zoo.publishing import plan
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe, load_registry, resolve_held
from idat_zoo.runs import loaded as loaded_module
from idat_zoo.runs.states import resume_command

SIZE = 16  # of the toy pair's images


def pixels(count: int, *, seed: int = 0, height: int = 20, width: int = 24) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(256, size=(count, height, width, 3))
    return drawn.astype(np.uint8)


TRAIN, TEST = pixels(30), pixels(12, seed=1)
LABELS = {"train": np.arange(30) % 3, "test": np.arange(12) % 3}


class Pictures(Dataset[tuple[Any, Any]]):
    """A data set as people write them."""

    def __init__(
        self, images: np.ndarray, labels: Any, make: Callable[[Any], Any] = Image.fromarray
    ) -> None:
        self.images, self.labels, self.make = images, labels, make

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.make(self.images[i]), self.labels[i]


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(images, -1, -3).copy())


def plain() -> dict[str, Any]:
    return {"train": (TRAIN, LABELS["train"]), "test": (TEST, LABELS["test"])}


def with_train(images: Any, labels: Any = LABELS["train"]) -> dict[str, Any]:
    return plain() | {"train": (images, labels)}


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "channels first": lambda x, y: (np.moveaxis(x, -1, 1), y),
    "tensors": lambda x, y: (torch.from_numpy(x), torch.from_numpy(y)),
    "tensors, channels first": lambda x, y: (channels_first(x), torch.from_numpy(y).int()),
    "a list of labels": lambda x, y: (x, y.tolist()),
    "PIL images": lambda x, y: Pictures(x, y.tolist()),
    "PIL images, numpy labels": lambda x, y: Pictures(x, y.astype(np.uint8)),
    "a list": lambda x, y: [[Image.fromarray(i), int(j)] for i, j in zip(x, y, strict=True)],
    "uint8 tensors": lambda x, y: Pictures(x, torch.from_numpy(y), channels_first),
    "a data set of tensors": lambda x, y: TensorDataset(channels_first(x), torch.from_numpy(y)),
    "a part": lambda x, y: Subset(
        Pictures(np.concatenate([x, x]), np.concatenate([y, y])), range(len(x), 2 * len(x))
    ),
}


def loaded(data: Data, listener: Listener | None = None) -> TaskData:
    arrays = read_arrays(data)
    return arrays.load(arrays.task, SIZE, listener or Listener())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_task_and_the_same_pixels(form: str) -> None:
    data = {split: FORMS[form](*plain()[split]) for split in ("train", "test")}
    assert read_arrays(data).task == read_arrays(plain()).task
    assert loaded(data).fingerprint == loaded(plain()).fingerprint


def test_images_are_resized_as_those_in_files_are() -> None:
    data = loaded(plain())
    expected = [prepare(Image.fromarray(image), SIZE).transpose(2, 0, 1) for image in TEST]
    assert data.test.held.numpy().tolist() == np.stack(expected).tolist()
    assert data.test.targets.tolist() == LABELS["test"].tolist()


def test_grey_and_turned_pictures_are_taken_as_those_in_files_are(tmp_path: Path) -> None:
    turned = Image.fromarray(TRAIN[0])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    grey = Image.fromarray(TRAIN[1]).convert("L")
    pictures = [(Image.open(tmp_path / "turned.png"), 0), (grey, 1)] * 3
    held = loaded({"train": pictures, "val": pictures, "test": pictures}).train.held
    upright = np.rot90(TRAIN[0], -1)
    for found, own in zip(
        held, (Image.fromarray(np.ascontiguousarray(upright)), grey), strict=False
    ):
        assert (found.permute(1, 2, 0).numpy() == prepare(own, SIZE)).all()


def test_without_val_a_tenth_of_each_class_of_train_is_val() -> None:
    data, notes = loaded(plain()), Notes()
    assert data.counts() | {"train": 27, "val": 3, "test": 12} == data.counts()
    assert sorted(data.val.targets.tolist()) == [0, 1, 2]
    assert sorted([*data.train.index.tolist(), *data.val.index.tolist()]) == list(range(30))
    for split in (data.train, data.val):
        places = split.index.tolist()
        assert split.targets.tolist() == LABELS["train"][places].tolist()
    loaded(plain(), notes)
    (note,) = (note for note in notes.notes if "val" in note)
    assert note.endswith("10 % of each class of train are val")


def test_val_that_is_given_is_val() -> None:
    data = loaded(plain() | {"val": (TEST[:3], LABELS["test"][:3])})
    assert [len(data.train), len(data.val), len(data.test)] == [30, 3, 12]
    assert data.test_in_training == 3


@pytest.mark.parametrize(
    "change",
    [
        with_train(np.concatenate([TRAIN[1:], TRAIN[:1]])),
        with_train(TRAIN, (LABELS["train"] + 1) % 3),
        with_train(255 - TRAIN),
        plain() | {"val": (TEST, LABELS["test"])},
        plain() | {"train": plain()["test"], "test": plain()["train"]},
        with_train(TRAIN.reshape(30, 24, 20, 3)),
    ],
)
def test_other_pixels_labels_order_or_splits_are_another_task(change: Data) -> None:
    assert read_arrays(change).task.id != read_arrays(plain()).task.id


def test_names_of_classes_say_how_many_there_are_and_move_no_id() -> None:
    named = read_arrays(plain() | {"class_names": ["a", "b", "c", "d"]}).task
    bare = read_arrays(plain()).task
    assert (named.num_classes, bare.num_classes) == (4, 3)
    assert named.class_names == ("a", "b", "c", "d")
    assert named.id == bare.id
    assert named.id.startswith("arrays-")


def float_images(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


class Shapeless:
    """No arrays, no data set."""


WRONG: dict[str, tuple[Any, str]] = {
    "floats": (with_train(float_images(TRAIN)), "train: images: .*got float32.*pixels 0 … 255"),
    "bf16": (
        with_train(torch.from_numpy(TRAIN).bfloat16()),
        "train: images: .*got bfloat16",
    ),
    "float data set": (
        plain() | {"train": Pictures(TRAIN, LABELS["train"], float_images)},
        r"train: 0: expected uint8 \[3, H, W\].*got float32",
    ),
    "grey": (with_train(TRAIN[..., :1]), "grey: repeat it three times"),
    "no channels": (with_train(TRAIN[..., 0]), r"got uint8 \[30, 20, 24\]"),
    "either": (with_train(pixels(30, height=3)), "may be either"),
    "a path": (with_train("images"), "train: images: .*got str"),
    "float labels": (with_train(TRAIN, LABELS["train"] * 1.0), "labels: expected integers"),
    "one-hot labels": (
        with_train(TRAIN, np.eye(3, dtype=int)[LABELS["train"]]),
        r"int64 \[30, 3\]",
    ),
    "true or false": (with_train(TRAIN, LABELS["train"] > 0), "got bool"),
    "negative": (with_train(TRAIN, LABELS["train"] - 1), "10 labels are not from 0.*-1 of image 0"),
    "too large": (
        plain() | {"class_names": ["a", "b"]},
        "train: 10 labels are not from 0 to 1, the first is 2 of image 2",
    ),
    "unlike lengths": (with_train(TRAIN[:29]), "train: 29 images and 30 labels"),
    "empty": (with_train(TRAIN[:0], LABELS["train"][:0]), "train: no images"),
    "empty data set": (plain() | {"test": []}, "test: no images"),
    "one class": (
        {split: (images, 0 * labels) for split, (images, labels) in plain().items()},
        "all images are of one class, 0",
    ),
    "no test": ({"train": plain()["train"]}, "test: is missing"),
    "no splits": ({}, "train: is missing"),
    "another split": (
        plain() | {"tset": plain()["test"]},
        "unknown split 'tset'. Did you mean 'test'",
    ),
    "no data set": (plain() | {"train": Shapeless()}, "train: expected .* got Shapeless"),
    "a stream": (plain() | {"train": iter([(TRAIN[0], 0)])}, "with a length"),
    "images alone": (plain() | {"train": [Image.fromarray(i) for i in TRAIN]}, r"\(image, label\)"),
    "named": (
        plain() | {"train": [{"image": Image.fromarray(TRAIN[0]), "label": 0}]},
        "expected .image, label., got dict",
    ),
    "label of text": (plain() | {"train": Pictures(TRAIN, ["cat"] * 30)}, "integer label, got str"),
    "label of truth": (
        plain() | {"train": Pictures(TRAIN, [True] * 30)},
        "integer label, got True",
    ),
    "32-bit floats": (
        plain() | {"train": [(Image.fromarray(TRAIN[0, ..., 0].astype(np.float32)), 0)]},
        "has floating-point pixels",
    ),
    "names of text": (plain() | {"class_names": "abc"}, "class_names: expected two strings"),
    "one name": (plain() | {"class_names": ["a"]}, "class_names: expected two strings"),
    "equal names": (plain() | {"class_names": ["a", "b", "a"]}, "two classes have one name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_such_data_is_refused(case: str) -> None:
    data, told = WRONG[case]
    with pytest.raises(DataError, match=told):
        get_recipe("arrays", "lora", data=data)


def test_all_faults_are_told_at_once() -> None:
    data = {
        "train": (float_images(TRAIN), LABELS["train"] - 1),
        "test": (TEST[:5], LABELS["test"]),
        "val": [(Image.fromarray(TEST[0]), "a"), (TEST[1], 99)],
        "names": [],
    }
    with pytest.raises(DataError) as caught:
        read_arrays(data)
    assert len(caught.value.faults) == 5


# Runs


def recipe_for(data: Data, **changes: Any) -> Recipe:
    recipe = toy_recipe(**{"batch_size": 8} | changes)
    return recipe.model_copy(update={"task": read_arrays(data).task})


def named() -> dict[str, Any]:
    return plain() | {"class_names": ["ant", "bee", "cow"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    out = tmp_path_factory.mktemp("arrays")
    run(recipe_for(named()), data=named(), device="cpu", out=out)
    (folder,) = out.glob("toy/lora/arrays-*/*/seed0")
    return folder


def test_a_run_is_what_its_result_says(trained: Path) -> None:
    recipe = recipe_for(named())
    again = run(recipe, out=trained.parents[4], device="cpu")  # finished: no data are needed
    assert again.recipe.task.class_names == ("ant", "bee", "cow")
    assert again.data_fingerprint == loaded(named()).fingerprint
    assert (again.images.train, again.images.val, again.images.test) == (27, 3, 12)
    assert {"chance", "majority_class"} < again.baselines.keys()


@pytest.mark.parametrize("form", ["tensors", "PIL images"])
def test_it_is_evaluated_on_the_same_images_in_any_form(form: str, trained: Path) -> None:
    data = {split: FORMS[form](*plain()[split]) for split in ("train", "test")}
    result = evaluate(trained, data=data, device="cpu")
    assert result.top1 == run(recipe_for(named()), out=trained.parents[4], device="cpu").top1
    assert result.data_fingerprint == loaded(plain()).fingerprint


@pytest.mark.parametrize("data", [with_train(255 - TRAIN), plain() | {"test": plain()["train"]}])
def test_other_images_are_refused(data: Data, trained: Path) -> None:
    found = read_arrays(data).task.id
    with pytest.raises(DataError, match=f"these are other images or labels: they are '{found}'"):
        evaluate(trained, data=data, device="cpu")
    with pytest.raises(DataError, match=f"they are '{found}'"):
        run(recipe_for(plain()), data=data, device="cpu", out=trained / "other")


def test_without_its_data_it_is_said_who_has_them(trained: Path) -> None:
    with pytest.raises(DataError, match="which a Python program held") as caught:
        evaluate(trained, device="cpu")
    assert "evaluate(reference, data=…)" in caught.value.hint
    with pytest.raises(DataError, match=r"run\(recipe, data=…\)"):
        run(recipe_for(plain(), lr=1e-4), device="cpu", out=trained / "other")
    told = CliRunner().invoke(app, ["eval", str(trained)])
    assert told.exit_code == 1
    assert "evaluate(reference, data=…)" in told.stderr


def test_data_for_a_task_that_has_its_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the recipe is of task 'digits'"):
        run(toy_recipe(), data=plain(), out=tmp_path)
    with pytest.raises(UsageError, match="the recipe is of task 'digits'"):
        evaluate("builtin:digits-lora", data=plain())
    for task, data in (("digits", plain()), ("arrays", None)):
        with pytest.raises(UsageError, match="these are the images of task 'arrays'"):
            get_recipe(task, "lora", data=data)
    with pytest.raises(UsageError, match="data_dir"):
        get_recipe("arrays", "lora", data=plain(), data_dir=tmp_path)


def test_faults_are_told_before_any_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(pair_module, "load_backbone", never)
    monkeypatch.setattr(loaded_module, "require_inputs", never)
    with pytest.raises(DataError, match="got float32"):
        run(recipe_for(plain()), data=with_train(float_images(TRAIN)), out=tmp_path)
    with pytest.raises(DataError, match="other images or labels"):
        run(recipe_for(plain()), data=with_train(255 - TRAIN), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_changes_is_refused(tmp_path: Path) -> None:
    count = iter(range(1000))

    def noisy(image: np.ndarray) -> Image.Image:
        return Image.fromarray((image + next(count)).astype(np.uint8))

    data = plain() | {"train": Pictures(TRAIN, LABELS["train"], noisy)}
    with pytest.raises(DataError, match="without random transforms"):
        run(recipe_for(data), data=data, device="cpu", out=tmp_path)
    with pytest.raises(DataError, match="image 0 of train is another one than it was just now"):
        loaded(data | {"val": plain()["test"]})


def test_files_that_a_data_set_cannot_read_are_told(tmp_path: Path) -> None:
    def opened(path: str) -> Image.Image:
        return Image.open(io.BytesIO(Path(path).read_bytes()))

    for i in (0, 1, 2, 4):
        Image.fromarray(TRAIN[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "5.png").write_bytes(b"no image")
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])
    files = np.array([str(tmp_path / f"{i}.png") for i in range(6)])
    with pytest.raises(DataError) as caught:
        read_arrays(plain() | {"val": Pictures(files, LABELS["train"], opened)})
    assert [fault.split()[1] for fault in caught.value.faults] == ["3:", "4:", "5:"]
    data = plain() | {"val": Pictures(files[:3], LABELS["train"], opened)}
    arrays = read_arrays(data)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match="image 1 of val: cannot be read"):
        arrays.load(arrays.task, SIZE, Listener())


def test_several_runs_share_data_and_choose_on_val(tmp_path: Path) -> None:
    asked = [
        (recipe_for(plain(), selection="val", candidates={"lr": (1e-3, 1e-2)}), 0),
        (recipe_for(plain(), adapter="linear"), 1),
    ]
    outcomes = run_many(asked, data=plain(), device="cpu", out=tmp_path)
    assert not any(isinstance(outcome, ZooError) for outcome in outcomes)
    assert len(list(tmp_path.glob("toy/*/arrays-*/*/seed*/result.json"))) == 2


def test_networks_of_unlike_sizes_see_the_same_images(tmp_path: Path) -> None:
    larger = TOY_PAIR.student.model_copy(update={"img_size": 32})
    recipe = recipe_for(plain(), epochs=1, warmup_epochs=0)
    pair = recipe.pair.model_copy(update={"student": larger})
    recipe = recipe.model_copy(update={"pair": pair})
    assert run(recipe, data=plain(), device="cpu", out=tmp_path).images.test == 12


# What tells of such tasks


def test_it_is_published_with_its_fingerprint_and_what_the_data_are(trained: Path) -> None:
    result = run(recipe_for(named()), out=trained.parents[4], device="cpu")
    ready = plan([trained], Head(repo="me/ants"))
    card = ready.contents["README.md"].decode()
    assert ready.suites == {"arrays"}
    assert f"* {result.recipe.task.id}: images and labels that a Python program held" in card
    assert result.data_fingerprint in card
    assert "idat eval" not in card


def test_the_command_line_has_no_such_task() -> None:
    told = CliRunner().invoke(app, ["train", "--task", "arrays", "--adapter", "lora"])
    assert told.exit_code == 2
    assert 'get_recipe("arrays", adapter, data=…)' in told.stderr


def test_only_who_has_the_data_can_go_on(trained: Path) -> None:
    assert resume_command(trained).startswith("run(recipe, data=…, resume=True) from Python")


def test_runs_are_named_by_all_arrays(trained: Path) -> None:
    held = ["arrays-00000000", "digits", "folder-11111111"]
    assert resolve_held("arrays", held, load_registry()) == ["arrays-00000000"]
    assert CliRunner().invoke(app, ["report", str(trained)]).exit_code == 0


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("digits", {"suite": "arrays"}, "'arrays' is of images that a Python program holds"),
        ("dtd", {"aliases": ["arrays"]}, "'arrays' is the name of a group or suite"),
    ],
)
def test_no_shelf_has_such_a_task(
    name: str, fields: Mapping[str, Any], told: str, tmp_path: Path
) -> None:
    fakes.write_shelf(tmp_path, {name: fields})
    with pytest.raises(RecipeError, match=told):
        load_registry(tmp_path)


def test_arrays_are_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counted(Pictures):
        def __getitem__(self, i: int) -> tuple[Any, Any]:
            asked.append(i)
            return super().__getitem__(i)

    arrays: Arrays = read_arrays(plain() | {"train": Counted(TRAIN, LABELS["train"])})
    assert asked == list(range(30))
    arrays.load(arrays.task, SIZE, Listener())
    assert sorted(asked[30:]) == list(range(30))
