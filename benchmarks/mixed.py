"""Time a batch in which every image has an adapter of its own, against three other ways.

    python benchmarks/mixed.py [--student NAME] [--device D] [--threads N] [--repeats N]

K adapters of one backbone and n images for each: in the adapter pool's pass (`ours`), with one
adapter for all images (the limit), by PEFT's mixed batch (`adapter_names`; LoRA alone, on the same
timm ViT with as many columns), and each adapter's images in a pass of their own; in turn. Every
logit of ours is compared with that of its adapter alone. Ratios above 1 say how many times longer
the other way takes; that to the limit says how many times longer ours takes. With several families,
the limit is the mean over them. Writes benchmarks/results/mixed.<device>.json.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence
from importlib import metadata

import torch
from peft import LoraConfig, get_peft_model
from tables import keep_table
from torch import Tensor, nn

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.adapter_table import member_of
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.backbones.mixed import Mixture
from idat_zoo.backbones.network import Network
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.engine.timing import seconds
from idat_zoo.randomness import generator
from idat_zoo.registry import load_registry
from idat_zoo.specs import AdapterSpec
from idat_zoo.switches import Switches

LORA = ("lora",)
FAMILIES = ("lora", "sequential", "adaptformer", "krona")
ROWS = [
    (64, 1, LORA),
    (64, 4, LORA),
    (256, 1, LORA),
    (2, 128, LORA),
    (8, 32, LORA),
    (16, 15, LORA),
    (64, 1, FAMILIES[:2]),
    (64, 1, FAMILIES),
    (256, 1, FAMILIES),
]
"""Adapters, images for each, and the families that they are of in turn."""
RANK, CLASSES = 8, 10
CLOSE = 1e-5
"""The largest allowed difference of a logit, relative to the largest."""


def trained(backbone: FrozenBackbone, family: str, seed: int, device: torch.device) -> Network:
    """An adapter and head with every number away from its start."""
    network = build_network(
        backbone,
        build_adapter(AdapterSpec(name=family)),
        num_classes=CLASSES,
        normalisation="model",
        seed=seed,
        role="student",
    )
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            source = generator(seed, "benchmark", name)
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.05)
    return network.to(device).eval()


def peft_of(backbone: FrozenBackbone, adapters: int, device: torch.device) -> nn.Module:
    """PEFT's model with as many LoRA adapters; the head is one for all, as PEFT mixes no heads."""
    body = copy.deepcopy(backbone.body)
    body.head = nn.Linear(backbone.anatomy.num_features, CLASSES)
    config = LoraConfig(r=2 * RANK, target_modules=["qkv"], init_lora_weights=False)
    model = get_peft_model(body, config, adapter_name="0")
    for number in range(1, adapters):
        model.add_adapter(str(number), config)
    return model.to(device).eval()


def in_turn(
    ways: dict[str, Callable[[], object]], device: torch.device, repeats: int
) -> dict[str, list[float]]:
    """The seconds of each way, once to warm up and then in turn."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(seconds(way, device))
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """The median of the ratios of each turn, and their range."""
    found = sorted(one / other for one, other in zip(theirs, ours, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f}–{found[-1]:.2f})"


def check(
    logits: Sequence[Tensor], networks: Sequence[Network], images: Tensor, names: Sequence[int]
) -> float:
    """The largest difference of an image's logits from those of its adapter alone.

    Raises: AssertionError if an image was answered with another's adapter.
    """
    worst = 0.0
    for number, network in enumerate(networks):
        rows = [row for row, name in enumerate(names) if name == number]
        alone = network(images[rows])
        found = torch.stack([logits[row] for row in rows])
        worst = max(worst, ((found - alone).abs().max() / alone.abs().max()).item())
    assert worst < CLOSE, f"logits differ by {worst:.1e}"
    return worst


def time_row(
    backbone: FrozenBackbone,
    adapters: int,
    each: int,
    families: Sequence[str],
    device: torch.device,
    repeats: int,
) -> list[str]:
    """One row of the table."""
    networks = [
        trained(backbone, families[seed % len(families)], seed, device) for seed in range(adapters)
    ]
    mixture = Mixture(backbone)
    for number, network in enumerate(networks):
        mixture.put(number, member_of(network))
    size, count = backbone.spec.img_size, adapters * each
    source = generator(0, "benchmark", "images")
    images = torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)
    images = images.to(device)
    order = torch.randperm(count, generator=source).tolist()
    names = [place % adapters for place in order]
    by_adapter = [images[[k for k, n in enumerate(names) if n == one]] for one in range(adapters)]
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: mixture(images, names),
        "one at a time": lambda: [n(own) for n, own in zip(networks, by_adapter, strict=True)],
    }
    for k in range(len(families)):
        ways[f"limit {k}"] = lambda k=k: networks[k](images)  # type: ignore[misc]
    if families == LORA:
        model = peft_of(backbone, adapters, device)
        words = [str(name) for name in names]
        normal = networks[0].normalise(images)
        ways["PEFT"] = lambda: model(normal, adapter_names=words)
    with torch.inference_mode():
        worst = check(mixture(images, names), networks, images, names)
        found = in_turn(ways, device, repeats)
    limits = zip(*(found[f"limit {k}"] for k in range(len(families))), strict=True)
    limit = [statistics.fmean(own) for own in limits]
    ours = found["ours"]
    return [
        ", ".join(families),
        str(adapters),
        str(each),
        f"{1000 * statistics.median(limit):.1f}",
        f"{1000 * statistics.median(ours):.1f}",
        ratio(ours, limit),
        ratio(found["PEFT"], ours) if "PEFT" in found else "",
        ratio(found["one at a time"], ours),
        f"{worst:.0e}",
    ]


def main() -> None:
    """Time all rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--student", default="micro_student")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", help="only these rows, from 0")
    asked = parser.parse_args()
    device = find_device(asked.device)
    torch.set_num_threads(asked.threads)
    backbone = load_backbone(load_registry().find_backbone(asked.student))
    backbone.body.to(device)
    with computing(Switches(), device):
        table = [
            time_row(backbone, adapters, each, families, device, asked.repeats)
            for adapters, each, families in ([ROWS[k] for k in asked.rows] if asked.rows else ROWS)
        ]
    keep_table(
        f"mixed.{device.type}",
        [
            "families",
            "adapters",
            "images each",
            "limit, ms",
            "ours, ms",
            "ours : limit",
            "PEFT : ours",
            "one at a time : ours",
            "largest difference",
        ],
        table,
        device=device,
        how=f"{asked.student}, default options, float32; peft {metadata.version('peft')}; medians "
        f"of {asked.repeats} turns, with their range",
    )


if __name__ == "__main__":
    main()
