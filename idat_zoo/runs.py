"""The table of contents of the project: recipe -> models -> loop -> checkpoint -> result."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from idat_zoo import files
from idat_zoo.backbones.pair import Role, check_carried, count_parameters
from idat_zoo.backbones.pinned import missing_weights, weights_path
from idat_zoo.baselines import find_baselines
from idat_zoo.checkpoint import load_checkpoint, probe_logits, write_checkpoint
from idat_zoo.data.arrays import Arrays, Data, read_arrays
from idat_zoo.data.folder import split_csv
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.suites import suite_of
from idat_zoo.data.task_data import TaskData
from idat_zoo.engine.precision import computing, describe_device, find_device, resolve_precision
from idat_zoo.engine.timing import slowness
from idat_zoo.errors import DataError, InputError, RunFolderError, UsageError, ZooError
from idat_zoo.evaluation import predict_split
from idat_zoo.fit import (
    Fitted,
    Job,
    Machine,
    Progress,
    diverged_before,
    fit,
    machine_for,
    plain_memory_errors,
)
from idat_zoo.metrics import score
from idat_zoo.outside import with_plugins
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.results import (
    PREDICTIONS_FILE,
    ImageCounts,
    Parameters,
    Result,
    Selection,
    now,
    versions,
)
from idat_zoo.run_files import RECIPE_FILE, RESULT_FILE, SPLIT_FILE
from idat_zoo.run_folder import (
    PROBE_FILE,
    TEACHER_FOLDER,
    check_resumable,
    digests,
    find_finished,
    keep_call,
    keep_fault,
    recipe_hash,
    run_folder,
    run_label,
    tell_beside,
    tidy,
)
from idat_zoo.run_lock import alone_in
from idat_zoo.selection import Choice, select, with_values
from idat_zoo.switches import Switches


def run(
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | str | None = None,
    data: Data | None = None,
    reading: Reading | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    wait: bool = False,
    keep_diverged: bool = False,
    download: bool = False,
    switches: Switches | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train a recipe, write its run folder, and return its result.

    A finished run is not repeated: its result is returned. An unfinished one needs `resume`. Where
    another process trains it, that is an error, or with `wait` its result is waited for.
    `download` allows fetching missing backbone weights; `reading` says how images are read,
    `switches` how it is computed. A training that diverged ends with an error and no result;
    `keep_diverged` writes it all the same, labelled, also of one that ended so before.

    `data` are images and labels of your own, {"train": (images, labels), "test": …}, for a recipe
    that `get_recipe("arrays", …, data=data)` made of them: uint8 arrays or tensors with integer
    labels, or torch data sets (`idat_zoo.data.arrays` has the particulars).

    Raises: ZooError and its kinds, each saying what to do; what was saved before stays.
    """
    (outcome,) = run_many(
        [(recipe, seed)],
        device=device,
        data_dir=data_dir,
        data=data,
        reading=reading,
        out=out,
        resume=resume,
        wait=wait,
        keep_diverged=keep_diverged,
        download=download,
        switches=switches,
        progress=progress,
    )
    if isinstance(outcome, ZooError):
        raise outcome
    return outcome


