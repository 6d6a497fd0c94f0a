"""An imported adapter in every other command: evaluated, reported, and not trained."""

import json
import shlex
from pathlib import Path

import fakes
import pytest
import torch
from command import idat
from peft_files import BACKBONE, HEAD, imported, peft_folder

from idat_zoo.checkpoint.opened import open_checkpoint
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.registry import get_recipe
from idat_zoo.runs.many import run


@pytest.mark.slow
def test_eval_predict_and_report_say_that_it_was_trained_elsewhere(tmp_path: Path) -> None:
    source, folder = peft_folder(tmp_path / "peft"), tmp_path / "ours"
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(folder))
    made = idat("import", str(source), *words)
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines() == [
        f"{folder}: lora on {BACKBONE} for digits (rank 3, scale 2.0, key True)",
        f"  idat eval {folder}",
    ]
    evaluated = idat("eval", "--checkpoint", str(folder), "--out", str(tmp_path / "e"))
    assert evaluated.exit_code == 0, evaluated.output
    assert "trained elsewhere (protocol = imported)" in evaluated.stdout
    report = idat("report", str(tmp_path / "e"))
    assert "protocol imported: trained elsewhere" in report.stdout
    (tmp_path / "x.png").write_bytes(PIXEL)
    told = idat("predict", "--checkpoint", str(folder), str(tmp_path / "x.png"))
    assert told.exit_code == 0, told.output


@pytest.mark.slow
def test_an_adapter_for_ones_own_images_is_imported_and_evaluated_as_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = str(peft_folder(tmp_path / "peft"))
    words = ("--backbone", BACKBONE, "--task", "folder", "-o", "ours")
    refused = idat("import", source, *words)
    assert refused.exit_code == 2
    assert "--task folder is the images of --data-dir, which is not given." in refused.stderr
    fakes.write_class_folders(Path("my photos"), dict.fromkeys("abcdefghij", 6))
    made = idat("import", source, *words, "--data-dir", "my photos")
    assert made.exit_code == 0, made.output
    assert "outputs stand for, in order: a, b, c, d, e, f, g, h, i, j" in made.stderr
    printed = made.stdout.splitlines()[1]
    assert printed == "  idat eval ours --data-dir 'my photos'"
    evaluated = idat(*shlex.split(printed)[1:])
    assert evaluated.exit_code == 0, evaluated.output
    lost = idat("eval", "--checkpoint", "ours")
    assert (lost.exit_code, "data pull" in lost.stderr) == (1, False)
    assert "hint: --data-dir DIR names the folder that they lie in" in lost.stderr
    fakes.write_class_folders(Path("three"), dict.fromkeys("abc", 6))
    fewer = idat("import", source, *words[:-1], "other", "--data-dir", "three")
    assert fewer.exit_code == 1
    assert "3" in fewer.stderr


def test_two_imported_adapters_are_two_recipes(tmp_path: Path) -> None:
    other = {f"{HEAD}bias": torch.zeros(10)}
    for name, tensors in (("a", {}), ("b", other), ("again", {})):
        imported(peft_folder(tmp_path / f"peft-{name}", tensors=tensors), tmp_path / name)
    first, second, again = (open_checkpoint(tmp_path / name).config for name in ("a", "b", "again"))
    assert first.recipe == second.recipe
    assert first.recipe_hash == again.recipe_hash != second.recipe_hash


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_imported_recipe_is_not_trained(dry: tuple[str, ...], tmp_path: Path) -> None:
    words = ("--pair", "tiny_random", "--teacher", "none", "protocol=imported")
    done = idat("train", "--task", "digits", "--adapter", "lora", *words, *dry)
    assert done.exit_code == 2
    assert "trained elsewhere, with settings that are not known" in done.stderr
    recipe = imported(peft_folder(tmp_path / "peft"), tmp_path / "ours")
    with pytest.raises(UsageError, match="it cannot be trained"):
        run(recipe, device="cpu", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RecipeError, match=r"'imported'.*has no teacher and no selection"):
        get_recipe("digits", "lora", overrides=["protocol=imported"])


def test_a_normalisation_is_all_that_can_be_said(tmp_path: Path) -> None:
    words = ("import", str(peft_folder(tmp_path / "peft")), "--backbone", BACKBONE)
    words = (*words, "--task", "digits", "-o", str(tmp_path / "ours"))
    refused = idat(*words, "lr=1e-3")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: 'lr' cannot be set")
    unknown = idat(*words, "normalisation=mine")
    assert unknown.exit_code == 2
    assert "normalisation" in unknown.stderr
    assert not (tmp_path / "ours").exists()
    done = idat(*words, "normalisation=imagenet", "--json")
    assert json.loads(done.stdout) == {
        "schema_version": 1,
        "folder": str(tmp_path / "ours"),
        "backbone": BACKBONE,
        "task": "digits",
        "adapter": {"rank": 3, "scale": 2.0, "key": True},
        "unchecked": [
            "whether it was trained on these weights of the backbone: PEFT notes none",
            "whether it was trained on this class of network: PEFT noted none",
            "how its images were normalised (taken: normalisation=imagenet)",
            "the order of its classes (taken: the task's)",
        ],
    }
    assert open_checkpoint(tmp_path / "ours").config.mean == (0.485, 0.456, 0.406)


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d7"
    "63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
