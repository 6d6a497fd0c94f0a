"""The page of the committed study `inverse`, for the tests of pages."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from made_results import AVERAGED, Found, build_report

from idat_zoo.page.entries import Entry, build_entries
from idat_zoo.page.write import build_page
from idat_zoo.report.build import Report, sorted_groups
from idat_zoo.report.rows import Group
from idat_zoo.results import find_results

RESULTS = Path(__file__).parents[1] / "benchmarks/results"
MSE = "lora, with micro_teacher, mse"


def entries_of(found: Sequence[Found]) -> tuple[Report, list[Group], list[Entry]]:
    """The report of results, its groups, and the entries of its page."""
    report = build_report(found)
    groups, _ = sorted_groups(found, AVERAGED)
    return report, groups, build_entries(report.rows, groups)


@cache
def inverse() -> tuple[Report, list[Group], list[Entry]]:
    """Those of the 207 committed runs: real ones, with predicted classes."""
    return entries_of(find_results([RESULTS / "inverse"]))


@cache
def page() -> str:
    """The page of these runs, with one download."""
    report, groups, _ = inverse()
    return build_page(report, groups).render(title="A report", downloads={"a.json": '{"a": 1}'})
