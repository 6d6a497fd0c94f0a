"""The hash of a recipe, which names the folders of its runs and groups its results."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from idat_zoo.adapters import build_adapter
from idat_zoo.distillation import build_term
from idat_zoo.recipe import DESCRIPTIVE, Recipe
from idat_zoo.specs import DEFAULT_TERM, NO_TERM, NamedSpec, TermSpec


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 over everything that a recipe fixes, in hexadecimal.

    Fields at their defaults and purely descriptive fields are left out. So a field that is added
    later does not change the hash of recipes that do not use it.

    Raises: what `build_adapter` and `build_term` raise for the recipe.
    """
    fields = recipe.model_dump(
        mode="json", exclude_defaults=True, exclude={**DESCRIPTIVE, "distillation": True}
    )
    fields["adapter"] = _without_defaults(recipe.adapter, build_adapter(recipe.adapter).options)
    if recipe.teacher_adapter is not None:
        options = build_adapter(recipe.teacher_adapter).options
        fields["teacher_adapter"] = _without_defaults(recipe.teacher_adapter, options)
    for own, teacher in zip(
        fields.get("further_teachers", ()), recipe.further_teachers or (), strict=True
    ):
        options = build_adapter(teacher.adapter).options
        own["adapter"] = _without_defaults(teacher.adapter, options)
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
    term = _without_defaults(spec, build_term(spec).options)
    if spec.plugin is not None or spec.name not in ("mse", "kl"):
        return {"distillation": term}
    name = {} if spec.name == DEFAULT_TERM else {"distillation": spec.name}
    return {**name, **term["options"]}


def _without_defaults(spec: NamedSpec, options: BaseModel) -> dict[str, Any]:
    changed = options.model_dump(mode="json", exclude_defaults=True)
    plugin = spec.model_dump(include={"plugin"}, exclude_none=True)
    return {"name": spec.name, "options": changed, **plugin}
