"""Unknown options: the error that suggests which option or recipe field was meant."""

import importlib
from collections.abc import Sequence
from typing import Any

import typer

from idat_zoo.errors import UsageError, folded, near_names

# click's own class, or that of the click that newer Typers carry with them
NoSuchOption = importlib.import_module(typer.BadParameter.__module__).NoSuchOption


def unknown_option(error: Any, words: Sequence[str]) -> UsageError:  # error: a NoSuchOption
    """The error for an unknown option: it suggests a similar option, or the KEY=VALUE word.

    `words` are all words after `idat`; the parser's own error knows only the first letter of `-lr`.
    """
    place, word = _typed(error.option_name, words)
    name, _, value = word.partition("=")
    bare = name.lstrip("-")
    command = error.ctx.command_path
    field = _field_meant(bare) if error.ctx.command.name == "train" else None
    if field is not None:
        following = words[place + 1 : place + 2]
        if not value and following and not following[0].startswith("-"):
            value = following[0]
        return UsageError(
            f"'{name}' is no option: fields of a recipe are set by words, KEY=VALUE.",
            hint=f"{field}={value or 'VALUE'}",
        )
    options = {
        option.lstrip("-"): option
        for parameter in error.ctx.command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    }
    near = " or ".join(f"'{options[each]}'" for each in near_names(bare, options))
    return UsageError(
        f"unknown option '{name}'." + (f" Did you mean {near}?" if near else ""),
        hint=f"`{command} --help` lists all.",
    )


def _typed(option: str, words: Sequence[str]) -> tuple[int, str]:
    """The place and the text of the word that holds the option; `-lr` is one word."""
    for place, word in enumerate(words):
        if word.partition("=")[0] == option:
            return place, word
        together = word.startswith("-") and not word.startswith("--")
        if together and len(option) == len("-x") and option[1] in word:
            return place, word
    return len(words), option


def _field_meant(name: str) -> str | None:
    """The recipe field with this name; for adapter options, the name after the dot suffices."""
    from idat_zoo.registry import load_registry
    from idat_zoo.registry.recipe_files import SETTINGS

    options = [option for each in load_registry().adapters.described() for option in each.options]
    fields = [*SETTINGS, "teacher_adapter", *(f"adapter.{option}" for option in options)]
    fields += [f"teacher_adapter.{option}" for option in options]
    wanted = folded(name)
    found = [f for f in fields if folded(f) == wanted] or [
        f for f in fields if folded(f).endswith(f".{wanted}")
    ]
    return next(iter(found), None)
