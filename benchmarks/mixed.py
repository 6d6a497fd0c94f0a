"""Time a mixed batch of many adapters in one pass against one pass for each adapter.

    python benchmarks/mixed.py [--student NAME] [--adapters T …] [--images N …] [--device D]

For T adapters of one backbone and N images spread evenly over them: all in one pass of the adapter
pool's network, and each adapter's images in a pass of their own, in turn. Prints a table and writes
it to benchmarks/results/mixed.<device>.json.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.network import MixedNetwork, build_network
from idat_zoo.engine.precision import describe_device, find_device
from idat_zoo.randomness import generator
from idat_zoo.recipe import AdapterChoice
from idat_zoo.registry import load_registry
from idat_zoo.results import versions

RESULTS = Path(__file__).parent / "results"


def time_mixed(
    student: str, adapters: int, count: int, device: torch.device, *, repeats: int
) -> list[str]:
    """One row: adapters, images, ms for single passes and for one, the ratio and its range."""
    backbone = load_backbone(load_registry().find_backbone(student))
    networks = [
        build_network(
            backbone,
            build_adapter(AdapterChoice(name="lora")),
            num_classes=10,
            normalisation="model",
            seed=seed,
            role="student",
        )
        .to(device)
        .eval()
        for seed in range(adapters)
    ]
    size = backbone.spec.img_size
    source = generator(0, "benchmark", "images")
    images = torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)
    batches = list(images.to(device).chunk(adapters))
    mixed = MixedNetwork(networks[: len(batches)])

    def one_pass() -> object:
        return mixed(batches)

    def single_passes() -> object:
        return [network(own) for network, own in zip(networks, batches, strict=False)]

    single, joint = [], []
    with torch.inference_mode():
        one_pass()
        single_passes()
        for _ in range(repeats):
            single.append(_seconds(single_passes, device))
            joint.append(_seconds(one_pass, device))
    ratios = [a / b for a, b in zip(single, joint, strict=True)]
    return [
        student,
        str(adapters),
        str(count),
        f"{1000 * statistics.median(single):.1f}",
        f"{1000 * statistics.median(joint):.1f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}–{max(ratios):.2f}",
    ]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    """Time every combination asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--student", default="micro_student")
    parser.add_argument("--adapters", type=int, nargs="+", default=[2, 8, 19])
    parser.add_argument("--images", type=int, nargs="+", default=[19, 256])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    device = find_device(asked.device)
    rows = [
        time_mixed(asked.student, adapters, count, device, repeats=asked.repeats)
        for adapters in asked.adapters
        for count in asked.images
    ]
    document = {
        "columns": [
            "backbone",
            "adapters",
            "images",
            "one at a time, ms",
            "mixed, ms",
            "times faster",
            "range",
        ],
        "rows": rows,
        "note": f"{describe_device(device)}; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + f"; LoRA of rank 8, float32, medians of {asked.repeats} interleaved pairs; "
        + f"`python {shlex.join(['benchmarks/mixed.py', *sys.argv[1:]])}`",
    }
    target = RESULTS / f"mixed.{device.type}.json"
    target.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    for row in [document["columns"], *rows]:
        print("  ".join(str(cell).ljust(18) for cell in row))


if __name__ == "__main__":
    main()
