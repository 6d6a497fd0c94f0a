"""The entries of the Hub's file of evaluation results: one value for each task.

An entry has no interval: the interval, what it covers, and what the number rests on are in its
notes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idat_zoo.errors import UsageError
from idat_zoo.report.against_layout import RULES
from idat_zoo.report.card import as_plain, metric_in_words
from idat_zoo.report.rows import Group, Row, build_rows, group_results
from idat_zoo.results import RESULT_FILE, Result

COVERED = {"images": "test images", "seeds": "seeds"}


def eval_entries(results: Mapping[str, Result], dataset: str) -> list[dict[str, Any]]:
    """One entry for each task, by the fields of the Hub's library; `results` by their subfolder.

    The value is the top-1 of the last epoch as a fraction, the mean over seeds. The source is the
    path of the first seed's result.

    Raises: UsageError for a task with several recipes: to choose one would be to select on test.
    """
    groups, _ = group_results((Path(below) / RESULT_FILE, run) for below, run in results.items())
    _check_one_each([group.task for group in groups])
    rows = build_rows(groups)
    return [_entry(group, row, dataset) for group, row in zip(groups, rows, strict=True)]


def _check_one_each(tasks: Sequence[str]) -> None:
    several = sorted({task for task in tasks if tasks.count(task) > 1})
    if several:
        raise UsageError(
            "evaluation results have one value for each task, and there are several recipes (or "
            f"copies of the images) of {', '.join(several)}.",
            hint="Leave --eval-results out, or publish one recipe of each task in a new --repo.",
        )


def _entry(group: Group, row: Row, dataset: str) -> dict[str, Any]:
    path, first = group.results[0]
    return as_plain(
        {
            "dataset_id": dataset,
            "task_id": row.task,
            "value": row.top1.mean,
            "date": max(result.finished for _, result in group.results),
            "source_url": path.as_posix(),
            "source_name": f"{RESULT_FILE} of seed {first.seed}",
            "notes": "; ".join(_notes(first, row)),
        }
    )


def _notes(first: Result, row: Row) -> Iterator[str]:
    """What is to be known of a row's number."""
    low, high = row.top1.interval
    several = f"mean of {len(row.seeds)} seeds, " if len(row.seeds) > 1 else ""
    yield f"{metric_in_words(first)}, {several}as a fraction"
    yield f"95 % interval {low:.4f} to {high:.4f}, which covers other {COVERED[row.top1.over]}"
    yield f"{row.images} test images"
    in_words = {**row.basis.in_words, "selection": RULES[row.basis.selection]}
    yield from (f"{what} {value}" for what, value in in_words.items())
    if row.diverged:
        yield f"training diverged with seeds {', '.join(map(str, row.diverged))}"
