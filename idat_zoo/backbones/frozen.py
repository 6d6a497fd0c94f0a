"""Frozen backbones: timm networks created with pinned weights, in which nothing is trained."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.backbones.anatomy import frozen_tensors, measure, parameters_read
from idat_zoo.backbones.installed import timm
from idat_zoo.backbones.kinds import KINDS, WHAT, candidates, kind_of, load_kind
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.pinned import UNBUILDABLE, load_pinned, told, weights_path
from idat_zoo.backbones.self_check import check_walk
from idat_zoo.backbones.without_compiler import without_compiler
from idat_zoo.errors import RecipeError, UnknownNameError, UsageError, WeightsError
from idat_zoo.hub import weights as hub_weights
from idat_zoo.outside import KINDS_GROUP, warn_if_changed
from idat_zoo.own_weights import missing_file
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone, describe_faults

GIVEN = {"self", "img_size", "in_chans", "num_classes", "device", "dtype"}
"""The arguments of timm's classes that `args` may not set."""
MOST_BLOCKS, MOST_NUMBERS = 512, 4 * 10**9
"""Limits on blocks and parameters, which no backbone of timm reaches."""
FEW_NUMBERS, FEW_PIXELS = 4 * 10**6, 224
"""Up to these, a network is measured in memory: on the meta device, torch's Python kernels of norms
import a computer algebra system, which takes longer."""
SETTERS = {"add_", "clamp_", "erfinv_", "fill_", "mul_", "normal_", "uniform_", "zero_"}


@dataclass(frozen=True, kw_only=True)
class FrozenBackbone:
    """A backbone without its classifier. None of its tensors is ever trained.

    `body` is timm's network, `kind` the walk through it, `anatomy` what adapters may know of it.
    """

    spec: Backbone
    body: Any  # timm types what modules hold as mere modules
    sha256: str
    kind: Kind
    anatomy: Anatomy


def load_backbone(spec: Backbone) -> FrozenBackbone:
    """Build a network, load its pinned weights, freeze and hash it, and check its walk.

    Raises: UsageError where timm has no such network, or none of a known kind; WeightsError where
    weights are missing or do not fit; WalkError where timm's forward pass differs from the walk.
    """
    anatomy = describe_anatomy(spec)
    warn_if_changed(WHAT, anatomy.kind, spec.plugin, group=KINDS_GROUP)
    body = _create(spec)
    if spec.weights == "random":
        _initialise(body, spec.name)
    else:
        load_pinned(body, spec)
    body.eval().requires_grad_(False)
    kind, sha256 = load_kind(anatomy.kind)(body), hash_network(body)
    check_walk(kind, spec, sha256)
    anatomy = replace(
        anatomy,
        frozen=frozen_tensors(kind, spec.img_size),
        parameters=parameters_read(kind, spec.img_size),
    )
    return FrozenBackbone(spec=spec, body=body, sha256=sha256, kind=kind, anatomy=anatomy)


def describe_anatomy(spec: Backbone) -> Anatomy:
    """The anatomy of a backbone, with frozen tensors on the meta device.

    Raises: as `outline`.
    """
    return _described(spec.model_dump_json())


@lru_cache(maxsize=32)
def _described(spec_json: str) -> Anatomy:
    """Cached, as building a network takes about a second, and a command asks more than once."""
    spec = Backbone.model_validate_json(spec_json)
    with without_compiler():
        body = _sized(spec)
        if _numbers(body) <= FEW_NUMBERS and spec.img_size <= FEW_PIXELS:
            body = _create(spec)
        _try_out(body, spec)
        name = str(kind_of(candidates(spec), type(body)))
        anatomy = measure(load_kind(name)(body), name, spec.img_size)
        body.to("meta")
    return anatomy


def outline(spec: Backbone) -> nn.Module:
    """The network on the meta device, without memory for its tensors.

    Raises: UsageError where timm has no such network, or none of a known kind, or where it exceeds
    the limits.
    """
    body = _sized(spec)
    _try_out(body, spec)
    return body


