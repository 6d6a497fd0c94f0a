"""Overrides: changes of a recipe's fields by KEY=VALUE words."""

from collections.abc import Iterable, Mapping
from typing import Any

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Recipe
from idat_zoo.registry.checks import CANDIDATE_SETTINGS, check_fields
from idat_zoo.registry.recipe_files import SETTINGS
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.shelves import Family, collecting, unknown
from idat_zoo.registry.terms import short_key, term_options
from idat_zoo.registry.words import below
from idat_zoo.specs import OF_THE_TEACHER, OF_THE_TERM, TermSpec

"""The fields that set how a distillation term acts; another term starts at their defaults."""

HAS_A_FLAG = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("task", "adapter", "pair", "teacher"),
        *("seed", "seeds", "device", "data_dir", "out", "stack"),
    )
} | dict.fromkeys(OF_THE_TEACHER, "--teacher-from")


def override(recipe: Recipe, words: Mapping[str, Any], registry: Registry) -> Recipe:
    """The recipe with fields set by words. Raises: RecipeError with every fault of the words."""
    student = registry.find_adapter(recipe.adapter.word)
    teacher_word = words.get("teacher_adapter", (recipe.teacher_adapter or recipe.adapter).word)
    teacher = registry.find_adapter(str(teacher_word))
    words = _in_one_spelling(words)
    wrong = _wrong_words(words, recipe, student, teacher)
    if not wrong:
        return _with_words(recipe, words, student, teacher, registry)
    faults = list(wrong.values())
    with collecting(faults):  # the values of the other words
        sound = {key: value for key, value in words.items() if key not in wrong}
        _with_words(recipe, sound, student, teacher, registry)
    raise RecipeError(faults)


def _with_words(
    recipe: Recipe, words: Mapping[str, Any], student: Family, teacher: Family, registry: Registry
) -> Recipe:
    """The recipe with fields set by words whose keys are known."""
    settings = {key: value for key, value in words.items() if key in SETTINGS}
    candidates = below("candidates", words)
    if settings.get("selection") != "none":
        candidates = {**recipe.candidates, **candidates}
    options = {**recipe.adapter.options, **below("adapter", words)}
    return check_fields(
        dict(recipe)
        | _settled(recipe, settings)
        | {
            "candidates": candidates,
            "distillation": _term(recipe, words),
            "adapter": student.as_fields(options),
            "teacher_adapter": _teacher_adapter(recipe, words, teacher, options),
        },
        registry=registry,
        where="override",
        fixed=words,
    )


def _in_one_spelling(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words with `temperature` for `distillation.temperature`, and so on.

    Raises: RecipeError where both are given.
    """
    spelt: dict[str, Any] = {}
    for key, value in words.items():
        prefix = "candidates." if key.startswith("candidates.") else ""
        short = prefix + short_key(key.removeprefix(prefix))
        if short in words and short != key:
            raise RecipeError([f"override: {short} and {key} say the same; give one of them"])
        spelt[short] = value
    return spelt


def _wrong_words(
    words: Mapping[str, Any], recipe: Recipe, student: Family, teacher: Family
) -> dict[str, str]:
    """The fault of each word whose key is not known; values are checked later, with the recipe."""
    term = _term(recipe, words)
    options = [
        *(f"adapter.{option}" for option in student.options),
        *(f"distillation.{option}" for option in term_options(term.get("name"))),
    ]
    known = {
        *(name for name in SETTINGS if name != "candidates"),
        *options,
        "teacher_adapter",
        *(f"teacher_adapter.{option}" for option in teacher.options),
        *(f"candidates.{name}" for name in (*CANDIDATE_SETTINGS, *options)),
    }
    faults = {}
    for key in words:
        if key in HAS_A_FLAG:
            faults[key] = f"override: {key}: is chosen by {HAS_A_FLAG[key]}, not by a word"
        elif key not in known:
            faults[key] = f"override: {unknown('key', key, known)}"
        elif key.startswith("teacher_adapter") and recipe.teacher_adapter is None:
            faults[key] = f"override: {key}: this recipe has no teacher"
        elif key.startswith("teacher_adapter") and recipe.teacher_mode == "offline":
            faults[key] = f"override: {key}: is that of a trained teacher, which stays as it is"
    return faults


def _settled(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings and the changes that they entail.

    Another distillation term resets its weight and `detach`; fewer epochs limit the warm-up to half
    of them.
    """
    follows: dict[str, Any] = {}
    if "distillation" in settings and _term(recipe, settings)["name"] != recipe.distillation.name:
        follows |= defaults_of(OF_THE_TERM)
    epochs = settings.get("epochs")
    if isinstance(epochs, int):
        follows["warmup_epochs"] = max(0, min(recipe.warmup_epochs, epochs // 2))
    return follows | dict(settings)


def _term(recipe: Recipe, words: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the distillation term after the words; another term has its own defaults."""
    before = recipe.distillation
    given = words.get("distillation", before)
    fields = dict(given) if isinstance(given, Mapping | TermSpec) else {"name": given}
    fields = {"name": before.name, **fields}
    options = fields.get("options")
    if options is None:
        options = before.options if fields["name"] == before.name else {}
    if not isinstance(options, Mapping):  # which the recipe's own check refuses
        return fields
    return {**fields, "options": {**options, **below("distillation", words)}}


def _teacher_adapter(
    recipe: Recipe, words: Mapping[str, Any], family: Family, student_options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The fields of the teacher's adapter after the words.

    It follows the student's adapter if both were equal before; a newly named family starts at its
    own defaults. That of an offline teacher is its checkpoint's, and stays.
    """
    before = recipe.teacher_adapter
    if before is None:
        return None
    if recipe.teacher_mode == "offline":
        return dict(before)
    word = family.word
    if word == recipe.adapter.word and ("teacher_adapter" in words or before == recipe.adapter):
        options = dict(student_options)
    else:
        options = dict(before.options) if word == before.word else {}
    return family.as_fields(options | below("teacher_adapter", words))


def defaults_of(names: Iterable[str]) -> dict[str, Any]:
    """The defaults of a recipe's fields."""
    return {name: Recipe.model_fields[name].default for name in names}
