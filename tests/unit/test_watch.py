"""Watching: the student's top-1 after every epoch, by which nothing is chosen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_results import build_report, made, text
from toy_runs import Notes, same_but_for_times, stopped_after, trained

from conftest import toy_recipe
from idat_zoo.data.load import load_task
from idat_zoo.errors import DataError, RecipeError, RunFolderError
from idat_zoo.logits import score_network
from idat_zoo.publishing.finished_run import read_finished
from idat_zoo.report.card import Exports, card_scores, card_text
from idat_zoo.results import load_result, write_result
from idat_zoo.runs import loaded, passes, turn
from idat_zoo.runs.many import run

ADAPTERS = ("adapter_model.safetensors", "teacher/adapter_model.safetensors")
PREDICTIONS = "predictions.safetensors"


def logged(folder: Path, name: str) -> list[float | None]:
    return [json.loads(line).get(name) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_watching_test_moves_no_bit_and_chooses_nothing(tmp_path: Path) -> None:
    plain = trained(toy_recipe(), tmp_path / "plain")
    watched = trained(toy_recipe(watch="test"), tmp_path / "watched")
    for name in (*ADAPTERS, PREDICTIONS):
        assert (plain / name).read_bytes() == (watched / name).read_bytes()
    result = load_result(watched / "result.json")
    assert result.top1_best_on_test is None
    curve = logged(watched, "test_top1")
    assert len(curve) == 2
    assert curve[-1] == result.top1
    assert logged(plain, "test_top1") == logged(watched, "val_top1") == [None, None]
    assert "watched on test after every epoch" in str(result)


def test_val_is_watched_by_a_training_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    finish = turn.finish

    def noting(one: Any, outcome: Any, **rest: Any) -> Any:
        seen["student"] = outcome.pair.student
        seen["images"] = outcome.spent.images
        return finish(one, outcome, **rest)

    monkeypatch.setattr(turn, "finish", noting)
    recipe = toy_recipe(watch="val", precision="float32")
    notes = Notes()
    folder = trained(recipe, tmp_path / "watched", progress=notes)
    assert notes.told == ["watch=val: digits is trained on the 800 images of train alone"]
    data = load_task(recipe.task, img_size=16)
    assert seen["images"] == 2 * (len(data.train) // 64 * 64)
    curve = logged(folder, "val_top1")
    assert curve[-1] == score_network(seen["student"], data.val, recipe).top1
    result = load_result(folder / "result.json")
    assert "not trained on these images" in str(result)
    assert logged(folder, "test_top1") == [None, None]
    monkeypatch.setattr(passes, "_tested", lambda log, *rest: log)
    unwatched = trained(recipe, tmp_path / "unwatched")
    for name in (*ADAPTERS, PREDICTIONS):
        assert (folder / name).read_bytes() == (unwatched / name).read_bytes()


@pytest.mark.parametrize("watch", ["val", "test"])
def test_a_watched_run_is_resumed_to_the_same_bits(
    watch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(watch=watch, teacher=False)
    whole = trained(recipe, tmp_path / "a")
    folder = stopped_after(1, recipe, tmp_path / "b", monkeypatch)
    run(recipe, device="cpu", out=tmp_path / "b", resume=True)
    assert same_but_for_times(whole, folder)


def test_candidates_are_not_watched_on_test(tmp_path: Path) -> None:
    choice = {"selection": "val", "candidates": {"lr": (1e-3, 1e-2)}}
    folder = trained(toy_recipe(watch="test", teacher=False, **choice), tmp_path)
    assert logged(folder, "test_top1")[-1] is not None
    for number in (0, 1):
        assert logged(folder / "selection" / str(number), "test_top1") == [None, None]


def test_a_best_epoch_on_test_is_not_published_of_a_watched_run(tmp_path: Path) -> None:
    folder = trained(toy_recipe(watch="test"), tmp_path)
    result = read_finished(folder).result
    forged = result.model_copy(update={"top1_best_on_test": 0.99})
    write_result(folder / "result.json", forged)
    with pytest.raises(RunFolderError, match="best epoch on test"):
        read_finished(folder)


def test_test_is_named_wherever_it_was_watched() -> None:
    recipe = toy_recipe(watch="test")
    _, result = found = made(recipe=recipe)
    report = text(build_report([found, made()]))
    assert "watch test" in report
    assert "nothing was chosen by it" in report
    card = card_text("org/name", {"": result}, Exports(peft=False, merged=False), in_peft=False)
    assert "watch = test" in card
    assert "test was read once" not in card
    assert "watched on test" in card_scores({"": result})[0]["metric_name"]
    plain = made()[1]
    card = card_text("org/name", {"": plain}, Exports(peft=False, merged=False), in_peft=False)
    assert "test was read once" in card
    assert "watch" not in card


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"watch": "test", "protocol": "paper"}, "'paper' takes none and tests after every epoch"),
        (
            {"watch": "val", "selection": "val", "candidates": {"lr": (0.1, 0.2)}},
            "watch = 'val' takes no selection",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        toy_recipe(**fields)


def test_without_val_images_there_is_nothing_to_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_task(toy_recipe().task, img_size=16)
    rows = {name: getattr(data.val, name)[:0] for name in ("images", "targets", "index")}
    bare = replace(data, val=replace(data.val, **rows))
    monkeypatch.setattr(loaded, "load_views", lambda *asked, **rest: {"student": bare})
    with pytest.raises(DataError, match="has no val images to watch"):
        run(toy_recipe(watch="val", teacher=False), device="cpu", out=tmp_path)
