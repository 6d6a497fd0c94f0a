"""Create a timm backbone with pinned weights, wholly frozen."""

import hashlib
import inspect
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import vision_transformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from idat_zoo import files, hub
from idat_zoo.adapters.base import Anatomy
from idat_zoo.errors import UsageError, WeightsError
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone

ARGUMENTS = {*inspect.signature(VisionTransformer.__init__).parameters} - {
    "self",
    "img_size",
    "in_chans",
    "num_classes",
    "device",
    "dtype",
}
"""What `args` may say of a network's shape; timm's `create_model` would take more than that."""
UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What timm raises for shapes that do not go together."""
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
    if not spec.from_hub:
        return ""
    if hub.cached_weights(spec.timm, spec.weights) is not None:
        return ""
    return hub.weights_repo(spec.timm, spec.weights)


def load_backbone(spec: Backbone) -> FrozenBackbone:
    """Build the network, load its pinned weights, freeze it, and hash what was loaded.

    Raises: UsageError where timm knows no such plain ViT; WeightsError where weights are missing or
    do not fit.
    """
    vit = _create(spec)
    if spec.weights == "random":
        _initialise(vit, spec.name)
    else:
        _load(vit, spec)
    vit.eval().requires_grad_(False)
    return FrozenBackbone(spec=spec, vit=vit, sha256=hash_tensors(vit.state_dict()))


def describe_anatomy(spec: Backbone) -> Anatomy:
    """A backbone's measures, without any memory for its tensors (they are on the meta device).

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
    return _anatomy(vit)


def _anatomy(vit: Any) -> Anatomy:  # a VisionTransformer
    return Anatomy(
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=vit.blocks[0].attn.num_heads,
        num_tokens=vit.patch_embed.num_patches + vit.num_prefix_tokens,
        weights=vit.state_dict(),
    )


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _create(spec: Backbone) -> VisionTransformer:
    args: dict[str, Any] = dict(spec.args)
    strange = sorted(args.keys() - ARGUMENTS)
    if strange:
        raise UsageError(
            f"backbone '{spec.name}' has args that no ViT is built by: {', '.join(strange)}."
        )
    try:
        with torch.random.fork_rng(devices=[]):  # timm initialises from the global generator
            vit = timm.create_model(
                spec.timm, pretrained=False, num_classes=0, img_size=spec.img_size, **args
            )
    except UNBUILDABLE as error:
        raise UsageError(
            f"timm cannot build backbone '{spec.name}' ({spec.timm}): {error}"
        ) from None
    unfit = _why_unfit(vit)
    if unfit or not isinstance(vit, VisionTransformer):
        raise UsageError(
            f"backbone '{spec.name}' ({spec.timm}) is not a plain ViT: {unfit}",
            hint="Adapters here know timm's VisionTransformer with its standard blocks.",
        )
    return vit


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
    path = weights_path(spec)
    try:
        tensors = files.parse_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the weights of backbone '{spec.name}': {error}") from None
    body = {name: tensor.float() for name, tensor in tensors.items() if not name.startswith("head")}
    try:
        vit.load_state_dict(body)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights of backbone '{spec.name}' do not fit {spec.timm}: {error}"
        ) from None


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
