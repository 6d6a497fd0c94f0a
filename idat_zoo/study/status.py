"""The status of a study: how many runs of each arm are finished, running, queued or failed.

Free of torch; read from the files in the study's folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idat_zoo.errors import ZooError
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.results import load_result
from idat_zoo.runs.lock import holder_of
from idat_zoo.study.failures import Failure, Failures, in_one_line
from idat_zoo.study.plan import Entry, StudyPlan

State = Literal["finished", "unusable", "running", "queued", "failed", "left out", "open"]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The state of one run of a study.

    `holder` describes the process that is training it, or the job of a cluster that will, and is ''
    unless it is running or queued. A run is left out after its third failure. `failure` holds the
    last one, whatever the state. `fault` says why a result cannot be read, and is '' unless the run
    is unusable.
    """

    entry: Entry
    state: State
    holder: str = ""
    failure: Failure | None = None
    fault: str = ""


def read_status(
    plan: StudyPlan, folder: Path, *, queued: Mapping[str, str] | None = None
) -> list[RunStatus]:
    """The state of every run of a plan, each once.

    `queued` describes the jobs of a cluster by the absolute folders of the runs they train.
    """
    failures, jobs = Failures(folder).of, queued or {}
    return [
        _status(entry, folder / run, failures.get(run), jobs.get(str((folder / run).resolve()), ""))
        for run, entry in plan.runs.items()
    ]


def _status(entry: Entry, folder: Path, failure: Failure | None, job: str) -> RunStatus:
    if (folder / RESULT_FILE).is_file():
        try:
            load_result(folder / RESULT_FILE)
        except ZooError as error:
            return RunStatus(entry=entry, state="unusable", fault=in_one_line(error))
        return RunStatus(entry=entry, state="finished")
    holder = holder_of(folder)
    if holder is not None:
        described = f"{holder}, {job}" if job else str(holder)
        return RunStatus(entry=entry, state="running", holder=described, failure=failure)
    if job:
        return RunStatus(entry=entry, state="queued", holder=job, failure=failure)
    if failure is None:
        return RunStatus(entry=entry, state="open")
    state: State = "left out" if failure.is_final else "failed"
    return RunStatus(entry=entry, state=state, failure=failure)


def count_cells(
    plan: StudyPlan, runs: Sequence[RunStatus]
) -> dict[tuple[str, str], tuple[int, int]]:
    """The numbers of finished entries and of all, by arm and task."""
    finished = {run.entry.folder for run in runs if run.state == "finished"}
    cells: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in plan.entries:
        done, of = cells.get((entry.arm, entry.task), (0, 0))
        cells[entry.arm, entry.task] = (done + (entry.folder in finished), of + 1)
    return cells


def as_table(
    plan: StudyPlan, cells: dict[tuple[str, str], tuple[int, int]]
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of arms and tasks; the longer axis becomes the rows."""
    arms, tasks = plan.arms, plan.tasks

    def cell(arm: str, task: str) -> str:
        return "/".join(map(str, cells[arm, task])) if (arm, task) in cells else ""

    if len(tasks) > len(arms):
        return ["task", *arms], [[task, *(cell(arm, task) for arm in arms)] for task in tasks]
    return ["arm", *tasks], [[arm, *(cell(arm, task) for task in tasks)] for arm in arms]


def as_document(plan: StudyPlan, folder: Path, runs: Sequence[RunStatus]) -> dict[str, Any]:
    """The status as values of JSON."""
    return {
        "study": plan.name,
        "title": plan.title,
        "folder": str(folder),
        "runs": len(runs),
        "finished": sum(run.state == "finished" for run in runs),
        "cells": [
            {"arm": arm, "task": task, "finished": done, "of": of}
            for (arm, task), (done, of) in count_cells(plan, runs).items()
        ],
        "unfinished": [
            {
                "folder": run.entry.folder,
                "run": str(run.entry),
                "state": run.state,
                **({"holder": run.holder} if run.holder else {}),
                **({"fault": run.fault} if run.fault else {}),
                **({"failure": run.failure.model_dump()} if run.failure else {}),
            }
            for run in runs
            if run.state != "finished"
        ],
    }
