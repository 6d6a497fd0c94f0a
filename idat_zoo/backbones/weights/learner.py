"""A learner of the pretraining: one network, its loss, its optimiser and its metrics.

Shape letters: B batch.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from idat_zoo.backbones.weights.labels import LABELS, UNKNOWN
from idat_zoo.backbones.weights.micro_network import Pretrained

MAPS: Final = ("ink_map_coarse", "shape_map", "ink_map")
LOSS_WEIGHTS: Final = {
    "shape": 1.0,
    "x": 0.4,
    "y": 0.4,
    "scale": 0.4,
    "rotation": 2.0,
    "axis": 1.0,
    "count": 1.0,
    "ink_map_coarse": 7.0,
    "shape_map": 7.0,
    "ink_map": 3.0,
}
LR: Final = 2e-3
WEIGHT_DECAY: Final = 0.05
CLIP_NORM: Final = 1.0
METRIC_MEMORY: Final = 0.995


class Learner:
    """One network, its optimiser, and running means of its metrics."""

    def __init__(self, width: int) -> None:
        self.model = Pretrained(width)
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=LR,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.metrics: dict[str, float] = {}

    def step(self, images: Tensor, targets: dict[str, Tensor], *, lr: float) -> None:
        """Take one optimiser step."""
        logits = self.model(images)
        losses = {name: label_loss(name, logits[name], target) for name, target in targets.items()}
        loss = torch.stack([LOSS_WEIGHTS[name] * value for name, value in losses.items()]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        seen = {"loss": float(loss.detach())}
        for name in MAPS:
            seen[f"{name}_loss"] = float(losses[name].detach())
        for name in LABELS:
            seen[f"{name}_accuracy"] = accuracy(logits[name], targets[name])
        for name, value in seen.items():
            if math.isnan(value):
                continue
            old = self.metrics.get(name, value)
            self.metrics[name] = METRIC_MEMORY * old + (1 - METRIC_MEMORY) * value

    def tensors(self) -> dict[str, Tensor]:
        """The weights and the optimiser's moments, by flat name."""
        flat = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        return flat

    def load_tensors(self, flat: dict[str, Tensor]) -> None:
        """Restore the weights and moments that `tensors` returned."""
        state: dict[int, dict[str, Tensor]] = {}
        model: dict[str, Tensor] = {}
        for key, value in flat.items():
            part, name = key.split(".", 1)
            if part == "model":
                model[name] = value
            else:
                index, name = name.split(".")
                state.setdefault(int(index), {})[name] = value
        self.model.load_state_dict(model)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def label_loss(name: str, logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, binary and by cell for the maps; mean over the batch, unknown counting 0."""
    if name not in MAPS:
        total = functional.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum")
        return total / len(target)
    known = target != UNKNOWN
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * known).mean()


def accuracy(logits: Tensor, target: Tensor) -> float:
    """The fraction of known labels that are predicted correctly, NaN where none is known."""
    known = target != UNKNOWN
    return float((logits.argmax(dim=1) == target)[known].float().mean())
