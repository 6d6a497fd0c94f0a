"""The logits of a network on a split of a task, computed in batches of a fixed size.

Shape letters: N images, C channels, H W image, K classes.
"""

import torch
from jaxtyping import Float32
from torch import Tensor

from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.backbones.network import Network
from idat_zoo.data.decode import Images
from idat_zoo.data.task_data import Split
from idat_zoo.engine.precision import Precision, autocast
from idat_zoo.errors import DivergedError
from idat_zoo.metrics import Metrics
from idat_zoo.recipe import Recipe
from idat_zoo.scoring import score

BATCH = 256


@torch.inference_mode()
def predict_logits(
    network: Network | Ensemble,
    images: Images,
    *,
    device: torch.device,
    precision: Precision = "float32",
) -> Float32[Tensor, "N K"]:
    """The float32 logits `[N, K]` of images, on the CPU.

    All batches have exactly 256 images, the last one padded with black images, so that the logits
    of an image do not depend on the number of images.

    Raises: DivergedError for logits that are not finite, which cannot be scored.
    """
    network.eval()
    logits = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].contiguous().to(device)
        padding = batch.new_zeros(BATCH - len(batch), *batch.shape[1:])
        with autocast(device, precision):
            output = network(torch.cat([batch, padding]))
        logits.append(output[: len(batch)].float().cpu())
    found = torch.cat(logits)
    broken = int((~found.isfinite()).any(dim=1).sum())
    if broken:
        raise DivergedError(
            f"the network's outputs are not finite for {broken} of {len(found)} images, "
            "so there is nothing to score.",
            hint="Its training went too far: a lower learning rate often helps.",
        )
    return found


def predict_split(
    network: Network | Ensemble, split: Split, recipe: Recipe
) -> Float32[Tensor, "N K"]:
    """The logits `[N, K]` of a network on a split, on its device and in its recipe's precision."""
    assert recipe.precision != "auto", "precision is resolved before"
    device = network.mean.device
    return predict_logits(network, split.images, device=device, precision=recipe.precision)


def score_network(network: Network, split: Split, recipe: Recipe) -> Metrics:
    """The metrics of a network on a split, on its device and in its recipe's precision."""
    return score(predict_split(network, split, recipe), split.targets)
