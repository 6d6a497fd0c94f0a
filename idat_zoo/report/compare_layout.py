"""The layout of a comparison: what differs in the recipes, the gains, classes and images."""

from idat_zoo.report.cells import Section, effect_in_words, p_value, percent, points
from idat_zoo.report.compare import NONE, RunsComparison, TaskComparison
from idat_zoo.report.fields import as_text

MOST_IMAGES = 20
"""The number of changed images of a task that are listed; JSON has all of them."""


def lay_out_comparison(found: RunsComparison) -> list[Section]:
    """The sections of a comparison in reading order."""
    sections = [_fields(found), _gains(found)]
    for one in found.tasks:
        if one.difference is not None and one.images:
            sections += [_classes(one), _images(one)]
    return sections


def _fields(found: RunsComparison) -> Section:
    """The fields that both recipes have and that differ; then those that only one of them has."""
    both = {name: pair for name, pair in found.fields.items() if NONE not in pair}
    lines = [f"A: {found.first}", f"B: {found.second}"]
    if not found.fields:
        lines.append("The recipes are the same.")
    for place, side in enumerate("AB"):
        own = {name: pair[place] for name, pair in found.fields.items() if pair[1 - place] == NONE}
        if own:
            values = "; ".join(f"{name} {as_text(value)}" for name, value in own.items())
            lines.append(f"only in {side}: {values}")
    for side, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            lines.append(f"only {side} has: {', '.join(only)}")
    return Section(
        title="What differs in the recipes",
        columns=("field", "A", "B") if both else (),
        rows=tuple(
            (name, as_text(first), as_text(second)) for name, (first, second) in both.items()
        ),
        lines=tuple(lines),
    )


def _gains(found: RunsComparison) -> Section:
    several = any(len(one.seeds) > 1 for one in found.tasks)
    lines = [
        "gain: B minus A, paired by test image and seed; the interval covers other test images"
        + (" and other seeds, of which the variance is pooled over tasks." if several else "."),
        "only A, only B: images that one side alone classifies correctly, by seed; McNemar's exact "
        "p of each seed.",
    ]
    if found.gain is not None:
        lines.append(_over_tasks(found, found.gain))
    lines += [f"{one.task}: not compared, {one.why_not}" for one in found.tasks if one.why_not]
    return Section(
        title="Top-1 on test, in per cent, and the gain in points",
        columns=(
            *("task", "seeds", "A", "B", "gain", "95 % interval", "p"),
            *("only A", "only B", "McNemar's p"),
        ),
        rows=tuple(map(_gain_row, found.tasks)),
        lines=tuple(lines),
    )


def _over_tasks(found: RunsComparison, gain: float) -> str:
    """`mean gain over 6 tasks: +1.00 (+0.20 to +1.80, Student's over the tasks); p …; effect …`"""
    parts = [f"mean gain over {len(found.tasks)} tasks: {points(gain)}"]
    if found.interval is not None:
        parts[0] += f" ({' to '.join(map(points, found.interval))}, Student's over the tasks)"
    if found.p_tasks is not None:
        parts.append(f"by sign flips p {p_value(found.p_tasks)} for other tasks like these")
    if found.p_seeds is not None:
        parts.append(f"{p_value(found.p_seeds)} for other seeds on these tasks and images")
    if found.effect is not None:
        parts.append(f"effect {effect_in_words(found.effect)}, in standard deviations over tasks")
    return "; ".join(parts)


def _gain_row(one: TaskComparison) -> tuple[str, ...]:
    start = (one.task, ", ".join(map(str, one.seeds)), percent(one.first), percent(one.second))
    if one.difference is None:
        return (*start, *["–"] * 6)
    low, high = one.difference.interval
    return (
        *start,
        points(one.difference.gain),
        f"{points(low)} to {points(high)}",
        p_value(one.difference.p),
        ", ".join(str(own.lost) for own in one.by_seed),
        ", ".join(str(own.gained) for own in one.by_seed),
        ", ".join(p_value(own.p) for own in one.by_seed),
    )


def _classes(one: TaskComparison) -> Section:
    """The classes with any change, the largest first."""
    changed = [own for own in one.classes if own.gained or own.lost]
    changed.sort(key=lambda own: -abs(own.gained - own.lost))
    same = len(one.classes) - len(changed)
    lines = ["only A, only B: images that one side alone classifies correctly, over all seeds."]
    if same:
        lines.append(f"{same} other classes have the same images right.")
    return Section(
        title=f"{one.task}: recall of each class, in per cent",
        columns=("class", "images", "A", "B", "only A", "only B"),
        rows=tuple(
            (
                _class(one, own.index),
                str(own.images),
                percent(own.first),
                percent(own.second),
                str(own.lost),
                str(own.gained),
            )
            for own in changed
        ),
        lines=tuple(lines),
    )


def _images(one: TaskComparison) -> Section:
    shown = one.images[:MOST_IMAGES]
    rest = len(one.images) - len(shown)
    return Section(
        title=f"{one.task}: images that changed sides",
        columns=("image", "seed", "class", "A says", "B says"),
        rows=tuple(
            (
                str(own.index),
                str(own.seed),
                *(_class(one, index) for index in (own.target, own.first, own.second)),
            )
            for own in shown
        ),
        lines=(f"{rest} more; --json has all of them.",) if rest else (),
    )


def _class(one: TaskComparison, index: int) -> str:
    names = {own.index: own.name for own in one.classes}
    return names.get(index) or str(index)
