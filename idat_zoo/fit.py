"""Trainings: which go through one pass together, where they are saved, what becomes of each.

Shape letters: N images, C channels, H W image.
"""

import json
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from idat_zoo import files
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.base import Site
from idat_zoo.backbones.pair import Backbones, NetworkPair, Role, build_pair
from idat_zoo.data.reading import Listener
from idat_zoo.data.task_data import Split
from idat_zoo.engine.memory import prefixes_fit, runs_in_one_pass
from idat_zoo.engine.schedule import total_epochs
from idat_zoo.engine.state import load_state, state_of
from idat_zoo.engine.train import EpochLog, Learner, Trainer, divergence
from idat_zoo.errors import DeviceError, DivergedError, RunFolderError, ZooError
from idat_zoo.evaluation import score_network
from idat_zoo.recipe import Recipe
from idat_zoo.run_files import LOG_FILE
from idat_zoo.run_folder import STATE_FILE, run_label
from idat_zoo.switches import Switches


class Progress(Listener):
    """Hears how trainings go; this one says nothing. The command line draws a bar."""

    def run(self, number: int, *, of: int) -> None:
        """Of several runs, one after the other, this one begins."""

    def doing(self, name: str, what: str) -> None:
        """What is done before the first step of a pass, or after its last."""

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """A pass begins, `done` of its epochs done before; steps per epoch, images per step."""

    def step(self) -> None:
        """One optimisation step is done."""

    def epoch(self, logs: Sequence[EpochLog]) -> None:
        """One epoch is done, by these runs."""

    def failed(self, label: str, error: ZooError) -> None:
        """One of several runs has ended with an error."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where trainings compute and how: the device, the switches, the backbones they share.

    `stack` is how many runs may go through one pass. None: on CUDA as many as its memory holds,
    elsewhere one, as a larger batch is no faster there.
    """

    device: torch.device
    backbones: Backbones
    switches: Switches = field(default_factory=Switches)
    stack: int | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether each run has a pass of its own."""
        return self.stack == 1 or (self.stack is None and self.device.type != "cuda")


def machine_for(
    device: torch.device, switches: Switches | None = None, *, stack: int | None = None
) -> Machine:
    """A machine that has no backbone loaded yet."""
    return Machine(
        device=device,
        backbones=Backbones(device),
        switches=switches or Switches(),
        stack=stack,
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a recipe, the images it learns from, and where it keeps what it needs.

    `images` are the same ones at each network's size. `data` is their fingerprint. `test` is read
    after every epoch, for `protocol = "paper"` alone. `still_ours` raises a RunFolderError where
    another process has taken the folder over.
    """

    recipe: Recipe
    seed: int
    folder: Path
    images: Mapping[Role, UInt8[Tensor, "N C H W"]]
    targets: Int64[Tensor, "N"]
    data: str
    test: Split | None = None
    still_ours: Callable[[], None] = lambda: None

    @property
    def label(self) -> str:
        """How people know it from others."""
        return run_label(self.recipe, self.seed)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained pair, its log, and how it was computed.

    `seconds` are this process' own, a run's share of its passes; `stack` names the runs that went
    through them together, if there were several.
    """

    recipe: Recipe
    pair: NetworkPair
    logs: list[EpochLog]
    seconds: float
    images: int
    switches: Switches
    stack: tuple[str, ...]

    @property
    def divergence(self) -> DivergedError | None:
        """What is wrong where the student ended far worse than guessing."""
        return divergence(self.logs[-1], self.recipe)

    @property
    def images_per_second(self) -> float | None:
        """None where a resumed training had nothing left to do."""
        return self.images / self.seconds if self.images else None


Outcome = Fitted | ZooError


def fit(
    jobs: Sequence[Job], machine: Machine, progress: Progress, *, name: str = ""
) -> Iterator[tuple[Job, Outcome]]:
    """Train all, in as few passes as may be; each with what became of it, pass by pass.

    After every epoch it is saved, and goes on from what a stopped process left. A fault in one ends
    that one alone.
    """
    try:
        passes = list(plan_passes(jobs, machine, progress))
    except ZooError as error:
        yield from ((job, error) for job in jobs)
        return
    for number, together in enumerate(passes, start=1):
        counted = f" {number} of {len(passes)}" if len(passes) > 1 else ""
        what = together[0].recipe.task.id if len(together) == 1 else f"{len(together)} runs"
        told = f"{name or 'pass'}{counted}: {what}" if name or counted else what
        try:
            with plain_memory_errors(together[0].recipe, runs=len(together)):
                outcomes: Sequence[Outcome] = _fit_together(together, machine, progress, told)
        except ZooError as error:
            outcomes = [error] * len(together)
        yield from zip(together, outcomes, strict=True)


def plan_passes(jobs: Sequence[Job], machine: Machine, progress: Progress) -> Iterator[list[Job]]:
    """Jobs that can be stacked side by side, no more of them than fit into memory."""
    if machine.one_by_one:
        yield from ([job] for job in jobs)
        return
    alike: dict[Hashable, list[Job]] = {}
    for place, job in enumerate(jobs):
        alike.setdefault(_stack_key(job) or place, []).append(job)
    single = [job.label for job in jobs if _stack_key(job) is None]
    if single and len(jobs) > 1:
        progress.note(f"cannot be stacked, so one after the other: {', '.join(single)}")
    for together in alike.values():
        most = min(machine.stack or len(together), len(together))
        if most > 1:
            with plain_memory_errors(together[0].recipe):
                most = min(most, runs_in_one_pass(_learner_of(together[0], machine)))
        count = math.ceil(len(together) / most)
        if count > 1:
            progress.note(f"{len(together)} runs take {count} passes, {most} at most in each")
        size = math.ceil(len(together) / count)
        yield from (together[i : i + size] for i in range(0, len(together), size))


def _stack_key(job: Job) -> Hashable | None:
    """What runs must have in common to be stacked; None for one that cannot be."""
    recipe = job.recipe
    choices = [choice for choice in (recipe.adapter, recipe.teacher_adapter) if choice is not None]
    adapters = [build_adapter(choice) for choice in choices]
    if recipe.precision == "fp16" or not all(adapter.stackable for adapter in adapters):
        return None
    probes = any(adapter.sites == {Site.FEATURES} for adapter in adapters)
    return (
        recipe.pair.model_dump_json(),
        recipe.precision,
        *(adapter.stack_key for adapter in adapters),
        len(job.targets),
        recipe.batch_size,
        bool(recipe.augmentation),
        probes and recipe.drop_path > 0,  # decides how much of the backbone never changes
    )


def _learner_of(job: Job, machine: Machine) -> Learner:
    pair = build_pair(job.recipe, seed=job.seed, backbones=machine.backbones)
    images = {role: job.images[role] for role, _ in pair.roles()}
    return Learner(pair, images, job.targets, job.recipe, seed=job.seed)


def _fit_together(
    jobs: Sequence[Job], machine: Machine, progress: Progress, name: str
) -> list[Outcome]:
    """One pass, from its first epoch to its last."""
    teacher = " and its teacher" if jobs[0].recipe.pair.teacher is not None else ""
    progress.doing(name, f"building the student{teacher}")
    learners = [_learner_of(job, machine) for job in jobs]
    batch, asked = learners[0].batch_size, jobs[0].recipe.batch_size
    if batch < asked:
        progress.note(
            f"batches hold {batch} images instead of {asked}: there are no more to train on"
        )
    progress.doing(name, "computing what comes before the first adapter")
    switches = _cache_prefixes(learners, machine.switches, progress)
    trainer = Trainer(learners, switches=switches, note=progress.note)
    switches = switches.model_copy(update={"fused": trainer.fused})
    stack = tuple(job.label for job in jobs) if len(jobs) > 1 else ()
    saves = [
        _Save(job, trainer, learner, switches, stack)
        for job, learner in zip(jobs, learners, strict=True)
    ]
    for save in saves:
        try:
            save.restore()
        except RunFolderError as error:
            save.learner.fault = error
    done = min((one.done for one in learners if one.fault is None), default=0)
    steps = trainer.steps_per_epoch
    progress.stage(
        name, done=done, epochs=trainer.epochs, steps=steps, images=batch * len(learners)
    )
    started, learnt = time.perf_counter(), [0] * len(jobs)
    for epoch in range(done, trainer.epochs):
        if all(learner.fault is not None for learner in learners):
            break
        faulty = [learner.fault for learner in learners]
        ended = trainer.train_epoch(epoch, progress.step)
        for k, log in enumerate(ended):
            if log is None:
                continue
            try:
                log = _tested(log, jobs[k], learners[k])
            except DivergedError as error:
                learners[k].fault = error
                continue
            saves[k].add(log)
            learnt[k] += steps * batch
        progress.epoch([log for log in ended if log is not None])
        for job, learner, before in zip(jobs, learners, faulty, strict=True):
            if learner.fault is not None and before is None and stack:
                progress.note(f"{job.label}: {learner.fault.message} The others go on.")
    seconds = (time.perf_counter() - started) / len(jobs)
    return [
        learner.fault
        or Fitted(
            recipe=learner.recipe,
            pair=learner.pair,
            logs=save.logs,
            seconds=seconds,
            images=images,
            switches=switches,
            stack=save.stack,
        )
        for learner, save, images in zip(learners, saves, learnt, strict=True)
    ]


def _cache_prefixes(
    learners: Sequence[Learner], switches: Switches, progress: Progress
) -> Switches:
    """Cache them where that is asked for and possible; the switches as they are then."""
    possible = all(learner.has_prefix for learner in learners)
    fit = possible and prefixes_fit(learners)
    if switches.prefix_cache and possible and not fit:
        progress.note("what comes before the first adapter takes too much memory to be kept")
    if not (switches.prefix_cache and fit):
        return switches.model_copy(update={"prefix_cache": False})
    for learner in learners:
        learner.cache_prefixes()
    return switches


def _tested(log: EpochLog, job: Job, learner: Learner) -> EpochLog:
    """The epoch with its top-1 on test, where the protocol reads that."""
    if job.test is None:
        return log
    return replace(log, test_top1=score_network(learner.pair.student, job.test, job.recipe).top1)


@dataclass
class _Save:
    """What a learner has behind it, in its folder and here."""

    job: Job
    trainer: Trainer
    learner: Learner
    switches: Switches
    stack: tuple[str, ...]
    logs: list[EpochLog] = field(default_factory=list)

    @property
    def origin(self) -> dict[str, object]:
        """What may not change between a training's begin and its end, as people call it."""
        weights = [network.backbone.sha256 for _, network in self.learner.pair.roles()]
        return {
            "data": self.job.data,
            "backbone weights": weights,
            "switches": self.switches.model_dump(exclude={"keep_memory"}),
            "runs in one pass": list(self.stack),
        }

    def add(self, log: EpochLog) -> None:
        """One epoch more: the log is written first, then the state."""
        self.job.still_ours()
        self.logs.append(log)
        lines = "".join(json.dumps(log.as_json()) + "\n" for log in self.logs)
        files.write_whole(self.job.folder / LOG_FILE, lines.encode())
        origin = torch.tensor(list(json.dumps(self.origin).encode()), dtype=torch.uint8)
        state = {"epochs": torch.tensor(len(self.logs)), "begun_with": origin}
        state |= state_of(self.trainer, self.learner)
        files.write_whole(self.job.folder / STATE_FILE, files.dump_tensors(state))

    def restore(self) -> None:
        """Go on behind the last epoch that was saved, if one was.

        Raises: RunFolderError where the state is damaged, or was begun with something else.
        """
        path = self.job.folder / STATE_FILE
        if not path.exists():
            return
        try:
            state = files.parse_tensors(path.read_bytes())
            begun = json.loads(bytes(state["begun_with"].tolist()))
        except (ValueError, KeyError) as error:
            raise RunFolderError(
                f"'{path}' is damaged: {error}", hint="Remove the folder."
            ) from None
        self.learner.done = int(state["epochs"])
        if self.learner.done == self.learner.epochs:  # no one has to pass again with it
            self.stack = tuple(begun.get("runs in one pass", ()))
        other = [name for name, value in self.origin.items() if begun.get(name) != value]
        if other:
            raise RunFolderError(
                f"'{self.job.folder}' was begun with other {' and '.join(other)}.",
                hint="Repeat the command it was begun with, choose another --out, or remove the "
                "folder to begin anew.",
            )
        load_state(self.trainer, self.learner, state)
        lines = (self.job.folder / LOG_FILE).read_text().splitlines()[: self.learner.done]
        self.logs = [EpochLog(**json.loads(line)) for line in lines]


@contextmanager
def plain_memory_errors(recipe: Recipe, *, runs: int = 1) -> Iterator[None]:
    """Memory that runs out becomes one sentence; whatever was saved stays. Raises: DeviceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        own = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not own and "can't allocate memory" not in str(error):
            raise
        smaller = f"batch_size={recipe.batch_size // 2}"
        if recipe.batch_size == 1:
            smaller = "a smaller --pair, or --device cpu"
        if runs > 1:
            smaller = f"--stack {runs // 2}, or {smaller}"
        told = f" and {runs} runs in one pass" if runs > 1 else ""
        raise DeviceError(
            f"out of memory with batch_size = {recipe.batch_size}{told}.",
            hint=f"Try {smaller}. What was saved is kept.",
        ) from error


def diverged_before(folder: Path, recipe: Recipe) -> DivergedError | None:
    """What a training that is through, and has no result, ended with; None for any other."""
    try:
        lines = (folder / LOG_FILE).read_text().splitlines()
        last = EpochLog(**json.loads(lines[-1]))
    except (OSError, ValueError, TypeError, IndexError):
        return None
    whole = last.epoch == total_epochs(recipe) and (folder / STATE_FILE).is_file()
    return divergence(last, recipe) if whole else None
