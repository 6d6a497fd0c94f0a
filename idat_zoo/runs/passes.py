"""Passes: groups of trainings that share forward passes, each trained from first to last epoch."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from idat_zoo.backbones.pair import build_pair
from idat_zoo.data.task_data import Split
from idat_zoo.engine.learner import EpochLog, Learner
from idat_zoo.engine.memory import measure_peak, prefixes_fit, runs_in_one_pass
from idat_zoo.engine.precision import describe_device
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import DivergedError, RunFolderError, ZooError
from idat_zoo.logits import score_network
from idat_zoo.runs.alike import evenly, grouped, passes_in_words, single_in_words, stack_key
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.offline import offline_logits
from idat_zoo.runs.order import led
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.saved_state import SHARED, SavedState, Spent
from idat_zoo.runs.training import Trained, Training
from idat_zoo.switches import Switches


def train_all(
    trainings: Sequence[Training], setup: DeviceSetup, progress: Progress, *, name: str = ""
) -> Iterator[tuple[int, Trained | ZooError]]:
    """Train all trainings in as few passes as possible.

    Yields, pass by pass, the position of a training among `trainings` and its outcome. The state is
    saved after every epoch, and a later call resumes from it. An error ends only its own training.
    `name` is a word for the passes in progress messages.
    """
    try:
        passes = list(plan_passes(trainings, setup, progress))
    except ZooError as error:
        yield from ((position, error) for position in range(len(trainings)))
        return
    for number, positions in enumerate(passes, start=1):
        together = [trainings[position] for position in positions]
        counted = f" {number} of {len(passes)}" if len(passes) > 1 else ""
        what = together[0].recipe.task.id if len(together) == 1 else f"{len(together)} runs"
        title = f"{name or 'pass'}{counted}: {what}" if name or counted else what
        try:
            with plain_memory_errors(together[0].recipe, runs=len(together)):
                outcomes: Sequence[Trained | ZooError] = _train_together(
                    together, setup, progress, title
                )
        except ZooError as error:
            outcomes = [error] * len(together)
        yield from zip(positions, outcomes, strict=True)


def plan_passes(
    trainings: Sequence[Training], setup: DeviceSetup, progress: Progress
) -> Iterator[list[int]]:
    """The positions of the trainings in each pass: alike, and as many as fit into memory."""
    if setup.one_at_a_time:
        yield from ([position] for position in range(len(trainings)))
        return
    keys = [stack_key(one.recipe, len(one.targets)) for one in trainings]
    single = [one.label for one, key in zip(trainings, keys, strict=True) if key is None]
    if single and len(trainings) > 1:
        progress.note(single_in_words(single))
    for positions in grouped(keys):
        most = min(setup.stack or len(positions), len(positions))
        if most > 1:
            first = trainings[positions[0]]
            with plain_memory_errors(first.recipe):
                learner = learner_of(first, setup)
                most = min(most, runs_in_one_pass(learner, share=setup.share(0.8)))
        if most < len(positions):
            runs = {trainings[position].run_folder for position in positions}
            progress.note(passes_in_words(len(positions), most, runs=len(runs)))
        yield from evenly(positions, most)


def learner_of(training: Training, setup: DeviceSetup) -> Learner:
    """The learner of a training, with new networks. Raises: as `build_pair` and `Learner`."""
    pair = build_pair(training.recipe, seed=training.seed, backbones=setup.backbones)
    images = {role: training.images[role] for role, _ in pair.roles()}
    logits = None
    if training.teachers:
        logits = offline_logits(training.teachers, backbones=setup.backbones)
    return Learner(
        pair,
        images,
        training.targets,
        training.recipe,
        seed=training.seed,
        teacher_logits=logits,
        processes=setup.processes,
    )


def _train_together(
    trainings: Sequence[Training], setup: DeviceSetup, progress: Progress, name: str
) -> list[Trained | ZooError]:
    """Train one pass from its first epoch to its last; the outcomes, in the trainings' order."""
    teacher = " and its teacher" if trainings[0].recipe.pair.teacher is not None else ""
    progress.doing(name, f"building the student{teacher}")
    peak = measure_peak(setup.device)
    learners = [learner_of(training, setup) for training in trainings]
    batch, asked = learners[0].batch_size, trainings[0].recipe.batch_size
    if batch < asked:
        progress.note(
            f"batches hold {batch} images instead of {asked}: there are no more to train on"
        )
    progress.doing(name, "computing what comes before the first adapter")
    switches = _cache_prefixes(learners, setup, progress)
    trainer = Trainer(learners, switches=switches, note=progress.note)
    switches = switches.model_copy(update={"fused": trainer.fused})
    stack = [training.label for training in trainings] if len(trainings) > 1 else []
    saved = [
        SavedState(
            training.folder,
            origin_of(training, learner, switches, stack),
            device=_describe(setup),
            note=progress.note,
        )
        for training, learner in zip(trainings, learners, strict=True)
    ]
    for state, learner in zip(saved, learners, strict=True):
        try:
            state.restore(trainer, learner)
        except RunFolderError as error:
            learner.fault = error
    done = min((one.done for one in learners if one.fault is None), default=0)
    steps = trainer.steps_per_epoch
    progress.stage(
        name, done=done, epochs=trainer.epochs, steps=steps, images=batch * len(learners)
    )
    started, learnt = time.perf_counter(), [0] * len(trainings)

    def cost() -> Spent:
        """The share of each training in the time so far, and the peak of all together."""
        seconds = (time.perf_counter() - started) / len(trainings)
        return Spent(seconds=seconds, peak_memory=peak() if any(learnt) else None)

    with led(
        trainings[0],
        trainer,
        learners[0],
        origin=saved[0].origin,
        switches=switches,
        processes=setup.processes,
    ):
        for epoch in range(done, trainer.epochs):
            if all(learner.fault is not None for learner in learners):
                break
            faults = [learner.fault for learner in learners]
            setup.processes.tell(epoch)
            with setup.processes.in_step():
                ended = trainer.train_epoch(epoch, progress.step)
            learnt = [
                n + steps * batch * (log is not None) for n, log in zip(learnt, ended, strict=True)
            ]
            spent = cost()
            for k, log in enumerate(ended):
                if log is None:
                    continue
                try:
                    log = _tested(log, trainings[k], learners[k])
                except DivergedError as error:
                    learners[k].fault = error
                    continue
                own = replace(spent, images=learnt[k])
                saved[k].add(log, trainer, learners[k], own, trainings[k].still_ours)
            progress.epoch([log for log in ended if log is not None])
            for training, learner, before in zip(trainings, learners, faults, strict=True):
                if learner.fault is not None and before is None and stack:
                    progress.note(f"{training.label}: {learner.fault.message} The others go on.")
    spent = cost()
    return [
        learner.fault
        or Trained(
            recipe=learner.recipe,
            pair=learner.pair,
            logs=state.logs,
            spent=state.before + replace(spent, images=images),
            switches=switches,
            stack=state.shared_with,
            processes=setup.processes.count,
        )
        for learner, state, images in zip(learners, saved, learnt, strict=True)
    ]


