"""Controls: named changes of a recipe, to which its student with a teacher is compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from idat_zoo.recipe import Recipe
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.resolve import adjust

Metric = Literal["student", "logit_ensemble"]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A named change of a recipe; `metric` is the number of the run's result that counts."""

    name: str
    title: str
    metric: Metric
    change: Callable[[Recipe, Registry], Recipe]

    def apply(self, recipe: Recipe, registry: Registry) -> Recipe:
        """The recipe of the control. Raises: UsageError where the recipe cannot be changed so."""
        return self.change(recipe, registry)


CONTROLS: Mapping[str, Control] = {
    "alone": Control(
        name="alone",
        title="The student is trained without a teacher.",
        metric="student",
        change=lambda recipe, registry: adjust(recipe, registry, teacher="none"),
    )
}
"""All controls by name."""
