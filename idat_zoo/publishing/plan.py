"""The plan of one commit that brings finished runs to a repository as it is now."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.errors import HubError, UnknownNameError, UsageError
from idat_zoo.hub.eval_results_file import EVAL_RESULTS_FILE, write_eval_results
from idat_zoo.hub.head import Head
from idat_zoo.hub.upload import Published, upload
from idat_zoo.publishing.card import CARD_FILE, CardThere
from idat_zoo.publishing.contents import all_names, find_exports, own_files
from idat_zoo.publishing.finished_run import read_finished, reloaded
from idat_zoo.publishing.repository import (
    ROOT,
    check_kin,
    check_same,
    digests,
    index_of,
    join,
    place_of,
    read_published,
)
from idat_zoo.report.benchmark import Averaged
from idat_zoo.report.card import Exports
from idat_zoo.report.eval_results import eval_entries

ASTRAY = "adapter_config.json"
"""A file that is always removed: with it, PEFT would read our tensors as if they were its own."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A commit that is ready: the files that it adds (`contents`) and removes (`without`).

    It goes on `head`. `foreign` are files of the head that are not ours, and would be overwritten
    or removed; `refused` has those of them that no person named, each with the reason why it is not
    ours. `suites` are those of the runs' tasks. `diverged` are the folders of runs whose training
    diverged.
    """

    head: Head
    contents: Mapping[str, bytes]
    without: frozenset[str]
    foreign: frozenset[str]
    refused: Mapping[str, str]
    message: str
    suites: frozenset[str]
    diverged: tuple[Path, ...]

    def states(self) -> dict[str, str]:
        """The state of each file: new, changed, overwritten, unchanged or removed."""
        states = dict.fromkeys(self.without, "removed")
        for path, content in self.contents.items():
            if path not in self.head.files:
                states[path] = "new"
            elif self.head.holds(path, content):
                states[path] = "unchanged"
            else:
                states[path] = "overwritten" if path in self.foreign else "changed"
        return dict(sorted(states.items()))

    def require_allowed(self) -> None:
        """Refuse to overwrite files of others that no person named. Raises: HubError."""
        if not self.refused:
            return
        told = [f"{path} ({why})" if why else path for path, why in sorted(self.refused.items())]
        raise HubError(
            f"'{self.head.repo}' holds what idat-zoo did not write: {', '.join(told)}.",
            hint="Choose another --repo, or let these be overwritten or removed by name: "
            f"--overwrite {','.join(sorted(self.refused))}",
        )


def plan(
    folders: Sequence[Path],
    head: Head,
    *,
    with_teacher: bool = False,
    overwrite: Collection[str] = (),
    averaged: Averaged | None = None,
    dataset: str | None = None,
) -> Plan:
    """Check finished runs, and plan the commit that publishes them on a repository's head.

    `overwrite` are the paths of files of others that may be overwritten or removed. The card takes
    means over the tasks in `averaged`. With a `dataset` of the Hub there is a file of evaluation
    results, too.

    Raises: RunFolderError for a folder without a finished run, or with files that are not its own;
    CheckpointError where a reload does not give the run's probe logits; UsageError for runs that do
    not belong together or into the repository; UnknownNameError for a path in `overwrite` that is
    neither in the repository nor in the commit; HubError.
    """
    runs = {folder: read_finished(folder, with_teacher=with_teacher) for folder in folders}
    before = read_published(head)
    indexed = len(runs) > 1 or (before is not None and ROOT not in before)
    if before is not None and indexed == (ROOT in before):
        raise UsageError(
            f"'{head.repo}' holds one run at its root; several need a repository of their own.",
            hint="Choose another --repo.",
        )
    if before is not None and not indexed:
        check_same(head.repo, before[ROOT], next(iter(runs.values())).result)
    placed = {(place_of(run.result) if indexed else ROOT): run for run in runs.values()}
    if len(placed) < len(runs):
        raise UsageError("the same run was given twice.")
    results = {**(before or {}), **{place: run.result for place, run in placed.items()}}
    if not indexed:
        results = {ROOT: next(iter(runs.values())).result}
    check_kin(results)
    contents: dict[str, bytes] = {}
    exports: Exports | None = None
    for place, run in placed.items():
        checkpoint = reloaded(run)
        exports = exports or find_exports(checkpoint)
        own = own_files(run, checkpoint)
        contents |= {join(place, name): content for name, content in own.items()}
    if indexed:
        contents[CONFIG_FILE] = index_of(results)
    if dataset is not None:
        contents[EVAL_RESULTS_FILE] = write_eval_results(head.repo, eval_entries(results, dataset))
    claimed = {join(place, name) for place in placed for name in (*all_names(), ASTRAY)}
    claimed.add(EVAL_RESULTS_FILE)
    without = (head.files.keys() & claimed) - contents.keys()
    card = CardThere.read(head)
    known = {**digests(before or {}), **card.files}
    touched = without | {
        path
        for path, content in contents.items()
        if path in head.files and not head.holds(path, content)
    }
    foreign = {
        path: "" for path in touched if path not in known or not head.has_digest(path, known[path])
    }
    known = {path: digest for path, digest in known.items() if path not in without}
    known |= {path: sha256(content).hexdigest() for path, content in contents.items()}
    assert exports is not None, "there is at least one run"
    contents[CARD_FILE] = card.renewed(head.repo, results, known, exports, averaged)
    if card.not_ours and not head.holds(CARD_FILE, contents[CARD_FILE]):
        foreign[CARD_FILE] = card.not_ours
    for name in overwrite:
        if name not in head.files.keys() | contents.keys():
            raise UnknownNameError("file", name, foreign or contents)
    return Plan(
        head=head,
        contents=contents,
        without=frozenset(without),
        foreign=frozenset(foreign),
        refused={path: why for path, why in foreign.items() if path not in overwrite},
        message=f"idat publish: {len(runs)} run{'s' if len(runs) > 1 else ''}",
        suites=frozenset(one.recipe.task.suite for one in results.values()),
        diverged=tuple(folder for folder, run in runs.items() if run.result.diverged),
    )


def publish(
    ready: Plan, *, private: bool = True, tag: str = "", create_pr: bool = False
) -> Published:
    """Upload a plan in one commit. Raises: HubError."""
    ready.require_allowed()
    return upload(
        ready.head,
        ready.contents,
        without=ready.without,
        message=ready.message,
        private=private,
        tag=tag,
        create_pr=create_pr,
    )
