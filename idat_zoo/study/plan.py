"""The plan of a study: its runs with their folders, as plan.json stores it. Free of torch."""

from pathlib import Path
from typing import Annotated

from pydantic import Strict, ValidationError

from idat_zoo import files
from idat_zoo.errors import RunFolderError
from idat_zoo.recipe import describe_faults
from idat_zoo.study.design import Run
from idat_zoo.values import Frozen

PLAN_FILE = "plan.json"


class Entry(Run):
    """A run of a plan.

    `folder` is the run's folder below the study's folder, pair/adapter/task/hash/seedN. The recipe
    is complete: its precision is the one of the device that the study was planned for. Two entries
    may share a folder if their arms read different metrics of one run.
    """

    folder: str


class StudyPlan(Frozen):
    """The plan of a study, fixed at its first call.

    `reference` is the arm that the others are compared with. `passes` are the folders of the runs
    that are trained in one pass over the backbones, in the order of training; each folder occurs
    once. `stack` is the largest number of runs that share a pass, as --stack gave it. `left_out`
    has a sentence for each adapter that does not fit the backbones.
    """

    name: str
    title: str
    reference: str
    entries: Annotated[tuple[Entry, ...], Strict(False)]
    passes: Annotated[tuple[Annotated[tuple[str, ...], Strict(False)], ...], Strict(False)]
    stack: int | None = None
    left_out: Annotated[tuple[str, ...], Strict(False)] = ()

    @property
    def runs(self) -> dict[str, Entry]:
        """The first entry of each folder: every run that is trained, once."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            found.setdefault(entry.folder, entry)
        return found

    @property
    def arms(self) -> list[str]:
        """The names of all arms, in the order of the study file."""
        return list(dict.fromkeys(entry.arm for entry in self.entries))

    @property
    def tasks(self) -> list[str]:
        """The ids of all tasks, in the order of the study file."""
        return list(dict.fromkeys(entry.task for entry in self.entries))


def has_plan(folder: Path) -> bool:
    """Whether a folder holds the plan of a study."""
    return (folder / PLAN_FILE).is_file()


def load_plan(folder: Path) -> StudyPlan:
    """The plan in a study's folder.

    Raises: RunFolderError if there is none, or it cannot be read.
    """
    file = folder / PLAN_FILE
    try:
        return StudyPlan.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise RunFolderError(
            f"'{folder}' holds no study: there is no {PLAN_FILE}.",
            hint="`idat study FILE|NAME` makes the plan and trains; --out names another folder.",
        ) from None
    except OSError as error:
        raise RunFolderError(f"cannot read '{file}': {error.strerror}") from None
    except ValidationError as error:
        raise RunFolderError(
            f"cannot read '{file}': {describe_faults(error, where='plan')[0]}",
            hint="It is damaged, or of another version of idat-zoo: --replan makes it anew.",
        ) from None


def store_plan(plan: StudyPlan, folder: Path) -> None:
    """Write a plan to a study's folder, atomically. Raises: RunFolderError."""
    content = files.dump_json(plan.model_dump(mode="json", exclude_none=True))
    files.write_whole(folder / PLAN_FILE, content)
