"""What the numbers of a page rest on."""

from collections.abc import Iterable, Sequence

from idat_zoo.page.entries import Entry
from idat_zoo.recipe import Recipe
from idat_zoo.report.basis import normalisation_of, tested_backbone
from idat_zoo.results import Result
from idat_zoo.values import Frozen


class Run(Frozen):
    """A recipe by its hash, with its seeds and the fingerprint of its images.

    `method` is the name of its method on the page.
    """

    method: str
    label: str
    recipe_hash: str
    seeds: tuple[int, ...]
    data_fingerprint: str


class Provenance(Frozen):
    """The badge of a page, name -> value, and its runs; `versions` are package -> versions."""

    badge: dict[str, str]
    runs: tuple[Run, ...]
    versions: dict[str, str]
    weights: dict[str, str]


def build_provenance(entries: Sequence[Entry]) -> Provenance:
    """The provenance of all results of a report."""
    results = [result for entry in entries for _, result in entry.group.results]
    return Provenance(
        badge=_badge(results),
        runs=tuple(map(_run, entries)),
        versions={
            name: _several(result.versions.get(name, "not recorded") for result in results)
            for name in dict.fromkeys(name for result in results for name in result.versions)
        },
        weights={
            name: sha256
            for result in results
            for name, sha256 in (
                (_backbone(result.recipe, role), sha256)
                for role, sha256 in result.backbone_sha256.items()
            )
        },
    )


def _badge(results: Sequence[Result]) -> dict[str, str]:
    minutes: dict[str, float] = {}
    for result in results:
        minutes[result.device] = minutes.get(result.device, 0.0) + result.seconds / 60
    seeds = sorted({result.seed for result in results})
    counts = {len(group) for group in _by_recipe(results).values()}
    return {
        "protocol": _several(result.recipe.protocol for result in results),
        "selection": _several(result.recipe.selection for result in results),
        "data copy": _several(result.data_copy or "not recorded" for result in results),
        "weights": _several(result.recipe.pair.student.weights for result in results),
        "normalisation": _several(
            normalisation_of(result.recipe, tested_backbone(result)) for result in results
        ),
        "seeds": f"{_several(map(str, sorted(counts)))} a recipe ({', '.join(map(str, seeds))})",
        "device minutes": "; ".join(f"{own:,.1f} on {name}" for name, own in minutes.items()),
    }


def _by_recipe(results: Iterable[Result]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for result in results:
        found.setdefault(result.recipe_hash, set()).add(result.seed)
    return found


def _several(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(values))


def _backbone(recipe: Recipe, role: str) -> str:
    spec = recipe.pair.teacher if role == "teacher" else recipe.pair.student
    return role if spec is None else spec.name


def _run(entry: Entry) -> Run:
    first = entry.group.results[0][1]
    return Run(
        method=entry.method,
        label=first.label,
        recipe_hash=first.recipe_hash,
        seeds=tuple(sorted(entry.group.by_seed())),
        data_fingerprint=first.data_fingerprint,
    )
