"""What was written before recipes had distillation terms with options of their own still reads.

`tests/older` was written by the code of that time: recipes, checkpoints, results and an unfinished
run have `distillation = "kl"` and `temperature = 3.0` side by side.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import toy_recipe
from idat_zoo import evaluate, files, run
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.results import load_result
from idat_zoo.runs.folder import PROBE_FILE
from idat_zoo.specs import TermSpec

ROOT = Path(__file__).parents[2]
OLDER = ROOT / "tests" / "older"
FINISHED = sorted(path.parent for path in OLDER.glob("finished/**/result.json"))
UNFINISHED = next(OLDER.glob("unfinished/**/seed0"))
RESULTS = sorted(
    path
    for place in ("benchmarks", "idat_zoo", "registry", "tests/older")
    for path in (ROOT / place).rglob("result*.json")
)
KL = {"temperature": 3.0, "temperature_squared": True}


def older(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / "result.json").read_bytes())["recipe"]
    return fields


def test_the_fixtures_are_of_the_older_form() -> None:
    assert len(FINISHED) == 4
    terms = {older(folder)["distillation"] for folder in FINISHED}
    assert terms == {"mse", "kl", "none"}
    assert all("temperature" in older(folder) for folder in FINISHED)
    assert 'distillation = "kl"' in (UNFINISHED / "recipe.toml").read_text()


@pytest.mark.parametrize("folder", FINISHED, ids=lambda folder: folder.parent.name)
def test_an_older_run_reads_with_its_hash(folder: Path) -> None:
    result = load_result(folder / "result.json")
    recipe = parse_recipe((folder / "recipe.toml").read_text(), where="older")
    assert folder.parent.name == result.recipe_hash[:8]
    assert recipe_hash(result.recipe) == recipe_hash(recipe) == result.recipe_hash
    term = TermSpec(name=older(folder)["distillation"])
    options = KL if term.name == "kl" else {}
    assert recipe.distillation == term.model_copy(update={"options": options})


@pytest.mark.parametrize("folder", FINISHED, ids=lambda folder: folder.parent.name)
def test_an_older_checkpoint_gives_its_probe(folder: Path) -> None:
    expected = files.parse_tensors((folder / PROBE_FILE).read_bytes())["logits"]
    found = probe_logits(load_checkpoint(folder).network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # on any processor


def test_an_older_finished_run_is_returned_and_evaluated(tmp_path: Path) -> None:
    shutil.copytree(OLDER / "finished", tmp_path / "runs")
    recipe = toy_recipe(epochs=4, precision="float32", distillation="kl", **KL)
    result = run(recipe, device="cpu", out=tmp_path / "runs")
    assert result == load_result(OLDER / "finished/toy/lora/digits/52ed5dc0/seed0/result.json")
    again = evaluate(tmp_path / "runs/toy/lora/digits/52ed5dc0/seed0", device="cpu")
    assert again.top1 == pytest.approx(result.top1, abs=2 / 797)  # on any processor


def test_an_older_unfinished_run_goes_on(tmp_path: Path) -> None:
    """Its state is taken over: two epochs are not trained again, and two are."""
    shutil.copytree(OLDER / "unfinished", tmp_path / "runs")
    recipe = toy_recipe(epochs=4, precision="float32", distillation="kl", **KL)
    result = run(recipe, device="cpu", out=tmp_path / "runs", resume=True)
    (folder,) = (path.parent for path in (tmp_path / "runs").rglob("result.json"))
    whole = OLDER / "finished" / folder.relative_to(tmp_path / "runs")
    lines = [(one / "log.jsonl").read_text().splitlines() for one in (folder, whole)]
    assert lines[0][:2] == lines[1][:2] == (UNFINISHED / "log.jsonl").read_text().splitlines()
    assert len(lines[0]) == 4
    found, expected = (
        files.parse_tensors((one / "adapter_model.safetensors").read_bytes())
        for one in (folder, whole)
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-4)  # on any processor
    assert result.recipe_hash == load_result(whole / "result.json").recipe_hash
    assert parse_recipe((folder / "recipe.toml").read_text(), where="new") == recipe


def test_the_hash_of_every_committed_result_is_the_one_it_was_stored_with() -> None:
    stored = {}
    for path in RESULTS:
        document = json.loads(path.read_bytes())
        if "recipe_hash" in document:
            stored[path] = document["recipe_hash"]
    assert len(stored) > 300
    moved = [path for path, hash in stored.items() if recipe_hash(load_result(path).recipe) != hash]
    assert moved == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, TermSpec(name="mse")),
        ({"distillation": "kl"}, TermSpec(name="kl")),
        ({"distillation": "kl", "temperature": 3}, TermSpec(name="kl", options={"temperature": 3})),
        ({"distillation": "mse", "temperature": 5.0}, TermSpec(name="mse")),
        (
            {"distillation": {"name": "kl", "options": {"temperature": 2.0}}},
            TermSpec(name="kl", options={"temperature": 2.0}),
        ),
    ],
)
def test_both_forms_are_one_recipe(fields: dict[str, Any], expected: TermSpec) -> None:
    recipe = toy_recipe(**fields)
    assert recipe.distillation == expected
    assert parse_recipe(dump_recipe(recipe), where="again") == recipe


def test_an_option_at_its_default_does_not_move_the_hash() -> None:
    plain = toy_recipe(distillation="kl")
    written = {"name": "kl", "options": {"temperature": 5, "temperature_squared": False}}
    assert recipe_hash(plain) == recipe_hash(toy_recipe(distillation=written))
    other = toy_recipe(distillation={"name": "kl", "options": {"temperature": 4}})
    assert recipe_hash(plain) != recipe_hash(other)
