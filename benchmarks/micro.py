"""What depends on the micro pair: the recipe chosen on val200, and the tables of its runs.

    python benchmarks/micro.py choose      try settings on val200, write the table `micro_choice`
    python benchmarks/micro.py measure     run what the tables `digits`, `micro` and `mini` show
    python benchmarks/micro.py             both

Runs lie in build/micro-runs and are resumed or reused; remove that folder after a new pretraining.
Test is read by `measure` alone, after the recipe is written. The table of all families and the
adapters that ship are of zoo.py.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from idat_zoo.engine.precision import describe_device
from idat_zoo.errors import ZooError
from idat_zoo.intervals import wilson_interval
from idat_zoo.recipe import Recipe, Task
from idat_zoo.registry import get_recipe, load_registry, task_suites
from idat_zoo.report.rows import estimate
from idat_zoo.results import PREDICTIONS_FILE, RESULT_FILE, Result
from idat_zoo.runs.device_setup import set_up
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.loaded import load_run
from idat_zoo.runs.many import run
from idat_zoo.runs.plan import plan
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.selection import select
from idat_zoo.versions import versions

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "build" / "micro-runs"
RESULTS = ROOT / "benchmarks" / "results"

EPOCHS, WARMUP = 20, 2
RATES = (3e-3, 1e-2, 3e-2)
ARMS = (None, "none")  # with the pair's teacher, and without any

Setting = tuple[str, str, str | None, Sequence[int]]
"""Pair, adapter, teacher, seeds."""

TAUGHT = ("micro", "lora", None, (0, 1, 2))
ALONE = ("micro", "lora", "none", (0, 1, 2))
PROBE = ("micro", "linear", "none", (0, 1, 2))
RANDOM_PROBE = ("micro_random", "linear", "none", (0,))

DIGITS = [TAUGHT, ALONE]
MICRO = [
    *DIGITS,
    ("micro", "sequential", None, (0, 1, 2)),
    ("micro", "sequential", "none", (0, 1, 2)),
    PROBE,
    ("micro_random", "lora", "none", (0,)),
    RANDOM_PROBE,
]
MINI = {  # column of the mini suite's table -> runs
    "probe, random backbone": RANDOM_PROBE,
    "probe, pretrained": PROBE,
    "LoRA alone": ALONE,
    "LoRA with teacher": TAUGHT,
}


def choose() -> None:
    """The learning rate of LoRA, by the mean val200 top-1 of both arms: neither is favoured."""
    rows = []
    for rate in RATES:
        reached = [val_top1("lora", rate, teacher, out=RUNS) for teacher in ARMS]
        mean = sum(reached) / len(reached)
        rows.append((mean, [f"{rate:g}", *(f"{100 * v:.1f}" for v in reached)]))
    best = max(range(len(rows)), key=lambda i: rows[i][0])
    document = {
        "columns": ["lr", "with teacher", "alone", "mean", ""],
        "rows": [
            [*cells, f"{100 * mean:.2f}", "chosen" if i == best else ""]
            for i, (mean, cells) in enumerate(rows)
        ],
        "note": f"LoRA on digits, pair micro, {EPOCHS} epochs on train800, no drop path, seed 0: "
        "top-1 in per cent on val200 after the last epoch. "
        f"{describe_device(torch.device('cpu'))}; {told_versions(versions())}; "
        "`python benchmarks/micro.py choose`",
    }
    write(RESULTS / "micro_choice.json", document)


def val_top1(
    adapter: str,
    rate: float,
    teacher: str | None,
    *,
    out: Path,
    epochs: int = EPOCHS,
    warmup: int = WARMUP,
) -> float:
    """Last-epoch top-1 on val200 of one setting, as `selection = "val"` measures it."""
    words = [f"candidates.lr=[{rate!r}]", "selection=val", "drop_path=0.0"]
    words += [f"epochs={epochs}", f"warmup_epochs={warmup}", "precision=float32"]
    recipe = get_recipe("digits", adapter, teacher=teacher, overrides=words)
    device, inputs = torch.device("cpu"), Inputs()
    (planned,) = plan([(recipe, 0)], out=out / "choice", device=device, inputs=inputs)
    (selection,) = select([load_run(planned, inputs)], set_up(device), Progress())
    if isinstance(selection, ZooError):
        raise selection
    print(f"{planned.folder.relative_to(out)}: {selection.tried[0]}", flush=True)
    top1 = selection.tried[0].val_top1
    assert top1 is not None, "it was chosen on val200"
    return top1


def measure() -> None:
    """The runs of all tables, as `idat report` reads them, and the mini suite's own table."""
    for table, settings in (("digits", DIGITS), ("micro", MICRO)):
        for setting in settings:
            for result in run_seeds("digits", setting):
                record(result, table, (RESULT_FILE, PREDICTIONS_FILE))
    rows = []
    for task in task_suites(load_registry())["mini"]:
        found = {column: run_seeds(task.id, setting) for column, setting in MINI.items()}
        for result in (result for results in found.values() for result in results):
            record(result, "mini", (RESULT_FILE,))
        rows.append(mini_row(task, found))
        write_mini(rows, made_by=next(iter(found.values()))[0])


