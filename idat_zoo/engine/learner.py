"""A learner: one run during its training, with its networks, images, losses and epoch means.

Shape letters: B batch, N images, C channels, H W image, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from idat_zoo.backbones.network import rows_of_masks
from idat_zoo.backbones.pair import NetworkPair, Role, sizes_of
from idat_zoo.backbones.prefix import constant_until, walk_prefix
from idat_zoo.backbones.walk import START, Partway, Place
from idat_zoo.distillation import term_for
from idat_zoo.distillation.base import Output, Outputs, Sizes, Term
from idat_zoo.engine.augment import augment
from idat_zoo.engine.divergence import lower_rate
from idat_zoo.engine.precision import autocast, cast_frozen
from idat_zoo.engine.processes import ALONE, Processes
from idat_zoo.engine.schedule import learning_rates, total_epochs
from idat_zoo.engine.task_losses import TaskLosses
from idat_zoo.errors import DataError, DivergedError, TrainingError, ZooError
from idat_zoo.joined_images import JoinedImages
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class EpochLog:
    """The mean losses of one epoch over its steps; None for a loss that the run does not have.

    `lr` is the learning rate of the last step. `skipped` is the number of optimiser steps that the
    fp16 gradient scaler skipped, or None if it skipped none. Accuracies are fractions; those in
    training are of the images as each step saw them, and are known with `distillation_until`.
    `val_top1` and `test_top1` are the student's after the epoch, if the recipe watches them.
    `joint_task_loss` is that of the summed logits, with `task_loss = "joint"`; the student's and
    the teacher's own are not minimised then.
    """

    epoch: int
    lr: float
    loss: float
    student_task_loss: float
    teacher_task_loss: float | None = None
    joint_task_loss: float | None = None
    distillation_loss: float | None = None
    student_train_top1: float | None = None
    teacher_train_top1: float | None = None
    val_top1: float | None = None
    test_top1: float | None = None
    skipped: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that are not None, as values of JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Learner:
    """One run during its training: a pair of networks, its training images, its recipe and seed.

    `images` are the same images at each network's input size, uint8 `[N, C, H, W]`, and `targets`
    their classes `[N]`. `done` is the number of completed epochs. `fault` is the error that ended
    the training, or None. `starts` holds the input of each network: the images, or after
    `cache_prefixes` the activations at the end of the prefix, which is the part of the forward pass
    that gives the same values at every step. `teacher_logits` `[N, K]` are those of an offline
    teacher, which is not among the networks. Of `processes` that train the run together, each has a
    learner, for its `rows` of every batch.

    Raises: DataError if there are no images; UsageError for batches of less rows than processes.
    """

    def __init__(
        self,
        pair: NetworkPair,
        images: Mapping[Role, UInt8[Tensor, "N C H W"] | JoinedImages],
        targets: Int64[Tensor, "N"],
        recipe: Recipe,
        *,
        seed: int,
        teacher_logits: Float[Tensor, "N K"] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        if not len(targets):
            raise DataError("there are no images to train on.")
        assert recipe.precision != "auto", "precision is resolved before training"
        self.pair, self.recipe, self.seed, self.precision = pair, recipe, seed, recipe.precision
        self.device = pair.student.mean.device
        copies = {id(part): part.to(self.device) for part in images.values()}  # once if shared
        self.starts: dict[Role, Tensor | JoinedImages | Partway] = {
            role: copies[id(part)] for role, part in images.items()
        }
        self.targets = targets.to(self.device)
        assert (teacher_logits is not None) == (recipe.teacher_mode == "offline")
        self._constants = None if teacher_logits is None else teacher_logits.to(self.device)
        self.batch_size = min(recipe.batch_size, len(targets))
        processes.check_batch(self.batch_size)
        self.processes, self.rows = processes, processes.rows(self.batch_size)
        self.steps_per_epoch = len(targets) // self.batch_size  # drop_last
        self.epochs = total_epochs(recipe)
        self.rates = learning_rates(recipe, self.steps_per_epoch)
        self.task_losses = TaskLosses(recipe, self.targets)
        self.term = self._build_term() if recipe.distils else None
        self.surpassed = False  # the student is past the teacher, which `distillation_until` asks
        self.done = 0
        self.fault: ZooError | None = None
        self.watched = True  # while `check_alive` still records which tensors get a gradient
        self._alive: set[str] = set()
        self._lives_within = max(network.adapter.lives_within for _, network in pair.roles())
        self._taken = 0
        if self.precision != "float32":
            for _, network in pair.roles():
                cast_frozen(network, self.precision)

    def _build_term(self) -> Term:
        """The distillation term, with the tensors that it learns as parameters."""
        classes = self.recipe.task.num_classes
        term = term_for(self.recipe.distillation, classes)
        student = sizes_of(self.pair.student.anatomy, classes)
        beside = self.pair.teacher
        teacher = Sizes(classes, 0, (0, 0)) if beside is None else sizes_of(beside.anatomy, classes)
        source = generator(self.seed, "pair", "distillation")
        term.tensors = {
            name: nn.Parameter(tensor.to(self.device))
            for name, tensor in term.create(student, teacher, source).items()
        }
        return term

    @property
    def has_prefix(self) -> bool:
        """Whether each network has a prefix, so that `cache_prefixes` can be called.

        Augmentation changes the images at every step, and so leaves no prefix.
        """
        return not self.recipe.augmentation and all(
            self.prefix(role) != START for role, _ in self.pair.roles()
        )

    def prefix(self, role: Role) -> Place:
        """The place in a network's forward pass where its prefix ends.

        Up to there an image gives the same activations at every step, if its pixels do not change.
        """
        network = self.pair.network(role)
        return constant_until(
            network, self.recipe.drop_path, reads_tokens=Output.TOKENS in self.reads
        )

    def cache_prefixes(self) -> None:
        """Compute the prefix of every image once, so that each step starts from its end."""
        assert self.has_prefix
        with autocast(self.device, self.precision):
            for role, network in self.pair.roles():
                images = self.starts[role]
                assert not isinstance(images, Partway), "prefixes are cached once"
                self.starts[role] = walk_prefix(
                    network,
                    images,
                    until=self.prefix(role),
                    batch_size=self.batch_size,
                    reads_tokens=Output.TOKENS in self.reads,
                )

    def order(self, epoch: int) -> Int64[Tensor, "N"]:
        """The random order of the images in an epoch, counted from 0: a permutation of 0 to N-1."""
        source = generator(self.seed, "pair", "order", epoch)
        return torch.randperm(len(self.targets), generator=source).to(self.device)

    def start(self, role: Role, step: int, batch: Int64[Tensor, "B"]) -> Tensor | Partway:
        """The input of a network for this process's rows of the images with the indices `batch`.

        It is cached activations, or images at the network's input size. Teacher and student get the
        same random augmentation.
        """
        begun = self.starts[role][batch[self.rows]]
        if not self.recipe.augmentation:
            return begun
        assert isinstance(begun, Tensor)
        first = self.rows.start
        return augment(begun, self.recipe.augmentation, seed=self.seed, step=step, first=first)

    def masks(self, role: Role, step: int) -> dict[str, Tensor]:
        """The random masks of drop path and dropout for one network in one step.

        They are drawn for the whole batch, and are those of this process's rows.
        """
        draws = Draws(self.seed, role, step)
        network = self.pair.network(role)
        masks = network.draw_masks(self.batch_size, drop_path=self.recipe.drop_path, draws=draws)
        if self.processes.count == 1:
            return masks
        return rows_of_masks(masks, self.rows)

    def gather(self, own: Outputs) -> Outputs:
        """A network's outputs for the whole batch, of those for this process's rows."""
        return _of_each(own, lambda z: self.processes.gather(z, self.batch_size))

    @property
    def reads(self) -> frozenset[Output]:
        """The outputs that the distillation term reads; the logits are computed in any case."""
        return self.term.reads if self.term is not None else frozenset()

    def beside_constants(
        self, outputs: Mapping[Role, Outputs], batch: Int64[Tensor, "B"]
    ) -> Mapping[Role, Outputs]:
        """The networks' outputs for a batch, with the logits of an offline teacher, if any."""
        if self._constants is None:
            return outputs
        return {**outputs, "teacher": Outputs(self._constants[batch])}

    def losses(
        self, outputs: Mapping[Role, Outputs], targets: Tensor, *, step: int = 0
    ) -> dict[str, Tensor]:
        """The scalar losses of a batch, computed in float32 or wider.

        `student_task_loss` and `teacher_task_loss` are cross-entropies, `distillation_loss` is the
        term without its weight, and `loss` is the weighted sum to be minimised. With `task_loss =
        "joint"` it has `joint_task_loss`, of the summed logits, in place of these two.
        """
        wide = {role: _widened(own) for role, own in outputs.items()}
        learning = {role: wide[role].logits for role, _ in self.pair.roles()}  # not if offline
        loss, parts = self.task_losses(learning, targets)
        if self.term is not None:
            term = loss.new_zeros(()) if self.surpassed else self._distilled(wide, targets)
            parts["distillation_loss"] = term
            loss = loss + self._weight(step) * term
        if self.recipe.distillation_until == "teacher":
            right = {role: own.logits.argmax(dim=-1) == targets for role, own in wide.items()}
            parts |= {f"{role}_train_top1": own.float().mean() for role, own in right.items()}
        return {"loss": loss} | parts

    def _distilled(self, wide: Mapping[Role, Outputs], targets: Tensor) -> Tensor:
        """The distillation term of a batch; where it is gated, times the share of its images."""
        assert self.term is not None
        sides = dict(wide)
        if self.recipe.detach != "none":
            sides[self.recipe.detach] = _of_each(sides[self.recipe.detach], Tensor.detach)
        share = 1.0
        if self.recipe.distillation_gate == "teacher_right":
            (rows,) = (sides["teacher"].logits.argmax(dim=-1) == targets).nonzero(as_tuple=True)
            if not len(rows):
                return torch.zeros((), device=targets.device)
            share, targets = len(rows) / len(targets), targets[rows]
            sides = {role: _of_each(own, lambda z: z[rows]) for role, own in sides.items()}
        term = self.term.loss(sides["student"], sides["teacher"], targets)
        if not isinstance(term, Tensor) or term.ndim:
            got = list(term.shape) if isinstance(term, Tensor) else repr(term)
            raise TrainingError(
                f"distillation '{self.term.name}': its loss is {got}; expected a scalar tensor."
            )
        return term if share == 1.0 else share * term

    def _weight(self, step: int) -> float:
        """The weight of the term in a step, which rises linearly during its warm-up."""
        rising = self.recipe.distillation_warmup_epochs * self.steps_per_epoch
        return self.recipe.distillation_weight * min(1.0, (step + 1) / rising if rising else 1.0)

    def trainable(self) -> dict[str, nn.Parameter]:
        """All trained parameters: `student/NAME`, `teacher/NAME` and, of the term, `term/NAME`."""
        return {
            f"{role}/{name}": parameter
            for role, network in self.pair.roles()
            for name, parameter in network.trainable().items()
        } | {f"term/{name}": parameter for name, parameter in self.of_term.items()}

    @property
    def of_term(self) -> dict[str, nn.Parameter]:
        """The parameters that the distillation term learns."""
        tensors = {} if self.term is None else self.term.tensors
        return {name: one for name, one in tensors.items() if isinstance(one, nn.Parameter)}

    def set_learning(self, learns: bool) -> None:
        """Turn gradients on or off; AdamW does not change a parameter that has no gradient."""
        for parameter in self.trainable().values():
            parameter.requires_grad_(learns)

    def check_alive(self, taken: int) -> None:
        """Set a fault if a trained tensor got no gradient, or only zeros, in the first steps.

        Such a tensor means that the adapter has no effect. The adapter's `lives_within` is the
        number of steps: two, or more for families that may drop whole modules at random. `taken` is
        the number of optimiser steps so far; a step that the fp16 scaler skipped is not counted.
        """
        if taken == self._taken:
            return
        self._taken, self.watched = taken, taken < self._lives_within
        named = {n: p for n, p in self.trainable().items() if not n.startswith("term/")}
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
        """The mean losses of the epoch, or None with a fault, as for losses that are not finite.

        `sums` are the sums of each loss over the steps. Reading them makes the host wait for the
        device, which is why it is done once per epoch and not at each step.
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
        log = EpochLog(
            epoch=self.done, lr=self.rates[self.done * self.steps_per_epoch - 1], **means
        )
        self.watch(log)
        return log

    def watch(self, log: EpochLog) -> None:
        """Take note of an epoch's log, after it has ended or when its training is resumed."""
        own, other = log.student_train_top1, log.teacher_train_top1
        if own is not None and other is not None:
            self.surpassed = self.surpassed or own > other


def _widened(outputs: Outputs) -> Outputs:
    """The outputs in float32; wider types stay as they are."""
    return Outputs(
        *(z.float() if z is not None and z.dtype.itemsize < 4 else z for z in outputs)  # type: ignore[arg-type]
    )


def _of_each(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    return Outputs(*(None if z is None else change(z) for z in outputs))  # type: ignore[arg-type]


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
