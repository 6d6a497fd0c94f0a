"""Finished runs as a repository on the Hub: what goes there, once all about it was checked.

One run lies at the root of its repository. Several lie in folders, below an index (config.json)
that later runs are added to; the card is then of all of them.

What others put into a repository stays as it is, unless it is named: a file is ours where its
SHA-256 is the one that a published result, or the record in the card, has of it.
"""

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from idat_zoo import files
from idat_zoo.checkpoint import (
    CONFIG_FILE,
    TENSORS_FILE,
    Checkpoint,
    Entry,
    Index,
    load_checkpoint,
    probe_logits,
    read_config,
    read_index,
)
from idat_zoo.errors import (
    CheckpointError,
    HubError,
    RunFolderError,
    UnknownNameError,
    UsageError,
    ZooError,
)
from idat_zoo.formats import peft_export
from idat_zoo.hub import (
    Card,
    Head,
    HubReference,
    Published,
    fetch,
    read_card,
    upload,
    write_card,
)
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.report.card import PEFT_FOLDER, card_fields, card_scores, card_text
from idat_zoo.report.means import Averaged
from idat_zoo.report.section import INVITATION, KEYS, Section, find_section, write_section
from idat_zoo.results import Result, load_result
from idat_zoo.runs.file_names import RECIPE_FILE, RESULT_FILE
from idat_zoo.runs.folder import PROBE_FILE, TEACHER_FOLDER
from idat_zoo.runs.states import resume_command

CARD_FILE = "README.md"
NEEDED = (TENSORS_FILE, CONFIG_FILE, RECIPE_FILE, PROBE_FILE)
PROBE_TOLERANCE = 1e-4
"""How far a reload's probe logits may be from those that the run wrote, on another machine."""
LOCAL_PATH = re.compile(r"(?<![\w./-])(?:/(?:home|Users|root|tmp|mnt)/|[A-Z]:\\)\S+")
ROOT = ""
ASTRAY = "adapter_config.json"
"""What PEFT would read beside our tensors, which are not its own; so it never stays there."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A commit that is ready: its files by path, those that it takes out, the head it goes on.

    `foreign`: those of the head that are not ours, and would be overwritten or taken out; `refused`
    is why of each that was not named for it. `suites` are those of the runs' tasks.
    `diverged`: the folders of runs whose training did.
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
        """What becomes of each file: new, changed, overwritten, unchanged or removed."""
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
        """Raises: HubError naming what is not ours, and was not named to be overwritten."""
        if not self.refused:
            return
        told = [f"{path} ({why})" if why else path for path, why in sorted(self.refused.items())]
        raise HubError(
            f"'{self.head.repo}' holds what idat-zoo did not write: {', '.join(told)}.",
            hint="Choose another --repo, or let these be overwritten or removed by name: "
            f"--overwrite {','.join(sorted(self.refused))}",
        )


def find_finished_runs(places: Iterable[Path]) -> list[Path]:
    """The finished runs below folders; a folder without any as it is, for its fault to be told."""
    return [folder for place in places for folder in _runs_below(place) or [place]]


def _runs_below(place: Path) -> list[Path]:
    if (place / RESULT_FILE).exists():
        return [place]
    found = (path.parent for path in sorted(place.rglob(RESULT_FILE)))
    return [folder for folder in found if (folder / RECIPE_FILE).is_file()]


def plan(
    folders: Sequence[Path],
    head: Head,
    *,
    with_teacher: bool = False,
    overwrite: Collection[str] = (),
    averaged: Averaged | None = None,
) -> Plan:
    """Check runs, and work out the commit that brings them to a repository as it is now.

    `overwrite` names files of others that may go; the card takes means over the tasks in
    `averaged`.

    Raises: RunFolderError for a folder without a finished run, or with files that are not its own;
    CheckpointError where a reload does not give the run's probe logits; UsageError for runs that do
    not belong together or into the repository, and names of files that are not concerned; HubError.
    """
    runs = {folder: _finished(folder) for folder in folders}
    before = _published(head)
    indexed = len(runs) > 1 or (before is not None and ROOT not in before)
    if before is not None and indexed == (ROOT in before):
        raise UsageError(
            f"'{head.repo}' holds one run at its root; several need a repository of their own.",
            hint="Choose another --repo.",
        )
    if before is not None and not indexed:
        _check_same(head.repo, before[ROOT], next(iter(runs.values())))
    placed = {(_place(run) if indexed else ROOT): (folder, run) for folder, run in runs.items()}
    if len(placed) < len(runs):
        raise UsageError("the same run was given twice.")
    results = {**(before or {}), **{place: run for place, (_, run) in placed.items()}}
    if not indexed:
        results = {ROOT: next(iter(runs.values()))}
    _check_kin(results)
    contents: dict[str, bytes] = {}
    for place, (folder, run) in placed.items():
        checkpoint = _reloaded(folder)
        own = _own_files(folder, run, checkpoint, with_teacher=with_teacher)
        contents |= {_join(place, name): content for name, content in own.items()}
    if indexed:
        contents[CONFIG_FILE] = _index(results)
    claimed = {_join(place, name) for place in placed for name in (*_all_names(), ASTRAY)}
    without = (head.files.keys() & claimed) - contents.keys()
    card = _CardThere.read(head)
    known = {**_digests(before or {}), **card.files}
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
    contents[CARD_FILE] = card.renewed(head.repo, results, known, averaged)
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
        diverged=tuple(folder for folder, run in runs.items() if run.diverged),
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


def _published(head: Head) -> dict[str, Result] | None:
    """The results that a repository holds, by their folders; None where it has no runs yet.

    Raises: HubError for published runs that are damaged, or of a newer schema.
    """
    if CONFIG_FILE not in head.files:
        return None
    reference = HubReference(repo=head.repo, revision=head.commit)
    folder = fetch(reference, (CONFIG_FILE,))
    if not _is_config(folder / CONFIG_FILE):
        return None
    try:
        index = read_index(folder)
        root = fetch(reference, (RESULT_FILE,), below=index is not None)
        places = list(index.checkpoints) if index else [ROOT]
        return {place: load_result(root / place / RESULT_FILE) for place in places}
    except HubError:
        raise
    except ZooError as error:
        raise HubError(
            f"'{head.repo}' holds something else than published runs: {error.message}",
            hint="Choose another --repo.",
        ) from None


def _is_config(path: Path) -> bool:
    """Whether a config.json says that it is of idat-zoo; others have files of that name too."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("library") == "idat-zoo"


