"""A pool of adapters over one frozen backbone: a batch for different adapters takes one pass.

The idea is that of Symbiosis (arXiv:2507.03220): the backbone stays on the device, and the small
adapters are moved there when they are used. This one is for vision and for inference only, runs in
a single process without executors, and mixes adapters of any families.

Shape letters: B batch, C channels, H W image, K classes.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.stack import mixed_of, prompts_of
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.opened import Opened, Reference
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.errors import UnknownNameError, UsageError
from idat_zoo.switches import Switches


class AdapterPool:
    """Trained adapters by name; the `capacity` most recently used ones are on the device.

    The first adapter that is added determines the backbone; all others must have been trained on
    the same weights. `transfers` counts how often an adapter was moved to the device. Several
    threads may call `add`, `remove` and `predict`; a lock lets one of them work at a time.

    Raises: UsageError for a capacity below 1; what `find_device` raises.
    """

    def __init__(self, *, device: str = "auto", capacity: int = 32) -> None:
        if capacity < 1:
            raise UsageError(f"an adapter pool's capacity is at least 1 (got {capacity}).")
        self.device, self.capacity, self.transfers = find_device(device), capacity, 0
        self._backbone: FrozenBackbone | None = None
        self._networks: dict[str, Network] = {}
        self._on_device: OrderedDict[str, Network] = OrderedDict()  # most recently used last
        self._lock = threading.RLock()

    def add(self, name: str, reference: Reference | Opened) -> None:
        """Load a checkpoint under a name; it replaces an adapter of the same name.

        Raises: CheckpointError if it was trained on other weights than the pool's backbone, and
        what `load_checkpoint` raises. The pool is then unchanged.
        """
        with self._lock:
            network = load_checkpoint(reference, backbone=self._backbone).network
            if self._backbone is None:
                self._backbone = network.backbone
                self._backbone.body.to(self.device)
            self._on_device.pop(name, None)
            self._networks[name] = network

    def remove(self, name: str) -> None:
        """Remove an adapter. Raises: UnknownNameError."""
        with self._lock:
            self._find(name)
            self._on_device.pop(name, None)
            del self._networks[name]

    def names(self) -> list[str]:
        """The adapters' names, in the order in which they were added."""
        return list(self._networks)

    @torch.inference_mode()
    def predict(
        self, images: UInt8[Tensor, "B C H W"], names: Sequence[str]
    ) -> list[Float32[Tensor, "_"]]:
        """The float32 logits `[K]` of each image, on the CPU; `names` has the adapter for each.

        K may differ between adapters. If there are more adapters than the capacity, several passes
        are made, first with adapters that are on the device. Adapters that insert different numbers
        of prompts, and each tuner of PEFT, need passes of their own.

        Raises: UnknownNameError; UsageError if the numbers of images and names differ.
        """
        if len(images) != len(names):
            raise UsageError(f"{len(images)} images need as many names (got {len(names)}).")
        with self._lock, computing(Switches(), self.device):
            rows: dict[str, list[int]] = {}
            for row, name in enumerate(names):
                self._find(name)
                rows.setdefault(name, []).append(row)
            asked = sorted(rows, key=lambda name: name not in self._on_device)
            logits: dict[int, Tensor] = {}
            for part in self._passes(asked):
                mixed = mixed_of(self._bring(part))
                outputs = mixed([images[rows[name]].to(self.device) for name in part])
                for name, output in zip(part, outputs, strict=True):
                    logits |= dict(zip(rows[name], output.float().cpu(), strict=True))
        return [logits[row] for row in range(len(names))]

    def _passes(self, names: Iterable[str]) -> Iterator[list[str]]:
        """The names for each pass: adapters with equal numbers of prompts, or one tuner of PEFT."""
        alike: dict[Hashable, list[str]] = {}
        for name in names:
            network = self._networks[name]
            alike.setdefault(prompts_of(network) if network.mixes else name, []).append(name)
        for group in alike.values():
            for start in range(0, len(group), self.capacity):
                yield group[start : start + self.capacity]

    def _find(self, name: str) -> Network:
        if name not in self._networks:
            raise UnknownNameError("adapter of this pool", name, self._networks)
        return self._networks[name]

    def _bring(self, names: Sequence[str]) -> list[Network]:
        """Move these adapters to the device; they displace the least recently used ones."""
        for name in names:
            if name in self._on_device:
                self._on_device.move_to_end(name)
        for name in names:
            if name in self._on_device:
                continue
            if len(self._on_device) >= self.capacity:
                _, oldest = self._on_device.popitem(last=False)
                oldest.move_own(torch.device("cpu"))
            self._networks[name].move_own(self.device)
            self._on_device[name] = self._networks[name]
            self.transfers += 1
        return [self._networks[name] for name in names]
