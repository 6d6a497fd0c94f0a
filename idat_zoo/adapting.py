"""Adapters on timm networks that the user built, for training loops of the user's own.

Shape letters: B batch, C channels, H W image.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo.adapters import find_adapter
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.peft_options import find_tuner
from idat_zoo.backbones.build import new_head, with_head
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.own import own_backbone, tolerance
from idat_zoo.checkpoint.tensors import TENSORS_FILE, read_tensors
from idat_zoo.errors import CheckpointError, InputError, UsageError
from idat_zoo.formats.timm_model import largest_difference, merge
from idat_zoo.randomness import Draws, generator
from idat_zoo.specs import BRIDGE

ROLE = "student"
"""The network's name in the keys of random draws, the same as for a run's student."""
SHOWN = 4


def adapt(
    model: nn.Module,
    family: str,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    img_size: int | None = None,
    drop_path: float = 0.0,
    **options: Any,
) -> "AdaptedModel":
    """Put an adapter of a family, or a tuner of PEFT such as `peft:lokr`, on a timm network.

    `options` are those of the family. `model` is not changed: its frozen parameters are shared
    until one of the two networks is moved or cast (a tuner of PEFT works in a copy). A copy of its
    classifier is trained with the adapter; with `num_classes`, a new classifier is trained instead.
    The adapter has the device and number type of the network. `img_size` is the side of the images
    in pixels, for networks that take any size. `drop_path` is the rate of the last block. Dropout
    is an option of the families that have it.

    Raises: UnknownNameError for an unknown family; RecipeError for its options; UsageError if it
    does not fit the network, or nothing would be trained; what `own_backbone` raises.
    """
    _check_numbers(num_classes, seed, drop_path)
    adapter = _adapter(family, options)
    backbone, classifier = own_backbone(model, img_size=img_size)
    if num_classes is not None:
        width = backbone.anatomy.num_features
        head: nn.Module = new_head(width, num_classes, generator(seed, ROLE, "head"))
    elif classifier is not None:
        head = copy.deepcopy(classifier).requires_grad_(True)
    else:
        raise UsageError(
            f"network '{backbone.spec.name}' ends in two classifiers of two tokens, whose outputs "
            "are averaged.",
            hint="num_classes= puts one in their place.",
        )
    network = with_head(backbone, adapter, head, normalisation="none", seed=seed, role=ROLE)
    if not network.trainable():
        raise UsageError(
            f"nothing would learn: adapter '{family}' has no tensors of its own here, and the "
            "network no classifier.",
            hint="num_classes= gives it one.",
        )
    weight = next(backbone.body.parameters())
    network.to(device=weight.device, dtype=weight.dtype)
    return AdaptedModel(network, seed=seed, drop_path=drop_path)


class AdaptedModel(nn.Module):
    """A frozen timm network with an adapter: normalised images `[B, C, H, W]` to logits.

    Only the parameters of `trainable()` are trained. In training mode each call draws the adapter's
    dropout and drop path for (seed, number of the call), independently of all other draws; the
    number is part of its `state_dict()`. The frozen network is always in evaluation mode.
    """

    def __init__(self, network: Network, *, seed: int, drop_path: float) -> None:
        super().__init__()
        self.network = network
        self.seed, self.drop_path, self.calls = seed, drop_path, 0
        self.draws = bool(self._draw_masks(1))
        self.calls = 0

    def forward(self, images: Any) -> Tensor:  # `_check` checks the type
        """The logits of normalised images. Raises: InputError."""
        if not torch.compiler.is_compiling():
            self._check(images)
        masks = self._draw_masks(len(images)) if self.training and self.draws else {}
        logits: Tensor = self.network(images, masks)
        return logits

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: the adapter's `adapter.…`, the classifier's `head.…`."""
        return self.network.trainable()

    def adapter_state(self) -> dict[str, Tensor]:
        """All tensors but the frozen network's, by name, for safetensors' `save_file`.

        Names and shapes are the same as in a run's adapter_model.safetensors.
        """
        return {
            name: tensor.detach().contiguous() for name, tensor in self.network.published().items()
        }

    def load_adapter(self, source: Mapping[str, Tensor] | Path | str) -> None:
        """Load tensors as of `adapter_state` from a mapping, a safetensors file, or a run's folder.

        Raises: CheckpointError if the file cannot be read, or names or shapes do not match, in
        which cases nothing is changed; and if PEFT computes some of the tensors itself.
        """
        own = self.network.published()
        found = source if isinstance(source, Mapping) else _read(Path(source))
        faults = [f"{name} is missing" for name in own.keys() - found.keys()]
        faults += [f"{name} has no place here" for name in found.keys() - own.keys()]
        faults += [
            f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in found and found[name].shape != tensor.shape
        ]
        if faults:
            more = f"; {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            raise CheckpointError(
                f"these are not the tensors of adapter '{self.network.adapter.word}' as it stands "
                f"here: {'; '.join(sorted(faults)[:SHOWN])}{more}.",
                hint="Family, options, num_classes and network are to be those of its training.",
            )
        self.network.fill({name: found[name].to(tensor) for name, tensor in own.items()})

    def merge(self) -> Any:  # a timm network; as nn.Module its attributes would type as modules
        """A plain timm network with the adapter merged into it, frozen and in evaluation mode.

        It shares no memory with this one.

        Raises: UsageError for a family that cannot be merged; CheckpointError if the outputs of
        both differ by more than rounding.
        """
        merged = merge(self.network)
        was_training = self.network.training
        images = torch.randn(2, *self._shape, generator=generator(0, "merge", "images"))
        images = images.to(self.network.mean)
        difference = largest_difference(self.network, merged, images)
        self.network.train(was_training)
        allowed = tolerance(images.dtype)
        if not difference <= allowed:
            raise CheckpointError(
                f"the merged network's outputs differ by {difference:.1e} of their largest; up to "
                f"{allowed:.0e} is expected."
            )
        return merged

    def get_extra_state(self) -> Tensor:
        """The number of calls in training mode."""
        return torch.tensor(self.calls)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of calls in training mode."""
        self.calls = int(state)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it would recompile at each call
    def _draw_masks(self, batch: int) -> dict[str, Tensor]:
        draws = Draws(self.seed, ROLE, self.calls)
        self.calls += 1
        return self.network.draw_masks(batch, drop_path=self.drop_path, draws=draws)

    @property
    def _shape(self) -> tuple[int, int, int]:
        weight: Any = self.network.kind.patch_projection.weight
        size = self.network.backbone.spec.img_size
        return (weight.shape[1], size, size)

    def _check(self, images: object) -> None:
        colours, size, _ = self._shape
        expected = self.network.mean.dtype
        got, hint = "", "timm.data.create_transform makes such images"
        if not isinstance(images, Tensor):
            got = type(images).__name__
        elif images.ndim != 4 or images.shape[1:] != self._shape:
            got = f"the shape {list(images.shape)}"
            hint = "adapt(…, img_size=) says the side, where a network takes images of any size"
        elif images.dtype != expected and not (
            images.is_floating_point() and torch.is_autocast_enabled(images.device.type)
        ):
            got = str(images.dtype)
        if got:
            raise InputError(
                f"an adapted network takes normalised images [B, {colours}, {size}, {size}] of "
                f"{expected}; got {got}.",
                hint=hint,
            )

    def _replicate_for_data_parallel(self) -> nn.Module:
        raise UsageError(
            "DataParallel would draw one dropout for all of its replicas.",
            hint="Use DistributedDataParallel, with a seed of its own for each process.",
        )


def _adapter(family: str, options: dict[str, Any]) -> Adapter:
    name, _, tuner = family.partition(":")
    if name == BRIDGE:
        find_tuner(tuner)
        return find_adapter(name)(tuner=tuner, **options)
    return find_adapter(family)(**options)


def _check_numbers(num_classes: int | None, seed: int, drop_path: float) -> None:
    for name, value, least in (("num_classes", num_classes, 1), ("seed", seed, 0)):
        if value is not None and (type(value) is not int or value < least):
            raise UsageError(f"{name} is an int from {least}; got {value!r}.")
    if type(drop_path) not in (int, float) or not 0 <= drop_path < 1:
        raise UsageError(f"drop_path is a rate from 0 to less than 1; got {drop_path!r}.")


def _read(path: Path) -> dict[str, Tensor]:
    path = path / TENSORS_FILE if path.is_dir() else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from None
    return read_tensors(content, path)
