"""A pool of adapters over one frozen backbone: a batch for different adapters takes one pass.

The idea is that of Symbiosis (arXiv:2507.03220): the backbone stays on the device, and the small
adapters are moved there when they are used. This one is for vision and for inference only, runs in
a single process without executors, and mixes adapters of any families.

Shape letters: B batch, C channels, H W image, K classes.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from idat_zoo.backbones.adapter_table import Member, member_of
from idat_zoo.backbones.ensemble import Ensemble, log_mean_softmax, tensors_of_member
from idat_zoo.backbones.mixed import Mixture
from idat_zoo.backbones.network import Network
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.opened import Opened, Reference
from idat_zoo.checkpoint.tensors import map_tensors
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.errors import InputError, UnknownNameError, UsageError
from idat_zoo.switches import Switches

Part = str | tuple[str, int]
"""An adapter by its name, or a member of an ensemble by the ensemble's name and its number."""


class AdapterPool:
    """Trained adapters by name; the `capacity` most recently used ones are on the device.

    The tensors of the others are mapped from their files: they are read when an adapter is used,
    and take no memory that the system cannot have back. So a pool may hold far more adapters than
    fit into memory. An ensemble counts as one adapter for each of its members.

    The first adapter that is added determines the backbone; all others must have been trained on
    the same weights. `transfers` counts how often an adapter was moved to the device. Several
    threads may call `add`, `remove` and `predict`; a lock lets one of them work at a time.

    Raises: UsageError for a capacity below 1; what `find_device` raises.
    """

    def __init__(self, *, device: str = "auto", capacity: int = 32) -> None:
        if capacity < 1:
            raise UsageError(f"an adapter pool's capacity is at least 1 (got {capacity}).")
        self.device, self.capacity, self.transfers = find_device(device), capacity, 0
        self._mixture: Mixture | None = None
        self._parts: dict[str, list[Part]] = {}
        self._adapters: dict[Part, Member | Network] = {}
        self._on_device: OrderedDict[Part, None] = OrderedDict()  # most recently used last
        self._lock = threading.RLock()

    def add(self, name: str, reference: Reference | Opened) -> None:
        """Load a checkpoint under a name; it replaces an adapter of the same name.

        Raises: CheckpointError if it was trained on other weights than the pool's backbone, and
        what `load_checkpoint` raises. The pool is then unchanged.
        """
        with self._lock:
            backbone = None if self._mixture is None else self._mixture.backbone
            checkpoint = load_checkpoint(reference, backbone=backbone)
            network = checkpoint.network
            if self._mixture is None:
                network.backbone.body.to(self.device)
                self._mixture = Mixture(network.backbone)
            if name in self._parts:
                self.remove(name)
            mapped = {} if checkpoint.file is None else map_tensors(checkpoint.file)
            if isinstance(network, Ensemble):
                members = network.members
                self._parts[name] = [(name, number) for number in range(len(members))]
                stored = [tensors_of_member(mapped, number) for number in range(len(members))]
            else:
                members, stored, self._parts[name] = [network], [mapped], [name]
            for part, one, tensors in zip(self._parts[name], members, stored, strict=True):
                own = one if _is_alone(one) else member_of(one)
                if isinstance(own, Member):
                    own = replace(own, tensors={**own.tensors, **tensors})
                self._adapters[part] = own

    def remove(self, name: str) -> None:
        """Remove an adapter. Raises: UnknownNameError."""
        with self._lock:
            for part in self._find(name):
                if part in self._on_device:
                    self._displace(part)
                del self._adapters[part]
            del self._parts[name]

    def names(self) -> list[str]:
        """The adapters' names, in the order in which they were added."""
        return list(self._parts)

    @torch.inference_mode()
    def predict(
        self, images: UInt8[Tensor, "B C H W"], names: Sequence[str]
    ) -> list[Float32[Tensor, "_"]]:
        """The float32 logits `[K]` of each image, on the CPU; `names` has the adapter for each.

        Those of an ensemble are the log of the mean of its members' softmaxes. Members share passes
        with each other and with other adapters.

        K may differ between adapters. If there are more adapters than the capacity, several passes
        are made, first with adapters that are on the device. Adapters that insert different numbers
        of prompts, those that train parameters of the backbone, and each tuner of PEFT, need passes
        of their own.

        Raises: UnknownNameError; InputError for images of another form; UsageError if the numbers
        of images and names differ.
        """
        self._check(images)
        if isinstance(names, str):
            raise UsageError(
                f"names is a sequence with a name for each image, not '{names}' alone."
            )
        if len(images) != len(names):
            raise UsageError(f"{len(images)} images need as many names (got {len(names)}).")
        with self._lock, computing(Switches(), self.device):
            rows: dict[Part, list[int]] = {}
            for row, name in enumerate(names):
                for part in self._find(name):
                    rows.setdefault(part, []).append(row)
            asked = sorted(rows, key=lambda part: part not in self._on_device)
            logits: dict[tuple[int, Part], Tensor] = {}
            for together in self._passes(asked):
                self._bring(together)
                pairs = [(row, part) for part in together for row in rows[part]]
                pairs.sort(key=lambda pair: pair[0])
                own = images[[row for row, _ in pairs]].to(self.device)
                outputs = self._logits(own, [part for _, part in pairs])
                logits |= dict(zip(pairs, outputs, strict=True))
            return [
                self._answer(name, [logits[row, part] for part in self._parts[name]])
                for row, name in enumerate(names)
            ]

    def _answer(self, name: str, logits: list[Tensor]) -> Tensor:
        """The logits of an adapter, or the log of the mean of the members' softmaxes."""
        return logits[0] if self._parts[name] == [name] else log_mean_softmax(logits)

    def _check(self, images: object) -> None:
        """Refuse all but uint8 images `[B, 3, S, S]` of the backbone's size. Raises: InputError."""
        spec = None if self._mixture is None else self._mixture.backbone.spec
        size = None if spec is None or spec.args.get("dynamic_img_size") else spec.img_size
        if not isinstance(images, Tensor):
            got = type(images).__name__
        elif images.ndim != 4 or images.shape[1] != 3 or not _has_size(images, size):
            got = f"the shape {list(images.shape)}"
        elif images.dtype != torch.uint8:
            got = str(images.dtype)
        else:
            return
        side = size or "S"
        raise InputError(
            f"a pool takes uint8 images [B, 3, {side}, {side}]; got {got}.",
            hint="network, transform = load(REFERENCE); transform(Image.open(path))[None]",
        )

    def _logits(self, images: Tensor, parts: Sequence[Part]) -> list[Tensor]:
        """The float32 logits of images on the device, by adapters that are there."""
        alone = self._adapters[parts[0]]
        if isinstance(alone, Network):
            return list(alone(images).float().cpu())
        assert self._mixture is not None
        found = self._mixture(images, parts)
        sizes = [len(own) for own in found]
        return list(torch.cat(found).float().cpu().split(sizes))  # one transfer for all

    def _passes(self, parts: Iterable[Part]) -> Iterator[list[Part]]:
        """The parts for each pass: adapters with equal numbers of prompts, or a single adapter."""
        alike: dict[Hashable, list[Part]] = {}
        for part in parts:
            own = self._adapters[part]
            key = ("prompts", own.prompts) if isinstance(own, Member) else part
            alike.setdefault(key, []).append(part)
        for group in alike.values():
            for start in range(0, len(group), self.capacity):
                yield group[start : start + self.capacity]

    def _find(self, name: str) -> list[Part]:
        """The parts of an adapter: itself, or the members of an ensemble."""
        if name not in self._parts:
            raise UnknownNameError("adapter of this pool", name, self._parts)
        return self._parts[name]

    def _bring(self, parts: Sequence[Part]) -> None:
        """Move these adapters to the device; they displace the least recently used ones."""
        assert self._mixture is not None
        for part in parts:
            if part in self._on_device:
                self._on_device.move_to_end(part)
        for part in parts:
            if part in self._on_device:
                continue
            if len(self._on_device) >= self.capacity:
                self._displace(next(iter(self._on_device)))
            own = self._adapters[part]
            if isinstance(own, Network):
                own.move_own(self.device)
            else:
                self._mixture.put(part, own)
            self._on_device[part] = None
            self.transfers += 1

    def _displace(self, part: Part) -> None:
        """Take an adapter from the device."""
        del self._on_device[part]
        own = self._adapters[part]
        if isinstance(own, Network):
            own.move_own(torch.device("cpu"))
        else:
            assert self._mixture is not None
            self._mixture.remove(part)


def _has_size(images: Tensor, size: int | None) -> bool:
    return size is None or tuple(images.shape[2:]) == (size, size)


def _is_alone(network: Network) -> bool:
    """Whether a network cannot share a pass with others."""
    return not network.mixes or bool(network.body_copies())
