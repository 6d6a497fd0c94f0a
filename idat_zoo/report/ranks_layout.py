"""Layout of average ranks: a table with the methods that cannot be told apart from the best."""

import itertools
from collections.abc import Iterator, Mapping
from string import ascii_lowercase

from idat_zoo.report.cells import Section, p_value
from idat_zoo.report.ranks import Ranks


def lay_out_ranks(
    ranks: Ranks, *, what: str, over: str = "", names: Mapping[str, str] | None = None
) -> Section:
    """Average ranks with their critical difference, the best first.

    `what` says what is ranked, `over` what the tasks are of; `names` has other names of methods.
    """
    names = names or {}
    called = {one.method: names.get(one.method, one.method) for one in ranks.methods}
    letters = dict(zip(ranks.alike, _letters(), strict=False))
    rows = tuple(
        (
            called[one.method],
            f"{one.rank:.2f}",
            " ".join(letter for run, letter in letters.items() if one.method in run) or "–",
        )
        for one in ranks.methods
    )
    lines = [
        f"1 is the best on every task. Friedman's p that all are alike: {p_value(ranks.p)}.",
        f"Two {what} differ at 0.05 if their ranks are more than {ranks.critical_difference:.2f} "
        "apart (Nemenyi's critical difference, corrected over all pairs); those with a letter in "
        "common do not.",
        "A task counts once, whatever its seeds and images: this is about other tasks like these.",
    ]
    if ranks.left_out:
        left_out = "; ".join(names.get(name, name) for name in ranks.left_out)
        lines.append(f"left out, without a result on every task: {left_out}")
    return Section(
        title=f"Average ranks of {len(rows)} {what} over {len(ranks.tasks)} tasks{over}",
        columns=("method", "rank", "alike"),
        rows=rows,
        lines=tuple(lines),
    )


def _letters() -> Iterator[str]:
    """a, …, z, aa, ab, …"""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(ascii_lowercase, repeat=length))
