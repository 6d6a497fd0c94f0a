"""The hash of a recipe, which names the folders of its runs and groups its results."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from idat_zoo.adapters import build_adapter
from idat_zoo.distillation import build_term
from idat_zoo.recipe import DESCRIPTIVE, Recipe
from idat_zoo.specs import DEFAULT_TERM, NO_TERM, AdapterSpec, NamedSpec, TermSpec

ChangedOptions = Callable[[AdapterSpec], Mapping[str, Any]]
"""The options of an adapter that are not at their defaults, in JSON's types or as tuples."""


def class_changes(spec: AdapterSpec) -> Mapping[str, Any]:
    """The changed options as the class of the family reads them, which loads torch."""
    return build_adapter(spec).options.model_dump(mode="json", exclude_defaults=True)


def recipe_hash(recipe: Recipe, changed_options: ChangedOptions = class_changes) -> str:
    """SHA-256 over everything that a recipe fixes, in hexadecimal.

    Fields at their defaults and purely descriptive fields are left out. So a field that is added
    later does not change the hash of recipes that do not use it.

    Raises: what `changed_options` and `build_term` raise for the recipe.
    """
    fields = recipe.model_dump(
        mode="json", exclude_defaults=True, exclude={**DESCRIPTIVE, "distillation": True}
    )
    fields["adapter"] = _hashed(recipe.adapter, changed_options(recipe.adapter))
    if recipe.teacher_adapter is not None:
        changed = changed_options(recipe.teacher_adapter)
        fields["teacher_adapter"] = _hashed(recipe.teacher_adapter, changed)
    for own, teacher in zip(
        fields.get("further_teachers", ()), recipe.further_teachers or (), strict=True
    ):
        own["adapter"] = _hashed(teacher.adapter, changed_options(teacher.adapter))
    fields |= _term_in_older_form(recipe.distillation)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _term_in_older_form(spec: TermSpec) -> dict[str, Any]:
    """The fields of the hashed text that represent the distillation term.

    Before terms had options, recipes held the name of iDAT's terms and their settings in separate
    fields. Published results contain hashes of that form, so it is kept for these terms.
    """
    if spec.name == NO_TERM:
        return {"distillation": NO_TERM}
    options = build_term(spec).options.model_dump(mode="json", exclude_defaults=True)
    term = _hashed(spec, options)
    if spec.plugin is not None or spec.name not in ("mse", "kl"):
        return {"distillation": term}
    name = {} if spec.name == DEFAULT_TERM else {"distillation": spec.name}
    return {**name, **term["options"]}


def _hashed(spec: NamedSpec, changed: Mapping[str, Any]) -> dict[str, Any]:
    plugin = spec.model_dump(include={"plugin"}, exclude_none=True)
    return {"name": spec.name, "options": dict(changed), **plugin}
