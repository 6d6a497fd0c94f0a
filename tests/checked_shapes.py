"""Imported first of all: checks the annotated shapes of every module that annotates any.

Such a check costs a call some 0.1 ms, so modules without shapes are left to mypy. Programs that a
test starts run without any, as users run them.
"""

import os
from pathlib import Path

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).resolve().parents[1] / "idat_zoo"

WITH_SHAPES = sorted(
    ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in PACKAGE.rglob("*.py")
    if "from jaxtyping import" in file.read_text(encoding="utf-8")
)

if "PYTEST_CURRENT_TEST" not in os.environ:
    install_import_hook(WITH_SHAPES, "beartype.beartype")
