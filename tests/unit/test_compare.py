"""`idat compare`: what B changes over A, over results made by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import Result as Output
from made_results import ALONE, COUNT, made, on_task
from typer.testing import CliRunner

from idat_zoo.cli import app
from idat_zoo.errors import UsageError
from idat_zoo.report.compare import NONE, RunsComparison, compare_results
from idat_zoo.report.compare_layout import lay_out_comparison
from idat_zoo.report.difference import difference_of, seed_variances
from idat_zoo.report.predictions import CLASSES_FILE
from idat_zoo.results import find_results, write_result
from idat_zoo.specs import AdapterSpec

TARGET = np.arange(COUNT) % 2


def predictions(wrong: range) -> np.ndarray:
    """The classes of a network that is wrong on these images alone."""
    classes = TARGET.copy()
    classes[list(wrong)] = 1 - classes[list(wrong)]
    return classes


def write(
    folder: Path, wrong: range, *, task: str = "digits", seed: int = 0, lr: float = 0.01
) -> None:
    recipe = on_task(task, lr=lr)
    classes = predictions(wrong)
    _, result = made(int((classes == TARGET).sum()), recipe, seed=seed)
    folder.mkdir(parents=True)
    write_result(folder / "result.json", result)
    kept = {"index": np.arange(COUNT), "target": TARGET.astype(np.uint8)}
    kept["student"] = classes.astype(np.uint8)
    (folder / CLASSES_FILE).write_bytes(safetensors.numpy.save(kept))


def compared(first: Path, second: Path) -> RunsComparison:
    return compare_results(find_results([first]), find_results([second]))


def idat(*words: object) -> Output:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """A is wrong on images 0 to 19, B on 15 to 24 and with a higher rate."""
    write(tmp_path / "A", range(20))
    write(tmp_path / "B", range(15, 25), lr=0.02)
    return tmp_path / "A", tmp_path / "B"


def test_gain_counts_and_mcnemars_p(sides: tuple[Path, Path]) -> None:
    found = compared(*sides)
    (one,) = found.tasks
    assert (one.first, one.second, one.seeds) == (0.8, 0.9, (0,))
    difference = (predictions(range(15, 25)) == TARGET).astype(int)
    difference -= predictions(range(20)) == TARGET
    assert one.difference == difference_of(difference[None], seed_variance=0.0, freedom=0)
    (counts,) = one.by_seed
    assert (counts.gained, counts.lost) == (15, 5)
    assert counts.p == pytest.approx(2 * sum(math.comb(20, heads) for heads in range(6)) / 2**20)
    assert found.fields == {"lr": (0.01, 0.02)}


def test_classes_and_images_that_changed(sides: tuple[Path, Path]) -> None:
    (one,) = compared(*sides).tasks
    assert [(own.index, own.images, own.gained, own.lost) for own in one.classes] == [
        (0, 50, 8, 3),
        (1, 50, 7, 2),
    ]
    assert [own.first for own in one.classes] == [0.8, 0.8]
    assert [own.second for own in one.classes] == [0.9, 0.9]
    assert [own.index for own in one.images] == [*range(15), *range(20, 25)]
    first, last = one.images[0], one.images[-1]
    assert (first.target, first.first, first.second) == (0, 1, 0)
    assert (last.target, last.first, last.second) == (0, 0, 1)


def test_identical_networks_are_not_certain_to_be_alike(tmp_path: Path) -> None:
    for name in ("A", "B"):
        write(tmp_path / name, range(10))
    (one,) = compared(tmp_path / "A", tmp_path / "B").tasks
    assert one.difference is not None
    low, high = one.difference.interval
    assert low < 0 < high
    assert (one.by_seed[0].p, one.images) == (1.0, ())
    assert "The recipes are the same." in idat("compare", tmp_path / "A", tmp_path / "B").stdout


def test_groups_are_paired_by_task_and_seed(tmp_path: Path) -> None:
    for task in ("digits", "textures"):
        for seed in (0, 1, 2):
            write(tmp_path / "A" / task / f"{seed}", range(20 + seed), task=task, seed=seed)
            write(tmp_path / "B" / task / f"{seed}", range(10), task=task, seed=seed, lr=0.02)
    write(tmp_path / "B" / "count", range(10), task="count", lr=0.02)
    write(tmp_path / "B" / "digits" / "3", range(10), seed=3, lr=0.02)
    found = compared(tmp_path / "A", tmp_path / "B")
    assert [(one.task, one.seeds) for one in found.tasks] == [
        ("digits", (0, 1, 2)),
        ("textures", (0, 1, 2)),
    ]
    assert (found.only_first, found.only_second) == ((), ("count", "digits seed 3"))
    assert found.gain == pytest.approx(0.11)
    assert found.interval is None  # the same gain on both tasks tells nothing about others
    assert (found.p_tasks, found.effect) == (0.5, None)  # two tasks of one sign; no spread
    assert found.p_seeds == 2 / 2**6
    gained = np.zeros((3, COUNT), dtype=int)
    for seed in (0, 1, 2):
        gained[seed, 10 : 20 + seed] = 1
    variance, freedom = seed_variances([gained, gained])
    expected = difference_of(gained, seed_variance=variance, freedom=freedom)
    assert found.tasks[0].difference == expected


def test_the_mean_gain_over_tasks_is_tested_and_measured(tmp_path: Path) -> None:
    for place, task in enumerate(("digits", "textures", "count")):
        for seed in (0, 1):
            write(tmp_path / "A" / task / f"{seed}", range(20), task=task, seed=seed)
            wrong = range(10 - 4 * place)
            write(tmp_path / "B" / task / f"{seed}", wrong, task=task, seed=seed, lr=0.02)
    found = compared(tmp_path / "A", tmp_path / "B")
    assert found.effect is not None
    assert found.effect.size == pytest.approx(0.14 / 0.04)
    assert found.p_tasks == found.p_seeds == 2 / 2**3  # both seeds are alike, and count as one
    printed = " ".join(idat("compare", tmp_path / "A", tmp_path / "B").stdout.split())
    assert "mean gain over 3 tasks: +14.00 (+4.06 to +23.94, Student's over the tasks)" in printed
    assert "by sign flips p 0.2500 for other tasks like these; 0.2500 for other seeds" in printed
    assert "effect +3.50, in standard deviations over tasks" in printed
    alone = compared(tmp_path / "A" / "digits", tmp_path / "B" / "digits")
    assert (alone.p_tasks, alone.p_seeds, alone.effect) == (None, None, None)


def test_single_runs_of_other_seeds_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "A", range(20), seed=0)
    write(tmp_path / "B", range(10), seed=7)
    found = compared(tmp_path / "A", tmp_path / "B")
    assert found.fields == {"seed": (0, 7)}
    assert (found.only_first, found.only_second) == ((), ())
    assert found.tasks[0].difference is not None


def test_other_test_images_are_not_compared(sides: tuple[Path, Path]) -> None:
    file = sides[1] / CLASSES_FILE
    kept = safetensors.numpy.load(file.read_bytes())
    kept["index"] = kept["index"] + 1
    file.write_bytes(safetensors.numpy.save(kept))
    (one,) = compared(*sides).tasks
    assert (one.difference, one.images) == (None, ())
    shown = idat("compare", *sides)
    assert shown.exit_code == 0
    assert "digits: not compared, the two runs were tested on different images" in shown.stdout


def test_sides_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "A" / "0", range(20))
    write(tmp_path / "A" / "1", range(20), lr=0.02)
    write(tmp_path / "B", range(10), task="textures")
    with pytest.raises(UsageError, match="several recipes on task 'digits'"):
        compared(tmp_path / "A", tmp_path / "B")
    with pytest.raises(UsageError, match="no task in common: the first has digits, the second"):
        compared(tmp_path / "A" / "0", tmp_path / "B")
    gone = idat("compare", tmp_path / "nowhere", tmp_path / "B")
    assert gone.exit_code == 1
    assert "there is no file or folder" in gone.stderr
    both = idat("compare", tmp_path / "A", tmp_path / "B", "--json", "--format", "markdown")
    assert both.exit_code == 2


def test_the_command_prints_it_in_three_ways(sides: tuple[Path, Path]) -> None:
    table = idat("compare", *sides)
    assert table.exit_code == 0
    assert "digits  0      80.00  90.00  +10.00" in table.stdout
    assert "images that changed sides" in table.stdout
    marked = idat("compare", *sides, "--format", "markdown")
    assert "| lr | 0.01 | 0.02 |" in marked.stdout
    document = json.loads(idat("compare", *sides, "--json").stdout)["comparison"]
    assert RunsComparison.model_validate_json(json.dumps(document)).tasks[0].by_seed[0].gained == 15


def test_fields_that_one_recipe_alone_has_stand_below_those_that_differ(tmp_path: Path) -> None:
    with_linear = ALONE.model_copy(update={"adapter": AdapterSpec(name="linear")})
    for side, recipe in (("A", ALONE), ("B", with_linear)):
        write_result(tmp_path / side / "result.json", made(80, recipe)[1])
    found = compared(tmp_path / "A", tmp_path / "B")
    (fields, *_) = lay_out_comparison(found)
    assert ("adapter", "lora", "linear") in fields.rows
    assert not [row for row in fields.rows if NONE in row]
    (only,) = [line for line in fields.lines if line.startswith("only in ")]
    assert only.startswith("only in A: adapter.")
    assert found.fields["adapter.rank"][1] == NONE