def _digests(published: Mapping[str, Result]) -> dict[str, str]:
    """The SHA-256 of files that follow from published results: those they name, and their index."""
    named = {
        _join(place, name): digest
        for place, result in published.items()
        for name, digest in result.files.items()
    }
    if published and ROOT not in published:
        named[CONFIG_FILE] = sha256(_index(published)).hexdigest()
    return named


def _finished(folder: Path) -> Result:
    """The folder's result, with every file beside it as it was when that was written."""
    if not (folder / RESULT_FILE).is_file():
        raise _no_run(folder)
    result = load_result(folder / RESULT_FILE)
    if result.kind != "run":
        raise RunFolderError(f"'{folder}' holds an evaluation, not a run.")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    changed = [
        name
        for name, sha256 in result.files.items()
        if (folder / name).is_file() and files.sha256(folder / name) != sha256
    ]
    if missing or changed:
        told = [f"{name} is missing" for name in missing]
        told += [f"{name} is not what the run wrote (SHA-256)" for name in changed]
        raise RunFolderError(f"'{folder}' is not whole: {'; '.join(told)}.")
    if not recipe_hash(result.recipe) == result.recipe_hash == read_config(folder).recipe_hash:
        raise RunFolderError(f"'{folder}': {RESULT_FILE} has another recipe than the run's.")
    if result.top1_best_on_test is not None and result.recipe.protocol != "paper":
        raise RunFolderError(
            f"'{folder}' has a best epoch on test, and is not labelled protocol = paper."
        )
    return result


def _no_run(folder: Path) -> RunFolderError:
    """Why a folder without a result cannot be published, by what it does hold."""
    if not folder.is_dir():
        return RunFolderError(f"there is no folder '{folder}'.")
    if (folder / RECIPE_FILE).is_file():
        return RunFolderError(
            f"'{folder}' holds an unfinished run.",
            hint=f"`{resume_command(folder)}` goes on with it.",
        )
    if (folder / CONFIG_FILE).is_file() and read_config(folder).recipe.protocol == "imported":
        return RunFolderError(
            f"'{folder}' holds an imported adapter: of its training there is no {RESULT_FILE}, "
            "which a card is made of.",
            hint=f"`idat eval {shlex.quote(str(folder))}` says what it reaches; what "
            "PEFT wrote goes to the Hub by PEFT's own push_to_hub.",
        )
    return RunFolderError(
        f"'{folder}' holds no {RESULT_FILE}: not a finished run.",
        hint="RUN is a folder that `idat train` names at its end: …/seed0.",
    )


def _check_same(repo: str, there: Result, ours: Result) -> None:
    """A run at the root gives way to itself alone, trained anew."""
    if _place(there) != _place(ours):
        raise UsageError(
            f"'{repo}' holds another run at its root: {_place(there)}.",
            hint="Choose another --repo, or publish both together in a new one.",
        )


def _check_kin(results: Mapping[str, Result]) -> None:
    """One repository, one kind of adapter: the same pair and family."""
    kinds = {(r.recipe.pair.name, r.recipe.adapter.label) for r in results.values()}
    if len(kinds) > 1:
        told = ", ".join(sorted("/".join(kind) for kind in kinds))
        raise UsageError(f"these runs do not belong in one repository: {told}.")


