"""Layout of a study's report: sections of titles, tables and sentences, in per cent."""

from collections.abc import Iterator, Sequence

from idat_zoo.report.cells import Section, effect_in_words, p_value, percent, points, table_section
from idat_zoo.report.effect import LEAST_TASKS as LEAST_FOR_AN_INTERVAL
from idat_zoo.report.ranks_layout import lay_out_ranks
from idat_zoo.standing import TOO_CLOSE
from idat_zoo.study.failures import UNUSABLE
from idat_zoo.study.report import Comparison, Score, StudyReport

LISTED = 8
"""Folders of missing runs that are named; of more, the number is given."""


def lay_out_study(report: StudyReport) -> list[Section]:
    """The sections of a study's report in reading order."""
    sections = [_introduction(report)]
    if report.scores:
        sections += [_scores(report), *_teachers(report)]
    if report.comparisons:
        sections += [findings(report), _comparisons(report), _over_tasks(report)]
    if report.ranks is not None:
        sections.append(lay_out_ranks(report.ranks, what="settings"))
    return sections


def _introduction(report: StudyReport) -> Section:
    planned = report.finished + len(report.missing)
    lines = [f"{report.finished} of {planned} runs are finished."]
    if report.missing:
        named = ", ".join(report.missing[:LISTED])
        more = len(report.missing) - LISTED
        lines.append(f"missing: {named}{f' and {more} more' if more > 0 else ''}")
    lines += [f"{UNUSABLE}: {message}" for message in report.unusable]
    return Section(title=f"{report.title} (study {report.name})", lines=tuple(lines))


def _scores(report: StudyReport) -> Section:
    """Top-1 with a line for each setting and a column for each task."""
    tasks = list(dict.fromkeys(score.task for score in report.scores))
    by_place = {(score.setting, score.task): score for score in report.scores}
    counts = {len(score.seeds) for score in report.scores}
    columns, rows = ["adapter", "arm", *tasks], []
    for setting in dict.fromkeys(score.setting for score in report.scores):
        own = [by_place.get((setting, task)) for task in tasks]
        row = [setting.adapter, setting.label, *map(_score, own)]
        rows.append((*row, *([_seeds(own)] if len(counts) > 1 else [])))
    return Section(
        title="Top-1 on test, in per cent",
        columns=(*columns, *(["seeds"] if len(counts) > 1 else [])),
        rows=tuple(rows),
        lines=(_means(counts),) if counts else (),
    )


def _means(counts: set[int]) -> str:
    if counts == {1}:
        return "One seed."
    over = f"{counts.pop()} " if len(counts) == 1 else ""
    return f"Means over {over}seeds, ± the seeds' standard deviation."


def _teachers(report: StudyReport) -> Iterator[Section]:
    """Top-1 of the teachers, with a line for each setting that has any."""
    with_teacher = [score for score in report.scores if score.teacher is not None]
    tasks = list(dict.fromkeys(score.task for score in with_teacher))
    by_place = {(score.setting, score.task): score.teacher for score in with_teacher}
    rows = [
        (
            setting.adapter,
            setting.label,
            *(_share(by_place.get((setting, task))) for task in tasks),
        )
        for setting in dict.fromkeys(score.setting for score in with_teacher)
    ]
    if rows:
        yield Section(
            title="Top-1 of the teacher, in per cent",
            columns=("adapter", "arm", *tasks),
            rows=tuple(rows),
            lines=("The network beside the student, which is not kept; means over seeds.",),
        )


def _share(top1: float | None) -> str:
    return "–" if top1 is None else f"{100 * top1:.1f}"


def _score(score: Score | None) -> str:
    if score is None:
        return "–"
    deviation = "" if score.sd is None else f" ± {100 * score.sd:.1f}"
    return f"{_share(score.top1)}{deviation}"


def _seeds(scores: Sequence[Score | None]) -> str:
    """The number of seeds; a range if it differs between tasks."""
    counts = {len(score.seeds) for score in scores if score is not None}
    return "–".join(map(str, sorted({min(counts), max(counts)})))


