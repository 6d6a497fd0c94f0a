"""The training loop: one forward each, one backward of CE_s + CE_t + w D, both optimisers step.

Shape letters: B batch, C channels, H W image.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import NetworkPair, Role
from idat_zoo.distillation import distillation_term
from idat_zoo.engine.augment import augment
from idat_zoo.engine.precision import autocast, cast_frozen
from idat_zoo.engine.schedule import learning_rates, total_epochs
from idat_zoo.errors import DataError, TrainingError
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Recipe

PARTS = ("loss", "student_task_loss", "teacher_task_loss", "distillation_loss")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class EpochLog:
    """One epoch's means over its steps. Absent parts (no teacher, no distillation) are None."""

    epoch: int
    lr: float
    loss: float
    student_task_loss: float
    teacher_task_loss: float | None = None
    distillation_loss: float | None = None
    test_top1: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The parts that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Trainer:
    """A pair in training: networks, optimisers, schedule, and the state to go on from."""

    def __init__(
        self,
        pair: NetworkPair,
        images: Mapping[Role, UInt8[Tensor, "N C H W"]],
        targets: Int64[Tensor, "N"],
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        if not len(targets):
            raise DataError("there are no images to train on.")
        self.pair, self.recipe, self.seed, self.device = pair, recipe, seed, device
        on_device = {id(part): part.to(device) for part in images.values()}  # one copy if shared
        self.images = {role: on_device[id(part)] for role, part in images.items()}
        self.targets = targets.to(device)
        self.batch_size = min(recipe.batch_size, len(targets))
        self.steps_per_epoch = len(targets) // self.batch_size  # drop_last
        self.epochs = total_epochs(recipe)
        self.rates = learning_rates(recipe, self.steps_per_epoch)
        self.optimisers = {role: build_optimiser(net, recipe) for role, net in pair.roles()}
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._alive: set[str] = set()
        assert recipe.precision != "auto", "precision is resolved before training"
        self._precision = recipe.precision
        if self._precision != "float32":
            for _, network in pair.roles():
                cast_frozen(network, self._precision)

    def train_epoch(self, epoch: int, on_step: Callable[[], None] = lambda: None) -> EpochLog:
        """Train one epoch (counted from 0) and return its means; `on_step` hears of each step.

        Raises: TrainingError where the loss is not finite or a trainable tensor stays without
        gradient.
        """
        for _, network in self.pair.roles():
            network.train()
        order = torch.randperm(
            len(self.targets), generator=generator(self.seed, "pair", "order", epoch)
        ).to(self.device)
        sums: dict[str, Tensor] = {}
        first = epoch * self.steps_per_epoch
        for i in range(self.steps_per_epoch):
            batch = order[i * self.batch_size : (i + 1) * self.batch_size]
            parts = self._step(first + i, batch)
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            on_step()
        means = {name: (total / self.steps_per_epoch).item() for name, total in sums.items()}
        if not all(map(_is_finite, means.values())):
            shown = ", ".join(f"{name} = {value}" for name, value in means.items())
            raise TrainingError(
                f"the loss is not finite in epoch {epoch + 1}: {shown}.",
                hint=f"A lower learning rate often helps: lr={self.recipe.lr / 10:g}",
            )
        return EpochLog(epoch=epoch + 1, lr=self.rates[first + self.steps_per_epoch - 1], **means)

    def _step(self, step: int, batch: Int64[Tensor, "B"]) -> dict[str, Tensor]:
        """One optimisation step on the images of these places; returns the loss and its parts."""
        with autocast(self.device, self._precision):
            logits: dict[str, Tensor] = {
                role: network(self._images(role, step, batch), self._masks(role, network, step))
                for role, network in self.pair.roles()
            }
        parts = self.losses(logits, self.targets[batch])
        loss = parts["loss"]
        self.scaler.scale(loss).backward()
        if self.recipe.protocol == "paper" and self.pair.teacher is not None:
            double_gradients(self.pair.teacher)
        self._check_alive(step)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.rates[step]
            self.scaler.step(optimiser)
            optimiser.zero_grad(set_to_none=True)
        self.scaler.update()
        return parts

    def losses(self, logits: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """CE_s, CE_t, D and their sum, in float32 or wider."""
        wide = {role: z.float() if z.dtype.itemsize < 4 else z for role, z in logits.items()}
        parts = {f"{role}_task_loss": F.cross_entropy(z, targets) for role, z in wide.items()}
        loss = sum(parts.values(), start=torch.zeros((), device=targets.device))
        if self.recipe.distillation != "none":
            term = distillation_term(wide["student"], wide["teacher"], self.recipe)
            parts["distillation_loss"] = term
            loss = loss + self.recipe.distillation_weight * term
        return {"loss": loss} | parts

    def _images(self, role: Role, step: int, batch: Int64[Tensor, "B"]) -> UInt8[Tensor, "B C H W"]:
        """A batch at the network's size; teacher and student see the same augmentation."""
        images = self.images[role][batch]
        if not self.recipe.augmentation:
            return images
        return augment(images, self.recipe.augmentation, seed=self.seed, step=step)

    def _masks(self, role: Role, network: Network, step: int) -> dict[str, Tensor]:
        draws = Draws(self.seed, role, step)
        return network.draw_masks(self.batch_size, drop_path=self.recipe.drop_path, draws=draws)

    def _check_alive(self, step: int) -> None:
        """A tensor without any gradient in the first two steps is a dead adapter: say so."""
        if step > 1:
            return
        named = {
            f"{role}'s {n}": p
            for role, net in self.pair.roles()
            for n, p in net.trainable().items()
        }
        self._alive |= {n for n, p in named.items() if p.grad is not None and p.grad.any()}
        dead = sorted(named.keys() - self._alive)
        if step == 1 and dead:
            raise TrainingError(
                f"{len(dead)} of {len(named)} trainable tensors got no gradient in two steps: "
                + ", ".join(dead[:4])
                + ("." if len(dead) <= 4 else ", …")
            )

    def state(self) -> dict[str, Tensor]:
        """Everything a later process needs to go on to the same bits, except the epoch."""
        state: dict[str, Tensor] = {}
        for role, network in self.pair.roles():
            for name, parameter in network.trainable().items():
                state[f"{role}/value/{name}"] = parameter.detach()
                moments = self.optimisers[role].state[parameter]
                state |= {f"{role}/{moment}/{name}": moments[moment] for moment in MOMENTS}
        if self.scaler.is_enabled():
            scaler = self.scaler.state_dict()
            state["scaler/scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
            state["scaler/growth"] = torch.tensor(scaler["_growth_tracker"])
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of the same recipe and seed."""
        with torch.no_grad():
            for role, network in self.pair.roles():
                for name, parameter in network.trainable().items():
                    parameter.copy_(state[f"{role}/value/{name}"])
                    self.optimisers[role].state[parameter] = {
                        moment: _like_moment(state[f"{role}/{moment}/{name}"], moment, self.device)
                        for moment in MOMENTS
                    }
        if self.scaler.is_enabled():
            fresh = self.scaler.state_dict()
            fresh["scale"] = state["scaler/scale"].item()
            fresh["_growth_tracker"] = int(state["scaler/growth"].item())
            self.scaler.load_state_dict(fresh)


def _like_moment(value: Tensor, moment: str, device: torch.device) -> Tensor:
    """AdamW keeps its step counter on the CPU and its moments with the parameter."""
    return value.clone() if moment == "step" else value.to(device, copy=True)


def double_gradients(teacher: Network) -> None:
    """The released loop runs two backward passes and clears the teacher's gradient in neither."""
    for parameter in teacher.trainable().values():
        if parameter.grad is not None:
            parameter.grad.mul_(2)


def build_optimiser(network: Network, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW, without weight decay on 1-D tensors and biases."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.trainable().items():
        (plain if parameter.ndim <= 1 or name.endswith("bias") else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.lr)


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
