"""The training loop: one forward each, one backward of CE_s + CE_t + w D, one step of AdamW.

A trainer trains one run, or several in one pass over the frozen backbones they share: Symbiosis'
idea (arXiv:2507.03220) for vision and in one process. Tasks are independent, so the gradient of the
sum of their losses is each one's own.

Shape letters: B batch, N images, C channels, H W image, K classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import NetworkPair, Role
from idat_zoo.backbones.prefix import constant_until, walk_prefix
from idat_zoo.backbones.stack import Forward, forward_of
from idat_zoo.backbones.walk import START, Partway, Place
from idat_zoo.distillation import build_term
from idat_zoo.distillation.base import Output, Outputs
from idat_zoo.engine.augment import augment
from idat_zoo.engine.compiled import compile_or_not
from idat_zoo.engine.precision import autocast, cast_frozen
from idat_zoo.engine.schedule import learning_rates, total_epochs
from idat_zoo.errors import DataError, DivergedError, TrainingError, ZooError
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Recipe
from idat_zoo.switches import Switches


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


class Trainer:
    """Learners in training, all in one pass: they share backbones, steps and number format.

    In epoch e those take part whose recipe has more than e epochs; of these, one with a fault, or
    one that was saved further on, keeps its rows in the pass but does not learn. So the shapes of
    an epoch are always the same, and with them every bit.
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
        assert all(one.steps_per_epoch == self.steps_per_epoch for one in learners)
        assert len(learners) == 1 or self.precision != "fp16", "an fp16 scaler serves one run"
        fused = self.switches.fused
        self.fused = self.device.type == "cuda" if fused is None else fused
        self.optimiser = torch.optim.AdamW(
            [
                group | {"learner": place, "lr": self._as_rates(learner)[0]}
                for place, learner in enumerate(learners)
                for _, network in learner.pair.roles()
                for group in parameter_groups(network, learner.recipe)
            ],
            fused=self.fused or None,
        )
        self._rates = [self._as_rates(learner) for learner in learners]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._forwards: dict[tuple[int, ...], dict[Role, Forward]] = {}

    @property
    def epochs(self) -> int:
        """Until the last learner has done all of its own."""
        return max(learner.epochs for learner in self.learners)

    def train_epoch(
        self, epoch: int, on_step: Callable[[], None] = lambda: None
    ) -> list[EpochLog | None]:
        """Train one epoch (counted from 0); `on_step` hears of each step.

        Each learner's means; None for one that took no part, or has a fault now.
        """
        present = [learner for learner in self.learners if epoch < learner.epochs]
        learning = [one for one in present if one.done == epoch and one.fault is None]
        if not learning:  # as where one was saved at its end and the others further on
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
        ended = {
            id(one): self._count_skipped(one, one.end_epoch(own), before)
            for one, own, before in zip(learning, sums, taken, strict=True)
        }
        return [ended.get(id(learner)) for learner in self.learners]

    def steps_taken(self, learner: Learner) -> int:
        """The optimiser's steps so far: a scaler skips those whose gradients are not finite."""
        states = (self.optimiser.state.get(one, {}) for one in learner.trainable().values())
        return int(max((state["step"] for state in states if state), default=0))

    def _count_skipped(
        self, learner: Learner, log: EpochLog | None, before: int
    ) -> EpochLog | None:
        """The epoch's log with its skipped steps; None, and a fault, where none can be taken."""
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
        """One optimisation step on the images of these places; the loss and its parts of each."""
        with autocast(self.device, self.precision):
            outputs = {
                role: forward(
                    [one.start(role, step, own) for one, own in zip(present, batches, strict=True)],
                    [one.masks(role, step) if one in learning else {} for one in present],
                )
                for role, forward in forwards.items()
            }
        parts = [
            one.losses({role: own[k] for role, own in outputs.items()}, one.targets[batches[k]])
            for k, one in enumerate(present)
            if one in learning
        ]
        self.scaler.scale(torch.stack([own["loss"] for own in parts]).sum()).backward()
        for learner in learning:
            if learner.recipe.protocol == "paper" and learner.pair.teacher is not None:
                double_gradients(learner.pair.teacher)
        for group in self.optimiser.param_groups:
            rates = self._rates[group["learner"]]
            group["lr"] = rates[min(step, len(rates) - 1)]  # one that is through rests
        self.scaler.step(self.optimiser)
        self.scaler.update()
        for learner in learning:
            if learner.watched:
                learner.check_alive(self.steps_taken(learner))
        self.optimiser.zero_grad(set_to_none=True)
        return parts

    def _forwards_of(self, present: Sequence[Learner]) -> dict[Role, Forward]:
        """The pass of all teachers and of all students, compiled if asked for."""
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
        """What compiling is tried on: a forward and a backward pass that change nothing."""

        def trial(forward: Forward) -> None:
            rows = torch.arange(present[0].batch_size, device=self.device)
            with autocast(self.device, self.precision):
                starts = [one.start(role, 0, rows) for one in present]
                outputs = forward(starts, [one.masks(role, 0) for one in present])
            torch.stack([own.logits.float().sum() for own in outputs]).sum().backward()
            self.optimiser.zero_grad(set_to_none=True)

        return trial

    def _as_rates(self, learner: Learner) -> Sequence[float] | Tensor:
        """A run's learning rates; fused kernels read them on the device."""
        return torch.tensor(learner.rates, device=self.device) if self.fused else learner.rates


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


def double_gradients(teacher: Network) -> None:
    """The released loop runs two backward passes and clears the teacher's gradient in neither."""
    for parameter in teacher.trainable().values():
        if parameter.grad is not None:
            parameter.grad.mul_(2)


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW's groups: 1-D tensors and biases do not decay."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.trainable().items():
        (plain if parameter.ndim <= 1 or name.endswith("bias") else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _widened(outputs: Outputs) -> Outputs:
    """The outputs in float32, or as they are where they are wider."""
    return Outputs(
        *(z.float() if z is not None and z.dtype.itemsize < 4 else z for z in outputs)  # type: ignore[arg-type]
    )


def _detached(outputs: Outputs) -> Outputs:
    return Outputs(*(None if z is None else z.detach() for z in outputs))  # type: ignore[arg-type]


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
