"""`idat publish`: the upload of finished runs to the Hub."""

import hashlib
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import DryRunOption, JsonOption, PluginOption
from idat_zoo.cli.own_weights import GivenWeightsOption
from idat_zoo.errors import HubError, ZooError

if TYPE_CHECKING:
    from idat_zoo.hub.head import Head
    from idat_zoo.publishing.plan import Plan


def publish(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Finished runs, or folders above them.")
    ],
    repo: Annotated[
        str, typer.Option("--repo", metavar="ORG/NAME", help="The repository on the Hub.")
    ],
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="A tag on the commit.")] = "",
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; private unless given.")
    ] = False,
    with_teacher: Annotated[
        bool, typer.Option("--with-teacher", help="The teachers' adapters too.")
    ] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="As a pull request, not on the main branch.")
    ] = False,
    overwrite: Annotated[
        list[str] | None,
        typer.Option(
            "--overwrite",
            metavar="FILE,…",
            help="Files of the repository that idat-zoo did not write, and that may go.",
        ),
    ] = None,
    eval_results: Annotated[
        str | None,
        typer.Option(
            "--eval-results",
            metavar="ORG/NAME",
            help="A dataset on the Hub, for whose page each task's top-1 is written, too.",
        ),
    ] = None,
    weights: GivenWeightsOption = None,
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Upload finished runs to the Hub, with a card.

    All runs are checked first, and then uploaded in one commit.

    For example: idat publish runs/…/seed0 --repo me/digits-lora --dry-run
    """
    from idat_zoo.hub.head import read_head
    from idat_zoo.hub.references import check_repo_name

    check_repo_name(repo)
    if eval_results is not None:
        check_repo_name(eval_results, kind="dataset")
    from idat_zoo.data.suites import load_suite
    from idat_zoo.data.suites.base import Place
    from idat_zoo.publishing.finished_run import find_finished_runs
    from idat_zoo.publishing.plan import plan
    from idat_zoo.publishing.plan import publish as upload
    from idat_zoo.registry import averaged_tasks, load_registry
    from idat_zoo.results import DIVERGED

    head = _head_or_new(repo) if dry_run else read_head(repo)
    named = [name.strip() for names in overwrite or [] for name in names.split(",")]
    ready = plan(
        find_finished_runs(runs),
        head,
        with_teacher=with_teacher,
        overwrite=named,
        averaged=averaged_tasks(load_registry()),
        dataset=eval_results,
    )
    for folder in ready.diverged:
        screen.note(f"{folder}: {DIVERGED}")
    if dry_run:
        _print_plan(ready, json=json)
        try:
            ready.require_allowed()
        except ZooError as error:
            screen.end(error)
        return
    published = upload(ready, private=not public, tag=tag, create_pr=create_pr)
    if json:
        screen.print_json({"repo": repo, "url": published.url, "commit": published.commit})
        return
    typer.echo(published.url)
    places = {load_suite(suite).place for suite in ready.suites}
    if published.commit and places != {Place.MEMORY}:
        place = " --data-dir DIR" if Place.DATA_DIR in places else ""
        place += "".join(f" --plugin {shlex.quote(str(file))}" for file in plugin or [])
        typer.echo(f"  idat eval hub:{repo}@{published.commit}{place}")


def _head_or_new(repo: str) -> "Head":
    """The head of a repository, or an empty one with a note if the Hub cannot be reached."""
    from idat_zoo.hub.head import Head, read_head

    try:
        return read_head(repo)
    except HubError as error:
        screen.note(f"{error.message}\nThis is what a new repository would be given:")
        return Head(repo=repo)


def _print_plan(ready: "Plan", *, json: bool) -> None:
    states, removed = ready.states(), sorted(ready.without)
    files = [
        {
            "path": path,
            "state": states[path],
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for path, content in sorted(ready.contents.items())
    ]
    if json:
        about = {"repo": ready.head.repo, "on_commit": ready.head.commit}
        refused = sorted(ready.refused)
        screen.print_json({**about, "files": files, "removed": removed, "refused": refused})
        return
    rows = [
        [str(f["path"]), str(f["state"]), f"{f['bytes']:,}", f"{f['sha256']:.12}…"] for f in files
    ]
    rows += [[path, states[path], "", ""] for path in removed]
    screen.print_table(["file", "state", "bytes", "SHA-256"], rows)
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    typer.echo(f"one commit on {ready.head.commit or 'a new repository'}: {counts}")
