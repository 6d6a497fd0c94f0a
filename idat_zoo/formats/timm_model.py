"""A plain timm model made of an adapter that is merged into its backbone.

Only where the adapter's updates are linear in the frozen layer's input, as LoRA's are; the logits
are compared before anything is written.

Shape letters: B batch, K classes.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from timm.models._hub import save_config_for_hf  # half of `save_for_hf`; the weights are our part
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.backbones.anatomy import frozen_tensors
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.network import Network, copies_at
from idat_zoo.backbones.own import classifier_names
from idat_zoo.backbones.peft_network import PeftNetwork
from idat_zoo.checkpoint.loading import Checkpoint
from idat_zoo.checkpoint.probe import probe_images
from idat_zoo.errors import CheckpointError, UsageError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""The names of a model's files, as timm writes them for the Hub."""

TOLERANCE = 1e-4
"""The largest difference of logits, as a fraction of the largest logit.

W x + s B A x and (W + s B A) x are rounded differently.
"""


@torch.no_grad()
def merge(network: Network) -> Any:  # one of timm's networks, whose attributes it types as modules
    """A copy of the backbone with the adapter folded in and a copy of the head in place.

    It takes normalised images. Raises: UsageError for a family that cannot be merged.
    """
    adapter = network.adapter
    why = adapter.why_unmerged(network.anatomy)
    if why:
        raise UsageError(
            f"adapter '{adapter.word}' cannot be merged: {why}.",
            hint="It runs as it is: idat_zoo.load gives it, and idat_zoo.adapt.",
        )
    kind = network.merged() if isinstance(network, PeftNetwork) else _folded(network)
    put_head(kind.body, network)
    return kind.body.requires_grad_(False).eval()


def can_be_merged(network: Network) -> bool:
    """Whether `merge` succeeds: the family can be merged, and into this backbone."""
    try:
        merge(network)
    except UsageError:
        return False
    return True


def put_head(body: Any, network: Network) -> None:  # one of timm's networks
    """Put a copy of a network's head in the place of timm's classifier."""
    if isinstance(network.head, nn.Linear):
        with torch.random.fork_rng(devices=[]):  # timm draws a classifier, which makes room
            body.reset_classifier(network.num_classes)
    for name in classifier_names(body):  # two are averaged, as tokens are
        body.set_submodule(name, copy.deepcopy(network.head))


def _folded(network: Network) -> Kind:
    """A copy of the backbone with the adapter folded in."""
    adapter, kind = network.adapter, copy.deepcopy(network.kind)
    kind.body.load_state_dict(network.body_copies(), strict=False)
    read = frozen_tensors(kind, network.backbone.spec.img_size)
    modules = kind.modules()
    for block, site in sorted(adapter.merges_at(network.anatomy)):
        own, local = read(site, block), network.local(block)
        frozen = {name: t.flatten(1) if t.ndim > 2 else t for name, t in own.items()}
        merged = adapter.merge(site, local, frozen | copies_at(adapter, site, local))
        for name, tensor in merged.items():
            _put(tensor, name, modules[Place(block, site)], kind, Place(block, site))
    return kind


def _put(tensor: Tensor, name: str, module: nn.Module, kind: Kind, place: Place) -> None:
    """Write a merged tensor where timm keeps it: some biases of qkv are apart, for q and for v.

    These have none for the key. Where keys go into the scores as they are, it would add the same to
    a query's with all keys, and is left out. Raises: UsageError where there is no place for it.
    """
    held = getattr(module, name, None)
    if held is not None:
        held.copy_(tensor.view_as(held))
        return
    attention = kind.blocks[place.block].attn if place.site is Site.QKV else None
    biases: list[Any] = [getattr(attention, f"{letter}_bias", None) for letter in "qv"]
    if tensor.ndim == 1 and None not in biases:
        q, k, v = tensor.chunk(3)
        for own, part in zip(biases, (q, v), strict=True):
            own.copy_(part)
        tensor = torch.zeros_like(k) if _adds_alike(kind, attention) else k
        name = "bias of k"
    if tensor.any():
        end = place.site in (Site.PATCH_EMBED, Site.FINAL_NORM)
        where = place.site if end else f"{place.site} of block {place.block}"
        raise UsageError(
            f"the adapter cannot be merged: what it adds at {where} needs a {name}, "
            "which the backbone's layer does not have.",
            hint="It runs as it is: idat_zoo.load gives it, and idat_zoo.adapt.",
        )


def _adds_alike(kind: Kind, attention: Any) -> bool:
    """Whether keys enter the scores as they are: without rotary positions and without a norm."""
    norm = getattr(attention, "k_norm", None)
    normed = hasattr(attention, "logit_scale") or not isinstance(norm, nn.Identity | None)
    return getattr(kind.body, "rope", None) is None and not normed


def largest_difference(
    network: Network, vit: nn.Module, images: Float[Tensor, "B C H W"] | None = None
) -> float:
    """The largest difference between the logits of both networks, as a fraction of the largest.

    On these normalised images, or on those of the probe.
    """
    if images is None:
        images = network.normalise(probe_images(network))
    with torch.inference_mode():
        expected: Float[Tensor, "B K"] = network.eval()(images)
        found: Float[Tensor, "B K"] = vit(images)
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)  # of a head of zeros
    return ((found - expected).abs().max() / largest).item()


def write_merged(checkpoint: Checkpoint, folder: Path) -> float:
    """Write a merged student as timm writes models for the Hub; returns the largest difference.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it, and so does `hf-hub:` once it
    is uploaded.

    Raises: UsageError for an ensemble, or a family that cannot be merged; CheckpointError where the
    logits are not the same; what `whole_folder` raises.
    """
    network = checkpoint.single_network("one backbone cannot hold several")
    config = checkpoint.config
    vit = merge(network)
    difference = largest_difference(network, vit)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the merged network's logits differ by {difference:.1e} of their largest; up to "
            f"{TOLERANCE:.0e} is expected. Nothing was written."
        )
    spec, task = config.backbone, config.recipe.task
    preprocessing = {
        "input_size": (3, spec.img_size, spec.img_size),
        "mean": config.mean,
        "std": config.std,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash",  # timm's name for a resize that ignores the aspect ratio
        "num_classes": task.num_classes,
    }
    vit.pretrained_cfg = vit.pretrained_cfg | preprocessing
    size = {"img_size": spec.img_size} if network.kind.takes_img_size else {}
    with files.whole_folder(folder) as place:
        save_config_for_hf(
            vit,
            str(place / CONFIG_FILE),
            model_config={
                "num_classes": task.num_classes,
                **({"label_names": list(task.class_names)} if task.class_names else {}),
            },
            model_args={**spec.args, **size},
        )
        (place / WEIGHTS_FILE).write_bytes(files.dump_tensors(vit.state_dict()))
    return difference
