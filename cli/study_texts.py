"""The texts of `idat study`: what a call would train, what it has trained, and the status."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.errors import ZooError
from idat_zoo.file_names import RESULT_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idat_zoo.results import Result
    from idat_zoo.runs.device_setup import DeviceSetup
    from idat_zoo.runs.plan import Planned
    from idat_zoo.study.plan import StudyPlan
    from idat_zoo.study.status import RunStatus
    from idat_zoo.study.train import StudyOutcome

NAMED = 10
"""The largest number of failures, and of queued runs, that the status lists."""


def print_outcome(
    outcome: "StudyOutcome", part: tuple[int, int] | None = None, *, json: bool
) -> None:
    """Print how many runs are finished, and what became of the others.

    `part` is the number of the pass that was trained alone, and the number of all passes.
    """
    plan, total = outcome.plan, len(outcome.plan.runs)
    if json:
        from idat_zoo.study.failures import in_one_line

        screen.print_json(
            {
                "study": plan.name,
                "folder": str(outcome.folder),
                **({} if part is None else dict(zip(("pass", "passes"), part, strict=True))),
                "runs": total,
                "finished": len(outcome.results),
                "failed": {run: in_one_line(own) for run, own in outcome.failed.items()},
                "left_out": dict(outcome.left_out),
                "missing": {run: list(own) for run, own in outcome.missing.items()},
            }
        )
        return
    counts = {
        "failed": len(outcome.failed),
        "left out after three failures": len(outcome.left_out),
        "not begun, as inputs are missing": len(outcome.missing),
    }
    others = "".join(f", {count} {words}" for words, count in counts.items() if count)
    of_pass = "" if part is None else "pass {} of {} of ".format(*part)
    typer.echo(
        screen.plain(
            f"{of_pass}study '{plan.name}': {len(outcome.results)} of {total} runs are finished"
            f"{others}\n  {outcome.folder}"
        )
    )


def print_dry_run(
    plan: "StudyPlan",
    planned: "list[Planned]",
    folder: Path,
    setup: "DeviceSetup",
    data_dir: Path | None,
    *,
    measure: bool,
    retry: bool,
    json: bool,
) -> None:
    """Print the numbers of runs and passes, what is missing, and the hours as far as known.

    Runs that three failures leave out count for neither, unless `retry` forgets the failures.
    """
    from idat_zoo.study.estimate import estimate, kind_in_words, kind_of, measured_rates
    from idat_zoo.study.failures import Failures

    results = _results(planned)
    final = {} if retry else Failures(folder).final
    open_runs = [one for one in planned if not one.finished]
    to_train = [one for one in open_runs if one.folder.relative_to(folder).as_posix() not in final]
    left_out = len(open_runs) - len(to_train)
    rates = measured_rates(results, data_dir)
    if measure:
        from idat_zoo.study.measure import seconds_per_image

        for one in to_train:
            if kind_of(one.recipe) not in rates:
                with screen.waiting(f"timing {kind_in_words(kind_of(one.recipe))}"):
                    rates[kind_of(one.recipe)] = seconds_per_image(
                        one.recipe, setup.device, setup.switches
                    )
    expected = estimate(to_train, rates, data_dir)
    hours = expected.seconds / 3600 / setup.jobs
    unknown = {kind_in_words(kind): count for kind, count in expected.unknown.items()}
    missing = list(dict.fromkeys(what for one in to_train for what in one.missing))
    if json:
        screen.print_json(
            {
                "study": plan.name,
                "title": plan.title,
                "folder": str(folder),
                "runs": len(planned),
                "passes": len(plan.passes),
                "finished": len(results),
                "left_out": left_out,
                "missing": missing,
                "hours": hours if expected.runs else None,
                "hours_of_runs": expected.runs,
                "unknown_hours_of": unknown,
            }
        )
        return
    typer.echo(screen.plain(f"{plan.title}\n  folder    {folder}"))
    failed = f", {left_out} left out after three failures" if left_out else ""
    typer.echo(f"  runs      {len(planned)}, of which {len(results)} are finished{failed}")
    typer.echo(f"  passes    {len(plan.passes)}")
    processes = "1 process" if setup.jobs == 1 else f"{setup.jobs} processes"
    known = f"{_time(hours)} for {expected.runs} runs, by {processes}" if expected.runs else ""
    lacking = sum(expected.unknown.values())
    unsaid = f"unknown for {lacking} runs" if lacking else ""
    typer.echo(f"  expected  {'; '.join(filter(None, (known, unsaid))) or 'nothing is left'}")
    if unknown:
        some = list(unknown)[:3] + (["…"] if len(unknown) > 3 else [])
        _print_wrapped(
            f"  no finished run tells the time of {', '.join(some)}; --measure times a step"
        )
    for what in missing:
        _print_wrapped(f"  missing: {what}")


def _results(planned: "list[Planned]") -> "list[Result]":
    """The results of the finished runs; of one that cannot be read, a note says why."""
    from idat_zoo.results import load_result
    from idat_zoo.study.failures import UNUSABLE, in_one_line

    found = []
    for one in (one for one in planned if one.finished):
        try:
            found.append(load_result(one.folder / RESULT_FILE))
        except ZooError as error:
            screen.note(f"{UNUSABLE}: {in_one_line(error)}")
    return found


def print_status(plan: "StudyPlan", folder: Path, runs: "Sequence[RunStatus]") -> None:
    """Print a table of the finished runs, and a line for each that is running, queued or failed.

    The last line is the number of those that wait.
    """
    from idat_zoo.study.failures import UNUSABLE
    from idat_zoo.study.status import as_table, count_cells

    finished = sum(one.state == "finished" for one in runs)
    typer.echo(screen.plain(f"{plan.title}\n{folder}: {finished} of {len(runs)} runs are finished"))
    typer.echo()
    screen.print_table(*as_table(plan, count_cells(plan, runs)))
    running = [f"running: {one.entry}: {one.holder}" for one in runs if one.state == "running"]
    failed = [
        f"{one.state} ({one.failure.count} failure{'s' * (one.failure.count > 1)}): {one.entry}: "
        f"{one.failure.message}"
        for one in runs
        if one.failure is not None and one.state in ("failed", "left out")
    ]
    queued = [f"queued: {one.entry}: {one.holder}" for one in runs if one.state == "queued"]
    unusable = [f"{UNUSABLE}: {one.fault}" for one in runs if one.fault]
    waiting = sum(one.state == "open" for one in runs)
    waits = [f"waiting: {waiting} run{'s' * (waiting > 1)}"] if waiting else []
    for lines in (running, _some(queued), unusable, _some(failed), waits):
        if lines:
            typer.echo()
        for line in lines:
            _print_wrapped(line)


def _some(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    count = len(lines) - NAMED
    return [*lines[:NAMED], *([f"… and {count} more, which --json lists"] if count > 0 else [])]


def _print_wrapped(line: str) -> None:
    """Print a line; on a terminal it is wrapped between words."""
    typer.echo(screen.wrapped(screen.plain(line)))


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    minutes = round(60 * hours)
    return (
        f"{minutes} minutes" if minutes > 1 else "about a minute" if minutes else "under a minute"
    )
