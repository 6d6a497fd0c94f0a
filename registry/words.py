"""KEY=VALUE words, as on the command line and in the overrides of `get_recipe`.

A value is read as TOML, and as plain text if it is not TOML.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from idat_zoo.errors import RecipeError
from idat_zoo.recipe_toml import parse_toml

Overrides = Iterable[str] | Mapping[str, Any]
"""Recipe fields to set: KEY=VALUE words, or a mapping of dotted names."""


def parse_words(words: Overrides) -> dict[str, Any]:
    """KEY=VALUE words as a mapping; VALUE is read as TOML, and as a plain string if it is not.

    A mapping is returned as it is.

    Raises: RecipeError for words without `=`, keys given twice, and objects of another type.
    """
    if isinstance(words, str):  # a single word; iterating over it would give its letters
        words = [words]
    if not isinstance(words, Iterable):
        raise RecipeError([f"{words!r}: expected a mapping, or KEY=VALUE words"])
    words = words if isinstance(words, Mapping) else list(words)
    given: dict[str, str] = {}
    faults = [f"{word!r}: expected a string" for word in words if not isinstance(word, str)]
    if faults:
        raise RecipeError(faults)
    if isinstance(words, Mapping):
        return dict(words)
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            faults.append(f"'{word}': expected KEY=VALUE, e.g. lr=1e-3")
        elif key in given:
            faults.append(f"'{key}' is given twice: {key}={given[key]} and {word}")
        else:
            given[key] = text
    if faults:
        raise RecipeError(faults)
    return {key: _parse_value(text) for key, text in given.items()}


def spread_words(words: Iterable[str]) -> list[list[str]]:
    """Expand KEY=A,B words to every combination of KEY=VALUE words, in the order written.

    Commas in brackets, braces or quotes do not separate values: KEY=["a","b"] is one value.
    """
    choices = []
    for word in words:
        key, equals, text = word.partition("=")
        choices.append([f"{key}{equals}{value}" for value in _split_values(text)])
    return [list(combination) for combination in itertools.product(*choices)]


def _split_values(text: str) -> list[str]:
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[]{}":
            depth += 1 if character in "[{" else -1
        elif character == "," and depth == 0:
            values.append("")
            continue
        values[-1] += character
    return values


def _parse_value(text: str) -> object:
    try:
        parsed = parse_toml(f"value = {text}", where="")
    except RecipeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def below(prefix: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the words `prefix.KEY`, by KEY."""
    return {
        key.removeprefix(f"{prefix}."): value
        for key, value in words.items()
        if key.startswith(f"{prefix}.")
    }
