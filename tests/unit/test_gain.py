"""The teacher's gain: how it is paired, and which comparisons are uneven."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_results import (
    ALONE,
    COUNT,
    T_2,
    TAUGHT,
    Found,
    build_report,
    made,
    on_task,
    text,
    written,
)

from conftest import toy_recipe
from idat_zoo import files
from idat_zoo.intervals import paired_interval, unpaired_interval
from idat_zoo.recipe import Recipe
from idat_zoo.report.build import Report
from idat_zoo.results import ImageCounts

RIGHT_ALONE = [True] * 6 + [False] * 4
RIGHT_TAUGHT = [True] * 5 + [False] + [True] * 3 + [False]


def test_the_gain_is_paired_on_the_same_images(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    report = build_report(found)
    (gain,) = report.gains
    (seed,) = gain.seeds
    assert seed.gain == pytest.approx(0.2, abs=1e-12)
    assert (seed.gained, seed.lost, seed.images) == (3, 1, 10)
    assert seed.interval == paired_interval(3, 1, 10)
    assert gain.label == {"teacher": "toy_teacher"}
    assert gain.mean is None
    assert "| +20.00 |" in text(report)


def test_no_gain_is_beyond_what_top1_can_be() -> None:
    found = [made(50, ALONE, seed=seed) for seed in (0, 1)]
    found += [made(own, TAUGHT, seed=seed) for seed, own in enumerate((5, 95))]
    (gain,) = build_report(found).gains
    assert gain.mean is not None
    assert (gain.mean.over, gain.mean.interval) == ("seeds", (-1.0, 1.0))


def test_a_loss_keeps_its_sign(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_TAUGHT, ALONE),
        written(tmp_path / "taught", RIGHT_ALONE, TAUGHT),
    ]
    assert "| -20.00 |" in text(build_report(found))


def gains_of(tmp_path: Path, lost: int, gained: Sequence[int]) -> Report:
    """Runs on 20 images: the student alone is right about 10, with its teacher loses and gains."""
    found = []
    for seed, more in enumerate(gained):
        found.append(written(tmp_path / f"a{seed}", [True] * 10 + [False] * 10, ALONE, seed))
        right = [False] * lost + [True] * (10 - lost + more) + [False] * (10 - more)
        found.append(written(tmp_path / f"t{seed}", right, TAUGHT, seed))
    return build_report(found)


def test_over_seeds_far_apart_the_gain_has_a_mean_and_its_spread(tmp_path: Path) -> None:
    report = gains_of(tmp_path, 0, (0, 4, 8))
    (gain,) = report.gains
    half = T_2 * 0.2 / 3**0.5
    assert [seed.gain for seed in gain.seeds] == pytest.approx([0.0, 0.2, 0.4], abs=1e-12)
    assert gain.mean is not None
    assert gain.mean.gain == pytest.approx(0.2, abs=1e-12)
    assert gain.mean.sd == pytest.approx(0.2, abs=1e-12)
    assert gain.mean.interval == pytest.approx((0.2 - half, 0.2 + half), abs=1e-12)
    assert gain.mean.over == "seeds"
    assert "| mean | +20.00 ± 20.00 |" in text(report)
    assert "(3 seeds) |" in text(report)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 2), (2, 2), (3, 1)])
def test_equal_gains_are_no_more_certain_than_their_images(
    tmp_path: Path, lost: int, gained: int
) -> None:
    report = gains_of(tmp_path, lost, (gained, gained))
    (gain,) = report.gains
    assert gain.mean is not None
    assert gain.mean.sd == 0
    assert gain.mean.interval == gain.seeds[0].interval == paired_interval(gained, lost, 20)
    assert gain.mean.over == "images"
    assert "(20 images) |" in text(report)


def test_equal_gains_that_are_not_paired_have_an_interval_too() -> None:
    found = [made(80, ALONE, seed=s) for s in (0, 1)] + [made(90, TAUGHT, seed=s) for s in (0, 1)]
    (gain,) = build_report(found).gains
    assert gain.mean is not None
    assert gain.mean.interval == pytest.approx(unpaired_interval(0.9, 0.8, COUNT), abs=1e-12)
    assert gain.mean.over == "images"


def assert_plain_difference(found: list[Found], reason: str) -> None:
    report = build_report(found)
    (seed,) = report.gains[0].seeds
    assert seed.interval == unpaired_interval(0.8, 0.6, COUNT)
    assert seed.gained is None
    assert seed.gain == pytest.approx(0.2, abs=1e-12)
    assert reason in seed.unpaired
    assert "not paired" in text(report)
    assert reason in text(report)


@pytest.mark.parametrize(("gone", "whose"), [("alone", "none"), ("taught", "toy_teacher")])
def test_without_predictions_the_difference_is_plain_and_says_so(
    tmp_path: Path, gone: str, whose: str
) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    (tmp_path / gone / "predictions.safetensors").unlink()
    assert_plain_difference(found, f"run with teacher {whose} has no predictions.safetensors")


@pytest.mark.parametrize("name", ["index", "target"])
def test_other_test_images_are_not_paired(tmp_path: Path, name: str) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    file = tmp_path / "alone" / "predictions.safetensors"
    tensors = files.parse_tensors(file.read_bytes())
    wrong = tensors["student"].argmax(1) != tensors["target"]
    other = {"index": tensors["index"] + 1, "target": tensors["target"] + 4 * wrong}  # same top-1
    file.write_bytes(files.dump_tensors(tensors | {name: other[name]}))
    path, result = found[0]
    agreed = result.model_copy(update={"files": {file.name: files.sha256(file)}})
    assert_plain_difference([(path, agreed), found[1]], "tested on different images")


def test_predictions_that_the_result_does_not_name_are_not_used(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    file = tmp_path / "alone" / "predictions.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    assert_plain_difference(found, "not the one its result names")


def test_a_seed_that_one_side_lacks_is_left_out_and_said(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
        written(tmp_path / "more", RIGHT_TAUGHT, TAUGHT, seed=1),
    ]
    report = build_report(found)
    assert [seed.seed for seed in report.gains[0].seeds] == [0]
    assert report.gains[0].alone_in == (1,)
    assert "seed 1 is left out" in text(report)


@pytest.mark.parametrize(
    "changes",
    [{"lr": 1e-2}, {"adapter": "sequential"}, {"options": {"rank": 4}}, {"epochs": 5}],
)
def test_recipes_that_differ_in_more_than_the_teacher_have_no_gain(changes: dict[str, Any]) -> None:
    found = [made(80, ALONE), made(90, toy_recipe(**changes))]
    assert build_report(found).gains == ()


def test_every_kind_of_teacher_is_compared_with_the_student_alone() -> None:
    renamed = TAUGHT.pair.model_copy(update={"name": "renamed"})
    linear = TAUGHT.adapter.model_copy(update={"name": "linear"})
    taught = [
        TAUGHT,
        toy_recipe(distillation="kl", temperature=2.0),
        toy_recipe(distillation="none"),
        toy_recipe(detach="teacher", distillation_weight=0.5),
        TAUGHT.model_copy(update={"pair": renamed}),
        TAUGHT.model_copy(update={"teacher_adapter": linear}),
    ]
    report = build_report([made(80, ALONE), *(made(90, recipe) for recipe in taught)])
    assert len(report.gains) == len(taught)
    assert {gain.seeds[0].gain for gain in report.gains} == {0.9 - 0.8}


def backbone_weights(recipe: Recipe, weights: str) -> Recipe:
    student = recipe.pair.student.model_copy(update={"weights": weights})
    return recipe.model_copy(update={"pair": recipe.pair.model_copy(update={"student": student})})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"device": "NVIDIA H100"}, "digits: devices differ (NVIDIA H100; cpu, 1 thread)"),
        ({"versions": {"torch": "2.7"}}, "digits: versions of torch differ (2.6; 2.7)"),
        (
            {"recipe": backbone_weights(TAUGHT, "orig_in21k")},
            "digits: weights differ (toy_student orig_in21k; toy_student random)",
        ),
        (
            {"backbone_sha256": {"student": "6" * 64}},
            "digits: the weights called toy_student random are not the same bytes "
            "(55555555; 66666666)",
        ),
    ],
)
def test_uneven_comparisons_are_pointed_out(other: dict[str, Any], said: str) -> None:
    report = build_report([made(90), made(80, **({"seed": 1} | other))])
    assert said in report.notes
    assert said in text(report)


def test_uneven_means_are_pointed_out() -> None:
    found = [made(90, on_task("dtd")), made(80, on_task("svhn"), device="NVIDIA H100")]
    said = "the means over VTAB-1K: devices differ (NVIDIA H100; cpu, 1 thread)"
    assert build_report(found).notes == (said,)


def test_images_that_a_number_does_not_rest_on_as_it_should_are_noted() -> None:
    counts = ImageCounts(train=800, val=200, test=1880)
    odd = counts.model_copy(update={"unreadable": 3, "test_in_training": 12})
    report = build_report([made(seed=s, images=odd) for s in (0, 1)])
    assert report.notes == (
        "digits: 3 of its images cannot be read and were left out",
        "digits: 12 of 1,880 test images have the same bytes as an image that was learnt from",
    )
    assert all(note in text(report) for note in report.notes)
    assert build_report([made(images=counts)]).notes == ()


def test_even_comparisons_have_no_notes() -> None:
    report = build_report([made(90), made(80, seed=1), made(70, on_task("dtd"), device="other")])
    assert report.notes == ()
