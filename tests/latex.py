"""pdflatex with booktabs, from Debian's packages, which are installed where they are missing.

That needs root and apt.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

PACKAGES = ("texlive-latex-base", "texlive-latex-recommended")
PROGRAM = "pdflatex"
NEEDED = ("booktabs.sty", "graphicx.sty")
LIMIT = 600.0


class LatexError(Exception):
    """LaTeX is not installed, and cannot be."""


def why_not() -> str:
    """The reason for which LaTeX cannot run here, or ''. What is missing is installed."""
    if _is_there():
        return ""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"{PROGRAM} is missing, and is installed by root with apt-get"
    try:
        with FileLock(Path(tempfile.gettempdir()) / "idat-latex-install.lock"):  # tests in parallel
            if not _is_there():
                _install()
    except LatexError as error:
        return str(error)
    return ""


def _is_there() -> bool:
    if shutil.which(PROGRAM) is None or shutil.which("kpsewhich") is None:
        return False
    done = subprocess.run(["kpsewhich", *NEEDED], capture_output=True, text=True, check=False)
    return len(done.stdout.split()) == len(NEEDED)


def _install() -> None:
    quiet, wait = {"DEBIAN_FRONTEND": "noninteractive"}, ("-o", "DPkg::Lock::Timeout=300")
    for words in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        done = subprocess.run(
            ["apt-get", *wait, *words],
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        if done.returncode:
            raise LatexError(f"apt-get {words[0]} failed: {done.stderr.strip()[-500:]}")


def compiled(document: str, folder: Path) -> str:
    """The log of a document that was compiled to PDF; an error of LaTeX ends the test."""
    (folder / "document.tex").write_text(document, encoding="utf-8")
    words = [PROGRAM, "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    log = (folder / "document.log").read_text(errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert (folder / "document.pdf").read_bytes().startswith(b"%PDF")
    return log
