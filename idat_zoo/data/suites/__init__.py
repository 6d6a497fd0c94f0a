"""The suites of tasks. Adding one is a file and a line in `SUITES`; plugins bring others."""

from typing import TYPE_CHECKING, Any

from idat_zoo.errors import UsageError
from idat_zoo.outside import SUITES_GROUP, check_class, claim, find_class, lacking, providers
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.suites.base import Suite

SUITES = {
    "mini": "idat_zoo.data.suites.mini:Mini",
    "real": "idat_zoo.data.suites.real:Real",
    "vtab1k": "idat_zoo.data.suites.vtab1k:Vtab1k",
    "fgvc": "idat_zoo.data.suites.fgvc:Fgvc",
    "fewshot": "idat_zoo.data.suites.fewshot:Fewshot",
    "folder": "idat_zoo.data.suites.folder:OwnFolder",
    "arrays": "idat_zoo.data.suites.arrays:OwnArrays",
}
"""Name -> "module:Class", in the order in which suites are listed and reported."""

claim(SUITES_GROUP, SUITES)

FACTS = ("name", "title", "layout")
"""The class attributes that every suite must set."""


def load_suite(name: str) -> "Suite":
    """The suite of a name.

    Raises: UnknownNameError; UsageError for a plugin's class that is no suite.
    """
    found: type[Suite] = find_class("suite", name, own=SUITES, group=SUITES_GROUP)
    return found() if name in SUITES else check_suite(name, found)()


def is_known(name: str) -> bool:
    """Whether there is a suite of this name: a built-in one, or one of a plugin that is here."""
    return name in SUITES or name in providers(SUITES_GROUP)


def suite_of(task: Task) -> "Suite":
    """The suite that a task belongs to.

    Raises: UnknownNameError; UsageError where the plugin that brings the suite is not here.
    """
    if task.plugin is not None and not is_known(task.suite):
        raise lacking("suite", task.suite, task.plugin)
    return load_suite(task.suite)


def check_suite(name: str, found: Any) -> "type[Suite]":
    """A plugin's class as a suite.

    Raises: UsageError for what is not a subclass of `Suite`, lacks one of `FACTS`, has another
    name, or has no way to its images.
    """
    from idat_zoo.data.suites.base import Place, Suite

    check_class("suite", name, found, base=Suite, facts=FACTS)
    suite: type[Suite] = found
    if not (isinstance(suite.groups, tuple) and all(isinstance(one, str) for one in suite.groups)):
        raise UsageError(f"suite '{name}': groups = {suite.groups!r}; expected a tuple of names.")
    needed = "make" if suite.place is Place.BUILT_IN else "read"
    if getattr(suite, needed) is getattr(Suite, needed):
        raise UsageError(f"suite '{name}': {suite.__name__} lacks {needed}.")
    return suite
