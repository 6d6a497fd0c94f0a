"""What depends on the micro pair: the recipe chosen on val200, the tables, the shipped adapter.

    python benchmarks/micro.py choose      try settings on val200, write the table `micro_choice`
    python benchmarks/micro.py measure     run what the tables `digits` and `micro` show
    python benchmarks/micro.py ship        copy the LoRA student to idat_zoo/builtin/digits-lora
    python benchmarks/micro.py             all three

Runs lie in build/micro-runs and are resumed or reused; remove that folder after a new pretraining.
Test is read by `measure` alone, after the recipe is written.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

from idat_zoo.checkpoint import CONFIG_FILE, TENSORS_FILE
from idat_zoo.data import load_task
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.results import PREDICTIONS_FILE, RESULT_FILE, Result
from idat_zoo.run_folder import run_folder
from idat_zoo.runs import Job, run, select

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "build" / "micro-runs"
RESULTS = ROOT / "benchmarks" / "results"
BUILTIN = ROOT / "idat_zoo" / "builtin" / "digits-lora"

EPOCHS, WARMUP = 20, 2
RATES = (3e-3, 1e-2, 3e-2)
ARMS = (None, "none")  # with the pair's teacher, and without any

DIGITS = [("micro", "lora", None, (0, 1, 2)), ("micro", "lora", "none", (0, 1, 2))]
MICRO = [
    ("micro", "sequential", None, (0, 1, 2)),
    ("micro", "sequential", "none", (0, 1, 2)),
    ("micro", "linear", "none", (0, 1, 2)),
    ("micro_random", "lora", "none", (0,)),
    ("micro_random", "linear", "none", (0,)),
]
"""Pair, adapter, teacher, seeds."""


def choose() -> None:
    """The learning rate of LoRA, by the mean val200 top-1 of both arms: neither is favoured."""
    rows = []
    for rate in RATES:
        reached = [val_top1(rate, teacher) for teacher in ARMS]
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
        "top-1 in per cent on val200 after the last epoch. `python benchmarks/micro.py choose`",
    }
    write(RESULTS / "micro_choice.json", document)


def val_top1(rate: float, teacher: str | None) -> float:
    """Last-epoch top-1 on val200 of one setting, as `selection = "val"` measures it."""
    words = [f"candidates.lr=[{rate!r}]", "selection=val", "drop_path=0.0"]
    words += [f"epochs={EPOCHS}", f"warmup_epochs={WARMUP}", "precision=float32"]
    recipe = get_recipe("digits", "lora", teacher=teacher, overrides=words)
    folder = run_folder(RUNS / "choice", recipe, 0)
    data = load_task(recipe.task, img_size=recipe.pair.student.img_size)
    job = Job(folder=folder, seed=0, device=torch.device("cpu"), fingerprint=data.fingerprint())
    selection = select(recipe, data, job)
    print(f"{folder.relative_to(RUNS)}: {selection.tried[0]}", flush=True)
    return selection.tried[0].val_top1


def measure() -> None:
    """The runs of both tables, as `idat report` reads them."""
    for table, settings in (("digits", DIGITS), ("micro", DIGITS + MICRO)):
        for pair, adapter, teacher, seeds in settings:
            recipe = get_recipe("digits", adapter, pair=pair, teacher=teacher)
            for seed in seeds:
                record(run_here(recipe, seed=seed), table)


def record(result: Result, table: str) -> None:
    """Keep a run's result, and its predictions for paired comparison, in the repository."""
    folder = run_folder(RUNS, result.recipe, result.seed)
    target = RESULTS / table / folder.relative_to(RUNS)
    target.mkdir(parents=True, exist_ok=True)
    for name in (RESULT_FILE, PREDICTIONS_FILE):
        shutil.copyfile(folder / name, target / name)


def ship() -> None:
    """The LoRA student of seed 0, trained with its teacher, as builtin:digits-lora."""
    result = run_here(get_recipe("digits", "lora"), seed=0)
    folder = run_folder(RUNS, result.recipe, 0)
    BUILTIN.mkdir(exist_ok=True)
    for name in (TENSORS_FILE, CONFIG_FILE):
        shutil.copyfile(folder / name, BUILTIN / name)


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
    steps = {"choose": choose, "measure": measure, "ship": ship}
    for name in sys.argv[1:] or list(steps):
        steps[name]()


if __name__ == "__main__":
    main()