def _describe(setup: DeviceSetup) -> str:
    """The device, and the number of processes if there are several, which changes the last bits."""
    count = setup.processes.count
    return describe_device(setup.device) + (f", {count} processes" if count > 1 else "")


def origin_of(
    training: Training, learner: Learner, switches: Switches, stack: list[str]
) -> dict[str, object]:
    """The facts that must not change when a training is resumed, by names used in messages."""
    return {
        "data": training.data,
        "backbone weights": [network.backbone.sha256 for _, network in learner.pair.roles()],
        "switches": switches.model_dump(exclude={"keep_memory"}),
        SHARED: stack,
    }


def _cache_prefixes(
    learners: Sequence[Learner], setup: DeviceSetup, progress: Progress
) -> Switches:
    """Cache the prefixes if switched on and possible; returns the switches with the outcome."""
    switches = setup.switches
    possible = all(learner.has_prefix for learner in learners)
    fit = possible and prefixes_fit(learners, share=min(0.25, setup.share(0.8)))
    if switches.prefix_cache and possible and not fit:
        progress.note("what comes before the first adapter takes too much memory to be kept")
    if not (switches.prefix_cache and fit):
        return switches.model_copy(update={"prefix_cache": False})
    for learner in learners:
        learner.cache_prefixes()
    return switches


def _tested(log: EpochLog, training: Training, learner: Learner) -> EpochLog:
    """The epoch's log, with the student's top-1 on the splits that are watched."""

    def top1(split: Split | None) -> float | None:
        if split is None:
            return None
        return score_network(learner.pair.student, split, training.recipe).top1

    return replace(log, val_top1=top1(training.val), test_top1=top1(training.test))
