"""One run in training: its networks, its images, its losses, and what its epochs gave.

Shape letters: B batch, N images, C channels, H W image, K classes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from idat_zoo.backbones.pair import NetworkPair, Role
from idat_zoo.backbones.prefix import constant_until, walk_prefix
from idat_zoo.backbones.walk import START, Partway, Place
from idat_zoo.distillation import build_term
from idat_zoo.distillation.base import Output, Outputs
from idat_zoo.engine.augment import augment
from idat_zoo.engine.precision import autocast, cast_frozen
from idat_zoo.engine.schedule import learning_rates, total_epochs
from idat_zoo.errors import DataError, DivergedError, TrainingError, ZooError
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class EpochLog:
    """One epoch's means over its steps. Absent parts (no teacher, no distillation) are None.

    `skipped` counts the steps that an fp16 scaler did not let the optimiser take, if there are any.
    """

    epoch: int
    lr: float
    loss: float
    student_task_loss: float
    teacher_task_loss: float | None = None
    distillation_loss: float | None = None
    test_top1: float | None = None
    skipped: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The parts that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Learner:
    """A run in training: a pair on its device, the images it learns from, its recipe and seed.

    `done` epochs are behind it. A `fault` ends it. `starts` are what its networks begin a step
    with: images, or the walks that `cache_prefixes` put in their place.

    Raises: DataError where there are no images.
    """

    def __init__(
        self,
        pair: NetworkPair,
        images: Mapping[Role, UInt8[Tensor, "N C H W"]],
        targets: Int64[Tensor, "N"],
        recipe: Recipe,
        *,
        seed: int,
    ) -> None:
        if not len(targets):
            raise DataError("there are no images to train on.")
        assert recipe.precision != "auto", "precision is resolved before training"
        self.pair, self.recipe, self.seed, self.precision = pair, recipe, seed, recipe.precision
        self.device = pair.student.mean.device
        copies = {id(part): part.to(self.device) for part in images.values()}  # one if shared
        self.starts: dict[Role, Tensor | Partway] = {
            role: copies[id(part)] for role, part in images.items()
        }
        self.targets = targets.to(self.device)
        self.batch_size = min(recipe.batch_size, len(targets))
        self.steps_per_epoch = len(targets) // self.batch_size  # drop_last
        self.epochs = total_epochs(recipe)
        self.rates = learning_rates(recipe, self.steps_per_epoch)
        self.term = build_term(recipe.distillation) if recipe.distils else None
        self.done = 0
        self.fault: ZooError | None = None
        self.watched = True  # until two steps showed which tensors get a gradient
        self._alive: set[str] = set()
        self._lives_within = max(network.adapter.lives_within for _, network in pair.roles())
        self._taken = 0
        if self.precision != "float32":
            for _, network in pair.roles():
                cast_frozen(network, self.precision)

    @property
    def has_prefix(self) -> bool:
        """Whether some of an image's walk is the same at every step."""
        return not self.recipe.augmentation and all(
            self.prefix(role) != START for role, _ in self.pair.roles()
        )

    def prefix(self, role: Role) -> Place:
        """How far an image's walk is the same at every step, if its pixels are."""
        network = self.pair.network(role)
        return constant_until(
            network, self.recipe.drop_path, reads_tokens=Output.TOKENS in self.reads
        )

    def cache_prefixes(self) -> None:
        """Walk every image to the end of its prefix, once, and begin each step there."""
        assert self.has_prefix
        with autocast(self.device, self.precision):
            for role, network in self.pair.roles():
                images = self.starts[role]
                assert isinstance(images, Tensor), "prefixes are cached once"
                self.starts[role] = walk_prefix(
                    network, images, until=self.prefix(role), batch_size=self.batch_size
                )

    def order(self, epoch: int) -> Int64[Tensor, "N"]:
        """The places of its images, as an epoch goes through them."""
        source = generator(self.seed, "pair", "order", epoch)
        return torch.randperm(len(self.targets), generator=source).to(self.device)

    def start(self, role: Role, step: int, batch: Int64[Tensor, "B"]) -> Tensor | Partway:
        """A batch at the network's size; teacher and student see the same augmentation."""
        begun = self.starts[role][batch]
        if not self.recipe.augmentation:
            return begun
        assert isinstance(begun, Tensor)
        return augment(begun, self.recipe.augmentation, seed=self.seed, step=step)

    def masks(self, role: Role, step: int) -> dict[str, Tensor]:
        """What drop path and dropout drop in a step."""
        draws = Draws(self.seed, role, step)
        network = self.pair.network(role)
        return network.draw_masks(self.batch_size, drop_path=self.recipe.drop_path, draws=draws)

    @property
    def reads(self) -> frozenset[Output]:
        """The outputs that the losses read."""
        return self.term.reads if self.term is not None else frozenset()

    def losses(self, outputs: Mapping[Role, Outputs], targets: Tensor) -> dict[str, Tensor]:
        """CE_s, CE_t, the distillation term and their sum, in float32 or wider."""
        wide = {role: _widened(own) for role, own in outputs.items()}
        parts = {
            f"{role}_task_loss": F.cross_entropy(own.logits, targets) for role, own in wide.items()
        }
        loss = sum(parts.values(), start=torch.zeros((), device=targets.device))
        if self.term is not None:
            if self.recipe.detach != "none":
                wide[self.recipe.detach] = _detached(wide[self.recipe.detach])
            term = self.term.loss(wide["student"], wide["teacher"])
            parts["distillation_loss"] = term
            loss = loss + self.recipe.distillation_weight * term
        return {"loss": loss} | parts

    def trainable(self) -> dict[str, nn.Parameter]:
        """Both networks' parameters that learn, as `student/NAME` and `teacher/NAME`."""
        return {
            f"{role}/{name}": parameter
            for role, network in self.pair.roles()
            for name, parameter in network.trainable().items()
        }

    def set_learning(self, learns: bool) -> None:
        """Whether gradients reach it; without any, AdamW leaves its tensors alone."""
        for parameter in self.trainable().values():
            parameter.requires_grad_(learns)

    def check_alive(self, taken: int) -> None:
        """A tensor without any gradient in the first two steps is a dead adapter: a fault.

        Adapters whose modules may be dropped whole have more of them (`lives_within`). `taken` are
        the optimiser's steps so far; one that a scaler skipped tells nothing.
        """
        if taken == self._taken:
            return
        self._taken, self.watched = taken, taken < self._lives_within
        named = self.trainable()
        self._alive |= {n for n, p in named.items() if p.grad is not None and p.grad.any()}
        dead = sorted(named.keys() - self._alive)
        if taken == self._lives_within and dead:
            steps = {2: "two"}.get(taken, taken)
            self.fault = TrainingError(
                f"{len(dead)} of {len(named)} trainable tensors got no gradient in {steps} steps: "
                + ", ".join(dead[:4])
                + ("." if len(dead) <= 4 else ", …")
            )

    def end_epoch(self, sums: Mapping[str, Tensor]) -> EpochLog | None:
        """The epoch's means; None, and a fault, where they are not finite.

        The one place where the host waits for the device.
        """
        totals = torch.stack(list(sums.values())) / self.steps_per_epoch
        means = dict(zip(sums, totals.tolist(), strict=True))
        self.done += 1
        if not all(map(_is_finite, means.values())):
            shown = ", ".join(f"{name} = {value}" for name, value in means.items())
            wider = ", or a wider number format: precision=float32"
            self.fault = self.fault or DivergedError(
                f"the loss is not finite in epoch {self.done}: {shown}.",
                hint=f"A lower learning rate often helps: {lower_rate(self.recipe)}"
                + (wider if self.precision == "fp16" else ""),
            )
        if self.fault is not None:
            return None
        return EpochLog(
            epoch=self.done, lr=self.rates[self.done * self.steps_per_epoch - 1], **means
        )


