"""The hash of a recipe, by which runs are told apart and grouped."""

import hashlib
import json

from idat_zoo.adapters import build_adapter
from idat_zoo.recipe import DESCRIPTIVE, AdapterChoice, Recipe


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 over everything that a recipe fixes, in hexadecimal.

    Fields at their defaults and words that only describe are left out, so that a field added
    later does not change the hash of recipes that do not use it.
    """
    fields = recipe.model_dump(mode="json", exclude_defaults=True, exclude=DESCRIPTIVE)
    fields["adapter"] = _choice_without_defaults(recipe.adapter)
    if recipe.teacher_adapter is not None:
        fields["teacher_adapter"] = _choice_without_defaults(recipe.teacher_adapter)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _choice_without_defaults(choice: AdapterChoice) -> dict[str, object]:
    options = build_adapter(choice).options.model_dump(mode="json", exclude_defaults=True)
    plugin = choice.model_dump(include={"plugin"}, exclude_none=True)
    return {"name": choice.name, "options": options, **plugin}