def run_many(
    asked: Sequence[tuple[Recipe, int]],
    *,
    device: str = "auto",
    data_dir: Path | str | None = None,
    data: Data | None = None,
    reading: Reading | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    wait: bool = False,
    keep_diverged: bool = False,
    download: bool = False,
    switches: Switches | None = None,
    stack: int | None = None,
    progress: Progress | None = None,
    words: Sequence[str] = (),
) -> list[Result | ZooError]:
    """Train recipes, each with its seed, over one copy of each backbone: `run` for many.

    Up to `stack` of them go through one pass together. None: on CUDA as many as fit into memory,
    elsewhere one. Each has its own run folder; the fault of one is returned in its place, and ends
    that one alone. `words` of a command line are kept until a run is finished, to go on with it.

    Raises: UsageError for what is wrong with all of them, or asked for twice; InputError for what
    is no recipe or no seed.
    """
    for recipe, seed in asked:
        if not isinstance(recipe, Recipe):
            raise InputError(
                f"a run takes a Recipe; got {recipe!r}.",
                hint='get_recipe("digits", "lora") of idat_zoo.registry makes one',
            )
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"a seed is an int from 0; got {seed!r}.")
    if stack is not None and stack < 1:
        raise UsageError(f"a pass holds at least one run (stack = {stack}).")
    arrays = None if data is None else read_arrays(data)
    if arrays is not None:
        for recipe, _ in asked:
            arrays.check_is(recipe.task)
    where, out, progress = find_device(device), Path(out), progress or Progress()
    machine = machine_for(where, switches, stack=stack)
    inputs = Inputs(
        data_dir=None if data_dir is None else Path(data_dir),
        arrays=arrays,
        reading=reading,
        download=download,
        listener=progress,
    )
    runs = [
        Run(recipe=recipe, seed=seed, folder=run_folder(out, recipe, seed))
        for recipe, seed in (
            (with_plugins(resolve_precision(recipe, where)), seed) for recipe, seed in asked
        )
    ]
    folders = [run.folder for run in runs]
    twice = {str(folder) for folder in folders if folders.count(folder) > 1}
    if twice:
        raise UsageError(f"asked for twice: {', '.join(sorted(twice))}")
    outcomes: dict[Path, Result | ZooError] = {}
    told: set[str] = set()

    def settle(run: Run, outcome: Result | ZooError) -> None:
        outcomes[run.folder] = outcome
        if isinstance(outcome, ZooError) and len(runs) > 1:
            progress.failed(run_label(run.recipe, run.seed), outcome)

    @contextmanager
    def settling(run: Run) -> Iterator[None]:
        """Its own fault ends a run; what is wrong with all of them ends all."""
        try:
            yield
        except UsageError:
            raise
        except ZooError as error:
            settle(run, error)

    for run in runs:
        if not (run.folder / RESULT_FILE).is_file():
            with settling(run):
                check_carried(run.recipe)
    rest = [run for run in runs if run.folder not in outcomes]
    with computing(machine.switches, where):
        turns = [[run] for run in rest] if machine.one_by_one else [rest]
        for number, together in enumerate(turns, start=1):
            progress.run(number, of=len(turns))
            with ExitStack() as locks:
                ours: dict[Path, Callable[[], None]] = {}
                for run in sorted(together, key=lambda run: run.folder):  # so none waits in a ring
                    with settling(run):
                        finished = find_finished(run.folder, run.recipe, out=out)
                        if finished is None:
                            lock = alone_in(run.folder, wait=wait, note=progress.note)
                            ours[run.folder] = locks.enter_context(lock)
                            finished = find_finished(run.folder, run.recipe, out=out)
                        if finished is None:
                            diverged = diverged_before(run.folder, run.recipe)
                            if diverged is not None and not keep_diverged:
                                raise diverged
                            check_resumable(run.folder, resume=resume or diverged is not None)
                            beside = tell_beside(run.folder, run.recipe, asked=folders)
                            if resume and beside:
                                progress.note(beside)
                        else:
                            progress.note(f"finished before: {run.folder}")
                            settle(run, finished)
                begun: list[Begun] = []
                for run in together:
                    if run.folder not in outcomes:
                        with settling(run):
                            slow = slowness(run.recipe.precision, where)
                            if slow and slow not in told:
                                told.add(slow)
                                progress.note(f"{slow}; precision=float32 is the better choice")
                            progress.doing(run.recipe.task.id, "loading images")
                            one = begin(run, inputs, ours[run.folder])
                            keep_call(run.folder, words=words, data_dir=inputs.data_dir)
                            begun.append(one)
                for one, outcome in complete(begun, machine, progress, keep_diverged=keep_diverged):
                    if isinstance(outcome, RunFolderError) and isinstance(
                        outcome.__cause__, OSError
                    ):
                        outcome.hint += " What was saved is kept: --resume goes on with it."
                    if isinstance(outcome, ZooError):
                        with suppress(RunFolderError):  # another's by now, or a full disk
                            one.still_ours()
                            keep_fault(one.folder, outcome)
                    settle(one, outcome)
    return [outcomes[run.folder] for run in runs]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where images and weights come from."""

    data_dir: Path | None = None
    arrays: Arrays | None = None
    reading: Reading | None = None
    download: bool = False
    listener: Listener


Views = Mapping[Role, TaskData]
"""The task's images at each network's input size: one and the same where the sizes are equal."""


def load_views(
    recipe: Recipe,
    *,
    data_dir: Path | None,
    seed: int,
    reading: Reading | None = None,
    listener: Listener | None = None,
    arrays: Arrays | None = None,
) -> Views:
    """The recipe's task for each of its networks. Raises what `load_task` raises."""
    sizes: dict[Role, int] = {"student": recipe.pair.student.img_size}
    if recipe.pair.teacher is not None:
        sizes["teacher"] = recipe.pair.teacher.img_size
    at_size = {
        size: load_task(
            recipe.task,
            img_size=size,
            data_dir=data_dir,
            seed=seed,
            reading=reading,
            listener=listener,
            arrays=arrays,
        )
        for size in dict.fromkeys(sizes.values())
    }
    return {role: at_size[size] for role, size in sizes.items()}


