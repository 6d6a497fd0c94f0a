"""What a row's number rests on beside the method, and the marks of rows that differ in it.

Rows are compared if they are of one task, or if they enter the means of one suite. Where they do
not agree, those that are unlike most of them are marked, or all if no value is that of most.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from idat_zoo.recipe import Recipe
from idat_zoo.report.fields import network_of
from idat_zoo.results import Result
from idat_zoo.specs import IMAGENET, Backbone
from idat_zoo.values import Frozen

HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NAMED = {HALVES: "0.5", IMAGENET: "imagenet"}
UNKNOWN = "not known"
OF_A_TASK = {"data"}
"""Parts that differ between tasks without harm."""


class Basis(Frozen):
    """What the number of a row rests on.

    `weights` are the backbone and the tag of its weights, `data` the beginning of the fingerprint
    of the images, `selection` the rule by which the number was selected (None where it is not
    known), `tried` the number of settings it was chosen among, and `schemas` those of the results.
    """

    weights: str
    normalisation: str
    data: str
    selection: str | None
    tried: int
    seeds: tuple[int, ...]
    schemas: tuple[int, ...]

    @property
    def in_words(self) -> dict[str, str]:
        """Each part as text, by its name in tables."""
        return {
            "weights": self.weights,
            "normalisation": self.normalisation,
            "data": self.data,
            "selection": self.selection or UNKNOWN,
            "tried settings": str(self.tried),
            "seeds": ", ".join(map(str, self.seeds)),
            "schema": ", ".join(map(str, self.schemas)),
        }


class Mark(Frozen):
    """A part in which a row differs from rows that it is compared with, and the values of both."""

    what: str
    own: str
    others: tuple[str, ...]

    def __str__(self) -> str:
        """`weights orig_in21k (others: augreg_in21k)`."""
        return f"{self.what} {self.own} (others: {'; '.join(self.others)})"


def basis_of(results: Sequence[Result]) -> Basis:
    """The basis of the results of one recipe, one for each seed."""
    first = results[0]
    backbone = tested_backbone(first)
    return Basis(
        weights=f"{backbone.name} {backbone.weights}",
        normalisation=normalisation_of(first.recipe, backbone),
        data=first.data_fingerprint[:8],
        selection=selection_rule(first.recipe),
        tried=max(len(r.selection.tried) if r.selection is not None else 1 for r in results),
        seeds=tuple(result.seed for result in results),
        schemas=tuple(sorted({result.schema_version for result in results})),
    )


def tested_backbone(result: Result) -> Backbone:
    """The backbone of the network that the top-1 is of."""
    pair = result.recipe.pair
    teacher = pair.teacher if network_of(result) == "teacher" else None
    return pair.student if teacher is None else teacher


def normalisation_of(recipe: Recipe, backbone: Backbone) -> str:
    """The name of the normalisation of the backbone's images, or its mean and std."""
    if recipe.normalisation != "model":
        return recipe.normalisation
    values = (backbone.mean, backbone.std)
    return NAMED.get(values) or " / ".join(", ".join(map(str, own)) for own in values)


def selection_rule(recipe: Recipe) -> str | None:
    """The rule of a recipe in the words of published rows; how others trained is not known."""
    if recipe.protocol == "imported":
        return None
    return "last" if recipe.selection == "none" else recipe.selection


def differences(bases: Sequence[Basis], *, one_task: bool) -> dict[str, list[str]]:
    """The parts in which bases that are compared differ, with the value of each basis in words."""
    found: dict[str, list[str]] = {}
    for basis in bases:
        for what, value in basis.in_words.items():
            if one_task or what not in OF_A_TASK:
                found.setdefault(what, []).append(value)
    return {what: values for what, values in found.items() if len(set(values)) > 1}


def marks_of(
    bases: Sequence[Basis], places: Mapping[str, Sequence[int]], tasks: set[str]
) -> list[tuple[Mark, ...]]:
    """The marks of each basis, each part once.

    `places` has the numbers of the bases that are compared, by the name of what they are of; a
    name in `tasks` is that of one task.
    """
    marks: list[dict[str, Mark]] = [{} for _ in bases]
    for place, numbers in places.items():
        uneven = differences([bases[n] for n in numbers], one_task=place in tasks)
        for what, values in uneven.items():
            for number, mark in zip(numbers, _marks(what, values), strict=True):
                if mark is not None:
                    marks[number].setdefault(what, mark)
    return [tuple(own.values()) for own in marks]


def _marks(what: str, values: Sequence[str]) -> Iterator[Mark | None]:
    """The mark of each value; None for the value of more than half of them."""
    usual, count = Counter(values).most_common(1)[0]
    has_most = count > len(values) / 2
    for own in values:
        if has_most and own == usual:
            yield None
        else:
            others = (usual,) if has_most else tuple(sorted({*values} - {own}))
            yield Mark(what=what, own=own, others=others)