def divergence(log: EpochLog, recipe: Recipe) -> DivergedError | None:
    """What is wrong with a last epoch whose student is far worse than guessing, if it is.

    A student that knows nothing, and says so, has a task loss of ln K, where a training on labels
    that are noise ends. Twice that is out of reach for one that is merely bad.
    """
    classes = recipe.task.num_classes
    bound = 2 * math.log(classes)
    if log.student_task_loss <= bound:
        return None
    return DivergedError(
        f"the training diverged: the student's task loss in its last epoch, {log.epoch}, is "
        f"{log.student_task_loss:.6g}, above 2 ln K = {bound:.3g} (K = {classes} classes; guessing "
        "has half of that). No result is written.",
        hint=f"A lower learning rate often helps: {lower_rate(recipe)}. --keep-diverged writes the "
        "result of this training, labelled; nothing is trained again.",
    )


def lower_rate(recipe: Recipe) -> str:
    """A learning rate to try where this one is too high: a tenth, and no more than the default."""
    usual = float(Recipe.model_fields["lr"].default)
    return f"lr={min(recipe.lr / 10, usual):g}"


def _widened(outputs: Outputs) -> Outputs:
    """The outputs in float32, or as they are where they are wider."""
    return Outputs(
        *(z.float() if z is not None and z.dtype.itemsize < 4 else z for z in outputs)  # type: ignore[arg-type]
    )


def _detached(outputs: Outputs) -> Outputs:
    return Outputs(*(None if z is None else z.detach() for z in outputs))  # type: ignore[arg-type]


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
