"""Serve a stream of requests for far more adapters than fit on the device, against PEFT.

    python benchmarks/pool_stream.py [--adapters N] [--capacity N] [--requests N] [--threads N]

Each request is one image and the name of one LoRA adapter. The adapters are safetensors files on
disk. Ours is the adapter pool, with requests one by one and in batches of 64; PEFT's loads the
adapter (`load_adapter`), deletes the one that was not used for longest beyond the same capacity,
switches to it (`set_adapter`), and computes. All serve the same streams: uniform, and by Zipf's law
(exponent 1). PEFT serves the first `--theirs` requests of it alone, after as many that fill its
memory as its capacity. Latency is from when a request's work begins, with that of its whole batch.
The answers of ours to the first requests are compared with those of each checkpoint alone. Writes
benchmarks/results/pool_stream.<device>.json.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import torch
from mixed import CLASSES, CLOSE, RANK, trained
from peft import LoraConfig, PeftModel, get_peft_model
from tables import keep_table
from torch import Tensor, nn

from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.pool import AdapterPool
from idat_zoo.randomness import generator
from idat_zoo.registry import get_recipe
from idat_zoo.switches import Switches

CHECKED = 128
"""The number of first requests whose answers are compared."""


def write_ours(folder: Path, backbone: FrozenBackbone, count: int) -> None:
    """As many checkpoints."""
    recipe = get_recipe("digits", "lora", pair="micro")
    for seed in range(count):
        network = trained(backbone, "lora", seed, torch.device("cpu"))
        write_checkpoint(
            folder / str(seed), network, recipe, role="student", recipe_hash="0" * 64, seed=seed
        )


def write_theirs(folder: Path, backbone: FrozenBackbone, count: int) -> None:
    """As many adapters in PEFT's format, each with a head of its own."""
    body = copy.deepcopy(backbone.body)
    body.head = nn.Linear(backbone.anatomy.num_features, CLASSES)
    config = LoraConfig(
        r=2 * RANK, target_modules=["qkv"], modules_to_save=["head"], init_lora_weights=False
    )
    model = get_peft_model(body, config)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for seed in range(count):
        source = generator(seed, "benchmark", "peft")
        with torch.no_grad():
            for parameter in learnt:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=source))
        model.save_pretrained(str(folder / str(seed)))


class Switching:
    """PEFT's model, with the least recently used adapter deleted beyond a capacity."""

    def __init__(
        self, folder: Path, backbone: FrozenBackbone, capacity: int, device: torch.device
    ) -> None:
        self._folder, self._capacity, self._device = folder, capacity, device
        self._body = copy.deepcopy(backbone.body)
        self._body.head = nn.Linear(backbone.anatomy.num_features, CLASSES)
        self._model: PeftModel | None = None
        self._loaded: OrderedDict[str, None] = OrderedDict()

    def answer(self, image: Tensor, name: str) -> Tensor:
        """The logits of one normalised image by one adapter."""
        path = str(self._folder / name)
        if self._model is None:
            model = PeftModel.from_pretrained(self._body, path, adapter_name=name)
            self._model = model.to(self._device).eval()
        elif name not in self._loaded:
            if len(self._loaded) >= self._capacity:
                self._model.delete_adapter(self._loaded.popitem(last=False)[0])
            self._model.load_adapter(path, adapter_name=name, torch_device=str(self._device))
            self._model.eval()
        self._loaded[name] = None
        self._loaded.move_to_end(name)
        self._model.set_adapter(name)
        with torch.inference_mode():
            logits: Tensor = self._model(image.to(self._device))
        return logits.cpu()


def requests(kind: str, adapters: int, count: int) -> list[str]:
    """The adapters that are asked for, in order."""
    weights = torch.ones(adapters)
    if kind == "Zipf":
        weights = 1 / torch.arange(1, adapters + 1)
    source = generator(0, "benchmark", f"requests {kind}")
    drawn = torch.multinomial(weights.double(), count, replacement=True, generator=source)
    return [str(number) for number in drawn.tolist()]


def serve(answer: Callable[[int, int], object], count: int, batch: int) -> tuple[float, float]:
    """Requests a second, and the 95th percentile of their latency in ms."""
    latencies, began = [], time.perf_counter()
    for start in range(0, count, batch):
        end = min(start + batch, count)
        began_batch = time.perf_counter()
        answer(start, end)
        latencies += [time.perf_counter() - began_batch] * (end - start)
    took = time.perf_counter() - began
    return count / took, 1000 * statistics.quantiles(latencies, n=20)[-1]


def check(pool: AdapterPool, images: Tensor, names: Sequence[str], folder: Path) -> None:
    """Compare the first answers with those of each checkpoint alone. Raises: AssertionError."""
    found = pool.predict(images[:CHECKED], names[:CHECKED])
    for image, name, logits in zip(images, names, found, strict=False):
        with torch.inference_mode():
            alone = load_checkpoint(folder / name).network(image[None])[0]
        assert (logits - alone).abs().max() < CLOSE * alone.abs().max(), f"not that of {name}"


def main() -> None:
    """Both streams."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--adapters", type=int, default=1024)
    parser.add_argument("--capacity", type=int, default=64)
    parser.add_argument("--requests", type=int, default=4096)
    parser.add_argument("--theirs", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    device = find_device(asked.device)
    torch.set_num_threads(asked.threads)
    backbone = load_backbone(get_recipe("digits", "lora", pair="micro").pair.student)
    size = backbone.spec.img_size
    source = generator(0, "benchmark", "images")
    images = torch.randint(
        256, (asked.requests, 3, size, size), generator=source, dtype=torch.uint8
    )
    rows = []
    with tempfile.TemporaryDirectory() as made, computing(Switches(), device):
        ours, theirs = Path(made) / "ours", Path(made) / "theirs"
        write_ours(ours, backbone, asked.adapters)
        write_theirs(theirs, backbone, asked.adapters)
        normal = trained(backbone, "lora", 0, torch.device("cpu")).normalise(images)
        for kind in ("uniform", "Zipf"):
            names = requests(kind, asked.adapters, asked.requests)
            pool = AdapterPool(device=str(device), capacity=asked.capacity)
            for number in range(asked.adapters):
                pool.add(str(number), ours / str(number))
            check(pool, images, names, ours)

            def by_pool(start: int, end: int) -> object:
                return pool.predict(images[start:end], names[start:end])  # noqa: B023

            switching = Switching(theirs, backbone, asked.capacity, device)

            def by_peft(start: int, end: int) -> object:
                return switching.answer(normal[start:end], names[start])  # noqa: B023

            for name in dict.fromkeys(names[-2 * asked.capacity :]):  # memory is full, as it stays
                switching.answer(normal[:1], name)
            their_rate, their_latency = serve(by_peft, min(asked.theirs, asked.requests), 1)
            for batch in (1, 64):
                rate, latency = serve(by_pool, asked.requests, batch)
                cells = [kind, f"pool, batches of {batch}", f"{rate:.0f}", f"{latency:.1f}"]
                rows.append([*cells, f"{rate / their_rate:.1f}"])
            rows.append([kind, "PEFT", f"{their_rate:.1f}", f"{their_latency:.1f}", "1"])
    keep_table(
        f"pool_stream.{device.type}",
        ["requests", "served by", "requests/s", "95 % within, ms", "times PEFT's rate"],
        rows,
        device=device,
        how=f"{asked.adapters} LoRA adapters of the micro student on disk, {asked.capacity} in "
        f"memory; {asked.requests} requests, PEFT's first {asked.theirs}; peft "
        f"{metadata.version('peft')}",
    )


if __name__ == "__main__":
    main()