def _sized(spec: Backbone) -> nn.Module:
    """The network on the meta device, within the limits; whether it runs is not tried."""
    for name in ("depth", "depths"):
        depths = spec.args.get(name, 0)
        depth = sum(depths) if isinstance(depths, tuple) else depths  # type: ignore[arg-type]
        if isinstance(depth, int) and depth > MOST_BLOCKS:
            raise UsageError(f"backbone '{spec.name}' would have {depth:,} blocks.")
    with torch.device("meta"), Unset():
        body = _create(spec)
    count = _numbers(body)
    if count > MOST_NUMBERS:
        raise UsageError(f"backbone '{spec.name}' would have {count:,} parameters.")
    return body


def _numbers(body: nn.Module) -> int:
    return sum(tensor.numel() for tensor in body.state_dict().values())


class Unset(TorchFunctionMode):
    """Leaves out what initialises tensors: on the meta device, it computes nothing but is slow."""

    def __torch_function__(
        self, func: Any, types: object, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The first argument of a function that only sets values; other functions as they are."""
        named = kwargs or {}
        if func.__name__ in SETTERS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def faults_of(spec: Backbone) -> list[str]:
    """All reasons why a backbone cannot be loaded with the installed timm; nothing is downloaded.

    Whether the weights' file fits is only checked on loading.
    """
    faults: list[str] = []
    try:
        describe_anatomy(spec)
    except RecipeError as error:
        faults += error.faults
    except UsageError as error:
        faults.append(f"{error.message} {error.hint}".rstrip())
    if spec.from_hub:
        faults += _weights_amiss(spec)
    elif missing := missing_file(spec):
        faults.append(f"not here: {missing}")
    elif spec.weights.startswith("builtin:"):
        try:
            weights_path(spec)
        except WeightsError as error:
            faults.append(f"backbone '{spec.name}': {error.message}")
    return faults


def _weights_amiss(spec: Backbone) -> list[str]:
    """The reasons why timm does not offer weights under this tag."""
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{spec.timm}.*")]
    if not timm.is_model(spec.timm):
        return []
    where = f"backbone '{spec.name}': weights"
    if spec.weights not in tags:
        unknown = UnknownNameError(f"tag of {spec.timm}", spec.weights, tags)
        return [f"{where}: timm {timm.__version__}: {unknown.message} {unknown.hint}".rstrip()]
    known = timm.get_pretrained_cfg(f"{spec.timm}.{spec.weights}")
    repo = hub_weights.weights_repo(spec.timm, spec.weights)
    if known is not None and known.hf_hub_id != repo:
        return [
            f"{where}: timm has them at '{known.hf_hub_id}', but they are fetched from '{repo}'"
        ]
    return []


def hash_network(network: nn.Module) -> str:
    """SHA-256 over all tensors that a network computes with: its state and unsaved buffers.

    timm keeps the periods of rotary embeddings, the indices of relative positions and biases of the
    key in such buffers.
    """
    return hash_tensors(dict(network.named_buffers()) | network.state_dict())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _create(spec: Backbone) -> nn.Module:
    kind = _declared_kind(spec)
    _check_args(spec, kind)
    size: dict[str, Any] = (
        {} if kind is not None and not kind.takes_img_size else {"img_size": spec.img_size}
    )
    try:
        with torch.random.fork_rng(devices=[]):  # timm initialises from the global generator
            body: nn.Module = timm.create_model(
                spec.timm, pretrained=False, num_classes=0, **size, **dict[str, Any](spec.args)
            )
    except UNBUILDABLE as error:
        raise UsageError(
            f"timm cannot build backbone '{spec.name}' ({_as_asked(spec)}): {told(error)}"
        ) from None
    fuse_attention(body)
    name = kind_of(candidates(spec), type(body))
    unfit = load_kind(name)(body).misfit() if name else f"it is a {type(body).__name__}"
    if unfit:
        raise _not_walked(spec, unfit)
    return body


def fuse_attention(body: nn.Module) -> None:
    """Turn on fused attention, which the walk intercepts."""
    module: Any
    for module in body.modules():
        if hasattr(module, "fused_attn"):  # by an environment variable, timm decides otherwise
            module.fused_attn = True


def _as_asked(spec: Backbone) -> str:
    args = ", ".join(f"{name} = {value!r}" for name, value in spec.args.items())
    return f"{spec.timm} with {args}" if args else spec.timm


def _not_walked(spec: Backbone, why: str) -> UsageError:
    return UsageError(
        f"backbone '{spec.name}' ({spec.timm}) is of no kind that adapters know: {why}.",
        hint=f"Known are timm's {titles()}, with their usual blocks.",
    )


def titles() -> str:
    """The titles of the known kinds, as a list in words."""
    return ", ".join(load_kind(name).title for name in KINDS)


def _declared_kind(spec: Backbone) -> type[Kind] | None:
    """The kind of the class that timm's function declares to return; None without a declaration.

    Raises: UsageError for a name unknown to timm, or a class of no known kind.
    """
    names = candidates(spec)  # first of all: their plugin may bring the network, too
    if not timm.is_model(spec.timm):
        unknown = UnknownNameError("network", spec.timm, timm.list_models())
        raise UsageError(
            f"backbone '{spec.name}': timm {timm.__version__}: {unknown.message}", hint=unknown.hint
        )
    built = get_type_hints(timm.model_entrypoint(spec.timm)).get("return")
    if not isinstance(built, type):
        return None
    name = kind_of(names, built)
    if name is None:
        raise _not_walked(spec, f"it is a {built.__name__}")
    return load_kind(name)


@cache
def _arguments(built: Any) -> type[BaseModel]:
    """The fields that `args` may set, with the types in the signature of timm's class.

    timm's `create_model` itself would accept more.
    """
    hints = get_type_hints(built.__init__)
    names = [name for name in inspect.signature(built.__init__).parameters if name not in GIVEN]
    fields: Any = {name: (hints.get(name, Any), None) for name in names}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
    return model


def _check_args(spec: Backbone, kind: type[Kind] | None) -> None:
    """Refuse `args` that timm would reject or misread, or that leave no features."""
    where = f"backbone '{spec.name}': args"
    faults = []
    if kind is not None:
        built: Any = kind.timm_class  # mypy does not take a class of modules for hashable
        arguments = _arguments(built)
        known = list(arguments.model_fields)
        for name in spec.args.keys() - set(known):
            unknown = UnknownNameError(f"argument of a {kind.title}", name, known)
            faults.append(f"{where}: {unknown.message} {unknown.hint}".rstrip())
        try:
            arguments.model_validate(spec.args)
        except ValidationError as error:
            faults += describe_faults(error, where=where)
    if spec.args.get("global_pool") == "":
        faults.append(
            f"{where}: global_pool: without pooling there is no single feature for a head to "
            "classify; expected 'token', 'avg', 'max', 'avgmax' or 'map' (got '')"
        )
    if faults:
        raise RecipeError(sorted(faults))


def _try_out(body: nn.Module, spec: Backbone) -> None:
    """Refuse a network that can be built but not run; on the meta device, nothing is computed."""
    where = next(body.parameters()).device
    image = torch.zeros(1, 3, spec.img_size, spec.img_size, device=where)
    try:
        with torch.no_grad():
            body.eval()(image)
    except UNBUILDABLE as error:
        raise UsageError(
            f"backbone '{spec.name}' ({_as_asked(spec)}) cannot take an image of "
            f"{spec.img_size} x {spec.img_size}: {told(error)}"
        ) from None


def _initialise(body: nn.Module, name: str) -> None:
    """Weights normal of std 0.02, norms 1, biases 0; they depend only on the backbone's name."""
    for key, parameter in body.named_parameters():
        if parameter.ndim > 1:
            source = generator(0, f"backbone {name}", key)
            nn.init.trunc_normal_(parameter, std=0.02, generator=source)
        elif key.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