def _place(result: Result) -> str:
    """A run's subfolder where there are several."""
    return f"{result.recipe.task.id}/{result.recipe_hash[:8]}-seed{result.seed}"


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def _reloaded(folder: Path) -> Checkpoint:
    """A run's checkpoint, if it gives the logits that the run wrote."""
    written = files.parse_tensors((folder / PROBE_FILE).read_bytes())["logits"]
    checkpoint = load_checkpoint(folder)
    off = (probe_logits(checkpoint.network) - written).abs().max().item()
    if not off <= PROBE_TOLERANCE * max(1.0, written.abs().max().item()):
        raise CheckpointError(
            f"'{folder}' does not reproduce its own probe: logits differ by {off:.1e}."
        )
    return checkpoint


TEACHER_FILES = tuple(f"{TEACHER_FOLDER}/{name}" for name in (TENSORS_FILE, CONFIG_FILE))


def _own_files(
    folder: Path, result: Result, checkpoint: Checkpoint, *, with_teacher: bool
) -> dict[str, bytes]:
    """What is published of a run; PEFT's form of it too, where there is one."""
    names = [*NEEDED, RESULT_FILE]
    if with_teacher and result.teacher is not None:
        names += TEACHER_FILES
    contents = {name: (folder / name).read_bytes() for name in names}
    with suppress(UsageError):  # PEFT has not every family, on every backbone
        in_peft = peft_export.peft_files(peft_export.as_peft(checkpoint))
        contents |= {f"{PEFT_FOLDER}/{name}": content for name, content in in_peft.items()}
    return contents


def _all_names() -> list[str]:
    """All that is ever published of a run."""
    peft = [f"{PEFT_FOLDER}/{n}" for n in (peft_export.TENSORS_FILE, peft_export.CONFIG_FILE)]
    return [*NEEDED, RESULT_FILE, *TEACHER_FILES, *peft]


def _index(results: Mapping[str, Result]) -> bytes:
    index = Index(
        checkpoints={
            place: Entry(
                task=result.recipe.task.id, seed=result.seed, recipe_hash=result.recipe_hash
            )
            for place, result in sorted(results.items())
        }
    )
    return files.dump_json(index.model_dump(mode="json"))


@dataclass(frozen=True, kw_only=True)
class _CardThere:
    """The card that a repository has, as far as it has one. `not_ours`: why it would be lost."""

    content: str = ""
    card: Card | None = None
    section: Section | None = None
    not_ours: str = ""

    @classmethod
    def read(cls, head: Head) -> "_CardThere":
        """The head's card. Raises: HubError where it cannot be fetched."""
        if CARD_FILE not in head.files:
            return cls()
        folder = fetch(HubReference(repo=head.repo, revision=head.commit), (CARD_FILE,))
        try:
            content = (folder / CARD_FILE).read_bytes().decode()
            card = read_card(content)
        except (HubError, UnicodeDecodeError) as error:
            return cls(not_ours=str(error))
        section = find_section(card.text, card.metadata)
        if section is None:
            return cls(not_ours=f"to keep it, put {' and '.join(INVITATION)} into it, on two lines")
        changed = f"its section, or one of {', '.join(KEYS)}, was written by hand"
        return cls(
            content=content, card=card, section=section, not_ours="" if section.intact else changed
        )

    @property
    def files(self) -> Mapping[str, str]:
        """The SHA-256 of what was published, as far as the card's record says."""
        return self.section.files if self.section else {}

    def renewed(
        self,
        repo: str,
        results: Mapping[str, Result],
        known: Mapping[str, str],
        averaged: Averaged | None,
    ) -> bytes:
        """A card of these results; what a person wrote beside our section and metadata stays.

        Raises: UsageError where it would name this machine; HubError.
        """
        results, name = dict(sorted(results.items())), repo.partition("/")[2]
        fields, scores = card_fields(results), card_scores(results)
        head = write_card(name, fields, scores, "")
        own = read_card(head).metadata
        said = _digests(results)
        unsaid = {path: digest for path, digest in known.items() if said.get(path) != digest}
        in_peft = any(path.endswith(f"{PEFT_FOLDER}/{peft_export.CONFIG_FILE}") for path in known)
        text = card_text(repo, results, in_peft=in_peft, averaged=averaged)
        section = write_section(text, own, unsaid)
        local = LOCAL_PATH.search(head + section)
        if local:
            raise UsageError(f"the card would show a path of this machine: {local[0]}")
        if self.card is None or self.section is None:
            return write_card(name, fields, scores, f"{section}\n").encode()
        if self.section.intact and f" {self.section.digest} " in section.partition("\n")[0]:
            return self.content.encode()
        theirs = {key: value for key, value in self.card.metadata.items() if key not in KEYS}
        tags = [*fields["tags"], *_listed(theirs.get("tags"))]
        fields = {**fields, **theirs, "tags": list(dict.fromkeys(tags))}
        text = f"{self.section.before}{section}{self.section.after}"
        return write_card(name, fields, scores, text).encode()


def _listed(tags: object) -> list[object]:
    """Tags, of which a person may have written one alone."""
    return list(tags) if isinstance(tags, list) else [tags] if tags else []