def begun_on(views: Views) -> str:
    """The fingerprints of all sizes: what may not change between a training's begin and end."""
    return "".join(dict.fromkeys(data.fingerprint for data in views.values()))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One recipe with one seed, and its folder."""

    recipe: Recipe
    seed: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Begun(Run):
    """A run whose images are here. `still_ours` raises where its folder is not any more."""

    views: Views
    still_ours: Callable[[], None]
    cache: Path

    def job(self, recipe: Recipe, split: str) -> Job:
        """The training of a recipe on one of the splits."""
        splits = {id(data): getattr(data, split) for data in self.views.values()}
        held = {key: part.held for key, part in splits.items()}  # once where sizes are equal
        student = self.views["student"]
        return Job(
            recipe=recipe,
            seed=self.seed,
            folder=self.folder,
            images={role: held[id(data)] for role, data in self.views.items()},
            targets=splits[id(student)].targets,
            data=begun_on(self.views),
            test=student.test if recipe.protocol == "paper" else None,
            still_ours=self.still_ours,
        )


def begin(run: Run, inputs: Inputs, still_ours: Callable[[], None] = lambda: None) -> Begun:
    """Read a run's images and write down its recipe, which claims its folder.

    Raises: DataError and WeightsError where something it needs is missing.
    """
    recipe = run.recipe
    require_inputs(
        recipe, inputs.data_dir, seed=run.seed, download=inputs.download, arrays=inputs.arrays
    )
    with plain_memory_errors(recipe):
        views = load_views(
            recipe,
            data_dir=inputs.data_dir,
            seed=run.seed,
            reading=inputs.reading,
            listener=inputs.listener,
            arrays=inputs.arrays,
        )
    files.write_whole(run.folder / RECIPE_FILE, dump_recipe(recipe).encode())
    _keep_split(recipe, views["student"], run.folder)
    return Begun(
        recipe=recipe,
        seed=run.seed,
        folder=run.folder,
        views=views,
        still_ours=still_ours,
        cache=(inputs.reading or Reading()).cache,
    )


def complete(
    begun: Sequence[Begun],
    machine: Machine,
    progress: Progress,
    *,
    keep_diverged: bool = False,
) -> Iterator[tuple[Begun, Result | ZooError]]:
    """Select, train, write: each run with its result, or what went wrong with it."""
    selected = choose(begun, machine, progress)
    jobs = []
    for run in begun:
        chosen = selected.get(run.folder)
        if isinstance(chosen, ZooError):
            yield run, chosen
            continue
        recipe = run.recipe
        if chosen is not None:
            recipe = with_values(recipe, chosen.tried[chosen.chosen].values)
        jobs.append(run.job(recipe, "trainval"))
    by_folder = {run.folder: run for run in begun}
    for job, outcome in fit(jobs, machine, progress):
        run = by_folder[job.folder]
        if isinstance(outcome, ZooError):
            yield run, outcome
            continue
        if outcome.divergence is not None and not keep_diverged:
            yield run, outcome.divergence
            continue
        chosen = selected.get(run.folder)
        assert not isinstance(chosen, ZooError)
        progress.doing(run.recipe.task.id, "evaluating on test")
        try:
            with plain_memory_errors(job.recipe):
                result = _finish(run, outcome, final=job.recipe, selection=chosen)
        except ZooError as error:
            yield run, error
        else:
            yield run, result


def _keep_split(recipe: Recipe, data: TaskData, folder: Path) -> None:
    """One's own images keep the split that was made of them."""
    if suite_of(recipe.task).is_split_here and data.listing is not None:
        files.write_whole(folder / SPLIT_FILE, split_csv(data.listing))


def missing_inputs(
    recipe: Recipe,
    data_dir: Path | None,
    *,
    seed: int = 0,
    download: bool = False,
    arrays: Arrays | None = None,
) -> list[str]:
    """What a run needs and does not find here, each with the way to get it."""
    missing = []
    suite = suite_of(recipe.task)
    images = suite.missing(recipe.task, data_dir, seed=seed)
    if images and arrays is None:
        sure = "--yes or " if suite.has_source else ""
        missing.append(f"{images}; {sure}{suite.how_to_get(recipe.task)}")
    if not download:
        repos = [missing_weights(spec) for spec in recipe.pair.backbones()]
        missing += [f"weights of '{r}'; --yes downloads them from the Hub" for r in repos if r]
    return missing