def findings(report: StudyReport) -> Section:
    """Gains in points with a line for each setting and a column for each task.

    A star marks those that differ from 0 after Holm's correction.
    """
    tasks = list(dict.fromkeys(one.task for one in report.comparisons))
    by_place = {(one.setting, one.task): one for one in report.comparisons}
    known = [one for one in report.comparisons if one.difference is not None]
    over = "the one comparison" if len(known) == 1 else f"all {len(known)} comparisons"
    rule = (
        f"*: p is below 0.05 after Holm's correction over {over}; every other gain is {TOO_CLOSE}."
    )
    return Section(
        title=f"Findings: gain of each arm over '{report.reference}', in points of top-1",
        columns=("adapter", "arm", *tasks),
        rows=tuple(
            (
                over.setting.adapter,
                over.setting.label,
                *(_starred(by_place.get((over.setting, task))) for task in tasks),
            )
            for over in report.over_tasks
        ),
        lines=(rule if known else "None can be compared; why is said below.",),
    )


def _starred(one: Comparison | None) -> str:
    if one is None or one.difference is None:
        return "–"
    return f"{points(one.difference.gain)}{'*' if one.differs else ''}"


def _comparisons(report: StudyReport) -> Section:
    spans = {one.difference.seeds for one in report.comparisons if one.difference is not None}
    lines = [
        "Paired by test image and seed. p is two-sided; p (Holm) is corrected over all "
        "comparisons of this table.",
        *(
            [
                "With several seeds an interval covers other test images and other seeds; the "
                "seeds' variance is pooled over an arm's tasks, and taken to be the same on each."
            ]
            if spans - {1}
            else []
        ),
        *(["With one seed an interval covers other test images alone."] if 1 in spans else []),
    ]
    return Section(
        title=f"Gain over '{report.reference}', in points of top-1",
        columns=("adapter", "arm", "task", "gain", "95 % interval", "p", "p (Holm)"),
        rows=tuple(map(_comparison_row, report.comparisons)),
        lines=(*lines, *_unpaired(report.comparisons)),
    )


def _comparison_row(one: Comparison) -> tuple[str, ...]:
    who = (one.setting.adapter, one.setting.label, one.task)
    if one.difference is None:
        return (*who, "–", "–", "–", "–")
    low, high = one.difference.interval
    return (
        *who,
        points(one.difference.gain),
        f"{points(low)} to {points(high)}",
        p_value(one.difference.p),
        p_value(one.difference.holm),
    )


def _unpaired(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for one in comparisons:
        if one.why_not:
            yield f"{one.setting.name}, {one.task}: {one.why_not}"


def _over_tasks(report: StudyReport) -> Section:
    over = report.over_tasks
    several = any(one.flips_of_seeds is not None for one in over)
    columns = {
        "adapter": [one.setting.adapter for one in over],
        "arm": [one.setting.label for one in over],
        "mean gain": [points(one.gain) for one in over],
        "95 % interval": [" to ".join(map(points, one.interval or ())) for one in over],
        "tasks": [str(len(one.tasks)) for one in over],
        "p (tasks)": [p_value(one.flips_of_tasks.holm) for one in over],
        "p (seeds)": [
            "" if one.flips_of_seeds is None else p_value(one.flips_of_seeds.holm) for one in over
        ],
        "effect": [effect_in_words(one.effect) if one.effect else "" for one in over],
        "rank correlation": [
            "" if one.correlation is None else f"{one.correlation:+.2f}" for one in over
        ],
        "p": ["" if one.p is None else p_value(one.p) for one in over],
    }
    probe = ", ".join(f"{task} {percent(top1)}" for task, top1 in report.probe.items())
    explained = {
        "95 % interval": "The interval is Student's over the tasks: it covers other tasks like "
        "these.",
        "p (tasks)": "p (tasks): of the mean gain by flipping the signs of tasks, for other "
        "tasks like these"
        + (
            "; p (seeds): by flipping those of seeds within tasks, for other seeds on these tasks "
            "and images, where seeds that agree exactly are one. Each is"
            if several
            else ". It is"
        )
        + " corrected over the rows of this table by Holm's method.",
        "effect": "effect: the mean gain in its standard deviations over tasks; from "
        f"{LEAST_FOR_AN_INTERVAL} tasks up with a 95 % bootstrap interval over tasks.",
        "rank correlation": "rank correlation: Spearman's, over the tasks, of the gain with the "
        f"strength of the frozen features, which is the top-1 of a linear probe ({probe}); p is "
        "exact, and not corrected.",
    }
    title = f"Over tasks: mean gain over '{report.reference}', in points of top-1"
    lines = [explained[name] for name, cells in columns.items() if name in explained and any(cells)]
    return table_section(title, columns, lines)
