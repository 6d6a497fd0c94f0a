"""Published rows beside ours: which compare, which do not and why, and how both are shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_results import AVERAGED, Found, made
from typer.testing import CliRunner

from idat_zoo.cli import app
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.registry.published import load_published
from idat_zoo.report import build
from idat_zoo.report.against import AgainstPublished, TheirRow
from idat_zoo.report.layout import lay_out
from idat_zoo.report.markdown import as_markdown
from idat_zoo.results import write_result

PUBLISHED = load_published()
VTAB = tuple(task for tasks in AVERAGED["vtab1k"].values() for task in tasks)


def recipe(task: str = "dtd", *, pair: str | None = None, **overrides: Any) -> Recipe:
    """LoRA's on the large pair of VTAB-1K, whose student has AugReg weights."""
    return get_recipe(task, "lora", pair=pair, teacher="none", overrides=overrides)


def against(*found: Found) -> tuple[AgainstPublished, str]:
    """The published rows beside these results, and the whole report as Markdown."""
    report = build.build_report(found, averaged=AVERAGED, published=PUBLISHED)
    assert report.published is not None
    return report.published, as_markdown(lay_out(report))


def theirs(*found: Found, setup: int = 0) -> dict[str, TheirRow]:
    return {row.name: row for row in against(*found)[0].beside[setup].theirs}


def test_without_being_asked_for_there_are_none() -> None:
    report = build.build_report([made(recipe=recipe())], averaged=AVERAGED)
    assert report.published is None
    assert "ublished" not in as_markdown(lay_out(report))


def test_a_last_epoch_compares_with_no_best_on_test_and_each_reason_is_named() -> None:
    rows = theirs(made(recipe=recipe()))
    assert len(rows) == len(PUBLISHED)
    ssf, lora, gps, tuned = (
        rows[name] for name in ("papers/SSF", "papers/LoRA-8", "papers/GPS", "osu/lora")
    )
    assert (ssf.differs_in, ssf.not_established) == (("selection",), ())
    assert lora.differs_in == ("weights", "normalisation", "selection")
    assert (gps.differs_in, gps.not_established) == ((), ("selection",))
    assert tuned.differs_in == ("weights", "normalisation", "selection")
    assert not any(row.compares for row in rows.values())


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"normalisation": "imagenet"}, "normalisation"),
        ({"normalisation": "none"}, "normalisation"),
    ],
)
def test_another_normalisation_is_a_reason(overrides: dict[str, Any], reason: str) -> None:
    assert reason in theirs(made(recipe=recipe(**overrides)))["papers/SSF"].differs_in
    assert reason not in theirs(made(recipe=recipe()))["papers/SSF"].differs_in


def test_another_backbone_and_random_weights_are_reasons() -> None:
    rows = theirs(made(recipe=recipe(pair="micro")))
    assert {"backbone", "weights"} <= set(rows["papers/SSF"].differs_in)


def test_rows_that_agree_in_everything_compare() -> None:
    """OSU's numbers: original weights, pixels as they are, settings chosen on val200."""
    original = recipe(normalisation="none", selection="val", **{"candidates.lr": (1e-3, 1e-2)})
    student = original.pair.student.model_copy(update={"weights": "orig_in21k"})
    pair = original.pair.model_copy(update={"student": student})
    found, text = against(made(recipe=original.model_copy(update={"pair": pair})))
    (one,) = found.beside
    assert {row.name for row in one.theirs if row.compares} == {
        row.name for row in PUBLISHED if row.table == "osu"
    }
    assert "16 of 38 published rows have the same" in text
    assert "| osu/lora | 68.99 |" in text
    assert "| papers/LoRA-8 | (69.40) |" in text


def test_the_released_protocol_has_two_numbers_and_each_has_its_own_rows() -> None:
    paper = recipe(protocol="paper")
    found, text = against(made(80, paper, top1_best_on_test=0.85))
    last, best = found.beside
    assert (last.setup.selection, best.setup.selection) == ("last", "best_on_test")
    assert (last.ours[0].top1, best.ours[0].top1) == ({"dtd": 0.8}, {"dtd": 0.85})
    assert {row.name for row in best.theirs if row.compares} == {"papers/SSF"}
    assert not any(row.compares for row in last.theirs)
    assert "| papers/SSF | 75.10 |" in text
    assert "| papers/SSF | (75.10) |" in text
    assert "1 of 38 published rows has the same" in text


def test_of_an_imported_adapter_the_selection_is_not_known() -> None:
    rows = theirs(made(recipe=recipe(protocol="imported")))
    assert all("selection" in row.not_established for row in rows.values())


