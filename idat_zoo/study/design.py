"""The design of a study: the runs that a study file asks for. Free of torch."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from idat_zoo.recipe import Recipe
from idat_zoo.values import Frozen, Name, Scalar

Metric = Literal["student", "logit_ensemble"]
"""The part of a result that counts for an arm: the student's metrics, or those of the mean of the
student's and the teacher's logits."""


class Run(Frozen):
    """One run of a study: a recipe with a seed, and its position on the axes of the study file.

    `part` is the number of its table [[part]], from 1. `arm` is the label of a distillation term or
    the name of a control. `values` are the settings that the part's axis `values` varies.
    """

    part: int
    task: Name
    adapter: str
    arm: str
    seed: int = Field(ge=0)
    values: dict[str, Scalar] = Field(default_factory=dict)
    metric: Metric = "student"
    recipe: Recipe

    def __str__(self) -> str:
        values = "".join(f", {key} = {value}" for key, value in self.values.items())
        return f"{self.adapter} on {self.task}, {self.arm}{values}, seed {self.seed}"


class Study(Frozen):
    """A study as its file describes it: all runs, and the arm that the others are compared with.

    `optional` are the adapters that the file names by `all`. Runs of these are left out of the plan
    where the adapter does not fit the backbones.
    """

    name: Name
    title: str
    reference: str
    runs: Annotated[tuple[Run, ...], Strict(False)]
    optional: Annotated[tuple[str, ...], Strict(False)] = ()
