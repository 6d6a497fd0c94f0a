"""Create a timm backbone with pinned weights, wholly frozen."""

import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import timm
import torch
from pydantic import ConfigDict, ValidationError, create_model
from timm.models import vision_transformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from idat_zoo import files, hub
from idat_zoo.adapters.base import Anatomy
from idat_zoo.errors import RecipeError, UnknownNameError, UsageError, WeightsError
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone, describe_faults

GIVEN = {"self", "img_size", "in_chans", "num_classes", "device", "dtype"}
ARGUMENTS = [
    name for name in inspect.signature(VisionTransformer.__init__).parameters if name not in GIVEN
]
"""What `args` may say of a network's shape; timm's `create_model` would take more than that."""
_HINTS = get_type_hints(VisionTransformer.__init__)
_FIELDS: Any = {name: (_HINTS.get(name, Any), None) for name in ARGUMENTS}
Arguments = create_model(
    "Arguments",
    __config__=ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=()),
    **_FIELDS,
)
"""Their types, as timm's own signature has them."""
UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What timm raises for shapes that do not go together."""
RESAMPLED = ("pos_embed", "patch_embed.proj.weight")
"""What timm resamples to another size of image or patch."""
RESAMPLED_OTHERWISE = ("flexi", "radio")
"""Parts of names of networks for which timm does so in a way that only its own loading knows."""
SHOWN = 3
MOST_BLOCKS, MOST_NUMBERS = 512, 4 * 10**9
"""No ViT of timm has as many."""
_TIMM: Any = vision_transformer  # every timm 1.x finds its blocks' parts here, exported or not


@dataclass(frozen=True, kw_only=True)
class FrozenBackbone:
    """A backbone without its classifier. No tensor of it ever learns."""

    spec: Backbone
    vit: Any  # a VisionTransformer; timm types its blocks as mere modules
    sha256: str

    @property
    def anatomy(self) -> Anatomy:
        """Its measures and tensors, as adapters may see them."""
        return _anatomy(self.vit)


def missing_weights(spec: Backbone) -> str:
    """The Hub repository of weights that are not here yet, or ''."""
    repo = weights_repo(spec)
    return "" if repo and hub.cached_weights(spec.timm, spec.weights) is not None else repo


def weights_repo(spec: Backbone) -> str:
    """The Hub repository of its weights, or '' where they are not timm's on the Hub."""
    return hub.weights_repo(spec.timm, spec.weights) if spec.from_hub else ""


def weights_size(spec: Backbone) -> int:
    """About how many bytes the file of its weights on the Hub has.

    Timm's are float32 numbers of the network with the head of its own classes. 0 for a tag that
    timm does not know.
    """
    try:
        with torch.device("meta"):
            vit = timm.create_model(f"{spec.timm}.{spec.weights}", pretrained=False)
    except UNBUILDABLE:
        return 0
    return 4 * sum(int(tensor.numel()) for tensor in vit.state_dict().values())


def load_backbone(spec: Backbone) -> FrozenBackbone:
    """Build the network, load its pinned weights, freeze it, and hash what was loaded.

    Raises: UsageError where timm knows no such plain ViT; WeightsError where weights are missing or
    do not fit.
    """
    describe_anatomy(spec)
    vit = _create(spec)
    if spec.weights == "random":
        _initialise(vit, spec.name)
    else:
        _load(vit, spec)
    vit.eval().requires_grad_(False)
    return FrozenBackbone(spec=spec, vit=vit, sha256=hash_network(vit))


def describe_anatomy(spec: Backbone) -> Anatomy:
    """A backbone's measures. Raises: what `outline` raises."""
    return _anatomy(outline(spec))


def outline(spec: Backbone) -> VisionTransformer:
    """The network without any memory for its tensors (they are on the meta device).

    Raises: UsageError where timm knows no such plain ViT, or it is larger than any there is.
    """
    depth = spec.args.get("depth", 0)
    if isinstance(depth, int) and depth > MOST_BLOCKS:
        raise UsageError(f"backbone '{spec.name}' would have {depth:,} blocks.")
    with torch.device("meta"):
        vit = _create(spec)
    count = sum(tensor.numel() for tensor in vit.state_dict().values())
    if count > MOST_NUMBERS:
        raise UsageError(f"backbone '{spec.name}' would have {count:,} parameters.")
    _try_out(vit, spec)
    return vit


