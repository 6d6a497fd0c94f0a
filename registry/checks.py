"""The checks of a composed recipe: its adapters' options, distillation term and candidates."""

from collections.abc import Iterable, Mapping
from typing import Any

from idat_zoo.errors import RecipeError
from idat_zoo.outside import TERMS_GROUP, lacking, providers, with_plugins
from idat_zoo.recipe import Recipe, check_recipe
from idat_zoo.registry.recipe_files import SETTINGS
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.shelves import Family, collecting, unknown
from idat_zoo.registry.terms import check_option, short_key, term_options, write_out
from idat_zoo.specs import FLAT_OPTIONS, AdapterSpec, TermSpec
from idat_zoo.values import Scalar

NO_CANDIDATES = {
    *("selection", "candidates", "protocol", "precision", "augmentation"),
    *("task_loss", "watch"),
}
CANDIDATE_SETTINGS = [name for name in SETTINGS if name not in NO_CANDIDATES]


def check_fields(
    fields: Mapping[str, Any],
    *,
    registry: Registry,
    where: str,
    fixed: Iterable[str] = (),
) -> Recipe:
    """The recipe of these fields, checked, with all options of adapters and term written out.

    `where` names the source of the fields in messages. `fixed` are the keys that the user set, for
    which there must be no candidates.

    Raises: RecipeError with every fault.
    """
    faults: list[str] = []
    roles = [role for role in ("adapter", "teacher_adapter") if fields.get(role) is not None]
    choices = {role: AdapterSpec.model_construct(**dict(fields[role])) for role in roles}
    chosen: dict[str, Any] = {}
    for role, choice in choices.items():
        with collecting(faults):
            chosen[role] = _write_out(choice, registry, where=where)
    bare = {role: {"name": "linear"} for role in roles}
    with collecting(faults):
        recipe = check_recipe({**fields, **bare}, where=where).model_copy(update=chosen)
        term = write_out(recipe.distillation, where=where)
        further = recipe.further_teachers and tuple(
            one.model_copy(update={"adapter": _write_out(one.adapter, registry, where=where)})
            for one in recipe.further_teachers
        )
        recipe = recipe.model_copy(update={"distillation": term, "further_teachers": further})
    faults += [
        f"{where}: {key}: candidates.{key} chooses it; set only one of the two"
        for key in fixed
        if key in fields.get("candidates", {})
    ]
    if faults:
        raise RecipeError(dict.fromkeys(faults))
    student = registry.adapters[recipe.adapter.word]
    candidates = _check_candidates(recipe, student, where=where)
    return with_plugins(recipe.model_copy(update={"candidates": candidates}))


def _write_out(choice: AdapterSpec, registry: Registry, *, where: str) -> AdapterSpec:
    if choice.word not in registry.adapters:
        told = unknown("adapter", choice.name, registry.adapters)
        if choice.plugin is not None:
            told = str(lacking("adapter", choice.name, choice.plugin)).replace("\n", " ")
        raise RecipeError([f"{where}: {told}"])
    return registry.adapters[choice.word].specify(choice.options, where=where)


def _check_candidates(
    recipe: Recipe, student: Family, *, where: str
) -> dict[str, tuple[Scalar, ...]]:
    """The candidates, with each value converted to the type of its field.

    Raises: RecipeError with every fault.
    """
    faults: list[str] = []
    checked: dict[str, tuple[Scalar, ...]] = {}
    where = f"{where}: candidates"
    term = term_options(recipe.distillation.name)
    known = [
        *CANDIDATE_SETTINGS,
        *(f"adapter.{option}" for option in student.options),
        *(f"distillation.{option}" for option in term),
    ]
    plain = dict(recipe) | {"selection": "none", "candidates": {}}

    def check_value(key: str, value: Scalar) -> Scalar:
        role, _, option = key.rpartition(".")
        if key in FLAT_OPTIONS or role == "distillation":
            return check_option(recipe.distillation, option, value, where=where)
        if key == "distillation":
            if value in providers(TERMS_GROUP):
                raise RecipeError(
                    [f"{where}: distillation: '{value}' is of a plugin, and no candidate can be"]
                )
            named = write_out(TermSpec(name=str(value)), where=where).name
            return check_recipe(plain | {key: named}, where=where).distillation.name
        if key in CANDIDATE_SETTINGS:
            setting: Scalar = getattr(check_recipe(plain | {key: value}, where=where), key)
            return setting
        checked: Scalar = student.check({option: value}, where=where)[option]
        return checked

    for key, values in recipe.candidates.items():
        short = short_key(key)
        if key not in known:
            faults.append(f"{where}: {unknown('field', key, known)}")
        elif short != key and short in recipe.candidates:
            faults.append(f"{where}: {short} and {key} say the same; give one of them")
        else:
            with collecting(faults):
                checked[short] = tuple(check_value(key, value) for value in values)
    if faults:
        raise RecipeError(faults)
    return checked
