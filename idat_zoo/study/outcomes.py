"""The outcomes of a study's runs, by setting and task: their top-1, and which images are right.

Shape letters: S seeds, N images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idat_zoo.errors import ZooError
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.report.predictions import read_classes
from idat_zoo.results import Result, load_result
from idat_zoo.study.plan import Entry, StudyPlan
from idat_zoo.values import Frozen, Scalar


class Setting(Frozen):
    """What is compared: an arm with an adapter, and the values that the study varies beside it."""

    adapter: str
    arm: str
    values: tuple[tuple[str, Scalar], ...] = ()

    @property
    def label(self) -> str:
        """`mse`, or with values `mse, lr 0.01`."""
        return ", ".join([self.arm, *(f"{name} {value}" for name, value in self.values)])

    @property
    def name(self) -> str:
        """`lora, mse, lr 0.01`: the adapter and the label."""
        return f"{self.adapter}, {self.label}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one finished run: the top-1 that counts, and whether each image is right.

    `teacher` is the top-1 of its teacher, or None if there is none, or if what counts is not the
    student alone. `right` is `[N]`, or None if the folder holds no predictions; then `top1` is
    None, too, unless the result has it.
    """

    result: Result
    top1: float | None
    teacher: float | None
    index: np.ndarray | None
    right: np.ndarray | None


Outcomes = Mapping[tuple[Setting, str], Mapping[int, Outcome]]
"""(setting, task) -> seed -> outcome, of the finished runs, in the order of the plan."""


def setting_of(entry: Entry) -> Setting:
    """The setting of a planned run."""
    return Setting(adapter=entry.adapter, arm=entry.arm, values=tuple(entry.values.items()))


def read_outcomes(plan: StudyPlan, folder: Path) -> tuple[Outcomes, list[Entry], list[ZooError]]:
    """The outcomes of the finished runs of a study in `folder`, and the entries without one.

    A run whose result cannot be read is one without an outcome; the errors are the third value.
    """
    found: dict[tuple[Setting, str], dict[int, Outcome]] = {}
    missing = []
    faults: dict[Path, ZooError] = {}
    for entry in plan.entries:
        path = folder / entry.folder / RESULT_FILE
        if not path.is_file():
            missing.append(entry)
            continue
        try:
            outcome = _outcome(path, load_result(path), entry.metric)
        except ZooError as error:
            faults[path] = error
            missing.append(entry)
            continue
        found.setdefault((setting_of(entry), entry.task), {})[entry.seed] = outcome
    return found, missing, list(faults.values())


def _outcome(path: Path, result: Result, metric: str) -> Outcome:
    try:
        classes = read_classes(path, result)
    except ValueError:
        classes = {}
    right = classes[metric] == classes["target"] if metric in classes else None
    if metric == "student":
        top1: float | None = result.top1
    else:
        top1 = None if right is None else float(right.mean())
    beside = result.teacher if metric == "student" else None
    teacher = None if beside is None else beside.top1
    return Outcome(
        result=result, top1=top1, teacher=teacher, index=classes.get("index"), right=right
    )


def paired(first: Mapping[int, Outcome], second: Mapping[int, Outcome]) -> np.ndarray | None:
    """The differences in correctness `[S, N]` over the seeds that both have, or None.

    There are none if predictions are missing, or are of different images.
    """
    rows = []
    for seed in sorted(first.keys() & second.keys()):
        one, other = first[seed], second[seed]
        if one.right is None or other.right is None:
            return None
        if one.index is None or other.index is None or not np.array_equal(one.index, other.index):
            return None
        rows.append(one.right.astype(np.int8) - other.right.astype(np.int8))
    return np.stack(rows) if rows and len({len(row) for row in rows}) == 1 else None
