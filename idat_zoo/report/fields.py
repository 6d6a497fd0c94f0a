"""A result's recipe as flat fields, and which of them tell recipes apart."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from idat_zoo.adapters import build_adapter
from idat_zoo.recipe import DESCRIPTIVE, AdapterChoice, Backbone, Recipe, Scalar
from idat_zoo.results import Result

Fields = Mapping[str, Scalar]
"""Dotted names -> values: `teacher`, `teacher.weights`, `adapter.rank`, `lr`."""

PARENTS = {
    "student": "pair",
    "teacher": "pair",
    "teacher_adapter": "adapter",
    "data": "task",
    "candidates": "selection",
}
"""Values are compared only between recipes with the same parent; `a.b` has parent `a`."""

PLAIN = {"kind": "run", "network": "student", "protocol": "standard", "selection": "none"}
"""Fields that are shown wherever they have another value than this, and never with it."""

OF_TRAINING = {
    "adapter.dropout",
    "augmentation",
    "batch_size",
    "drop_path",
    "epochs",
    "lr",
    "warmup_epochs",
    "weight_decay",
}
"""Fields that an adapter trained elsewhere says nothing of."""

OF_THE_TASK = {"task", "data", "lr", "weight_decay", "drop_path"}
"""Fields that recipes of one series may set task by task, as the released recipes do."""


def flatten(result: Result) -> Fields:
    """Everything a recipe's hash covers, and what else sets results apart: kind, network, data.

    Options have their defaults filled in. Fields that do not act are left out: a distillation term
    without a teacher, its temperature without `kl`, whatever `candidates` choose, the training of
    an imported adapter.
    """
    recipe = result.recipe
    fields: dict[str, Scalar] = {
        "task": recipe.task.id,
        "data": result.data_fingerprint[:8],
        "kind": result.kind,
        "network": "student" if result.kind == "run" else next(iter(result.backbone_sha256)),
        "pair": recipe.pair.name,
    }
    task = recipe.task.model_dump(exclude={"id", "plugin", *DESCRIPTIVE["task"]}, exclude_none=True)
    task |= {"plugin": str(recipe.task.plugin)} if recipe.task.plugin else {}
    fields |= {f"task.{name}": _scalar(value) for name, value in task.items()}
    fields |= _adapter("adapter", recipe.adapter)
    fields |= _backbone("student", recipe.pair.student)
    fields |= _backbone("teacher", recipe.pair.teacher)
    if recipe.teacher_adapter is not None:
        fields |= _adapter("teacher_adapter", recipe.teacher_adapter)
    fields |= _settings(recipe)
    idle = {*recipe.candidates, *(OF_TRAINING if recipe.protocol == "imported" else ())}
    return {name: value for name, value in fields.items() if name not in idle}


def _backbone(role: str, backbone: Backbone | None) -> dict[str, Scalar]:
    if backbone is None:
        return {role: "none"}
    values = backbone.model_dump(exclude={"name", "args", "licence", "plugin"}, exclude_none=True)
    values |= {"plugin": str(backbone.plugin)} if backbone.plugin else {}
    values |= {f"args.{name}": value for name, value in backbone.args.items()}
    return {role: backbone.name} | {f"{role}.{key}": _scalar(v) for key, v in values.items()}


def _adapter(role: str, choice: AdapterChoice) -> dict[str, Scalar]:
    """A plugin's options are taken as they are written: its code need not be here."""
    if choice.plugin is None:
        options = build_adapter(choice).options.model_dump()
    else:
        options = {"plugin": str(choice.plugin), **choice.options}
    return {role: choice.label} | {f"{role}.{key}": _scalar(v) for key, v in options.items()}


def _settings(recipe: Recipe) -> dict[str, Scalar]:
    """The recipe's plain fields, as far as they act."""
    idle = {"pair", "task", "adapter", "teacher_adapter"}
    if recipe.pair.teacher is None:
        idle |= {"distillation"}
    if recipe.distillation == "none":
        idle |= {"distillation_weight", "detach"}
    if recipe.distillation != "kl":
        idle |= {"temperature", "temperature_squared"}
    if recipe.selection == "none":
        idle |= {"candidates"}
    return {name: _scalar(value) for name, value in recipe.model_dump(exclude=idle).items()}


def _scalar(value: object) -> Scalar:
    """Tuples and mappings as text; scalars as they are."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}=[{_scalar(inner)}]" for name, inner in value.items())
    assert isinstance(value, Sequence)
    return ", ".join(map(as_text, map(_scalar, value)))


def as_text(value: Scalar) -> str:
    """A value as recipes write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_of_the_task(name: str) -> bool:
    """Whether recipes of one series may differ in it from task to task."""
    return name in OF_THE_TASK or name.startswith(("task.", "adapter.", "teacher_adapter."))


def differing(recipes: Iterable[Fields]) -> set[str]:
    """Fields in which two of the recipes differ though they agree in the field's parent."""
    values: dict[tuple[str, Scalar | None], set[str]] = defaultdict(set)
    for fields in recipes:
        for name, value in fields.items():
            values[name, fields.get(_parent(name))].add(as_text(value))
    return {name for (name, _), found in values.items() if len(found) > 1}


def _parent(name: str) -> str:
    return PARENTS.get(name) or name.rpartition(".")[0].partition(".")[0]


def differing_within_tasks(recipes: Iterable[Fields]) -> set[str]:
    """Fields in which two recipes of one task differ."""
    by_task: dict[Scalar, list[Fields]] = defaultdict(list)
    for fields in recipes:
        by_task[fields["task"]].append(fields)
    return {name for same_task in by_task.values() for name in differing(same_task)}


def telling(recipes: Sequence[Fields]) -> set[str]:
    """Fields that belong into a recipe's label: what sets it apart, but for the task's own."""
    within = differing_within_tasks(recipes)
    return {name for name in differing(recipes) if not is_of_the_task(name) or name in within}


def label(fields: Fields, told: set[str]) -> dict[str, Scalar]:
    """The fields to show for a recipe, in order; those with an unusual PLAIN value always."""
    return {
        name: value
        for name, value in fields.items()
        if (name in told and name not in PLAIN) or (name in PLAIN and value != PLAIN[name])
    }
