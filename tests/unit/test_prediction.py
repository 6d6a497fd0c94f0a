"""`idat predict`: what trained adapters say of images, files and folders, and of what is none."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from conftest import toy_pair, toy_recipe
from idat_zoo.checkpoint.loading import load
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.cli import app
from idat_zoo.pictures import Picture, find_pictures, open_picture
from idat_zoo.prediction import Predictor, find_adapters
from idat_zoo.recipe import Recipe

DIGITS = ("--checkpoint", "builtin:digits-lora", "--device", "cpu")


def idat(*words: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["predict", *words], input=stdin, env={"COLUMNS": "200"})


def png(seed: int, size: int = 20) -> bytes:
    pixels = np.random.default_rng(seed).integers(256, size=(size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images, two of them below a folder, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(0))
    (folder / "deep" / "b.PNG").write_bytes(png(1))
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "c.png").write_bytes(png(2))
    return folder


def named(recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    task = recipe.task.model_copy(update={"num_classes": len(names), "class_names": names})
    return recipe.model_copy(update={"task": task})


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Path]:
    """Two adapters of one backbone, one whose task has class names."""
    folders = {}
    for seed, (name, recipe) in enumerate(
        {
            "pets": named(toy_recipe("sequential"), ("cat", "dog", "\x1b[31mhamster")),
            "digits": toy_recipe("sequential"),
        }.items()
    ):
        folders[name] = tmp_path / name
        student = toy_pair(recipe, seed=seed).student
        write_checkpoint(
            folders[name], student, recipe, role="student", recipe_hash="0" * 64, seed=seed
        )
    return folders


def document(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["predictions"]
    return found


def test_the_probabilities_are_those_of_the_loaded_network(photos: Path) -> None:
    network, transform = load("builtin:digits-lora")
    result = idat(*DIGITS, "c.png", "--top-k", "10", "--json")
    assert result.exit_code == 0, result.output
    (only,) = document(result)
    with torch.inference_mode():
        pixels = transform(Image.open("c.png"))
        expected = network(pixels[None]).softmax(dim=1)[0]
    ranked = only["ranked"]
    assert [r["number"] for r in ranked] == expected.argsort(descending=True).tolist()
    assert [r["probability"] for r in ranked] == pytest.approx(
        expected.sort(descending=True).values.tolist(), abs=1e-5
    )
    assert only["image"] == "c.png"
    assert only["task"] == "digits"
    assert all("name" not in r for r in ranked)  # the source of digits names no classes


@pytest.mark.slow
def test_files_folders_and_stdin_are_taken_in_order(photos: Path) -> None:
    result = idat(*DIGITS, "c.png", "photos", "-", "--json", stdin=png(3))
    assert result.exit_code == 0, result.output
    names = [one["image"] for one in document(result)]
    assert names == ["c.png", "photos/a.png", "photos/deep/b.PNG", "-"]


def test_a_folder_is_walked_as_training_walks_it(photos: Path) -> None:
    for hidden in ("._a.png", "deep/._b.PNG", ".ipynb_checkpoints/a-checkpoint.png"):
        (photos / hidden).parent.mkdir(exist_ok=True)
        (photos / hidden).write_bytes(png(4))
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX" / "x.png").write_bytes(png(4))
    (photos / "deep" / "Thumbs.db").touch()
    assert find_pictures([photos]) == [photos / "a.png", photos / "deep/b.PNG"]
    assert find_pictures([photos / "._a.png"]) == [photos / "._a.png"]  # as it was asked for
    (photos / "link").symlink_to(photos / "deep")
    assert find_pictures([photos])[-1] == photos / "link"
    assert open_picture(photos / "link").fault == "is a link to a folder that cannot be walked"


def test_people_see_percent_and_names_that_cannot_steer_a_terminal(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    result = idat("--checkpoint", str(checkpoints["pets"]), "--device", "cpu", "c.png")
    assert result.exit_code == 0, result.output
    first, *ranked = result.stdout.splitlines()
    assert first == "c.png"
    assert {line.partition("%  ")[2] for line in ranked} == {
        "class 0  cat",
        "class 1  dog",
        "class 2  \\x1b[31mhamster",
    }
    shares = [float(line.split("%")[0]) for line in ranked]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_top_k_is_no_more_than_there_are_classes(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    words = ("--checkpoint", str(checkpoints["pets"]), "--device", "cpu", "c.png", "--json")
    assert len(document(idat(*words, "--top-k", "2"))[0]["ranked"]) == 2
    assert len(document(idat(*words, "--top-k", "99"))[0]["ranked"]) == 3


def test_several_checkpoints_of_one_backbone_share_a_pass(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    references = [str(folder) for folder in checkpoints.values()]
    predictor = Predictor(find_adapters(references), device="cpu")
    passes: list[int] = []
    for pool in predictor._pools.values():
        assert pool._mixture is not None
        pool._mixture.backbone.body.patch_embed.register_forward_hook(
            lambda module, inputs, output: passes.append(len(output))
        )
    pictures = [Picture(name=f"{k}", content=png(k)) for k in range(3)]
    together = list(predictor.predict(pictures))
    assert passes == [6]
    assert [(one.image, one.checkpoint) for one in together] == [
        (f"{k}", reference) for k in range(3) for reference in references
    ]
    for reference in references:
        alone = list(Predictor(find_adapters([reference]), device="cpu").predict(pictures))
        ours = [one for one in together if one.checkpoint == reference]
        for first, second in zip(ours, alone, strict=True):
            assert [r.number for r in first.ranked] == [r.number for r in second.ranked]
            assert [r.probability for r in first.ranked] == pytest.approx(
                [r.probability for r in second.ranked], abs=1e-6
            )


@pytest.mark.slow
def test_checkpoints_of_unlike_backbones_and_sizes_answer_too(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    words = (*DIGITS, "--checkpoint", str(checkpoints["pets"]), "photos", "--json")
    result = idat(*words)
    assert result.exit_code == 0, result.output
    by = [(one["image"], one["task"]) for one in document(result)]
    assert len(by) == 4
    assert len({one["checkpoint"] for one in document(result)}) == 2


def test_a_folder_of_checkpoints_is_all_of_them(
    photos: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    result = idat("--checkpoint", str(tmp_path), "--device", "cpu", "c.png", "--json")
    assert {Path(one["checkpoint"]).name for one in document(result)} == {"pets", "digits"}


@pytest.mark.slow
def test_an_image_does_not_depend_on_those_beside_it() -> None:
    predictor = Predictor(find_adapters(["builtin:digits-lora"]), device="cpu")
    pictures = [Picture(name=f"{k}", content=png(k)) for k in range(130)]  # three batches
    many = list(predictor.predict(pictures))
    assert [one.image for one in many] == [f"{k}" for k in range(130)]
    for k in (0, 64, 129):
        (one,) = predictor.predict([pictures[k]])
        assert one.ranked[0].number == many[k].ranked[0].number
        assert one.ranked[0].probability == pytest.approx(many[k].ranked[0].probability, abs=1e-5)


# What is no image


# A checkpoint before the images, and a CSV of what it says


def test_the_first_word_is_the_checkpoint_unless_an_option_names_one(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    words = ("c.png", "photos", "--device", "cpu", "--json")
    first = idat(str(checkpoints["pets"]), *words)
    assert first.exit_code == 0, first.output
    assert first.stdout == idat("--checkpoint", str(checkpoints["pets"]), *words).stdout
    assert [one["image"] for one in document(first)] == [
        "c.png",
        "photos/a.png",
        "photos/deep/b.PNG",
    ]


@pytest.mark.parametrize(
    ("words", "told", "hint"),
    [
        (("photos",), "there is no CHECKPOINT: 'photos' holds none.", "builtin:digits-lora photos"),
        (
            ("c.png", "photos"),
            "there is no CHECKPOINT: 'c.png'",
            "builtin:digits-lora c.png photos",
        ),
        (("-",), "there is no CHECKPOINT: '-'", "builtin:digits-lora -"),
        (("gone.png", "c.png"), "there is no CHECKPOINT: 'gone.png'", "lora gone.png c.png"),
        (("pets",), "there is no IMAGE to classify with 'pets'.", "idat predict pets IMAGE…"),
        (("builtin:digits-lora",), "there is no IMAGE", "idat predict builtin:digits-lora IMAGE…"),
        (("--checkpoint", "pets"), "there is no IMAGE", "idat predict CHECKPOINT IMAGE…"),
        ((), "there is neither a CHECKPOINT nor an IMAGE.", "idat predict CHECKPOINT IMAGE…"),
        (("pets", "c.png", "--json", "--csv"), "--json and --csv exclude", "one of them"),
    ],
)
def test_what_is_missing_is_said(
    words: tuple[str, ...], told: str, hint: str, photos: Path, checkpoints: dict[str, Path]
) -> None:
    result = idat(*words)
    assert result.exit_code == 2, result.output
    error, hinted = result.stderr.splitlines()
    assert told in error
    assert hint in hinted
    assert bool(result.stdout) == ("--json" in words)


def test_a_csv_has_a_row_for_each_class_and_says_what_is_no_image(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    odd = Path('a "b",\nc\udcff.png')
    odd.write_bytes(png(3))
    words = (str(checkpoints["pets"]), "c.png", str(odd), "photos/notes.txt", "--device", "cpu")
    result = idat(*words, "--csv")
    assert result.exit_code == 3, result.output
    text = result.stdout_bytes.decode(errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["image"], row["rank"]) for row in rows] == [
        *(("c.png", rank) for rank in "123"),
        *((str(odd), rank) for rank in "123"),
        ("photos/notes.txt", ""),
    ]
    ranked = [r for one in document(idat(*words, "--json")) for r in one.get("ranked", [])]
    assert [(int(row["class"]), row["name"], float(row["probability"])) for row in rows[:-1]] == [
        (r["number"], r["name"], r["probability"]) for r in ranked
    ]
    assert {row["task"] for row in rows} == {"digits"}
    assert {row["checkpoint"] for row in rows} == {str(checkpoints["pets"])}
    assert [row["fault"] for row in rows[:-1]] == [""] * 6
    assert rows[-1]["fault"] == "is not an image of a known format"


def test_a_csv_leaves_the_name_empty_where_none_is_known(
    photos: Path, checkpoints: dict[str, Path]
) -> None:
    result = idat(str(checkpoints["digits"]), "c.png", "--device", "cpu", "--csv", "--top-k", "1")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["name"] == ""
    assert row["class"].isdecimal()
    told = idat(str(checkpoints["digits"]), "c.png", "--device", "cpu", "--top-k", "1")
    assert told.stdout.splitlines()[1].endswith(f"class {row['class']}")


@pytest.mark.slow
def test_what_is_no_image_is_told_and_the_others_are_classified(photos: Path) -> None:
    Path("broken.png").write_bytes(png(0)[:60])
    Path("empty.png").touch()
    result = idat(*DIGITS, "broken.png", "c.png", "empty.png", "photos/notes.txt", "--json")
    assert result.exit_code == 3, result.output
    broken, good, empty, text = document(result)
    assert "ranked" in good
    assert "fault" not in good
    assert "is damaged" in broken["fault"]
    assert empty["fault"] == "is empty (0 bytes)"
    assert text["fault"] == "is not an image of a known format"
    assert "photos/notes.txt: is not an image" in result.stderr


def test_where_nothing_is_an_image_the_exit_code_is_1(photos: Path) -> None:
    assert idat(*DIGITS, "photos/notes.txt").exit_code == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("missing.png",), 1, "there is no image or folder 'missing.png'"),
        (("empty",), 1, "there are no images in folder 'empty'"),
        (("c.png", "--top-k", "0"), 2, "--top-k"),
        ((), 2, "IMAGE"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...], code: int, told: str, photos: Path
) -> None:
    Path("empty").mkdir()
    result = idat(*DIGITS, *words)
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert result.stdout == ""


def test_an_unknown_checkpoint_is_named(photos: Path) -> None:
    result = idat("--checkpoint", "builtin:digit-lora", "c.png")
    assert result.exit_code == 2
    assert "Did you mean 'digits-lora' or " in result.stderr


def test_an_image_that_is_too_large_is_named(photos: Path) -> None:
    result = idat(*DIGITS, "c.png", "--max-megapixels", "0.001")
    assert result.exit_code == 0, result.output  # 400 pixels
    Path("large.png").write_bytes(png(0, size=40))
    result = idat(*DIGITS, "large.png", "--max-megapixels", "0.001")
    assert result.exit_code == 1
    assert "1600" in result.stderr or "40 x 40 pixels" in result.stderr
