"""Plugin files: Python that a person names, which brings adapter families of its own.

Such a file holds a dict `ADAPTERS` of names and classes; docs/plugins.md has one. It stands alone:
what needs several files is a distribution with entry points, and needs no naming.
"""

import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from idat_zoo import outside
from idat_zoo.adapters import ADAPTERS, check_family
from idat_zoo.errors import UsageError
from idat_zoo.recipe import Plugin


def load_plugin(file: Path | str) -> None:
    """Run a Python file of one's own, and take over the adapter families that it brings.

    It runs with all the rights that you have. A file that was changed may be loaded again.

    Raises: UsageError for a file that cannot be read or imported, brings nothing, or brings what is
    no adapter family or has a name that is there already. What else it raises is its own.
    """
    path = Path(file).resolve()
    try:
        source = path.read_bytes()
        plugin = Plugin(file=path.name, sha256=sha256(source).hexdigest())
    except OSError as error:
        raise UsageError(f"plugin '{file}' cannot be read: {error.strerror}") from None
    except ValidationError:
        raise UsageError(f"plugin {path.name!r}: its name has characters that none has.") from None
    found = getattr(_run(path, source), "ADAPTERS", None)
    if not isinstance(found, dict) or not found:
        raise UsageError(
            f"plugin {plugin} brings nothing: it has no dict ADAPTERS of names and classes.",
            hint='ADAPTERS = {"mine": Mine}',
        )
    others = outside.providers(outside.ADAPTERS_GROUP)
    for name, family in found.items():
        if name in ADAPTERS or (name in others and others[name].file != path):
            raise outside.taken("adapter", name, plugin)
        check_family(name, family)()
    outside.add(
        outside.ADAPTERS_GROUP,
        {name: outside.Provider(family, plugin, path) for name, family in found.items()},
    )


def _run(path: Path, source: bytes) -> ModuleType:
    """The module that a file's bytes make: these very bytes, and no cached form of them."""
    module = ModuleType(f"idat_plugin_{sha256(source).hexdigest()[:16]}")
    module.__file__ = str(path)
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"plugin '{path}' is no Python: {error}") from None
    sys.modules[module.__name__] = module  # where pydantic and pickle look for its classes
    try:
        exec(code, vars(module))
    except ImportError as error:
        raise UsageError(f"plugin '{path}': {error}") from None
    return module
