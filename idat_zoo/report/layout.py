"""Layout of a report: sections of titles, tables and sentences, with numbers in per cent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from idat_zoo.data.suites import load_suite
from idat_zoo.data.suites.base import Suite
from idat_zoo.intervals import Interval
from idat_zoo.report.against_layout import lay_out_against
from idat_zoo.report.build import Report
from idat_zoo.report.cells import (
    Names,
    Section,
    as_count,
    as_words,
    footnote_letters,
    percent,
    plural,
    points,
    table_section,
)
from idat_zoo.report.gain import Gain
from idat_zoo.report.means import Mean, SeriesMeans
from idat_zoo.report.ranks_layout import lay_out_ranks
from idat_zoo.report.rows import Estimate, Row, SelectedValues
from idat_zoo.results import DIVERGED, ENSEMBLE, JOINT, WATCHED, raw_pixels_in_words
from idat_zoo.standing import in_words, too_few_in_words

INTRODUCED = (
    "pair",
    "student",
    "student.weights",
    "teacher",
    "adapter",
    "teacher_adapter",
    "distillation",
    "lr",
    "epochs",
    "selection",
    "precision",
)
"""The fields that the first line names, if all recipes share them."""

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def lay_out(report: Report, *, label_width: int | None = None) -> list[Section]:
    """The sections of a report in reading order; empty ones are left out.

    Recipes are named by their labels. If a label is longer than `label_width`, they are named R1,
    R2, … instead, and the first section explains these names.
    """
    names = name_recipes(report, label_width)
    sections = [_introduction(report, names), _scores(report.rows, names)]
    for suite in dict.fromkeys(series.suite for series in report.means):
        means = [series for series in report.means if series.suite == suite]
        sections.append(_means(load_suite(suite), means, names))
        if suite in report.ranks:
            over = f" of {load_suite(suite).title}"
            sections.append(
                lay_out_ranks(report.ranks[suite], what="recipes", over=over, names=names)
            )
    if report.gains:
        sections.append(_gains(report.gains, names))
    if report.published is not None:
        sections += lay_out_against(report.published, names)
    if report.notes:
        sections.append(Section(title="Mind when comparing", lines=report.notes))
    return sections


def name_recipes(report: Report, label_width: int | None) -> Names:
    """The name of each recipe by its label in words; see `lay_out`."""
    labels = [row.label for row in report.rows]
    labels += [series.label for series in report.means] + [gain.label for gain in report.gains]
    if report.published is not None:
        labels += [ours.label for one in report.published.beside for ours in one.ours]
    words = list(dict.fromkeys(map(as_words, labels)))
    if label_width is None or max(map(len, words)) <= label_width:
        return {label: label for label in words}
    numbered = {label: f"R{number}" for number, label in enumerate(filter(None, words), start=1)}
    return {"": "", **numbered}


def _introduction(report: Report, names: Names) -> Section:
    shared = {name: report.shared[name] for name in INTRODUCED if name in report.shared}
    who = "All" if report.recipes > 1 else "The recipe"
    key = [f"{name}: {label}" for label, name in names.items() if name != label]
    return Section(
        title=f"{plural(report.results, 'result')}, {plural(report.recipes, 'recipe')}",
        lines=(*([f"{who}: {as_words(shared)}"] if shared else []), *key),
    )


def _scores(rows: Sequence[Row], names: Names) -> Section:
    letters = footnote_letters(str(mark) for row in rows for mark in row.marks)
    columns = {
        "task": [row.task for row in rows],
        "recipe": [names[as_words(row.label)] for row in rows],
        "top-1 %": [_estimate(row.top1) for row in rows],
        "interval": [_interval(row.top1.interval) for row in rows],
        "over": [row.top1.over if any(len(r.seeds) > 1 for r in rows) else "" for row in rows],
        "seeds": [str(len(row.seeds)) for row in rows],
        "top1_best_on_test %": [_percent_or_none(row.top1_best_on_test) for row in rows],
        "teacher": [_estimate(row.teacher_top1) if row.teacher_top1 else "" for row in rows],
        "parameters": [_parameters(row) for row in rows],
        "differs in": [", ".join(letters[str(mark)] for mark in row.marks) for row in rows],
    }
    standing = [line for row in rows for line in _standing(row, names)]
    selections = [
        f"{_called(row, names)}: {_chosen(row.selection)}" for row in rows if row.selection
    ]
    lines = [*_explained(letters), *standing, *selections, *_legend(rows)]
    return table_section("Top-1 on test", columns, lines)


def _explained(letters: Mapping[str, str]) -> Iterator[str]:
    """What the letters of rows mean."""
    if letters:
        yield "differs in: what a row does not share with most rows that it is compared with."
    for mark, letter in letters.items():
        yield f"{letter}: {mark}."


def _called(thing: Row | Gain, names: Names) -> str:
    """The names of task and recipe, as sentences begin."""
    return ", ".join(filter(None, (thing.task, names[as_words(thing.label)])))


def _standing(row: Row, names: Names) -> Iterator[str]:
    """Sentences about a row: how it compares with the baselines, and warnings about its number."""
    called = _called(row, names)
    yield f"{called}: {in_words(row.top1.mean, row.baselines, percent)}"
    if row.too_few_images:
        yield f"{called}: {too_few_in_words(row.images)}"
    if row.diverged:
        yield f"{called}, seed {', '.join(map(str, row.diverged))}: {DIVERGED}"


def _chosen(selection: SelectedValues) -> str:
    settings = "; ".join(dict.fromkeys(as_words(values) for values in selection.values))
    if selection.mode == "ensemble":
        return f"ensemble of {selection.candidates}: {settings}"
    candidates = plural(selection.candidates, "candidate")
    return f"{settings} was chosen on val200 among {candidates}"


def _legend(rows: Sequence[Row]) -> list[str]:
    """Explanations of the terms that occur in the table."""
    over = {row.top1.over for row in rows}
    best = any(row.top1_best_on_test is not None for row in rows)

    def labelled(field: str, value: str) -> bool:
        return any(row.label.get(field) == value for row in rows)

    legend = {
        "The 95 % interval over images (Wilson's, at the mean) covers what other test images "
        "would give.": "images" in over,
        "The 95 % interval over seeds (Student's, of the mean) covers what other seeds would give "
        "on these test images.": "seeds" in over,
        "With several seeds the wider of the two stands; ± is the seeds' standard deviation.": any(
            len(row.seeds) > 1 for row in rows
        ),
        "top1_best_on_test is the best of all epochs on test (protocol = paper), so optimistic; "
        "top-1 is the last epoch's.": best,
        f"selection ensemble: {ENSEMBLE}.": labelled("selection", "ensemble"),
        f"task_loss joint: {JOINT.partition(': ')[2]}.": labelled("task_loss", "joint"),
        f"watch val: {WATCHED['val']}.": labelled("watch", "val"),
        f"watch test: {WATCHED['test']}.": labelled("watch", "test"),
        "protocol imported: trained elsewhere, with settings that are not known.": labelled(
            "protocol", "imported"
        ),
        "teacher: its own top-1 %. parameters: trained, adapter + head.": True,
    }
    pixels = dict.fromkeys(row.raw_pixels for row in rows if row.raw_pixels is not None)
    baselines = [raw_pixels_in_words(one) for one in pixels]
    return [*baselines, *(line for line, applies in legend.items() if applies)]


def _means(suite: Suite, means: Sequence[SeriesMeans], names: Names) -> Section:
    columns = {
        "recipe": [names[as_words(series.label)] for series in means],
        **{name: [_group_mean(series, name) for series in means] for name in suite.groups},
        "overall": [_overall(series.overall) for series in means],
        "top1_best_on_test %": [_best_overall(series.overall) for series in means],
    }
    by_task: dict[str, list[str]] = {}
    for series in means:
        for name, tasks in series.by_task.items():
            who = names[as_words(series.label)] or "the recipes"
            by_task.setdefault(_by_task(name, tasks), []).append(who)
    varied = [f"{'; '.join(who)}: {text}" for text, who in by_task.items()]
    title = f"Means of top-1 % over {suite.title}"
    return table_section(title, columns, [*varied, *means_legend(means)])


def _group_mean(series: SeriesMeans, name: str) -> str:
    for group in series.groups:
        if group.name == name:
            partly = f" ({group.count} of {group.of} tasks)" if group.count < group.of else ""
            return percent(group.top1) + partly
    return ""


def _overall(means: Iterable[Mean]) -> str:
    return ", ".join(f"{mean.name} {percent(mean.top1)}" for mean in means)


def _best_overall(means: Iterable[Mean]) -> str:
    return ", ".join(
        f"{mean.name} {percent(mean.top1_best_on_test)}"
        for mean in means
        if mean.top1_best_on_test is not None
    )


def _by_task(name: str, tasks: Mapping[str, Sequence[str]]) -> str:
    """`lr 0.01 on svhn, kitti; 0.001 on the others`."""
    usual = max(tasks, key=lambda value: len(tasks[value]))
    rare = [f"{value} on {', '.join(tasks[value])}" for value in tasks if value != usual]
    return f"{name} {'; '.join(rare)}; {usual} on the others"


def means_legend(means: Sequence[SeriesMeans]) -> list[str]:
    """What the named means are over, if there are any."""
    every = means[0].overall[0].of
    named = next((s.overall for s in means if s.overall[0].name == f"mean{every}"), ())
    if not named:
        return []
    legend = f"{named[0].name} is over the {every} tasks"
    for mean in named[1:]:
        legend += f", {mean.name} over the {NUMBERS.get(mean.of, mean.of)} group means"
    return [f"{legend}."]


def _gains(gains: Sequence[Gain], names: Names) -> Section:
    return Section(
        title="Gain from the teacher, in points of top-1",
        columns=("task", "recipe", "seed", "gain", "95 % interval"),
        rows=tuple(row for gain in gains for row in _gain_rows(gain, names)),
        lines=(
            "The student's top-1 with its teacher minus that of the student alone, same seed.",
            "Intervals over images are Tango's for paired proportions, Newcombe's for unpaired "
            "ones; the mean's is the wider of that and Student's over seeds.",
            *_gain_remarks(gains, names),
        ),
    )


def _gain_remarks(gains: Sequence[Gain], names: Names) -> list[str]:
    """Why gains are not paired and which seeds are left out; each reason once."""
    places: dict[str, list[str]] = {}
    for gain in gains:
        reasons = [
            f"not paired, a plain difference: {s.unpaired}" for s in gain.seeds if s.unpaired
        ]
        reasons += [
            f"seed {seed} is left out, only one of the two recipes has it" for seed in gain.alone_in
        ]
        for reason in dict.fromkeys(reasons):
            places.setdefault(reason, []).append(_called(gain, names))
    return [f"{'; '.join(where)}: {reason}" for reason, where in places.items()]


def _gain_rows(gain: Gain, names: Names) -> list[tuple[str, ...]]:
    who = (gain.task, names[as_words(gain.label)])
    rows: list[tuple[str, ...]] = [
        (
            *who,
            str(seed.seed),
            points(seed.gain),
            f"{_points_interval(seed.interval)} ({'not ' if seed.unpaired else ''}paired, "
            f"{seed.images} images)",
        )
        for seed in gain.seeds
    ]
    if gain.mean is not None:
        mean = gain.mean
        counted = {"seeds": len(gain.seeds), "images": gain.seeds[0].images}[mean.over]
        over = f"{_points_interval(mean.interval)} ({counted} {mean.over})"
        rows.append((*who, "mean", f"{points(mean.gain)} ± {percent(mean.sd)}", over))
    return rows


def _parameters(row: Row) -> str:
    return f"{as_count(row.adapter_parameters)} + {as_count(row.head_parameters)}"


def _percent_or_none(fraction: float | None) -> str:
    return "" if fraction is None else percent(fraction)


def _estimate(estimate: Estimate) -> str:
    sd = "" if estimate.sd is None else f" ± {percent(estimate.sd)}"
    return percent(estimate.mean) + sd


def _interval(interval: Interval) -> str:
    return "–".join(f"{100 * end:.1f}" for end in interval)


def _points_interval(interval: Interval) -> str:
    return " to ".join(points(end) for end in interval)