def faults_of(spec: Backbone) -> list[str]:
    """All that keeps a backbone from being had with the timm that is installed; nothing is fetched.

    Whether its file fits is seen when it is loaded.
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
    elif spec.weights != "random":
        try:
            weights_path(spec)
        except WeightsError as error:
            faults.append(f"backbone '{spec.name}': {error.message}")
    return faults


def _weights_amiss(spec: Backbone) -> list[str]:
    """Why timm's weights cannot be had under their tag."""
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{spec.timm}.*")]
    if not timm.is_model(spec.timm):
        return []
    where = f"backbone '{spec.name}': weights"
    if spec.weights not in tags:
        unknown = UnknownNameError(f"tag of {spec.timm}", spec.weights, tags)
        return [f"{where}: timm {timm.__version__}: {unknown.message} {unknown.hint}".rstrip()]
    known = timm.get_pretrained_cfg(f"{spec.timm}.{spec.weights}")
    repo = hub.weights_repo(spec.timm, spec.weights)
    if known is not None and known.hf_hub_id != repo:
        return [
            f"{where}: timm has them at '{known.hf_hub_id}', but they are fetched from '{repo}'"
        ]
    return []


def _anatomy(vit: Any) -> Anatomy:  # a VisionTransformer
    return Anatomy(
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=vit.blocks[0].attn.num_heads,
        num_tokens=vit.patch_embed.num_patches + vit.num_prefix_tokens,
        weights=vit.state_dict(),
    )


def hash_network(network: nn.Module) -> str:
    """SHA-256 over all that a network computes with: its state and the buffers that are not saved.

    timm keeps the periods of rotary embeddings, indices of relative positions and biases of the key
    in such buffers.
    """
    return hash_tensors(dict(network.named_buffers()) | network.state_dict())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _create(spec: Backbone) -> VisionTransformer:
    _check_kind(spec)
    _check_args(spec)
    try:
        with torch.random.fork_rng(devices=[]):  # timm initialises from the global generator
            vit = timm.create_model(
                spec.timm,
                pretrained=False,
                num_classes=0,
                img_size=spec.img_size,
                **dict[str, Any](spec.args),
            )
    except UNBUILDABLE as error:
        raise UsageError(
            f"timm cannot build backbone '{spec.name}' ({_as_asked(spec)}): {_told(error)}"
        ) from None
    unfit = _why_unfit(vit)
    if unfit or not isinstance(vit, VisionTransformer):
        raise _not_plain(spec, unfit)
    return vit


def _as_asked(spec: Backbone) -> str:
    args = ", ".join(f"{name} = {value!r}" for name, value in spec.args.items())
    return f"{spec.timm} with {args}" if args else spec.timm


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _not_plain(spec: Backbone, why: str) -> UsageError:
    return UsageError(
        f"backbone '{spec.name}' ({spec.timm}) is not a plain ViT: {why}.",
        hint="Adapters here know timm's VisionTransformer with its standard blocks.",
    )


def _check_kind(spec: Backbone) -> None:
    """Refuse names that timm has not, or whose function says that it builds no ViT."""
    if not timm.is_model(spec.timm):
        unknown = UnknownNameError("network", spec.timm, timm.list_models())
        raise UsageError(
            f"backbone '{spec.name}': timm {timm.__version__}: {unknown.message}", hint=unknown.hint
        )
    built = get_type_hints(timm.model_entrypoint(spec.timm)).get("return")
    if isinstance(built, type) and not issubclass(built, VisionTransformer):
        raise _not_plain(spec, f"it is a {built.__name__}")


def _check_args(spec: Backbone) -> None:
    """Refuse `args` that timm would not take, take for something else, or that leave no feature."""
    where = f"backbone '{spec.name}': args"
    faults = []
    for name in spec.args.keys() - set(ARGUMENTS):
        unknown = UnknownNameError("argument of a ViT", name, ARGUMENTS)
        faults.append(f"{where}: {unknown.message} {unknown.hint}".rstrip())
    try:
        Arguments.model_validate(spec.args)
    except ValidationError as error:
        faults += describe_faults(error, where=where)
    if spec.args.get("global_pool") == "":
        faults.append(
            f"{where}: global_pool: without pooling there is no single feature for a head to "
            "classify; expected 'token', 'avg', 'max', 'avgmax' or 'map' (got '')"
        )
    if faults:
        raise RecipeError(sorted(faults))


