"""The released joint step, written plainly, as what ours is timed against.

iDAT, JCruan519/iDAT train_onlinekd.py and utils/scaler.py: both forward passes, the whole loss
back-propagated twice (once for each optimiser, so each network gets both gradients), autocast on
CUDA, nothing compiled, nothing cached. Two things differ, neither of them to its harm: both passes
run before the first optimiser steps, since float32 tensors may not change under a second pass; and
gradients are cleared after a step. The networks, their masks and their batches are ours.

Shape letters: B batch, C channels, H W image.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from idat_zoo.backbones.pair import NetworkPair
from idat_zoo.distillation import build_term
from idat_zoo.distillation.base import Outputs
from idat_zoo.engine.precision import autocast
from idat_zoo.engine.train import parameter_groups
from idat_zoo.randomness import Draws
from idat_zoo.recipe import Recipe


class ReferenceLoop:
    """A pair with two optimisers, stepped as the released script steps them."""

    def __init__(self, pair: NetworkPair, recipe: Recipe, *, device: torch.device) -> None:
        self.pair, self.recipe, self.device = pair, recipe, device
        self.optimisers = {
            role: torch.optim.AdamW(parameter_groups(network.trainable(), recipe), lr=recipe.lr)
            for role, network in pair.roles()
        }
        self.steps = 0

    def step(self, images: UInt8[Tensor, "B C H W"], targets: Int64[Tensor, "B"]) -> None:
        """One optimisation step on a batch in the host's memory."""
        assert self.recipe.precision != "auto"
        images, targets = images.to(self.device), targets.to(self.device)
        logits = {}
        with autocast(self.device, self.recipe.precision):
            for role, network in self.pair.roles():
                network.train()
                draws = Draws(0, role, self.steps)
                drop_path = self.recipe.drop_path
                masks = network.draw_masks(len(images), drop_path=drop_path, draws=draws)
                logits[role] = network(images, masks).float()
        losses = [F.cross_entropy(z, targets) for z in logits.values()]
        loss = torch.stack(losses).sum()
        if self.pair.teacher is not None:
            student, teacher = (Outputs(logits[role]) for role in ("student", "teacher"))
            loss = loss + build_term(self.recipe.distillation).loss(student, teacher, targets)
        for _ in self.optimisers:
            torch.autograd.backward(loss, retain_graph=True)
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad()
        self.steps += 1
