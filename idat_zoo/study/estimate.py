"""The estimate of a study's hours, from measured seconds alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from idat_zoo.candidates import combinations, count_candidates, with_values
from idat_zoo.data.suites import suite_of
from idat_zoo.engine.schedule import total_epochs
from idat_zoo.recipe import Recipe
from idat_zoo.results import Result
from idat_zoo.runs.plan import Planned

Kind = tuple[str, str, bool]
"""Runs whose images take the same time: the pair, the adapter, and whether there is a teacher."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected time of a study's unfinished runs.

    `seconds` is the sum over the runs of one process whose kind was measured. `runs` is their
    number, and `unknown` has the number of the other runs by their kind.
    """

    seconds: float
    runs: int
    unknown: Mapping[Kind, int]


def kind_of(recipe: Recipe) -> Kind:
    """The kind of a run, within which seconds scale with epochs and images."""
    return recipe.pair.name, recipe.adapter.word, recipe.pair.teacher is not None


def kind_in_words(kind: Kind) -> str:
    """`micro/lora with a teacher`."""
    pair, adapter, teacher = kind
    return f"{pair}/{adapter} {'with' if teacher else 'without'} a teacher"


def images_seen(recipe: Recipe, data_dir: Path | None) -> int:
    """The number of images that a run trains on, counted in every epoch and for every candidate."""
    counts = suite_of(recipe.task).num_images(recipe.task, data_dir)
    train, val = counts.get("train", 0), counts.get("val", 0)
    if recipe.selection == "ensemble":
        members = [with_values(recipe, values) for values in combinations(recipe)]
        return sum(map(total_epochs, members)) * (train + val)
    candidates = count_candidates(recipe) if recipe.candidates else 0
    return total_epochs(recipe) * (train + val + candidates * train)


def measured_rates(results: Iterable[Result], data_dir: Path | None) -> dict[Kind, float]:
    """The seconds per image of each kind, from the results of finished runs."""
    seconds: dict[Kind, float] = {}
    images: dict[Kind, int] = {}
    for result in results:
        kind = kind_of(result.recipe)
        seconds[kind] = seconds.get(kind, 0) + result.seconds
        images[kind] = images.get(kind, 0) + images_seen(result.recipe, data_dir)
    return {kind: seconds[kind] / images[kind] for kind in seconds if images[kind]}


def estimate(
    planned: Iterable[Planned], rates: Mapping[Kind, float], data_dir: Path | None
) -> Estimate:
    """The expected time of the unfinished runs whose rate and number of images are known."""
    seconds, runs = 0.0, 0
    unknown: dict[Kind, int] = {}
    for one in planned:
        if one.finished:
            continue
        kind, images = kind_of(one.recipe), images_seen(one.recipe, data_dir)
        if kind in rates and images:
            seconds += rates[kind] * images
            runs += 1
        else:
            unknown[kind] = unknown.get(kind, 0) + 1
    return Estimate(seconds=seconds, runs=runs, unknown=unknown)
