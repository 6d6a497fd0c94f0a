"""The report of a study as data: top-1 of each setting, and its gain over the reference arm."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import permutation_test, rankdata

from idat_zoo.intervals import Interval
from idat_zoo.report.difference import Difference, difference_of, holm, seed_variances
from idat_zoo.report.effect import Effect, effect_over_tasks
from idat_zoo.report.ranks import Ranks, average_ranks
from idat_zoo.report.rows import over_seeds
from idat_zoo.report.sign_flips import sign_flip_p
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

    `by_seed` has the gain of each seed. `why_not` says why there is no difference, and is '' if
    there is one.
    """

    setting: Setting
    task: str
    difference: Difference | None = None
    by_seed: tuple[float, ...] = ()
    why_not: str = ""

    @property
    def differs(self) -> bool:
        """Whether it differs from the reference after Holm's correction, at 0.05."""
        return self.difference is not None and self.difference.holm < 0.05


class Corrected(Frozen):
    """A p-value, and the same after Holm's correction over the settings of the study."""

    p: float
    holm: float = 1.0


class OverTasks(Frozen):
    """The mean gain of a setting over its tasks, with Student's 95 % interval over the tasks.

    There is no interval where the gain is the same on all tasks, which says nothing about others.
    `flips_of_tasks` and `flips_of_seeds` are sign-flip tests of the mean gain: whether other tasks
    like these would have one, and whether other seeds would on these tasks; the second is None
    where no task has several seeds. `effect` is the gain by its spread over tasks.

    `correlation` is Spearman's rank correlation, over tasks, of the gain with the top-1 of a linear
    probe, and `p` its exact p-value over all orders of the tasks; both are None over fewer than
    `LEAST_TASKS` tasks.
    """

    setting: Setting
    tasks: tuple[str, ...]
    gain: float
    interval: Interval | None = None
    effect: Effect | None = None
    flips_of_tasks: Corrected
    flips_of_seeds: Corrected | None = None
    correlation: float | None = None
    p: float | None = None


class StudyReport(Frozen):
    """A study as data. Accuracies are fractions.

    `missing` are the folders of planned runs that are not finished, or whose result cannot be read;
    `unusable` are the messages of the latter. `probe` is the top-1 of a linear probe by task, for
    tasks on which the study has one. `ranks` are those of the settings, if there are enough.
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
    ranks: Ranks | None = None


def build_study_report(plan: StudyPlan, folder: Path) -> StudyReport:
    """The report of the finished runs of a study, whose folder is `folder`."""
    outcomes, missing, faults = read_outcomes(plan, folder)
    comparisons = _corrected(list(_comparisons(plan, outcomes)))
    probe = _probe(outcomes)
    scores = tuple(_scores(outcomes))
    folders = tuple(dict.fromkeys(entry.folder for entry in missing))
    return StudyReport(
        name=plan.name,
        title=plan.title,
        reference=plan.reference,
        finished=len(plan.runs) - len(folders),
        missing=folders,
        unusable=tuple(map(in_one_line, faults)),
        scores=scores,
        comparisons=tuple(comparisons),
        over_tasks=tuple(_flips_corrected(list(_over_tasks(comparisons, probe)))),
        probe=probe,
        ranks=_ranks(scores),
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


def _ranks(scores: Sequence[Score]) -> Ranks | None:
    by_setting: dict[str, dict[str, float]] = {}
    for score in scores:
        by_setting.setdefault(score.setting.name, {})[score.task] = score.top1
    return average_ranks(by_setting)


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
                by_seed = tuple(map(float, known[task].mean(1)))
                yield Comparison(setting=setting, task=task, difference=found, by_seed=by_seed)
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
        own = [one for one in comparisons if one.setting == setting]
        gains = {one.task: one.difference.gain for one in own if one.difference is not None}
        if not gains:
            continue
        by_seed = [one.by_seed for one in own if one.by_seed]
        several = any(len(seeds) > 1 for seeds in by_seed)
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
            effect=effect_over_tasks(list(gains.values())),
            flips_of_tasks=Corrected(p=sign_flip_p(by_seed, unit="tasks")),
            flips_of_seeds=Corrected(p=sign_flip_p(by_seed, unit="seeds")) if several else None,
            correlation=rho,
            p=p,
        )


def _flips_corrected(over: Sequence[OverTasks]) -> list[OverTasks]:
    """The settings with Holm's correction of each of the two sign-flip tests over all of them."""
    tasks = holm([one.flips_of_tasks.p for one in over])
    seeds = iter(holm([one.flips_of_seeds.p for one in over if one.flips_of_seeds is not None]))
    return [
        one.model_copy(
            update={
                "flips_of_tasks": Corrected(p=one.flips_of_tasks.p, holm=corrected),
                "flips_of_seeds": one.flips_of_seeds
                and Corrected(p=one.flips_of_seeds.p, holm=next(seeds)),
            }
        )
        for one, corrected in zip(over, tasks, strict=True)
    ]


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
