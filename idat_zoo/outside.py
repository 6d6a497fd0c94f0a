"""The register of plugins: which plugin provides which family, kind, term, suite or tracker.

A plugin is a Python file that the user names (`plugins.load_plugin`, `--plugin FILE`), or an
installed distribution with entry points `name = "module:Class"` in one of the groups below. No
other code is ever run: a plugin that a recipe, a checkpoint or the Hub names is only reported, and
never loaded.
"""

import importlib
import re
import shlex
import warnings
from collections.abc import Container, Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from idat_zoo.errors import PluginWarning, UnknownNameError, UsageError
from idat_zoo.recipe import Backbone, Recipe, Task
from idat_zoo.specs import NamedSpec, Plugin
from idat_zoo.values import NAME

ADAPTERS_GROUP = "idat_zoo.adapters"
KINDS_GROUP = "idat_zoo.kinds"
SUITES_GROUP = "idat_zoo.suites"
TERMS_GROUP = "idat_zoo.terms"
TRACKERS_GROUP = "idat_zoo.trackers"


Spec = TypeVar("Spec", bound=NamedSpec)


class Provider(NamedTuple):
    """A plugin's class, or its place `module:Class`, with the plugin as recipes record it.

    `file` is the plugin file, and None for an installed distribution.
    """

    found: Any
    plugin: Plugin
    file: Path | None = None


_loaded: dict[str, dict[str, Provider]] = {}
"""The providers from plugin files, by group and name."""
_taken: dict[str, Container[str]] = {}
"""The built-in names, by group."""


def claim(group: str, names: Container[str]) -> None:
    """Register the built-in names of a group, which no installed distribution may take."""
    _taken[group] = names


@cache
def _entry_points() -> Any:  # the class has another name from Python 3.12 on
    """The entry points of all distributions; to look for those of one group takes as long."""
    return metadata.entry_points()


@cache
def installed(group: str) -> Mapping[str, Provider]:
    """The providers from installed distributions, by name. None of them is imported."""
    found = {}
    for entry in _entry_points().select(group=group):
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
    """The providers from all plugins, by name."""
    return {**installed(group), **_loaded.get(group, {})}


def add(group: str, found: Mapping[str, Provider]) -> None:
    """Register a provider from a plugin file."""
    _loaded.setdefault(group, {}).update(found)


def loaded_files() -> dict[Path, Plugin]:
    """The plugin files that are loaded, each as recipes record it, in the order of loading."""
    found = (provider for own in _loaded.values() for provider in own.values())
    return {one.file: one.plugin for one in found if one.file is not None}


def forget() -> None:
    """Remove all providers from plugin files."""
    _loaded.clear()


def find_class(what: str, name: str, *, own: Mapping[str, str], group: str) -> Any:
    """The class of a name, built in or from a plugin.

    `own` are the built-in names with their places `module:Class`; `what` names the kind of object
    in messages.

    Raises: UnknownNameError; UsageError for a plugin's name that is also built in, or for a
    plugin's class that cannot be imported.
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
        others = "A plugin may bring others: --plugin FILE"
        unknown.hint = f"{unknown.hint.rstrip('.')}. {others}" if unknown.hint else others
        raise unknown
    return _import(own[name])


def _import(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_class(what: str, name: str, found: Any, *, base: type[Any], facts: Iterable[str]) -> None:
    """Refuse an object that is no subclass of `base`, lacks a fact, or says another name.

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
    own = getattr(found, "name", name)  # kinds of backbones do not say theirs
    if own != name:
        raise UsageError(f"{what} '{name}': its class has name = '{own}'.")


def taken(what: str, name: str, plugin: Plugin) -> UsageError:
    """The error for a plugin's name that is taken already."""
    return UsageError(
        f"{what} '{name}' of plugin {plugin}: there is another of this name.",
        hint="Give it a name of its own.",
    )


def lacking(what: str, name: str, plugin: Plugin) -> UsageError:
    """The error for a name whose plugin is not loaded."""
    if plugin.file is not None:
        state, way = "loaded", f"--plugin {shlex.quote(plugin.file)}, from Python load_plugin(…)"
    else:
        state, way = "installed", f"pip install {plugin.distribution}=={plugin.version}"
    return UsageError(
        f"{what} '{name}' is of plugin {plugin}, which is not {state}.",
        hint=f"If you have it and trust it: {way}. It is never fetched or run unasked.",
    )


def warn_if_changed(what: str, name: str | None, made_with: Plugin | None, *, group: str) -> None:
    """Warn if the present plugin of a name is not the recorded one, or its file has changed."""
    now = _plugin_of(group, name)
    if now is None and name not in _taken.get(group, ()):
        return  # nothing here has the name, and whoever needs it says so
    if made_with is not None and now != made_with:
        told = f"plugin {now}" if now is not None else "built in"
        warnings.warn(
            f"{what} '{name}' was made with plugin {made_with}; here it is {told}",
            PluginWarning,
            stacklevel=3,
        )


def with_plugins(recipe: Recipe) -> Recipe:
    """The recipe with the current plugins of its adapters, backbones, task and term recorded."""
    pair, teacher, own = recipe.pair, recipe.pair.teacher, recipe.teacher_adapter
    backbones = {
        "student": marked(pair.student),
        "teacher": None if teacher is None else marked(teacher),
    }
    return recipe.model_copy(
        update={
            "pair": pair.model_copy(update=backbones),
            "task": marked_task(recipe.task),
            "adapter": _marked_spec(recipe.adapter, ADAPTERS_GROUP),
            "teacher_adapter": None if own is None else _marked_spec(own, ADAPTERS_GROUP),
            "distillation": _marked_spec(recipe.distillation, TERMS_GROUP),
            "further_teachers": recipe.further_teachers
            and tuple(
                one.model_copy(
                    update={
                        "backbone": marked(one.backbone),
                        "adapter": _marked_spec(one.adapter, ADAPTERS_GROUP),
                    }
                )
                for one in recipe.further_teachers
            ),
        }
    )


def marked(spec: Backbone) -> Backbone:
    """A backbone with the current plugin of its kind recorded."""
    return spec.model_copy(update={"plugin": _plugin_now(KINDS_GROUP, spec.kind, spec.plugin)})


def marked_task(task: Task) -> Task:
    """A task with the current plugin of its suite recorded."""
    return task.model_copy(update={"plugin": _plugin_now(SUITES_GROUP, task.suite, task.plugin)})


def _marked_spec(spec: Spec, group: str) -> Spec:
    return spec.model_copy(update={"plugin": _plugin_now(group, spec.name, spec.plugin)})


def _plugin_now(group: str, name: str | None, before: Plugin | None) -> Plugin | None:
    """The present plugin of a name, None if it is built in; `before` if the name is unknown."""
    known = name is None or name in _taken.get(group, ()) or name in providers(group)
    return _plugin_of(group, name) if known else before


def _plugin_of(group: str, name: str | None) -> Plugin | None:
    provider = providers(group).get(name) if name is not None else None
    return provider.plugin if provider is not None else None