def test_of_a_teacher_that_was_evaluated_its_own_weights_count() -> None:
    taught = get_recipe("dtd", "lora")
    assert taught.pair.teacher is not None
    result = made(recipe=taught, kind="eval", backbone_sha256={"teacher": "7" * 64})
    (one,) = against(result)[0].beside
    assert one.setup.backbone == taught.pair.teacher.timm


def test_what_each_row_rests_on_is_shown() -> None:
    _, text = against(made(recipe=recipe(), data_copy="hub:somewhere"))
    assert (
        "| papers/LoRA-8 | 0.29 | orig_in21k | imagenet | best on test | JPEG folders | no: "
        in text
    )
    assert (
        "| papers/SNF | 0.25 | – | – | – | – | no: weights, normalisation, selection rule not"
        in text
    )
    assert "no: other selection rule |" in text
    assert "data copy: hub:somewhere" in text
    assert "data copy: not recorded" in against(made(recipe=recipe()))[1]


def test_tasks_without_published_rows_are_named_in_one_line() -> None:
    found, text = against(made(recipe=get_recipe("digits", "lora")))
    assert (found.beside, found.inflation, found.unpublished) == ((), (), ("digits",))
    assert "None of digits: published rows are of VTAB-1K alone." in text
    mixed, _ = against(made(recipe=recipe()), made(recipe=get_recipe("digits", "lora")))
    assert mixed.unpublished == ("digits",)
    assert mixed.beside[0].tasks == ("dtd",)


def test_named_means_are_beside_ours_where_no_task_is_missing() -> None:
    whole = [made(80, recipe(task)) for task in VTAB]
    found, text = against(*whole)
    (one,) = found.beside
    assert one.tasks == VTAB
    assert one.ours[0].means == pytest.approx({"mean19": 0.8, "mean3": 0.8})
    ssf = next(row for row in one.theirs if row.name == "papers/SSF")
    assert 100 * ssf.means["mean19"] == pytest.approx(73.10, abs=5e-3)
    assert "(73.10) | (75.69) |" in text
    for group in ("natural", "specialized", "structured"):
        assert f"beside published rows, {group}" in text
    partly, _ = against(*whole[1:])
    assert partly.beside[0].ours[0].means == {}
    assert partly.beside[0].theirs[0].means == {}


def test_methods_keep_their_names_and_two_setups_are_two_tables() -> None:
    found, text = against(
        made(80, recipe("dtd")),
        made(70, recipe("dtd", lr=5e-2)),
        made(60, recipe("svhn", normalisation="imagenet")),
    )
    first, second = found.beside
    assert [row.label["lr"] for row in first.ours] == [0.001, 0.05]
    assert (first.tasks, second.tasks) == (("dtd",), ("svhn",))
    assert "| ours: lr 0.05, normalisation model | 70.00 |" in text


def test_the_inflation_is_of_our_tasks_and_over_all() -> None:
    _, text = against(made(recipe=recipe("diabetic_retinopathy")), made(recipe=recipe("dtd")))
    assert "| diabetic_retinopathy | +3.82 | +10.81 |" in text
    assert "| dtd | +0.76 | +1.65 |" in text
    assert "| svhn |" not in text
    assert "mean19 +0.65, mean3 +0.75; the most on diabetic_retinopathy, +3.82" in text
    assert "| vpt_deep | +1.51 | +1.77 |" in text


def test_the_command_takes_it_in_every_format(tmp_path: Path) -> None:
    _, result = made(80, recipe())
    write_result(tmp_path / "result.json", result)

    def idat(*words: str) -> Any:
        return CliRunner().invoke(app, ["report", str(tmp_path), *words])

    document = json.loads(idat("--against", "published", "--json").stdout)["report"]
    (one,) = document["published"]["beside"]
    assert one["setup"]["weights"] == "augreg_in21k"
    assert one["ours"][0]["top1"] == {"dtd": 0.8}
    assert one["theirs"][0]["top1"]["dtd"] == 0.643
    assert len(document["published"]["inflation"][0]["methods"][0]["by_task"]) == 19
    assert "papers/SSF" in idat("--against", "published").stdout
    assert "| papers/SSF |" in idat("--against", "published", "--format", "markdown").stdout
    assert "published" not in json.loads(idat("--json").stdout)["report"]
    wrong = idat("--against", "publishd")
    assert wrong.exit_code == 2
    assert "'publishd' is not one of 'published'" in wrong.stderr
