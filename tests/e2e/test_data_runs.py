"""`idat train` on images that lie on disk, through exactly the code that real ones take."""

import json
import shlex
from pathlib import Path
from typing import Any

import fakes
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from idat_zoo.cli import app
from idat_zoo.cli.downloads import offer_weights
from idat_zoo.data import decode as decoding
from idat_zoo.registry import load_registry

QUICK = ("--adapter", "lora", "--device", "cpu", "epochs=1")
PAIR = ("--pair", "tiny_random", "--adapter", "lora", "--device", "cpu")
TINY = ("--pair", "tiny_random", *QUICK)


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder, an empty cache and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDAT_CACHE_DIR", str(tmp_path / "cache"))
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG", "IDAT_MAX_MEGAPIXELS"):
        monkeypatch.delenv(variable, raising=False)


def idat(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.stderr
    return result


def train(*words: str | Path, out: str = "runs") -> list[dict[str, Any]]:
    results = json.loads(idat("train", *words, "--out", out, "--json").stdout)["results"]
    assert isinstance(results, list)
    return results


def evaluate(result: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    document = idat("eval", "--checkpoint", result["folder"], "--data-dir", data_dir, "--json")
    (found,) = json.loads(document.stdout)["results"]
    assert isinstance(found, dict)
    return found


def predictions(result: dict[str, Any]) -> bytes:
    return (Path(result["folder"]) / "predictions.safetensors").read_bytes()


@pytest.mark.parametrize("pair", ["tiny_random", "micro_random"])
def test_a_vtab1k_task_trains_on_a_folder(pair: str, vtab: Path) -> None:
    place = ("--data-dir", vtab / "data", "--shelf", vtab / "shelf")
    (result,) = train("--task", "dtd", *place, "--pair", pair, *QUICK)
    images = {"train": 24, "val": 8, "test": 16, "unreadable": 0, "test_in_training": 0}
    assert result["images"] == images
    assert result["recipe"]["task"]["num_classes"] == 47
    assert result["baselines"].keys() == {
        "chance",
        "majority_class",
        "logistic_regression",
        "nearest_neighbour",
    }
    assert result["raw_pixels"]["train"] == 32
    assert result["standing"]["too_few_images"]
    lines = (vtab / "data/dtd/test.txt").read_text().splitlines()
    stored = load_file(Path(result["folder"]) / "predictions.safetensors")
    assert stored["target"].tolist() == [int(line.split()[1]) for line in lines]
    assert stored["student"].shape == (16, 47)


def test_a_second_run_decodes_nothing_and_predicts_the_same(
    vtab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--task", "pets", "--data-dir", vtab / "data", "--shelf", vtab / "shelf", *TINY)
    (first,) = train(*words, out="first")
    monkeypatch.setattr(decoding, "decode_image", None)
    (second,) = train(*words, out="second")
    assert second["data_fingerprint"] == first["data_fingerprint"]
    assert predictions(second) == predictions(first)
    assert evaluate(second, vtab / "data")["student"] == second["student"]


def test_a_streamed_run_predicts_the_same_and_keeps_no_test_images(vtab: Path) -> None:
    words = ("--task", "svhn", "--data-dir", vtab / "data", "--shelf", vtab / "shelf", *TINY)
    (streamed,) = train(*words, "--stream-test", out="streamed")
    assert len(list(Path("cache").rglob("pixels.u8"))) == 2
    (kept,) = train(*words, out="kept")
    assert len(list(Path("cache").rglob("pixels.u8"))) == 3
    assert predictions(streamed) == predictions(kept)
    assert streamed["data_fingerprint"] == kept["data_fingerprint"]


@pytest.mark.slow
def test_images_can_be_learnt_from(vtab: Path) -> None:
    place = ("--data-dir", vtab / "data", "--shelf", vtab / "shelf")
    more = ("epochs=12", "batch_size=8", "lr=1e-2")
    (result,) = train("--task", "eurosat", *place, *PAIR, *more)
    assert result["top1"] >= 0.75  # four colours


@pytest.mark.slow
def test_all_19_tasks_train(vtab: Path) -> None:
    place = ("--data-dir", vtab / "data", "--shelf", vtab / "shelf")
    results = train("--task", "vtab1k", *place, *TINY)
    tasks = [result["recipe"]["task"]["id"] for result in results]
    assert tasks == [task.id for task in fakes.vtab1k_tasks()]
    assert len({result["data_fingerprint"] for result in results}) == 19


def test_validation_images_choose_among_candidates(vtab: Path) -> None:
    place = ("--data-dir", vtab / "data", "--shelf", vtab / "shelf")
    more = ("selection=val", "candidates.lr=[1e-3,1e-2]")
    (result,) = train("--task", "kitti", *place, *TINY, *more)
    assert len(result["selection"]["tried"]) == 2


# Fine-grained and few-shot


def test_a_fine_grained_task_trains_on_its_json_splits(tmp_path: Path) -> None:
    fields = {"num_classes": 4, "num_test": [16]}
    fakes.write_shelf(tmp_path / "shelf", {"fgvc_cub": fields})
    task = load_registry(tmp_path / "shelf").tasks["fgvc_cub"]
    assert (task.folder, task.images) == ("CUB_200_2011", "images")
    fakes.write_fgvc(tmp_path / "data", task, [1, 2, 3, 4])
    (result,) = train("--task", "cub", "--data-dir", "data", "--shelf", "shelf", *TINY)
    assert (result["images"]["train"], result["images"]["test"]) == (24, 16)
    folder = Path(result["folder"])
    config = json.loads((folder / "config.json").read_text())
    for recipe in (result["recipe"], config["recipe"]):  # the lists' names, told in both
        assert recipe["task"]["class_names"] == ["1", "2", "3", "4"]
    assert "class_names = []" in (folder / "recipe.toml").read_text()  # as runs before had it
    assert [c["name"] for c in evaluate(result, Path("data"))["student"]["per_class"]] == [*"1234"]
    image = next(Path("data/CUB_200_2011/images").rglob("*.png"))
    words = ("predict", "--checkpoint", folder, image, "--json")
    (said,) = json.loads(idat(*words).stdout)["predictions"]
    assert all(r["name"] == str(r["number"] + 1) for r in said["ranked"])


@pytest.mark.slow
def test_the_seed_chooses_the_list_of_a_few_shot_task(tmp_path: Path) -> None:
    task = load_registry().tasks["fewshot_pets_1"]
    fakes.write_fewshot(tmp_path / "data", task, seeds=[0, 1, 2], pool=4)
    found = set()
    for seed in ("0", "1", "2"):
        words = ("--task", task.id, "--data-dir", "data", *TINY, "batch_size=8", "--seed", seed)
        (result,) = train(*words)
        assert result["images"] | {"test_in_training": 0} == {
            "train": 37,
            "val": 0,
            "test": 37,
            "unreadable": 0,
            "test_in_training": 0,
        }
        found.add(result["data_fingerprint"])
        again = evaluate(result, Path("data"))
        assert again["data_fingerprint"] == result["data_fingerprint"]
    assert len(found) > 1


# One's own images


def test_ones_own_images_train_and_their_split_is_kept_and_reusable(tmp_path: Path) -> None:
    place = fakes.write_class_folders(tmp_path / "pets", {"cat": 20, "dog": 15, "eel": 10})
    words = ("--task", "folder", *TINY, "batch_size=8")
    (first,) = train(*words, "--data-dir", place, out="first")
    task = first["recipe"]["task"]
    assert task["id"].startswith("folder-")
    assert task["class_names"] == ["cat", "dog", "eel"]
    assert [c["name"] for c in first["student"]["per_class"]] == ["cat", "dog", "eel"]
    assert f"/{task['id']}/" in first["folder"]
    kept = Path(first["folder"]) / "split.csv"
    (place / "own.csv").write_bytes(kept.read_bytes())
    (second,) = train(*words, "--data-dir", place / "own.csv", out="second")
    assert second["recipe"]["task"]["id"] == task["id"]
    assert second["recipe_hash"] == first["recipe_hash"]
    assert second["data_fingerprint"] == first["data_fingerprint"]
    assert predictions(second) == predictions(first)
    assert (Path(second["folder"]) / "split.csv").read_bytes() == kept.read_bytes()
    assert evaluate(second, place)["student"] == first["student"]


def test_a_dry_run_says_what_ones_own_images_would_take_at_a_size_asked_for(tmp_path: Path) -> None:
    place = fakes.write_class_folders(tmp_path / "pets", {"cat": 20, "dog": 15})
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "backbones.toml").write_text(
        """[dino]
        timm = "vit_small_patch14_dinov2"
        weights = "lvd142m"
        img_size = "native"
        """
    )
    (shelf / "pairs.toml").write_text('[own]\nteacher = "micro_teacher"\nstudent = "dino"\n')
    words = ("--task", "folder", "--data-dir", place, "--pair", "own", "--adapter", "lora")
    done = idat("train", *words, "--shelf", shelf, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    (plan,) = json.loads(done.stdout)["plans"]
    assert plan["recipe"]["pair"]["student"]["img_size"] == 518
    images = {
        side: sum(taken.values()) // (3 * int(side) ** 2)
        for side, taken in plan["decoded_bytes"].items()
    }
    assert images == {"48": 35, "518": 35}
    assert list(plan["decoded_bytes"]["518"]) == ["train", "val", "test"]


def test_a_run_of_numbered_classes_in_the_old_order_is_evaluated_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fakes.write_class_folders(tmp_path / "own", {str(k): 8 for k in range(1, 12)})
    words = ("--task", "folder", *TINY, "batch_size=8", "--data-dir", place)
    with monkeypatch.context() as patch:
        patch.setattr("idat_zoo.data.folder.natural_key", str)  # as runs were sorted before
        (old,) = train(*words)
    (new,) = train(*words)
    assert old["recipe"]["task"]["class_names"][:3] == ["1", "10", "11"]
    assert new["recipe"]["task"]["class_names"][:3] == ["1", "2", "3"]
    assert old["folder"] != new["folder"]
    for result in (old, new):
        again = evaluate(result, place)
        assert again["student"] == result["student"]
        assert again["data_fingerprint"] == result["data_fingerprint"]


def test_heic_and_avif_are_trained_on_beside_other_images(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    place = fakes.write_class_folders(tmp_path / "own", {"cat": 10, "dog": 10})
    for suffix, label in ((".heic", "cat"), (".avif", "dog")):
        for path in sorted((place / label).iterdir()):
            Image.open(path).save(path.with_suffix(suffix))
            path.unlink()
    (result,) = train("--task", "folder", *TINY, "--data-dir", place)
    assert sum(result["images"][split] for split in ("train", "val", "test")) == 20


def test_skip_corrupt_goes_on_and_counts_what_it_left_out(tmp_path: Path) -> None:
    place = fakes.write_class_folders(tmp_path / "pets", {"cat": 20, "dog": 15})
    (place / "cat/000.jpg").write_bytes(b"")
    (place / "dog/001.png").write_bytes(b"hello")
    words = ("train", "--task", "folder", *TINY, "--data-dir", place, "--skip-corrupt", "--json")
    done = idat(*words)
    (result,) = json.loads(done.stdout)["results"]
    assert result["images"]["unreadable"] == 2
    assert sum(result["images"][split] for split in ("train", "val", "test")) == 33
    assert "left out, as unreadable: 2 images: " in done.stderr
    assert "cat/000.jpg is empty (0 bytes)" in done.stderr


def test_a_number_from_a_few_images_says_what_it_is_worth(tmp_path: Path) -> None:
    place = fakes.write_class_folders(tmp_path / "pets", {"cat": 22, "dog": 22, "eel": 22})
    (place / "cat/000.jpg").write_bytes(b"")
    words = ("train", "--task", "folder", *TINY, "--data-dir", place, "--skip-corrupt")
    done = idat(*words)
    assert "chance (33.3 %)" in done.stdout
    assert "the majority class (" in done.stdout
    assert "too close to call" in done.stdout
    assert "rests on too few images: 12 for test" in done.stdout
    (result,) = json.loads(idat(*words, "--json").stdout)["results"]
    assert result["standing"]["too_few_images"]
    assert {one["name"] for one in result["standing"]["baselines"]} == {
        "chance", "majority_class", "logistic_regression", "nearest_neighbour",
    }  # fmt: skip


def test_fewer_images_than_a_batch_shrink_the_batch_and_say_so(tmp_path: Path) -> None:
    place = fakes.write_class_folders(tmp_path / "pets", {"cat": 10, "dog": 10})
    done = idat("train", "--task", "folder", *TINY, "--data-dir", place)
    assert "batches hold 16 images instead of 64" in done.stderr


def test_the_mini_suite_is_planned_without_any_data() -> None:
    done = idat("train", "--task", "mini", "--adapter", "lora", "--dry-run", "--json")
    plans = json.loads(done.stdout)["plans"]
    tasks = [plan["recipe"]["task"]["id"] for plan in plans]
    assert tasks == ["digits", "textures", "lesions", "sprites_loc", "sprites_ori", "count"]
    assert [plan["missing"] for plan in plans] == [[]] * 6
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--task", "folder"], "--data-dir, which is not given"),
        (["--task", "folder,digits", "--data-dir", "."], "--task folder stands alone"),
        (["--task", "folder", "--data-dir", "nowhere"], "'nowhere' is not a folder"),
    ],
)
def test_a_folder_task_needs_its_one_folder(words: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["train", *words, "--adapter", "lora"], env={"COLUMNS": "200"})
    assert done.exit_code in (1, 2)
    assert told in done.stderr


def test_runs_on_ones_own_images_are_evaluated_by_name(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path / "photos", {"cat": 9, "dog": 9})
    (own,) = train("--task", "folder", "--data-dir", tmp_path / "photos", *TINY)
    (digits,) = train("--task", "digits", *TINY)
    place = ("--data-dir", "photos", "--device", "cpu", "--json")
    named = own["recipe"]["task"]["id"]
    for asked, tasks in (
        ("folder", [named]),
        (named, [named]),
        ("digits,folder", [named, "digits"]),
    ):
        done = idat("eval", "--checkpoint", "runs", "--task", asked, *place)
        found = [one["recipe"]["task"]["id"] for one in json.loads(done.stdout)["results"]]
        assert sorted(found) == sorted(tasks)
    lacking = CliRunner().invoke(
        app, ["eval", "--checkpoint", digits["folder"], "--task", "folder"], env={"COLUMNS": "200"}
    )
    assert (lacking.exit_code, "has no task folder." in lacking.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            "--task folder --data-dir 'my photos'",
            "--task folder --data-dir 'my photos' --pair micro",
        ),
        ("--task dtd --data-dir vtab/data", "--task dtd --data-dir vtab/data --pair micro"),
        ("--task svhn --data-dir vtab/data", "--task digits"),
        ("--task digits --pair vit_s_to_vit_b", "--task digits"),
    ],
)
def test_without_weights_a_pair_that_ships_is_named_for_images_that_are_here(
    words: str, hint: str, vtab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.hub.weights.cached_weights", lambda *of: None)
    fakes.write_class_folders(Path("my photos"), {"cat": 9, "dog": 9})
    fakes.link_tree(vtab / "data/dtd", Path("vtab/data/dtd"))
    shelf = ("--shelf", str(vtab / "shelf"))
    given = ["train", *shlex.split(words), *shelf, "--adapter", "linear"]
    done = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
    assert done.exit_code == 1
    told = f"hint: Needs no download: idat train {hint} --adapter linear"
    assert done.stderr.splitlines()[-1] == told


def test_the_question_before_a_download_names_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("idat_zoo.hub.weights.cached_weights", lambda *of: None)
    backbones = load_registry().backbones
    offer_weights([backbones["vit_s"], backbones["vit_l"]], yes=True)
    assert capsys.readouterr().err.splitlines() == [
        "weights of timm/vit_small_patch16_224.augreg_in21k, about 120.3 MB (licence: Apache-2.0)",
        "weights of timm/vit_large_patch16_224.augreg_in21k, about 1.3 GB (licence: Apache-2.0)",
    ]
