"""Names from outside: which plugin brings which adapter family, kind of backbone or suite.

A plugin is a Python file that a person names (`plugins.load_plugin`, `--plugin FILE`), or an
installed distribution with entry points `name = "module:Class"` in a group below. Nothing else is
ever run: what a recipe, a checkpoint or the Hub says of a plugin is told, never followed.
"""

import importlib
import re
import shlex
import warnings
from collections.abc import Container, Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from idat_zoo.errors import PluginWarning, UnknownNameError, UsageError
from idat_zoo.recipe import NAME, AdapterChoice, Backbone, Plugin, Recipe, Task

ADAPTERS_GROUP = "idat_zoo.adapters"
KINDS_GROUP = "idat_zoo.kinds"
SUITES_GROUP = "idat_zoo.suites"


class Provider(NamedTuple):
    """A class from outside or its `module:Class`, how recipes name where it came from, its file."""

    found: Any
    plugin: Plugin
    file: Path | None = None


_loaded: dict[str, dict[str, Provider]] = {}
"""By group and name, what files brought."""
_taken: dict[str, Container[str]] = {}
"""By group, the names that are built in."""


def claim(group: str, names: Container[str]) -> None:
    """Say which names are built in: no installed distribution takes one of them."""
    _taken[group] = names


@cache
def installed(group: str) -> Mapping[str, Provider]:
    """By name, what installed distributions bring. None of it is imported."""
    found = {}
    for entry in metadata.entry_points(group=group):
        assert entry.dist is not None
        plugin = Plugin(distribution=entry.dist.name, version=entry.dist.version)
        if entry.name in _taken.get(group, ()):
            told = f"{group}: '{entry.name}' of plugin {plugin} is left out: that name is built in"
            warnings.warn(told, PluginWarning, stacklevel=2)
            continue
        if not re.fullmatch(NAME, entry.name):
            told = f"{group}: '{entry.name}' of plugin {plugin} is left out: no recipe can name it"
            warnings.warn(told, PluginWarning, stacklevel=2)
            continue
        found[entry.name] = Provider(entry.value, plugin)
    return found


def providers(group: str) -> Mapping[str, Provider]:
    """By name, all that is from outside."""
    return {**installed(group), **_loaded.get(group, {})}


def add(group: str, found: Mapping[str, Provider]) -> None:
    """Take over what a file brings."""
    _loaded.setdefault(group, {}).update(found)


def forget() -> None:
    """Everything that files brought."""
    _loaded.clear()


def find_class(what: str, name: str, *, own: Mapping[str, str], group: str) -> Any:
    """The class of a built-in name, or of one from outside.

    Raises: UnknownNameError; UsageError for a name that both have, and for what cannot be imported.
    """
    outside = providers(group)
    if name in own and name in outside:
        raise taken(what, name, outside[name].plugin)
    if name in outside:
        found, plugin, _ = outside[name]
        try:
            return _import(found) if isinstance(found, str) else found
        except (ImportError, AttributeError, SyntaxError) as error:
            raise UsageError(f"{what} '{name}' of plugin {plugin}: {error}") from None
    if name not in own:
        unknown = UnknownNameError(what, name, [*own, *outside])
        unknown.hint = f"{unknown.hint} A plugin may bring others: --plugin FILE".lstrip()
        raise unknown
    return _import(own[name])


def _import(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_class(what: str, name: str, found: Any, *, base: type[Any], facts: Iterable[str]) -> None:
    """Refuse what is no class of its kind, or does not say all that such classes say.

    Raises: UsageError.
    """
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(
            f"{what} '{name}' is no subclass of {base.__module__}.{base.__name__}: {found!r}."
        )
    abstract: frozenset[str] = getattr(found, "__abstractmethods__", frozenset())
    lacks = {fact for fact in facts if not hasattr(found, fact)} | abstract
    if lacks:
        raise UsageError(f"{what} '{name}': {found.__name__} lacks {', '.join(sorted(lacks))}.")


def taken(what: str, name: str, plugin: Plugin) -> UsageError:
    """What is said of a plugin that brings a name which is there already."""
    return UsageError(
        f"{what} '{name}' of plugin {plugin}: there is another of this name.",
        hint="Give it a name of its own.",
    )


def lacking(what: str, name: str, plugin: Plugin) -> UsageError:
    """What is said of a name whose plugin is not here."""
    if plugin.file is not None:
        state, way = "loaded", f"--plugin {shlex.quote(plugin.file)}, from Python load_plugin(…)"
    else:
        state, way = "installed", f"pip install {plugin.distribution}=={plugin.version}"
    return UsageError(
        f"{what} '{name}' is of plugin {plugin}, which is not {state}.",
        hint=f"If you have it and trust it: {way}. It is never fetched or run unasked.",
    )


def warn_if_changed(what: str, name: str | None, made_with: Plugin | None, *, group: str) -> None:
    """Say of what was made with a plugin that its name is another's now, or a changed file's."""
    now = _plugin_of(group, name)
    if made_with is not None and now != made_with:
        told = f"plugin {now}" if now is not None else "built in"
        warnings.warn(
            f"{what} '{name}' was made with plugin {made_with}; here it is {told}",
            PluginWarning,
            stacklevel=3,
        )


def with_plugins(recipe: Recipe) -> Recipe:
    """The recipe with the plugins named that its adapters, backbones and task need now."""
    pair, teacher, own = recipe.pair, recipe.pair.teacher, recipe.teacher_adapter
    backbones = {
        "student": marked(pair.student),
        "teacher": None if teacher is None else marked(teacher),
    }
    return recipe.model_copy(
        update={
            "pair": pair.model_copy(update=backbones),
            "task": marked_task(recipe.task),
            "adapter": _marked_choice(recipe.adapter),
            "teacher_adapter": None if own is None else _marked_choice(own),
        }
    )


def marked(spec: Backbone) -> Backbone:
    """A backbone with the plugin named that brings its kind now."""
    return spec.model_copy(update={"plugin": _plugin_of(KINDS_GROUP, spec.kind)})


def marked_task(task: Task) -> Task:
    """A task with the plugin named that brings its suite now."""
    return task.model_copy(update={"plugin": _plugin_of(SUITES_GROUP, task.suite)})


def _marked_choice(choice: AdapterChoice) -> AdapterChoice:
    return choice.model_copy(update={"plugin": _plugin_of(ADAPTERS_GROUP, choice.name)})


def _plugin_of(group: str, name: str | None) -> Plugin | None:
    provider = providers(group).get(name) if name is not None else None
    return provider.plugin if provider is not None else None
