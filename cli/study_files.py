"""Studies for `idat show` and `idat validate`: planned as by `idat study FILE --dry-run`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idat_zoo.study.plan import StudyPlan


def is_study_file(path: Path) -> bool:
    """Whether a TOML file has the keys of a study. Raises: RecipeError if it cannot be read."""
    from idat_zoo.recipe_toml import parse_toml, read_text

    return not {"part", "reference"}.isdisjoint(parse_toml(read_text(path), where=str(path)))


def plan_study(what: Path | str, shelf: Path | None) -> "StudyPlan":
    """The plan of a study by its file or name, for this device; no weights or images are read.

    Raises: RecipeError with every fault; otherwise as `get_study`.
    """
    from idat_zoo.registry.studies import get_study

    study = get_study(what, shelf=shelf)  # its faults are found without torch
    from idat_zoo.engine.precision import find_device
    from idat_zoo.runs.device_setup import set_up
    from idat_zoo.study.planning import make_plan

    return make_plan(study, set_up(find_device("auto"), None, stack=None, jobs=1))


def describe_study(plan: "StudyPlan") -> dict[str, Any]:
    """The axes of a planned study, and its numbers of runs and passes."""
    entries = plan.entries
    keys = dict.fromkeys(key for one in entries for key in one.values)
    values = {
        key: list(dict.fromkeys(one.values[key] for one in entries if key in one.values))
        for key in keys
    }
    return {
        "title": plan.title,
        "reference": plan.reference,
        "pairs": list(dict.fromkeys(one.recipe.pair.name for one in entries)),
        "tasks": plan.tasks,
        "adapters": list(dict.fromkeys(one.adapter for one in entries)),
        "arms": plan.arms,
        "seeds": list(dict.fromkeys(one.seed for one in entries)),
        "runs": len(plan.runs),
        "passes": len(plan.passes),
        **({"values": values} if values else {}),
        **({"left_out": list(plan.left_out)} if plan.left_out else {}),
    }
