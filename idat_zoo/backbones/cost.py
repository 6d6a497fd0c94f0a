"""The cost of a backbone's forward pass, as a function of its architecture and image size."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from idat_zoo.adapters.anatomy import Anatomy


def forward_cost(anatomy: Anatomy) -> int:
    """The floating-point operations in the matrix products and convolutions for one image.

    A product of `[M, K]` and `[K, N]` counts 2 M K N. They are counted on the meta device, where
    nothing is computed, so the number does not depend on the machine. An adapter and a head add
    little to it and are not counted. The backward pass through frozen layers costs the same again.
    """
    image = torch.zeros(anatomy.image, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        anatomy.body(image)
    return int(counter.get_total_flops())
