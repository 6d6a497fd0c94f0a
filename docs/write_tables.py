"""Write the tables of README.md and docs/*.md from what is committed under benchmarks/results/.

    python docs/write_tables.py            rewrite every block
    python docs/write_tables.py --check    change nothing; exit 1 and name the stale blocks

A block is what stands between the lines `<!-- table: NAME -->` and `<!-- end -->`. NAME is either

    benchmarks/results/NAME/plan.json        a study, shown as `idat study report` shows it;
                                             NAME.findings is its section of findings alone
    benchmarks/results/NAME/**/result.json   runs, shown as `idat report` shows them
    benchmarks/results/NAME.json             {"columns": [...], "rows": [[...]], "note": "..."}
    published.inflation                      what selecting the epoch on test adds in published runs

A file NAME.cuda.json may be missing, since few machines can make it; its block then says so.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError, model_validator

from idat_zoo.errors import UnknownNameError, ZooError
from idat_zoo.files import write_whole
from idat_zoo.recipe import describe_faults
from idat_zoo.registry import averaged_tasks, load_registry
from idat_zoo.registry.published import load_published
from idat_zoo.report.build import build_report
from idat_zoo.report.fields import as_text
from idat_zoo.report.inflation import build_inflation
from idat_zoo.report.inflation_layout import lay_out_inflation
from idat_zoo.report.layout import lay_out
from idat_zoo.report.markdown import as_markdown, markdown_table
from idat_zoo.results import Result, find_results
from idat_zoo.study.layout import findings, lay_out_study
from idat_zoo.study.plan import has_plan, load_plan
from idat_zoo.study.report import build_study_report
from idat_zoo.values import Frozen, Scalar

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results")
FINDINGS = ".findings"
INFLATION = "published.inflation"
CUDA, UNMEASURED = ".cuda", "\nNot measured yet.\n\n"

OPENING = re.compile(r"^<!-- table: (.+) -->$", re.MULTILINE)
BLOCK = re.compile(r"^<!-- table: ([^\n]+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)


class Document(Frozen):
    """A table that is not of runs. Its note says on which machine and how it was measured."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]
    note: str

    @model_validator(mode="after")
    def _is_a_table(self) -> "Document":
        faults = [
            f"row {number} has {len(row)} values for {len(self.columns)} columns"
            for number, row in enumerate(self.rows, start=1)
            if len(row) != len(self.columns)
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Rewrite or check the blocks of a repository; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the tables of README.md and docs/*.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; name stale blocks")
    check = parser.parse_args(arguments).check
    try:
        stale = [name for page in find_pages(root) for name in refresh(page, root, check=check)]
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name in stale:
        print(f"{'stale' if check else 'written'}: {name}")
    return int(check and bool(stale))


def find_pages(root: Path) -> list[Path]:
    """README.md and the pages of docs/."""
    return [
        page
        for page in (root / "README.md", *sorted((root / "docs").glob("*.md")))
        if page.is_file()
    ]


def refresh(page: Path, root: Path, *, check: bool) -> list[str]:
    """The page's stale blocks as `page: NAME`; written anew unless `check`.

    Raises: ZooError for an unknown name, a block without end, or results that cannot be read.
    """
    text = page.read_text(encoding="utf-8")
    place = page.relative_to(root)
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        if OPENING.search(block[2]):
            raise ZooError(f"{place}: the block '{block[1]}' has no line <!-- end -->.")
    if len(OPENING.findall(text)) != len(blocks):
        raise ZooError(f"{place}: its last block has no line <!-- end -->.")
    stale = [block[1] for block in blocks if block[2] != render(block[1], root)]
    if stale and not check:
        write_whole(page, BLOCK.sub(lambda block: _block(block[1], root), text).encode())
    return [f"{place}: {name}" for name in stale]


def _block(name: str, root: Path) -> str:
    return f"<!-- table: {name} -->\n{render(name, root)}<!-- end -->"


def render(name: str, root: Path) -> str:
    """What stands in the block of this name.

    Raises: UnknownNameError, unless the name is of a CUDA table; ZooError for bad files.
    """
    folder, file = root / RESULTS / name, root / RESULTS / f"{name}.json"
    of_study = folder.with_name(name.removesuffix(FINDINGS))
    if name == INFLATION:
        return f"\n{_inflation()}\n"
    if has_plan(of_study):
        return f"\n{_study(of_study, root, findings_alone=of_study != folder)}\n"
    if folder.is_dir():
        return f"\n{_runs(folder, root)}\n"
    if file.is_file():
        return f"\n{_document(file, root)}\n"
    if name.endswith(CUDA):
        return UNMEASURED
    raise UnknownNameError("table", name, _known(root / RESULTS))


def _known(results: Path) -> Iterable[str]:
    paths = results.iterdir() if results.is_dir() else []
    return [path.stem for path in paths if path.is_dir() or path.suffix == ".json"]


def _runs(folder: Path, root: Path) -> str:
    found = find_results([folder])
    command = f"idat report {folder.relative_to(root).as_posix()} --format markdown"
    where = _measured([result for _, result in found])
    report = build_report(found, averaged=averaged_tasks(load_registry()))
    return f"{as_markdown(lay_out(report))}\nMeasured on {where}. Made by `{command}`.\n"


def _inflation() -> str:
    averaged = averaged_tasks(load_registry())
    sections = [
        section
        for one in build_inflation(load_published(), averaged)
        for section in lay_out_inflation(one, set(one.by_task))
    ]
    return f"{as_markdown(sections)}\nMade from `registry/published/`.\n"


def _study(folder: Path, root: Path, *, findings_alone: bool) -> str:
    report = build_study_report(load_plan(folder), folder)
    sections = [findings(report)] if findings_alone else lay_out_study(report)
    where = _measured([result for _, result in find_results([folder])])
    command = f"idat study report {report.name} --out {folder.relative_to(root).as_posix()}"
    return f"{as_markdown(sections)}\nMeasured on {where}. Made by `{command} --format markdown`.\n"


def _measured(results: Sequence[Result]) -> str:
    """Devices and versions, each once."""
    devices = dict.fromkeys(result.device for result in results)
    versions = dict.fromkeys(
        f"{package} {version}" for result in results for package, version in result.versions.items()
    )
    return f"{' and '.join(devices)}; {', '.join(versions)}"


def _document(file: Path, root: Path) -> str:
    try:
        document = Document.model_validate_json(file.read_bytes())
    except ValidationError as error:
        where = str(file.relative_to(root))
        raise ZooError("\n  ".join(describe_faults(error, where=where))) from None
    rows = [[as_text(value) for value in row] for row in document.rows]
    return f"{markdown_table(document.columns, rows)}\n\n{document.note}\n"


if __name__ == "__main__":
    sys.exit(main())
