"""The probe of a network: its logits of eight fixed images, which every reload must reproduce."""

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.backbones.network import Network
from idat_zoo.randomness import generator

PROBE_IMAGES = 8


def probe_logits(network: Network | Ensemble) -> Float32[Tensor, "8 K"]:
    """Float32 CPU logits `[8, K]` of the probe images, which every reload must reproduce."""
    with torch.inference_mode():
        logits: Tensor = network.eval()(probe_images(network))
    return logits


def probe_images(network: Network | Ensemble) -> UInt8[Tensor, "8 3 S S"]:
    """Eight fixed images of noise at the network's input size."""
    size = network.backbone.spec.img_size
    source = generator(0, "probe", "images")
    shape = (PROBE_IMAGES, 3, size, size)
    return torch.randint(256, shape, generator=source, dtype=torch.uint8)
