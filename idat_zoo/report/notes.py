"""What makes a comparison uneven: other devices, versions, weights, data or baselines."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from idat_zoo.report.means import SeriesMeans
from idat_zoo.report.rows import Group
from idat_zoo.results import Result


def build_notes(groups: Sequence[Group], means: Sequence[SeriesMeans]) -> list[str]:
    """One sentence for each thing in which compared results differ, naming the comparisons.

    Compared are the results of one task, and those that enter the means.
    """
    compared: dict[str, list[Result]] = defaultdict(list)
    for group in groups:
        compared[group.task] += [result for _, result in group.results]
    averaged = {task for series in means for task in series.tasks}
    if averaged:
        compared["the means"] = [r for task in sorted(averaged) for r in compared[task]]
    where: dict[str, list[str]] = defaultdict(list)
    for place, results in compared.items():
        for fault in _unevenness(results, one_task=place != "the means"):
            where[fault].append(place)
    notes = [f"{', '.join(places)}: {fault}" for fault, places in where.items()]
    return notes + _uneven_means(means)


def _unevenness(results: Sequence[Result], *, one_task: bool) -> Iterable[str]:
    yield from _several("devices differ", (r.device for r in results))
    packages = dict.fromkeys(name for r in results for name in r.versions)
    for package in packages:
        versions = (r.versions.get(package, "not recorded") for r in results)
        yield from _several(f"versions of {package} differ", versions)
    weights = (f"{r.recipe.pair.student.name} {r.recipe.pair.student.weights}" for r in results)
    yield from _several("students' weights differ", weights)
    for backbone, digests in _backbone_digests(results).items():
        yield from _several(f"the weights called {backbone} are not the same bytes", digests)
    if one_task:
        yield from _several(
            "images or labels differ, so rows of different data do not compare",
            (f"data {r.data_fingerprint[:8]}" for r in results),
        )
        for name in dict.fromkeys(name for r in results for name in r.baselines):
            tops = (f"{100 * r.baselines[name]:.2f} %" for r in results if name in r.baselines)
            yield from _several(f"the baseline {name} differs, the higher one is shown", tops)


def _several(what: str, values: Iterable[str]) -> list[str]:
    found = sorted(set(values))
    return [f"{what} ({'; '.join(found)})"] if len(found) > 1 else []


def _backbone_digests(results: Iterable[Result]) -> Mapping[str, list[str]]:
    """Backbone and weights tag -> digests of what was loaded under these names."""
    digests: dict[str, list[str]] = defaultdict(list)
    for result in results:
        pair = result.recipe.pair
        for role, backbone in (("student", pair.student), ("teacher", pair.teacher)):
            if backbone is not None and role in result.backbone_sha256:
                name = f"{backbone.name} {backbone.weights}"
                digests[name].append(result.backbone_sha256[role][:8])
    return digests


def _uneven_means(means: Sequence[SeriesMeans]) -> list[str]:
    if len({series.tasks for series in means}) < 2:
        return []
    return ["the means are over different tasks, so they do not compare"]