def run_seeds(task: str, setting: Setting) -> list[Result]:
    """Each seed's result, on CPU: run, resumed or reused."""
    pair, adapter, teacher, seeds = setting
    recipe = get_recipe(task, adapter, pair=pair, teacher=teacher)
    return [run_here(recipe, seed=seed) for seed in seeds]


def mini_row(task: Task, found: Mapping[str, Sequence[Result]]) -> list[str]:
    """A task of the mini suite: chance, raw pixels, and each column's top-1 with its interval."""
    first = next(iter(found.values()))[0]
    raw = first.baselines["logistic_regression"]
    count = first.student.count
    low, high = wilson_interval(round(raw * count), count)
    cells = [task.id, str(task.group), f"{100 / task.num_classes:.1f}", interval(raw, low, high)]
    for results in found.values():
        top1 = estimate([result.student for result in results])
        cells.append(interval(top1.mean, *top1.interval))
    return cells


def interval(top1: float, low: float, high: float) -> str:
    """In per cent."""
    return f"{100 * top1:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def told_versions(found: Mapping[str, str]) -> str:
    """Versions as notes tell them."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


def write_mini(rows: Sequence[Sequence[str]], *, made_by: Result) -> None:
    """The table `mini_baselines`, as far as it is known, and where a run of it was made."""
    note = (
        "Top-1 in per cent on test with its 95 % interval over the test images (Wilson's, at the "
        "mean of the seeds) or, where that is wider, over the seeds (Student's): 1 seed for random "
        "backbones, 3 for the others. Pair micro, the recipe that was chosen on val200 of digits; "
        f"raw pixels: logistic regression on all of an image's own pixels. {made_by.device}; "
        f"{told_versions(made_by.versions)}; `python benchmarks/micro.py measure`"
    )
    columns = ["task", "group", "chance", "raw pixels", *MINI]
    write(RESULTS / "mini_baselines.json", {"columns": columns, "rows": rows, "note": note})


def record(result: Result, table: str, names: Sequence[str]) -> None:
    """Keep a run's result, and for paired comparison its predictions, in the repository."""
    folder = run_folder(RUNS, result.recipe, result.seed)
    target = RESULTS / table / folder.relative_to(RUNS)
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(folder / name, target / name)


def run_here(recipe: Recipe, *, seed: int) -> Result:
    """Run or reuse, on CPU."""
    result = run(recipe, seed=seed, device="cpu", out=RUNS, resume=True)
    print(f"{result.label} seed {seed}: done", flush=True)
    return result


def write(path: Path, document: dict[str, object]) -> None:
    """JSON for docs/write_tables.py."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def main() -> None:
    """The steps asked for, or all in order."""
    steps = {"choose": choose, "measure": measure}
    for name in sys.argv[1:] or list(steps):
        steps[name]()


if __name__ == "__main__":
    main()
