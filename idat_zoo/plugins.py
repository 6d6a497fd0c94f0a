"""Plugin files: Python files, named by the user, with families, kinds, suites, terms or trackers.

Such a file defines one or more of the dicts in `TABLES`, from names to classes; docs/plugins.md has
an example of each. It must be a single file; a plugin of several files is an installed distribution
with entry points.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from idat_zoo import distillation, outside, trackers
from idat_zoo.adapters import ADAPTERS, check_family
from idat_zoo.backbones import kinds
from idat_zoo.data import suites
from idat_zoo.errors import UsageError
from idat_zoo.specs import BRIDGE, NO_TERM, Plugin
from idat_zoo.values import NAME


@dataclass(frozen=True)
class _Table:
    """The rules for one dict of a plugin file: names already taken, and the check of each class."""

    what: str
    group: str
    taken: Mapping[str, str]
    check: Callable[[str, Any], object]


TABLES = {
    "ADAPTERS": _Table(
        "adapter",
        outside.ADAPTERS_GROUP,
        {**ADAPTERS, BRIDGE: ""},
        lambda name, own: check_family(name, own)(),
    ),
    "KINDS": _Table(kinds.WHAT, outside.KINDS_GROUP, kinds.KINDS, kinds.check_kind),
    "SUITES": _Table("suite", outside.SUITES_GROUP, suites.SUITES, suites.check_suite),
    "TERMS": _Table(
        distillation.WHAT,
        outside.TERMS_GROUP,
        {**distillation.TERMS, NO_TERM: ""},
        lambda name, own: distillation.check_term(name, own)(),
    ),
    "TRACKERS": _Table(
        trackers.WHAT, outside.TRACKERS_GROUP, trackers.TRACKERS, trackers.check_tracker
    ),
}


def load_plugin(file: Path | str) -> None:
    """Run a plugin file and register the classes that it defines.

    The file runs with all rights of the user. A file may be loaded again after a change.

    Raises: UsageError for a file that cannot be read or imported, that defines no classes, or whose
    classes are invalid or have a name that is taken. Other exceptions of the file's own code are
    passed on.
    """
    path = Path(file).resolve()
    try:
        source = path.read_bytes()
        plugin = Plugin(file=path.name, sha256=sha256(source).hexdigest())
    except OSError as error:
        raise UsageError(f"plugin '{file}' cannot be read: {error.strerror}") from None
    except ValidationError:
        raise UsageError(f"plugin {path.name!r}: its name has characters that none has.") from None
    module = _run(path, source)
    found = {table: getattr(module, table, None) for table in TABLES}
    brought = {table: own for table, own in found.items() if isinstance(own, dict) and own}
    if not brought:
        raise UsageError(
            f"plugin {plugin} brings nothing: it has no dict {' or '.join(TABLES)} of classes.",
            hint='ADAPTERS = {"mine": Mine}',
        )
    for table, own in brought.items():
        _check(TABLES[table], own, plugin, path)
    for table, own in brought.items():
        provided = {name: outside.Provider(one, plugin, path) for name, one in own.items()}
        outside.add(TABLES[table].group, provided)


def _check(table: _Table, own: Mapping[str, Any], plugin: Plugin, path: Path) -> None:
    others = outside.providers(table.group)
    for name, found in own.items():
        if not (isinstance(name, str) and re.fullmatch(NAME, name)):
            raise UsageError(
                f"plugin {plugin}: {name!r} cannot be the name of its {table.what}.",
                hint="Letters, digits, _, - and . make one, and a letter or digit begins it.",
            )
        if name in table.taken or (name in others and others[name].file != path):
            raise outside.taken(table.what, name, plugin)
        table.check(name, found)


def _run(path: Path, source: bytes) -> ModuleType:
    """Execute a file's bytes as a module; bytecode caches are not used, as the hash is of these."""
    module = ModuleType(f"idat_plugin_{sha256(source).hexdigest()[:16]}")
    module.__file__ = str(path)
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"plugin '{path}' is no Python: {error}") from None
    sys.modules[module.__name__] = module  # pydantic and pickle look up its classes there
    try:
        exec(code, vars(module))
    except ImportError as error:
        raise UsageError(f"plugin '{path}': {error}") from None
    return module