def require_inputs(
    recipe: Recipe,
    data_dir: Path | None,
    *,
    seed: int,
    download: bool,
    arrays: Arrays | None = None,
) -> None:
    """Check that images and weights are here; with `download`, fetch weights that are not.

    Raises: DataError naming at once all that is missing, and a command that needs nothing;
    WeightsError where a download fails.
    """
    missing = missing_inputs(recipe, data_dir, seed=seed, download=download, arrays=arrays)
    if missing:
        raise DataError(
            f"'{recipe.pair.name}/{recipe.adapter.label}/{recipe.task.id}' needs what is not here:"
            + "".join(f"\n  - {line}" for line in missing),
            hint=f"Needs no download: {_without_download(recipe, data_dir, seed=seed)}",
        )
    for spec in recipe.pair.backbones():
        if missing_weights(spec):
            weights_path(spec)


def _without_download(recipe: Recipe, data_dir: Path | None, *, seed: int) -> str:
    """A command that trains the adapter without weights: on the same images, if they are here."""
    suite, place = suite_of(recipe.task), list[str]()
    task = suite.word(recipe.task)
    if suite.missing(recipe.task, data_dir, seed=seed):
        task = "digits"
    elif data_dir is not None:
        place = ["--data-dir", str(data_dir)]
    pair = [] if task == "digits" else ["--pair", "micro"]
    adapter = ["--adapter", recipe.adapter.word]
    words = ["--task", task, *place, *pair, *adapter, *recipe.plugin_words]
    return shlex.join(["idat", "train", *words])


def choose(
    begun: Sequence[Begun], machine: Machine, progress: Progress
) -> dict[Path, Selection | ZooError]:
    """By their folders, what was chosen for the runs that have candidates."""
    choosing = [run for run in begun if run.recipe.selection == "val"]
    choices = [
        Choice(job=run.job(run.recipe, "train"), val=run.views["student"].val) for run in choosing
    ]
    chosen = select(choices, machine, progress)
    return {run.folder: one for run, one in zip(choosing, chosen, strict=True)}


def _finish(run: Begun, fitted: Fitted, *, final: Recipe, selection: Selection | None) -> Result:
    """Checkpoints, predictions, probe, and last of all the result.

    `final` is the run's recipe with the selected values in it.
    """
    pair, folder, digest = fitted.pair, run.folder, recipe_hash(run.recipe)
    data, diverged = run.views["student"], fitted.divergence is not None
    run.still_ours()
    final = final.model_copy(update={"task": data.task})  # which names its classes
    logits = {
        role: predict_split(network, run.views[role].test, final) for role, network in pair.roles()
    }
    for role, network in pair.roles():
        place = folder if role == "student" else folder / TEACHER_FOLDER
        write_checkpoint(
            place,
            network,
            final,
            role=role,
            recipe_hash=digest,
            seed=run.seed,
            diverged=diverged,
        )
    predictions = {"index": data.test.index, "target": data.test.targets} | logits
    files.write_whole(folder / PREDICTIONS_FILE, files.dump_tensors(predictions))
    probe = probe_logits(load_checkpoint(folder).network)
    files.write_whole(folder / PROBE_FILE, files.dump_tensors({"logits": probe}))
    metrics = {
        role: score(z, data.test.targets, data.task.class_names) for role, z in logits.items()
    }
    baselines = find_baselines(data, run.cache)
    watched = [log.test_top1 for log in fitted.logs if log.test_top1 is not None]
    result = Result(
        kind="run",
        top1=metrics["student"].top1,
        top1_interval=metrics["student"].top1_interval,
        top1_best_on_test=max(watched, default=None),
        student=metrics["student"],
        teacher=metrics.get("teacher"),
        selection=selection,
        images=ImageCounts(**data.counts()),
        baselines=baselines.top1,
        raw_pixels=baselines.raw_pixels,
        diverged=diverged,
        parameters=Parameters(**count_parameters(pair.roles())),
        recipe=run.recipe.model_copy(update={"task": data.task}),
        recipe_hash=digest,
        seed=run.seed,
        data_fingerprint=data.fingerprint,
        data_copy=data.copy,
        backbone_sha256={role: network.backbone.sha256 for role, network in pair.roles()},
        device=describe_device(pair.student.mean.device),
        versions=versions(),
        switches=fitted.switches,
        stack=fitted.stack,
        seconds=fitted.seconds,
        images_per_second=fitted.images_per_second,
        finished=now(),
        files=digests(folder),
    )
    files.write_whole(folder / RESULT_FILE, files.dump_json(result.as_json()))
    tidy(folder)
    return result
