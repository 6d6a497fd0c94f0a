"""The report of a study as data: top-1 of each setting, and its gain over the reference arm."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import permutation_test, rankdata

from idat_zoo.intervals import Interval
from idat_zoo.report.difference import Difference, difference_of, holm, seed_variances
from idat_zoo.report.rows import over_seeds
from idat_zoo.study.failures import in_one_line
from idat_zoo.study.outcomes import Outcomes, Setting, paired, read_outcomes
from idat_zoo.study.plan import StudyPlan
from idat_zoo.values import Frozen

PROBE = "linear"
"""The adapter that trains nothing but a head: its top-1 tells how strong a task's features are."""
LEAST_TASKS = 4
"""Over fewer tasks no rank correlation is computed."""


class Score(Frozen):
    """Top-1 of one setting on one task, a fraction: the mean over seeds, and their deviation.

    `teacher` is the mean top-1 of the teachers, or None where there is none to compare with.
    """

    setting: Setting
    task: str
    seeds: tuple[int, ...]
    top1: float
    sd: float | None = None
    teacher: float | None = None


class Comparison(Frozen):
    """The gain of a setting over the reference arm on one task.

    `why_not` says why there is none, and is '' if there is one.
    """

    setting: Setting
    task: str
    difference: Difference | None = None
    why_not: str = ""

    @property
    def differs(self) -> bool:
        """Whether it differs from the reference after Holm's correction, at 0.05."""
        return self.difference is not None and self.difference.holm < 0.05


class OverTasks(Frozen):
    """The mean gain of a setting over its tasks, with Student's 95 % interval over the tasks.

    There is no interval where the gain is the same on all tasks, which says nothing about others.

    `correlation` is Spearman's rank correlation, over tasks, of the gain with the top-1 of a linear
    probe, and `p` its exact p-value over all orders of the tasks; both are None over fewer than
    `LEAST_TASKS` tasks.
    """

    setting: Setting
    tasks: tuple[str, ...]
    gain: float
    interval: Interval | None = None
    correlation: float | None = None
    p: float | None = None


class StudyReport(Frozen):
    """A study as data. Accuracies are fractions.

    `missing` are the folders of planned runs that are not finished, or whose result cannot be read;
    `unusable` are the messages of the latter. `probe` is the top-1 of a
    linear probe by task, for tasks on which the study has one.
    """

    name: str
    title: str
    reference: str
    finished: int
    missing: tuple[str, ...]
    unusable: tuple[str, ...] = ()
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    over_tasks: tuple[OverTasks, ...]
    probe: dict[str, float]


def build_study_report(plan: StudyPlan, folder: Path) -> StudyReport:
    """The report of the finished runs of a study, whose folder is `folder`."""
    outcomes, missing, faults = read_outcomes(plan, folder)
    comparisons = _corrected(list(_comparisons(plan, outcomes)))
    probe = _probe(outcomes)
    folders = tuple(dict.fromkeys(entry.folder for entry in missing))
    return StudyReport(
        name=plan.name,
        title=plan.title,
        reference=plan.reference,
        finished=len(plan.runs) - len(folders),
        missing=folders,
        unusable=tuple(map(in_one_line, faults)),
        scores=tuple(_scores(outcomes)),
        comparisons=tuple(comparisons),
        over_tasks=tuple(_over_tasks(comparisons, probe)),
        probe=probe,
    )


def _scores(outcomes: Outcomes) -> Iterator[Score]:
    for (setting, task), by_seed in outcomes.items():
        tops = [one.top1 for _, one in sorted(by_seed.items()) if one.top1 is not None]
        teachers = [one.teacher for one in by_seed.values() if one.teacher is not None]
        if tops:
            yield Score(
                setting=setting,
                task=task,
                seeds=tuple(sorted(by_seed)),
                top1=statistics.fmean(tops),
                sd=statistics.stdev(tops) if len(tops) > 1 else None,
                teacher=statistics.fmean(teachers) if len(teachers) == len(tops) else None,
            )


def _comparisons(plan: StudyPlan, outcomes: Outcomes) -> Iterator[Comparison]:
    """Each setting with the reference of its adapter and values, on every task that both have."""
    for setting in dict.fromkeys(setting for setting, _ in outcomes):
        reference = setting.model_copy(update={"arm": plan.reference})
        tasks = [task for other, task in outcomes if other == setting]
        if setting == reference or not any(other == reference for other, _ in outcomes):
            continue
        pairs = {
            task: paired(outcomes[setting, task], outcomes.get((reference, task), {}))
            for task in tasks
        }
        known = {
            task: differences for task, differences in pairs.items() if differences is not None
        }
        variance, freedom = seed_variances(list(known.values()))
        for task in tasks:
            if task in known:
                found = difference_of(known[task], seed_variance=variance, freedom=freedom)
                yield Comparison(setting=setting, task=task, difference=found)
            else:
                why = "no seed in common with the reference, or its predictions are not kept"
                yield Comparison(setting=setting, task=task, why_not=why)


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with Holm's correction over all of them."""
    known = [one.difference for one in comparisons if one.difference is not None]
    corrected = iter(holm([one.p for one in known]))
    return [
        one
        if one.difference is None
        else one.model_copy(
            update={"difference": one.difference.model_copy(update={"holm": next(corrected)})}
        )
        for one in comparisons
    ]


def _probe(outcomes: Outcomes) -> dict[str, float]:
    """The top-1 of the linear probe by task: the student's alone, where the study has it."""
    found: dict[str, float] = {}
    for (setting, task), by_seed in outcomes.items():
        if setting.adapter == PROBE and all(
            one.result.recipe.pair.teacher is None for one in by_seed.values()
        ):
            found.setdefault(task, statistics.fmean(one.result.top1 for one in by_seed.values()))
    return found


def _over_tasks(comparisons: Sequence[Comparison], probe: dict[str, float]) -> Iterator[OverTasks]:
    for setting in dict.fromkeys(one.setting for one in comparisons):
        gains = {
            one.task: one.difference.gain
            for one in comparisons
            if one.setting == setting and one.difference is not None
        }
        if not gains:
            continue
        strengths = {task: probe[task] for task in gains if task in probe}
        both = list(strengths)
        rho, p = None, None
        if len(both) >= LEAST_TASKS:
            rho, p = _rank_correlation([probe[t] for t in both], [gains[t] for t in both])
        yield OverTasks(
            setting=setting,
            tasks=tuple(gains),
            gain=statistics.fmean(gains.values()),
            interval=over_seeds(list(gains.values())) if len(set(gains.values())) > 1 else None,
            correlation=rho,
            p=p,
        )


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation, with its exact two-sided p-value over all permutations.

    It is 0 with p-value 1 if one of the two has the same value everywhere.
    """
    if len(set(first)) == 1 or len(set(second)) == 1:
        return 0.0, 1.0
    ranks = rankdata(second)

    def correlation(order: np.ndarray) -> float:
        return float(np.corrcoef(order, ranks)[0, 1])

    found = permutation_test(
        (rankdata(first),),
        correlation,
        permutation_type="pairings",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    return float(found.statistic), float(found.pvalue)
