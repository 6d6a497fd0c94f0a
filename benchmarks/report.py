"""Time a report over 10,000 results, and measure its memory.

    python benchmarks/report.py [--repeats N] [--results N] [--keep FOLDER]

The results are generated in the layout of real runs, each with the metrics of random answers: over
VTAB-1K with its numbers of classes and test images and without predictions, and over the mini suite
with predictions, from which gains are paired image by image. Half of them have a teacher. Times
are those of whole `idat report` processes, with all files in the page cache; memory is the peak
resident size, as the kernel's `getrusage` tells it. The targets are 10 s and 1 GB. With --keep the
results stay in a folder. Writes benchmarks/results/report.json.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from tables import keep_table

from idat_zoo import files
from idat_zoo.digest import with_digest
from idat_zoo.engine.precision import find_device
from idat_zoo.metrics import Metrics
from idat_zoo.randomness import generator
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.registry import averaged_tasks, get_recipe, load_registry
from idat_zoo.results import PREDICTIONS_FILE, RESULT_FILE, Parameters, Result
from idat_zoo.runs.folder import run_folder
from idat_zoo.scoring import score
from idat_zoo.versions import versions

PAIRS = {"vtab1k": "vit_s_to_vit_b", "mini": "micro"}
RATES = (1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
SEEDS, LEVELS = 5, 4
IDAT = "from idat_zoo.cli import main; main()"  # as the installed `idat` does
METER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
TABLES = b'"per_class": [],\n    "confusion": []'
"""The end of metrics without tables by class, in a result."""


@dataclass(frozen=True)
class Answers:
    """The metrics of random answers to a task's test images, as JSON in a result, and their logits.

    `tables` are the ends of the metrics, which hold tables by class.
    """

    metrics: Metrics
    tables: bytes
    predictions: bytes


def answer(recipe: Recipe, level: int) -> Answers:
    """Answers that are right about more images the higher the level."""
    classes, count = recipe.task.num_classes, recipe.task.num_test[0]
    asked, source = (generator(seed, "benchmark", recipe.task.id) for seed in (LEVELS, level))
    targets = torch.randint(classes, (count,), generator=asked)  # the same for all levels
    right = torch.rand(count, generator=source) < 0.5 + 0.1 * level
    logits = torch.rand((count, classes), generator=source)
    logits[right, targets[right]] += 1
    metrics = score(logits, targets)
    text = files.dump_json({"student": metrics.model_dump(mode="json", exclude_none=True)})
    return Answers(
        metrics=metrics.model_copy(update={"per_class": (), "confusion": ()}),
        tables=text[text.index(b'"per_class"') : text.rindex(b"\n  }")],
        predictions=files.dump_tensors(
            {"index": torch.arange(count), "target": targets, "student": logits}
        ),
    )


def write_results(out: Path, suite: str, least: int) -> int:
    """Results of one suite below a folder, at least so many; returns how many there are.

    They are of as many families as it takes, each with and without its teacher, at five learning
    rates, with five seeds. Those of the mini suite have predictions.
    """
    registry = load_registry()
    tasks = [task for group in averaged_tasks(registry)[suite].values() for task in group]
    families = -(-least // (len(tasks) * 2 * len(RATES) * SEEDS))
    written = 0
    for task in tasks:
        recipe = get_recipe(task, "lora", pair=PAIRS[suite])
        known = [answer(recipe, level) for level in range(LEVELS)]
        settings = itertools.product(list(registry.adapters)[:families], (None, "none"), RATES)
        for number, (family, teacher, rate) in enumerate(settings):
            words = [f"lr={rate}"]
            recipe = get_recipe(task, family, pair=PAIRS[suite], teacher=teacher, overrides=words)
            digest = recipe_hash(recipe)
            for seed in range(SEEDS):
                own = known[(number + seed) % LEVELS]
                folder = run_folder(out, recipe, seed)
                folder.mkdir(parents=True)
                listed = {}
                if suite == "mini":
                    (folder / PREDICTIONS_FILE).write_bytes(own.predictions)
                    listed[PREDICTIONS_FILE] = sha256(own.predictions).hexdigest()
                content = result_of(recipe, digest, seed, own, listed)
                (folder / RESULT_FILE).write_bytes(content)
                written += 1
    return written


def result_of(
    recipe: Recipe, digest: str, seed: int, own: Answers, listed: dict[str, str]
) -> bytes:
    """The result.json of a run, in which all networks answer alike."""
    taught = recipe.pair.teacher is not None
    result = Result(
        kind="run",
        top1=own.metrics.top1,
        top1_interval=own.metrics.top1_interval,
        student=own.metrics,
        teacher=own.metrics if taught else None,
        logit_ensemble=own.metrics if taught else None,
        baselines={"majority_class": 0.2, "logistic_regression": 0.4, "nearest_neighbour": 0.3},
        parameters=Parameters(adapter=300_000, head=7_690, backbone=85_800_000),
        recipe=recipe,
        recipe_hash=digest,
        seed=seed,
        data_fingerprint=sha256(recipe.task.id.encode()).hexdigest(),
        backbone_sha256={"student": "5" * 64} | ({"teacher": "7" * 64} if taught else {}),
        device="cpu, 1 thread",
        versions=versions(),
        seconds=60.0,
        finished="2026-01-01T00:00:00+00:00",
        files=listed,
    )
    return with_digest(files.dump_json(result.as_json()).replace(TABLES, own.tables))


def report(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds and peak MiB of a whole process that reports on a folder."""
    command = [sys.executable, "-c", METER, sys.executable, "-c", IDAT, "report", str(folder)]
    start = time.perf_counter()
    done = subprocess.run([*command, *words], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stdout) / 1024


def main() -> None:
    """Generate the results of each suite, and report on them in each format, in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    rows = []
    place = tempfile.TemporaryDirectory() if asked.keep is None else nullcontext(asked.keep)
    with place as name:
        for suite in PAIRS:
            folder = Path(name) / suite
            count = write_results(folder, suite, asked.results)
            read = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            for words in ((), ("--json",), ("--format", "csv"), ("--format", "latex")):
                report(folder, *words)  # to warm up
                found = [report(folder, *words) for _ in range(asked.repeats)]
                times, peaks = zip(*found, strict=True)
                rows.append(
                    [
                        suite,
                        f"{count:,}",
                        f"{read / 2**20:,.0f}",
                        " ".join(words) or "table",
                        f"{statistics.median(times):.1f}",
                        f"{min(times):.1f}–{max(times):.1f}",
                        f"{max(peaks):,.0f}",
                    ]
                )
    columns = ["suite", "results", "MiB on disk", "format", "seconds", "range", "peak MiB"]
    how = f"medians of {asked.repeats} processes each; load average {os.getloadavg()[0]:.1f}"
    keep_table("report", columns, rows, device=find_device("cpu"), how=how)


if __name__ == "__main__":
    main()
