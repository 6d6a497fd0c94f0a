"""The training loop: in each step two forward passes, one backward pass and one AdamW step.

The loss is CE_s + CE_t + w D: the cross-entropies of student and teacher, and the weighted
distillation term. A trainer trains one run, or several runs in one pass over the frozen backbones
that they share, as in Symbiosis (arXiv:2507.03220), here for vision and in one process. Runs share
no trained parameter, so the sum of their losses gives each parameter the gradient of its own run.

Shape letters: B batch, N images, C channels, H W image, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import Role
from idat_zoo.backbones.stack import Forward, forward_of
from idat_zoo.distillation.base import Output
from idat_zoo.engine.compiled import compile_or_not
from idat_zoo.engine.learner import EpochLog, Learner
from idat_zoo.engine.precision import autocast
from idat_zoo.errors import TrainingError
from idat_zoo.recipe import Recipe
from idat_zoo.switches import Switches


class Trainer:
    """The training of several learners in one pass, or of a single one.

    They share the backbones, the number of steps per epoch and the number format. In epoch e,
    counted from 0, the learners take part whose recipe has more than e epochs. A learner with a
    fault, or one already past this epoch after resuming, stays in the batch but is not updated:
    shapes never change within an epoch, so results are bit-equal with and without a resume. `note`
    receives messages for the user. Where several processes train together (`Processes`), each has a
    trainer, and all call `train_epoch` with the same epochs.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        *,
        switches: Switches | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.learners, self.switches, self._note = list(learners), switches or Switches(), note
        first = learners[0]
        self.device, self.precision = first.device, first.precision
        self.steps_per_epoch = first.steps_per_epoch
        self.processes = first.processes
        assert all(one.steps_per_epoch == self.steps_per_epoch for one in learners)
        assert len(learners) == 1 or self.precision != "fp16", "an fp16 scaler serves one run"
        fused = self.switches.fused
        self.fused = self.device.type == "cuda" if fused is None else fused
        self.optimiser = torch.optim.AdamW(
            [
                group | {"learner": place, "lr": self._as_rates(learner)[0]}
                for place, learner in enumerate(learners)
                for own in (*(n.trainable() for _, n in learner.pair.roles()), learner.of_term)
                for group in parameter_groups(own, learner.recipe)
            ],
            fused=self.fused or None,
        )
        self._rates = [self._as_rates(learner) for learner in learners]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._forwards: dict[tuple[int, ...], dict[Role, Forward]] = {}

    @property
    def epochs(self) -> int:
        """The largest number of epochs among the learners."""
        return max(learner.epochs for learner in self.learners)

    def train_epoch(
        self, epoch: int, on_step: Callable[[], None] = lambda: None
    ) -> list[EpochLog | None]:
        """Train one epoch, counted from 0; `on_step` is called after each step.

        Returns the mean losses of each learner; None for a learner that was not updated in this
        epoch, or that has a fault.

        Raises: TrainingError if another process has ended, or holds other networks than this one.
        """
        present = [learner for learner in self.learners if epoch < learner.epochs]
        learning = [one for one in present if one.done == epoch and one.fault is None]
        if not learning:  # after resuming, when all that take part are past this epoch
            return [None] * len(self.learners)
        for learner in present:
            learner.set_learning(learner in learning)
        orders = [one.order(epoch) for one in present]
        forwards = self._forwards_of(present)
        taken = [self.steps_taken(one) if self.scaler.is_enabled() else 0 for one in learning]
        sums: list[dict[str, Tensor]] = [{} for _ in learning]
        for i in range(self.steps_per_epoch):
            rows = slice(i * present[0].batch_size, (i + 1) * present[0].batch_size)
            batches = [order[rows] for order in orders]
            step = epoch * self.steps_per_epoch + i
            parts = self._step(step, present, learning, batches, forwards)
            for own, new in zip(sums, parts, strict=True):
                for name, value in new.items():
                    own[name] = own.get(name, torch.zeros_like(value)) + value.detach()
            on_step()
        for one, own in zip(learning, sums, strict=True):
            self.processes.check_equal({**one.trainable(), **own})
        ended = {
            id(one): self._count_skipped(one, one.end_epoch(own), before)
            for one, own, before in zip(learning, sums, taken, strict=True)
        }
        return [ended.get(id(learner)) for learner in self.learners]

    def steps_taken(self, learner: Learner) -> int:
        """The number of optimiser steps so far, without those that the fp16 scaler skipped.

        It skips a step whose gradients are not finite.
        """
        states = (self.optimiser.state.get(one, {}) for one in learner.trainable().values())
        return int(max((state["step"] for state in states if state), default=0))

    def _count_skipped(
        self, learner: Learner, log: EpochLog | None, before: int
    ) -> EpochLog | None:
        """The epoch's log with its number of skipped steps, in fp16.

        If no step of the epoch was taken and none is to be expected, a fault is set and None is
        returned. `before` is the number of optimiser steps before the epoch.
        """
        if log is None or not self.scaler.is_enabled():
            return log
        taken, scale = self.steps_taken(learner), self.scaler.get_scale()
        if taken == before and (scale < 1 or (not taken and learner.done == learner.epochs)):
            longer = "" if scale < 1 else ", or more epochs: each skipped step halves the scale"
            learner.fault = TrainingError(
                f"the optimiser took no step in epoch {learner.done}: in fp16 the gradients are "
                f"not finite, with the loss scaled by {scale:g} at last.",
                hint=f"Use precision=float32{longer}",
            )
            return None
        return replace(log, skipped=self.steps_per_epoch - (taken - before) or None)

    def _step(
        self,
        step: int,
        present: Sequence[Learner],
        learning: Sequence[Learner],
        batches: Sequence[Int64[Tensor, "B"]],
        forwards: Mapping[Role, Forward],
    ) -> list[dict[str, Tensor]]:
        """One optimisation step; returns the losses of each learner in `learning`.

        `batches` holds for each learner in `present` the indices of its images.
        """
        with autocast(self.device, self.precision):
            own_rows = {
                role: forward(
                    [one.start(role, step, own) for one, own in zip(present, batches, strict=True)],
                    [one.masks(role, step) if one in learning else {} for one in present],
                )
                for role, forward in forwards.items()
            }
        outputs = {
            role: [one.gather(part) for one, part in zip(present, own, strict=True)]
            for role, own in own_rows.items()
        }
        parts = [
            one.losses(
                one.beside_constants({role: own[k] for role, own in outputs.items()}, batches[k]),
                one.targets[batches[k]],
                step=step,
            )
            for k, one in enumerate(present)
            if one in learning
        ]
        self.scaler.scale(torch.stack([own["loss"] for own in parts]).sum()).backward()
        for learner in learning:
            self._sum_gradients(learner)
            if learner.recipe.protocol == "paper" and learner.pair.teacher is not None:
                double_gradients(learner.pair.teacher)
        for group in self.optimiser.param_groups:
            rates = self._rates[group["learner"]]
            group["lr"] = rates[min(step, len(rates) - 1)]  # unused once its learner ended
        self.scaler.step(self.optimiser)
        self.scaler.update()
        for learner in learning:
            if learner.watched:
                learner.check_alive(self.steps_taken(learner))
        self.optimiser.zero_grad(set_to_none=True)
        return parts

    def _sum_gradients(self, learner: Learner) -> None:
        """Add up the gradients over the processes; those of the term are whole in each."""
        networks = [network.trainable().values() for _, network in learner.pair.roles()]
        parts = [parameter for own in networks for parameter in own]
        self.processes.sum_gradients(parts, list(learner.of_term.values()))

    def _forwards_of(self, present: Sequence[Learner]) -> dict[Role, Forward]:
        """The forward pass of all students and that of all teachers, compiled if switched on."""
        key = tuple(map(id, present))
        if key not in self._forwards:
            roles = [role for role, _ in present[0].pair.roles()]
            reads = frozenset[Output]().union(*(one.reads for one in present))
            forwards = {
                role: forward_of([one.pair.network(role) for one in present], reads)
                for role in roles
            }
            if self.switches.compile:
                forwards = {
                    role: compile_or_not(
                        forward, self._trial(role, present), device=self.device, note=self._note
                    )
                    for role, forward in forwards.items()
                }
            self._forwards[key] = forwards
        return self._forwards[key]

    def _trial(self, role: Role, present: Sequence[Learner]) -> Callable[[Forward], None]:
        """A function that runs one forward and backward pass, to test a compiled one.

        It changes no parameter and leaves no gradient.
        """

        def trial(forward: Forward) -> None:
            rows = torch.arange(present[0].batch_size, device=self.device)
            with autocast(self.device, self.precision):
                starts = [one.start(role, 0, rows) for one in present]
                outputs = forward(starts, [one.masks(role, 0) for one in present])
            torch.stack([own.logits.float().sum() for own in outputs]).sum().backward()
            self.optimiser.zero_grad(set_to_none=True)

        return trial

    def _as_rates(self, learner: Learner) -> Sequence[float] | Tensor:
        """A learner's rates for every step; on the device for fused kernels, which need it."""
        return torch.tensor(learner.rates, device=self.device) if self.fused else learner.rates


def double_gradients(teacher: Network) -> None:
    """Double the teacher's gradients, as the released code does in effect.

    It runs two backward passes per step, and both add to the teacher's gradients.
    """
    for parameter in teacher.trainable().values():
        if parameter.grad is not None:
            parameter.grad.mul_(2)


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], recipe: Recipe
) -> list[dict[str, Any]]:
    """The parameter groups for AdamW: 1-D tensors and biases have no weight decay."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in parameters.items():
        (plain if parameter.ndim <= 1 or name.endswith("bias") else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
