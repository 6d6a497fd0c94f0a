"""The pinned weights of a backbone: where their file is, and how it is loaded."""

import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo import files, own_weights
from idat_zoo.backbones.installed import timm
from idat_zoo.errors import WeightsError
from idat_zoo.hub import weights as hub_weights
from idat_zoo.recipe import Backbone

UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The exceptions that timm raises for shapes that do not fit together."""
RESAMPLED = ("pos_embed", "patch_embed.proj.weight", "relative_position_bias_table")
"""The ends of names of tensors that timm resamples for another image, patch or window size."""
RESAMPLED_OTHERWISE = ("flexi", "radio")
"""Parts of names of networks for which timm does so in a way that only its own loading knows."""
SHOWN = 3


def missing_weights(spec: Backbone) -> str:
    """The Hub repository of weights that are not on this machine, or ''."""
    repo = weights_repo(spec)
    return "" if repo and hub_weights.cached_weights(spec.timm, spec.weights) is not None else repo


def weights_repo(spec: Backbone) -> str:
    """The Hub repository of its weights, or '' where they are not timm's on the Hub."""
    return hub_weights.weights_repo(spec.timm, spec.weights) if spec.from_hub else ""


def weights_size(spec: Backbone) -> int:
    """The approximate size in bytes of the weights' file on the Hub.

    Timm's files are float32 and include the head for their own classes. 0 for a tag that timm does
    not know.
    """
    try:
        with torch.device("meta"):
            body = timm.create_model(f"{spec.timm}.{spec.weights}", pretrained=False)
    except UNBUILDABLE:
        return 0
    return 4 * sum(int(tensor.numel()) for tensor in body.state_dict().values())


def load_pinned(body: nn.Module, spec: Backbone) -> None:
    """Load a file's tensors into a network; names must match one to one.

    timm's own filter converts them, and resamples those that depend on the image size. (timm's own
    loading accepts missing tensors where the number of classes differs.)

    Raises: WeightsError.
    """
    own = spec.own_file
    try:
        content = own_weights.read_file(spec) if own else weights_path(spec).read_bytes()
        if own and own_weights.is_npz(content):
            _refuse(spec, _npz_faults(body, content))
            return
        tensors = files.parse_tensors(content)
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the weights of backbone '{spec.name}': {error}") from None
    expected = body.state_dict()
    try:
        found = _without_classifier(_filtered(tensors, body, spec), body)
    except UNBUILDABLE as error:
        as_they_are = _misfits(_without_classifier(tensors, body), expected)
        faults = as_they_are or [f"timm cannot resample them: {told(error)}"]
    else:
        faults = _misfits(found, expected, exact=True)
    _refuse(spec, faults)
    body.load_state_dict({name: tensor.float() for name, tensor in found.items()})


def _npz_faults(body: nn.Module, content: bytes) -> list[str]:
    """Load a ViT's .npz file; why it does not fit, in words."""
    from idat_zoo.backbones.npz import load_npz  # few backbones need it

    try:
        with _without_warnings_of_resampling():
            left = load_npz(body, content)
    except UNBUILDABLE as error:
        return [told(error)]
    return [f"they lack {_few(left)}"] if left else []


def _refuse(spec: Backbone, faults: Sequence[str]) -> None:
    """Raises: WeightsError where there are faults."""
    if faults:
        raise WeightsError(
            f"the weights of backbone '{spec.name}' do not fit {spec.timm} as it is built here: "
            + "; ".join(faults),
            hint="Its `timm`, `args` and `img_size` say how it is built, `weights` which file it "
            "is given.",
        )


def _without_classifier(tensors: Mapping[str, Tensor], body: Any) -> dict[str, Tensor]:
    """The tensors without those of the layers that timm's configuration calls the classifier."""
    named = body.pretrained_cfg.get("classifier") or "head"
    classifiers = (named,) if isinstance(named, str) else tuple(named)
    starts = tuple(f"{name}." for name in classifiers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(starts)}


def _filtered(found: dict[str, Tensor], body: nn.Module, spec: Backbone) -> dict[str, Tensor]:
    """A file's tensors after timm's filter for loading. Raises: as the filter.

    Some filters recognise timm's own files by the classifier.
    """
    own = body.state_dict()
    resampled = any(
        found[name].shape != tensor.shape
        for name, tensor in own.items()
        if name in found and name.endswith(RESAMPLED)
    )
    if resampled and any(part in spec.timm for part in RESAMPLED_OTHERWISE):
        raise ValueError(f"{spec.timm} is taken at its own size alone")
    module: Any = sys.modules[timm.model_entrypoint(spec.timm).__module__]
    own = module.checkpoint_filter_fn
    named = "adapt_layer_scale"  # DeiT's, for files with an older name; absent from other networks
    options = {named: True} if named in inspect.signature(own).parameters else {}
    with _without_warnings_of_resampling():
        filtered: dict[str, Tensor] = own(dict(found), body, **options)
    return filtered


@contextmanager
def _without_warnings_of_resampling() -> Iterator[None]:
    """Silence a warning of how timm's interpolation indexes tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\.layers\.interpolate")
        yield


def told(error: Exception) -> str:
    """An exception's text, or its name."""
    return str(error) or type(error).__name__


def _misfits(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, exact: bool = False
) -> list[str]:
    """The missing, unexpected and misshapen tensors, a line for each kind."""
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found
        and found[name].shape != tensor.shape
        and (exact or not name.endswith(RESAMPLED) or found[name].ndim != tensor.ndim)
    ]
    kinds = (
        ("they lack ", expected.keys() - found.keys()),
        ("there is no place for ", found.keys() - expected.keys()),
        ("", shapes),
    )
    return [f"{label}{_few(names)}" for label, names in kinds if names]


def _few(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")


def weights_path(spec: Backbone) -> Path:
    """The file of a backbone's pinned weights, downloaded from the Hub where it is missing.

    Raises: WeightsError where it is not available.
    """
    kind, _, name = spec.weights.partition(":")
    if kind != "builtin":
        return hub_weights.fetch_weights(spec.timm, spec.weights)
    shipped = resources.files("idat_zoo.backbones.weights") / f"{name}.safetensors"
    if not shipped.is_file():
        raise WeightsError(f"no weights named '{name}' ship with idat-zoo")
    return Path(str(shipped))
