"""Train a study that ships, and keep what its report is made of.

    python benchmarks/study.py inverse [--jobs 2] [--kept-only]

Runs lie in build/studies/NAME and are resumed or reused; with --kept-only nothing is trained. Kept,
under benchmarks/results/NAME, are the plan, each run's result.json, and the classes that its
networks predict in place of their logits. `python docs/write_tables.py` then writes the page.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy
from micro import RESULTS, ROOT

from idat_zoo.file_names import RESULT_FILE
from idat_zoo.report.predictions import CLASSES_FILE, as_classes, read_predictions
from idat_zoo.results import load_result
from idat_zoo.study.plan import PLAN_FILE, load_plan

STUDIES = ROOT / "build" / "studies"


def main() -> int:
    """Train and keep a study; returns the exit code of the training."""
    parser = argparse.ArgumentParser(description="Train a study, and keep its results.")
    parser.add_argument("name", help="the name of a study that ships")
    parser.add_argument("--jobs", type=int, default=2, help="processes that train")
    parser.add_argument("--kept-only", action="store_true", help="train nothing")
    asked = parser.parse_args()
    folder, code = STUDIES / asked.name, 0
    if not asked.kept_only:
        words = ["study", asked.name, "--out", str(folder), "--jobs", str(asked.jobs)]
        code = subprocess.run([Path(sys.executable).with_name("idat"), *words]).returncode
    print(f"{keep(folder, RESULTS / asked.name)} runs are kept")
    return code


def keep(folder: Path, into: Path) -> int:
    """Copy the plan and every finished run's result and predicted classes; returns their number."""
    plan = load_plan(folder)
    into.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / PLAN_FILE, into / PLAN_FILE)
    kept = 0
    for run in plan.runs:
        path = folder / run / RESULT_FILE
        if path.is_file():
            result = load_result(path)
            classes = as_classes(read_predictions(path, result))
            (into / run).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into / run / RESULT_FILE)
            small = {name: smallest(values) for name, values in sorted(classes.items())}
            (into / run / CLASSES_FILE).write_bytes(safetensors.numpy.save(small))
            kept += 1
    return kept


def smallest(values: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 in the smallest type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max())))


if __name__ == "__main__":
    sys.exit(main())
