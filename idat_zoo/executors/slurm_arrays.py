"""The record of the job arrays of a study: a folder `slurm/NAME/` for each in the study's folder.

NAME is also the name of its jobs in Slurm, and turns.json has the folders of the runs that each
element trains. So a later call, and `idat study status`, find the jobs of an earlier call. Free of
torch and submitit.
"""

import json
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from idat_zoo import files
from idat_zoo.executors.slurm_queue import Job, read_queue
from idat_zoo.file_names import RESULT_FILE

FOLDER = "slurm"
TURNS_FILE = "turns.json"


class Queued(NamedTuple):
    """A job that has not ended, the folder of its array, and the folders of its runs."""

    job: Job
    folder: Path
    runs: tuple[str, ...]


def store_array(study: Path, turns: Sequence[Sequence[str]]) -> Path:
    """Make the folder of a new array, with the runs of each element. Raises: RunFolderError."""
    folder = study / FOLDER / f"idat-{secrets.token_hex(4)}"
    files.write_whole(folder / TURNS_FILE, files.dump_json({"turns": [[*own] for own in turns]}))
    return folder


def queued_jobs(study: Path) -> list[Queued]:
    """The jobs of a study that have not ended; Slurm is asked only where arrays are recorded.

    Raises: NoAnswerError.
    """
    arrays = _arrays(study)
    if not arrays:
        return []
    queue = read_queue(folder.name for folder in arrays)
    found = []
    for job in (job for job in queue.values() if not job.has_ended):
        folder = study / FOLDER / job.name
        found.append(Queued(job, folder, arrays[folder][job.element]))
    return found


def described_jobs(study: Path) -> dict[str, str]:
    """The jobs that have not ended, in words, by the absolute folders of the runs they train.

    Raises: NoAnswerError.
    """
    return {
        run: f"Slurm job {one.job.id} ({one.job.state.lower()})"
        for one in queued_jobs(study)
        for run in one.runs
    }


def remove_finished(study: Path) -> None:
    """Remove the folders of the arrays whose runs are all finished."""
    for folder, turns in _arrays(study).items():
        if all((Path(run) / RESULT_FILE).exists() for own in turns for run in own):
            shutil.rmtree(folder, ignore_errors=True)
    top = study / FOLDER
    if top.is_dir() and not any(top.iterdir()):
        top.rmdir()


def _arrays(study: Path) -> dict[Path, list[tuple[str, ...]]]:
    """The folders of the runs of each element, by the folders of the arrays."""
    found = {}
    for file in sorted((study / FOLDER).glob(f"*/{TURNS_FILE}")):
        turns = json.loads(file.read_bytes())["turns"]
        found[file.parent] = [tuple(own) for own in turns]
    return found
