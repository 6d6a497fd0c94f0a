"""`idat publish`: finished runs to the Hub."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import DryRunOption, JsonOption


def publish(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of finished runs.")],
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
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Upload finished runs in one commit, with a card, after checking all of them.

    For example: idat publish runs/…/seed0 --repo me/digits-lora --dry-run
    """
    from idat_zoo.hub import check_repo_name
    from idat_zoo.publishing import prepare
    from idat_zoo.publishing import publish as upload

    check_repo_name(repo)
    if dry_run:
        contents = prepare(runs, repo, with_teacher=with_teacher)
        plan = [
            {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in sorted(contents.items())
        ]
        if json:
            screen.print_json({"repo": repo, "files": plan})
            return
        rows = [[str(entry["path"]), f"{entry['bytes']:,}", str(entry["sha256"])] for entry in plan]
        screen.print_table(["file", "bytes", "SHA-256"], rows)
        return
    published = upload(
        runs,
        repo,
        private=not public,
        tag=tag,
        with_teacher=with_teacher,
        create_pr=create_pr,
    )
    if json:
        screen.print_json({"repo": repo, "url": published.url, "commit": published.commit})
        return
    typer.echo(published.url)
    if published.commit:
        typer.echo(f"  idat eval --checkpoint hub:{repo}@{published.commit}")