def _try_out(vit: VisionTransformer, spec: Backbone) -> None:
    """Refuse what is built but cannot run, on the meta device, where nothing is computed."""
    image = torch.empty(1, 3, spec.img_size, spec.img_size, device="meta")
    try:
        vit.eval()(image)
    except UNBUILDABLE as error:
        raise UsageError(
            f"backbone '{spec.name}' ({_as_asked(spec)}) cannot take an image of "
            f"{spec.img_size} x {spec.img_size}: {_told(error)}"
        ) from None


def _why_unfit(vit: nn.Module) -> str:
    """Why `walk` would not compute what timm computes, or ''."""
    if not isinstance(vit, VisionTransformer):
        return f"it is a {type(vit).__name__}"
    if not len(vit.blocks):
        return "it has no blocks"
    for block in vit.blocks:
        parts = (("block", Block), ("attn", _TIMM.Attention), ("mlp", _TIMM.Mlp))
        for name, expected in parts:
            part = block if name == "block" else getattr(block, name, None)
            if type(part) is not expected:
                return f"its {name} is a {type(part).__name__}"
        if getattr(block.attn, "gate", None) is not None:
            return "its attention is gated"
    return ""


def _initialise(vit: VisionTransformer, name: str) -> None:
    """Weights normal of std 0.02, norms 1, biases 0: the same for the same backbone name."""
    for key, parameter in vit.named_parameters():
        if parameter.ndim > 1:
            source = generator(0, f"backbone {name}", key)
            nn.init.trunc_normal_(parameter, std=0.02, generator=source)
        elif key.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)


def _load(vit: VisionTransformer, spec: Backbone) -> None:
    """The file's tensors, resampled to this size as timm does; each has its place, each is there.

    timm's own loading lets tensors be missing where the number of classes differs.
    """
    path = weights_path(spec)
    try:
        tensors = files.parse_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the weights of backbone '{spec.name}': {error}") from None
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("head")}
    expected = vit.state_dict()
    faults = _misfits(body, expected)
    if not faults:
        try:
            body = _resampled(body, vit, spec)
        except UNBUILDABLE as error:
            faults = [f"timm cannot resample them: {_told(error)}"]
        else:
            faults = _misfits(body, expected, exact=True)
    if faults:
        raise WeightsError(
            f"the weights of backbone '{spec.name}' do not fit {spec.timm} as it is built here: "
            + "; ".join(faults),
            hint="Its `timm`, `args` and `img_size` say how it is built, `weights` which file it "
            "is given.",
        )
    vit.load_state_dict({name: tensor.float() for name, tensor in body.items()})


def _resampled(
    body: dict[str, Tensor], vit: VisionTransformer, spec: Backbone
) -> dict[str, Tensor]:
    """Through the filter by which timm loads such files. Raises: what that raises."""
    own = vit.state_dict()
    if all(body[name].shape == own[name].shape for name in RESAMPLED if name in own):
        return body
    if any(part in spec.timm for part in RESAMPLED_OTHERWISE):
        raise ValueError(f"{spec.timm} is taken at its own size alone")
    module: Any = sys.modules[timm.model_entrypoint(spec.timm).__module__]
    filtered: dict[str, Tensor] = module.checkpoint_filter_fn(body, vit)
    return filtered


def _misfits(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, exact: bool = False
) -> list[str]:
    """Tensors that are missing, have no place, or are of another shape, a line for each kind."""
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found
        and found[name].shape != tensor.shape
        and (exact or name not in RESAMPLED or found[name].ndim != tensor.ndim)
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
    """The file of a backbone's pinned weights, fetched from the Hub unless it is here.

    Raises: WeightsError where it cannot be had.
    """
    kind, _, name = spec.weights.partition(":")
    if kind != "builtin":
        return hub.fetch_weights(spec.timm, spec.weights)
    shipped = resources.files("idat_zoo.backbones.weights") / f"{name}.safetensors"
    if not shipped.is_file():
        raise WeightsError(f"no weights named '{name}' ship with idat-zoo")
    return Path(str(shipped))
