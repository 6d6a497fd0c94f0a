"""The entries of a page: each row of the report, with its results and the name of its method."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idat_zoo.report.fields import Fields, as_text, differing
from idat_zoo.report.means import find_series
from idat_zoo.report.rows import Group, Row
from idat_zoo.values import Scalar

ALONE = "the recipe"
"""The name of a method that is the only one."""
FIRST = ("adapter", "teacher", "distillation")
"""The fields that name a method before any other, without the name of the field."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One recipe on one task, the row at `place` of the report.

    `method` names its series: recipes alike in all but the task.
    """

    place: int
    method: str
    row: Row
    group: Group

    @property
    def task(self) -> str:
        """The task's id."""
        return self.row.task


def build_entries(rows: Sequence[Row], groups: Sequence[Group]) -> list[Entry]:
    """The entries of rows and their groups, in their order.

    A method is named by as few fields as tell it from the others, adapter and teacher first.
    """
    pairs = list(zip(groups, rows, strict=True))
    series = find_series(pairs)
    names = _names([[group.fields for group, _ in own] for own in series])
    by_group = {
        id(group): name for own, name in zip(series, names, strict=True) for group, _ in own
    }
    return [
        Entry(place=place, method=by_group[id(group)], row=row, group=group)
        for place, (group, row) in enumerate(pairs)
    ]


def _names(series: Sequence[Sequence[Fields]]) -> list[str]:
    """A name for each series, by fields whose value is the same on all of its tasks.

    Of a field beyond `FIRST`, the most frequent value is not said; a field that tells no two series
    apart is left out.
    """
    fields = [_common(own) for own in series]
    differ = differing(fields)
    every = dict.fromkeys(name for own in fields for name in own)
    shown = [name for name in (*FIRST, *(n for n in every if n not in FIRST)) if name in differ]
    usual = {name: _most_frequent(fields, name) for name in shown if name not in FIRST}
    for name in [name for name in reversed(shown) if name not in FIRST]:
        fewer = [other for other in shown if other != name]
        if _count(fields, fewer, usual) == _count(fields, shown, usual):
            shown = fewer
    named = [_words(own, shown, usual) or ALONE for own in fields]
    again: dict[str, int] = {}
    found = []
    for name in named:  # series that differ in nothing but fields that change from task to task
        again[name] = again.get(name, 0) + 1
        found.append(name if named.count(name) == 1 else f"{name} ({again[name]})")
    return found


def _most_frequent(fields: Sequence[Fields], name: str) -> str:
    return Counter(as_text(own[name]) for own in fields if name in own).most_common(1)[0][0]


def _count(fields: Sequence[Fields], shown: Sequence[str], usual: Mapping[str, str]) -> int:
    """The number of different names."""
    return len({_words(own, shown, usual) for own in fields})


def _common(own: Sequence[Fields]) -> Mapping[str, Scalar]:
    """The fields with one value on all tasks of a series, without those of a task's images."""
    return {
        name: value
        for name, value in own[0].items()
        if all(other.get(name) == value for other in own)
        if not name.startswith(("task", "data"))
    }


def _words(fields: Fields, shown: Sequence[str], usual: Mapping[str, str]) -> str:
    """`lora, with micro_teacher, kl, lr 0.01`."""
    told = [name for name in shown if name in fields and as_text(fields[name]) != usual.get(name)]
    return ", ".join(_word(name, fields[name]) for name in told)


def _word(name: str, value: Scalar) -> str:
    text = as_text(value)
    if name == "teacher":
        return "alone" if text == "none" else f"with {text}"
    if name == "distillation":
        return "no distillation" if text == "none" else text
    return text if name == "adapter" else f"{name} {text}"
