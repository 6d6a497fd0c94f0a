"""The executor `hf-jobs` of `idat study`: what is refused, what is submitted, and the answer."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.passes import carried_words
from idat_zoo.errors import HubError, UsageError

if TYPE_CHECKING:
    from idat_zoo.executors.hf_jobs import StudyOnHub
    from idat_zoo.hub.jobs import Job
    from idat_zoo.recipe import Recipe
    from idat_zoo.runs.device_setup import DeviceSetup
    from idat_zoo.runs.inputs import Inputs
    from idat_zoo.study.plan import StudyPlan
    from idat_zoo.values import Frozen

CARRIED = ("yes", "prefix_cache", "compile", "fused", "keep_memory", "deterministic")
"""The parameters of `idat study` that a job takes over; its flavor says its device."""
REFUSED = ("plugin", "tracker")
"""The parameters that name what only this machine has."""


def check_options(context: typer.Context) -> None:
    """Raises: UsageError for an option that names what a job cannot have."""
    for name in REFUSED:
        if context.params[name]:
            raise UsageError(f"jobs of Hugging Face take no --{name}; leave it out.")


def open_study(name: str, folder: Path, options: "Frozen") -> "StudyOnHub":
    """The study with its folder in a bucket, whose plan is taken over where none is here.

    Raises: HubError, RunFolderError.
    """
    from idat_zoo.executors.hf_jobs import StudyOnHub
    from idat_zoo.executors.hf_jobs_options import HfJobsOptions

    assert isinstance(options, HfJobsOptions)
    with screen.waiting("asking the Hub"):
        study = StudyOnHub(name, folder, options)
    study.fetch_plan()
    return study


def submit_passes(
    context: typer.Context,
    study: "StudyOnHub",
    settled: "StudyPlan",
    setup: "DeviceSetup",
    inputs: "Inputs",
    *,
    retry: bool,
    replan: bool,
    json: bool,
) -> None:
    """Fetch what is finished, submit a job for each pass that no job trains, and print the jobs.

    Raises: HubError if nothing was submitted; UsageError for what a job cannot have; typer.Exit
    with SOME_FAILED if the Hub refused a job after others.
    """
    from idat_zoo.runs.lock import alone_in
    from idat_zoo.runs.progress import Progress
    from idat_zoo.study.train import open_passes

    class Notes(Progress):
        """Prints notes alone: nothing is trained here."""

        def note(self, text: str) -> None:
            """Print a note."""
            screen.note(text)

    study.check_jobs(settled)
    fetched = study.fetch_runs(settled)
    if fetched:
        screen.note(f"{fetched} run{'s' * (fetched > 1)} fetched from {study.place}")
    numbers = open_passes(
        settled, study.folder, setup, inputs, Notes(), retry=retry, elsewhere=True
    )
    open_runs = {run for number in numbers for run in settled.passes[number - 1]}
    recipes = [entry.recipe for run, entry in settled.runs.items() if run in open_runs]
    downloads = _check_recipes(recipes, study, agreed=context.params["yes"])
    words = carried_words(context, CARRIED)
    submitted: dict[int, Job] = {}
    refusal: HubError | None = None
    with alone_in(study.folder, wait=False, note=screen.note):
        study.add_new_jobs()
        found = {number: study.jobs_of(settled, number) for number in numbers}
        active = {number: own.active for number, own in found.items() if own.active is not None}
        orders = {
            number: study.order(settled, number, words, with_token=downloads)
            for number in numbers
            if number not in active
        }
        if orders:
            study.store(replan=replan)
        for number in numbers:
            try:
                if number in orders:
                    _tell_end(number, found[number].ended)
                    submitted[number] = study.submit(orders[number])
            except HubError as error:
                refusal = error
                break
            if not json:
                job = submitted.get(number) or active[number]
                what = "submitted" if number in submitted else job.stage.lower()
                typer.echo(screen.plain(f"pass {number}: job {job.id} ({what}) {job.url}"))
    if refusal is not None and not submitted:
        raise refusal
    if json:
        document = {
            "study": settled.name,
            "folder": str(study.folder),
            "bucket": str(study.place),
            "jobs": _rows(active | submitted, submitted),
            "not_submitted": sorted(orders.keys() - submitted),
        }
        screen.print_json(document | ({"error": refusal.message} if refusal else {}))
    if refusal is not None:
        if not json:
            screen.print_error(refusal)
        raise typer.Exit(screen.SOME_FAILED)


def _rows(jobs: "Mapping[int, Job]", new: "Collection[int]") -> list[dict[str, object]]:
    """The jobs of passes as values of JSON."""
    return [
        {"pass": n, "id": job.id, "url": job.url, "stage": job.stage, "submitted": n in new}
        for n, job in sorted(jobs.items())
    ]


def _tell_end(number: int, ended: "Job | None") -> None:
    """Print a note of the last job of a pass, which has ended without all results."""
    if ended is not None:
        why = f": {ended.message}" if ended.message else ""
        screen.note(f"pass {number}: job {ended.id} ended ({ended.stage.lower()}){why}")


def _check_recipes(recipes: "list[Recipe]", study: "StudyOnHub", *, agreed: bool) -> bool:
    """Whether jobs of recipes download something.

    Raises: UsageError for images, weights or plugins that a job cannot have, and for downloads that
    were not agreed to.
    """
    from idat_zoo.backbones.pinned import weights_repo
    from idat_zoo.data.suites import suite_of
    from idat_zoo.data.suites.base import Place
    from idat_zoo.registry import load_registry

    registry = load_registry()
    lacking, downloads = dict[str, None](), dict[str, None]()
    for recipe in recipes:
        lacking |= {f"plugin {plugin}": None for plugin in recipe.plugins}
        for spec in recipe.backbones():
            if spec.own_file:
                lacking[f"the file of the weights of backbone '{spec.name}'"] = None
            elif repo := weights_repo(spec):
                downloads[f"weights of {repo}"] = None
        task = recipe.task
        if task.plugin is None and suite_of(task).place is not Place.BUILT_IN:
            if study.options.images is not None:
                continue
            source = registry.source_of(task)
            kind = lacking if source is None else downloads
            kind[f"images of '{task.id}'"] = None
    if lacking:
        raise UsageError(
            f"jobs of Hugging Face do not have {', '.join(lacking)}.",
            hint="--executor-option images=OWNER/NAME names a bucket with the data folder; nothing "
            "else of this machine can be given to a job.",
        )
    if downloads and not agreed:
        raise UsageError(
            f"each job would download {', '.join(downloads)}.", hint="--yes agrees to that."
        )
    return bool(downloads)
