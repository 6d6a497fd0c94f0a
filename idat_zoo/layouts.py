"""Where each suite's lists of images lie below the data folder. Torch-free, for `idat list`."""

import json
import os
import shlex
from pathlib import Path

from idat_zoo.recipe import Task

VTAB1K_LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
VTAB1K_BOTH = "train800val200.txt"
FGVC_LISTS = {"train": "train.json", "val": "val.json", "test": "test.json"}
FEWSHOT_TEST = "annotations/test_meta.list"
SOURCE_FILE = "source.json"
"""What `idat data pull` writes beside the lists: which copy the images are of."""


def data_folder(given: Path | None) -> Path:
    """The folder of the tasks' folders: the one given, else where `idat data pull` puts them."""
    if given is not None:
        return given
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "idat-zoo" / "data"


def pulled_from(folder: Path) -> str | None:
    """What `idat data pull` wrote beside a task's lists: source and commit; None without it."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        return None
    try:
        written = json.loads(path.read_bytes())
        return f"{written['source']} at {written['commit']}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def fewshot_train(shots: int, seed: int | str) -> str:
    """The list of k images per class drawn with a seed, or a pattern of several."""
    return f"annotations/train_meta.list.num_shot_{shots}.seed_{seed}"


def drawn_seeds(task: Task, data_dir: Path | None) -> list[int]:
    """The seeds that a few-shot task has lists of; [0] for tasks whose lists know no seed."""
    if task.suite != "fewshot":
        return [0]
    found = task_folder(task, data_dir).glob(fewshot_train(task.shots, "*"))
    seeds = (path.name.rpartition("_")[2] for path in found)
    return sorted(int(seed) for seed in seeds if seed.isascii() and seed.isdecimal())


def needed_lists(task: Task, *, seed: int = 0) -> list[str]:
    """The files without which a task cannot be read, below its folder."""
    if task.suite == "vtab1k":
        return list(VTAB1K_LISTS.values())
    if task.suite == "fgvc":
        return list(FGVC_LISTS.values())
    if task.suite == "fewshot":
        return [fewshot_train(task.shots, seed), FEWSHOT_TEST]
    return []


def task_folder(task: Task, data_dir: Path | None) -> Path:
    """Where a task's lists and images lie."""
    return data_folder(data_dir) / task.folder


def how_to_get(task: Task) -> str:
    """What brings a task's images here."""
    if task.suite == "folder":
        return "--data-dir DIR names the folder that they lie in, or a CSV of them"
    if task.suite == "arrays":
        return "from Python, run(recipe, data=…) and evaluate(reference, data=…) take them"
    if task.suite == "vtab1k":
        return f"`idat data pull {task.id}` fetches them; or --data-dir DIR"
    return "get the folders (docs/data.md), then --data-dir DIR"


def verify_command(task: str, data_dir: Path | None) -> str:
    """The command that lists every fault of a task's images, or of a `folder` of one's own."""
    place = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return shlex.join(["idat", "data", "verify", task, *place])


def missing_lists(task: Task, data_dir: Path | None, *, seed: int = 0) -> str:
    """What is not there of a task's lists, in words, or ''."""
    if task.suite == "mini":
        return ""
    if task.suite == "folder":
        if data_dir is None:
            return f"images of task '{task.id}' (no --data-dir was given)"
        return "" if data_dir.exists() else f"images of task '{task.id}': no '{data_dir}'"
    if task.suite == "arrays":
        return f"images of task '{task.id}', which a Python program held"
    folder = task_folder(task, data_dir)
    absent = [str(folder / name) for name in needed_lists(task, seed=seed)]
    absent = [path for path in absent if not Path(path).is_file()]
    if not absent:
        return ""
    if data_dir is None and not folder.exists():
        return (
            f"images of task '{task.id}' (no --data-dir was given, IDAT_DATA_DIR is not set, and "
            f"'{folder}' is not there)"
        )
    return f"images of task '{task.id}': no {', '.join(absent)}"
