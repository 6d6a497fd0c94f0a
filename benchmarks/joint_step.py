"""Time one joint optimisation step of a pair: forward of both, one backward, both optimisers.

    python benchmarks/joint_step.py [--pair NAME …] [--batch N] [--device D] [--repeats N]

Prints a table, and writes it to benchmarks/results/joint_step.<device>.json with the machine, the
versions and the command. Medians over repeats, the spread is (max - min) / median.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

import torch

from idat_zoo.backbones.pair import build_pair
from idat_zoo.engine.precision import describe_device, find_device, resolve_precision
from idat_zoo.engine.train import Trainer
from idat_zoo.randomness import generator
from idat_zoo.registry import get_recipe
from idat_zoo.results import versions

RESULTS = Path(__file__).parent / "results"
STEPS = 5  # per repeat


def time_pair(pair: str, adapter: str, batch: int, device: torch.device, repeats: int) -> list[str]:
    """One row: pair, adapter, precision, ms per step, spread, images/s."""
    words = [f"batch_size={batch}", "epochs=1000"]
    recipe = get_recipe("digits", adapter, pair=pair, overrides=words)
    recipe = resolve_precision(recipe, device)
    size = recipe.pair.student.img_size
    source = generator(0, "benchmark", "images")
    images = torch.randint(256, (batch * STEPS, 3, size, size), generator=source, dtype=torch.uint8)
    targets = torch.randint(10, (len(images),), generator=source)
    networks = build_pair(recipe, seed=0, device=device)
    trainer = Trainer(
        networks, {"student": images, "teacher": images}, targets, recipe, seed=0, device=device
    )
    trainer.train_epoch(0)  # warm up
    seconds = []
    for repeat in range(repeats):
        _wait(device)
        started = time.perf_counter()
        trainer.train_epoch(repeat + 1)
        _wait(device)
        seconds.append((time.perf_counter() - started) / STEPS)
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / median
    precision = recipe.precision
    return [
        pair,
        adapter,
        str(batch),
        precision,
        f"{1000 * median:.1f}",
        f"{100 * spread:.0f} %",
        f"{batch / median:.0f}",
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Time every pair asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", nargs="+", default=["micro"])
    parser.add_argument("--adapter", default="sequential")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    device = find_device(asked.device)
    rows = [
        time_pair(pair, asked.adapter, asked.batch, device, asked.repeats) for pair in asked.pair
    ]
    document = {
        "columns": ["pair", "adapter", "batch", "precision", "ms per step", "spread", "images/s"],
        "rows": rows,
        "note": f"{describe_device(device)}; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + f"; median of {asked.repeats} times {STEPS} steps; "
        + f"`python {shlex.join(['benchmarks/joint_step.py', *sys.argv[1:]])}`",
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"joint_step.{device.type}.json"
    target.write_text(json.dumps(document, indent=2) + "\n")
    for row in [document["columns"], *rows]:
        print("  ".join(str(cell).ljust(22 if i == 0 else 11) for i, cell in enumerate(row)))
    print(target)


if __name__ == "__main__":
    main()
