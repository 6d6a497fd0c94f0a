"""Time a mixed batch of many adapters in one pass against one pass for each adapter.

    python benchmarks/mixed.py [--student NAME] [--adapters T …] [--images N …] [--device D]

For T adapters of one backbone and N images spread evenly over them: all in one pass of the adapter
pool's network, and each adapter's images in a pass of their own, in turn. Prints a table and writes
it to benchmarks/results/mixed.<device>.json.
"""

import argparse

import torch
from tables import RATIO, keep_table, time_pairs

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.mixed import MixedNetwork
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.randomness import generator
from idat_zoo.registry import load_registry
from idat_zoo.specs import AdapterSpec
from idat_zoo.switches import Switches


def time_mixed(
    student: str, adapters: int, count: int, device: torch.device, *, repeats: int
) -> list[str]:
    """One row: adapters, images, ms for single passes and for one, the ratio and its range."""
    backbone = load_backbone(load_registry().find_backbone(student))
    networks = [
        build_network(
            backbone,
            build_adapter(AdapterSpec(name="lora")),
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

    with torch.inference_mode():
        found = time_pairs(single_passes, one_pass, device, repeats=repeats)
    single, joint = (f"{1000 * one:.1f}" for one in found.medians)
    return [student, str(adapters), str(count), single, joint, *found.cells()]


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
    with computing(Switches(), device):
        rows = [
            time_mixed(asked.student, adapters, count, device, repeats=asked.repeats)
            for adapters in asked.adapters
            for count in asked.images
        ]
    keep_table(
        f"mixed.{device.type}",
        [
            "backbone",
            "adapters",
            "images",
            "one at a time, ms",
            "mixed, ms",
            *RATIO,
        ],
        rows,
        device=device,
        how=f"LoRA of rank 8, float32, medians of {asked.repeats} interleaved pairs",
    )


if __name__ == "__main__":
    main()
