"""`idat list runs`: finished and unfinished runs below a folder, and how to resume them."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from idat_zoo.cli.screen import end, note, plain, print_json, print_table, width
from idat_zoo.errors import ZooError

if TYPE_CHECKING:
    from idat_zoo.runs.states import RunState


def list_runs(place: Path, data_dir: Path | None, *, json: bool) -> None:
    """Print the runs below a folder: how far each is, the error of a failed one, how to resume.

    Raises: typer.Exit where there is none.
    """
    from idat_zoo.runs.states import find_runs, resume_command

    faults: list[str] = []
    runs = find_runs(place, faults)
    resume = {run.folder: resume_command(run.folder, data_dir) for run in runs if run.waits}
    if json:
        print_json(
            {"runs": [_run_facts(run, resume.get(run.folder)) for run in runs], "faults": faults}
        )
    elif runs:
        rows = [[run.label, str(run.seed), _progress(run)] for run in runs]
        print_table(["run", "seed", "state"], rows)
        ended = [f"{run.folder}\n{_indented(run.fault)}" for run in runs if run.fault]
        for title, lines in (("Ended with:", ended), ("To go on:", dict.fromkeys(resume.values()))):
            if lines:
                typer.echo(plain("\n".join(["", title, *lines])))
    for fault in faults:
        note(fault)
    if not runs:
        hint = "`idat train` makes runs/, or what --out names: idat list runs DIR"
        what = "of the runs below '{}' none can be read" if faults else "no runs lie below '{}'"
        end(ZooError(f"{what.format(place)}.", hint="" if faults else hint))


def _progress(run: "RunState") -> str:
    if run.top1 is not None:
        return f"finished, top-1 {100 * run.top1:.1f} %" + (", diverged" if run.diverged else "")
    if run.state in ("not begun", "unusable"):
        return run.state
    if run.members > 1:  # each has epochs of its own, and one that diverged ends early
        return f"{run.state}, {run.epoch} of {run.epochs} epochs of {run.members} members"
    return f"{run.state}, epoch {run.epoch} of {run.epochs}"


def _run_facts(run: "RunState", resume: str | None) -> dict[str, Any]:
    facts = {
        "folder": str(run.folder),
        "label": run.label,
        "seed": run.seed,
        "state": run.state,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "top1": run.top1,
        "diverged": run.diverged or None,
        "fault": run.fault or None,
        "resume": resume,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _indented(text: str) -> str:
    return textwrap.fill(
        text, width(), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
