"""Flat fields of a result's recipe, and the choice of those in which recipes differ."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from idat_zoo.distillation import build_term
from idat_zoo.recipe import DESCRIPTIVE, Backbone, Recipe
from idat_zoo.results import Result
from idat_zoo.specs import BRIDGE, FLAT_OPTIONS, OF_THE_TEACHER, OF_THE_TERM, AdapterSpec
from idat_zoo.values import OptionValue, Scalar

Fields = Mapping[str, Scalar]
"""Dotted names -> values: `teacher`, `teacher.weights`, `adapter.rank`, `lr`."""

ReadOptions = Callable[[AdapterSpec], Mapping[str, OptionValue]]
"""All options of an adapter of a built-in family, those at their defaults included."""


def class_options(choice: AdapterSpec) -> Mapping[str, OptionValue]:
    """The options as the class of the family reads them, which loads torch.

    A caller that must not load torch hands in a function of its own instead.
    """
    from idat_zoo.adapters import build_adapter

    options: dict[str, OptionValue] = build_adapter(choice).options.model_dump()
    return options


PARENTS = {
    "student": "pair",
    "teacher": "pair",
    "teacher_adapter": "adapter",
    "data": "task",
    "candidates": "selection",
}
"""Values are compared only between recipes with the same parent; `a.b` has parent `a`."""

PLAIN = {
    "kind": "run",
    "network": "student",
    "protocol": "standard",
    "selection": "none",
    "task_loss": "each",
    "class_weights": "none",
    "watch": "none",
    "teacher_mode": "online",
    "further_teachers": "none",
}
"""Fields that are shown exactly where they have another value than this one."""

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
"""Fields about the training, which is not known for an imported adapter."""

OF_THE_TASK = {"task", "data", "lr", "weight_decay", "drop_path"}
"""Fields in which recipes of one series may differ by task, as the released recipes do."""


def flatten(result: Result, read_options: ReadOptions = class_options) -> Fields:
    """All that the hash of a result's recipe covers, with the result's kind, network and data.

    Adapter options at their defaults are included. Fields without effect are left out: distillation
    without a teacher, fields that `candidates` choose, and the training
    of an imported adapter. `read_options` reads the options of built-in families.
    """
    recipe = result.recipe
    fields: dict[str, Scalar] = {
        "task": recipe.task.id,
        "data": result.data_fingerprint[:8],
        "kind": result.kind,
        "network": network_of(result),
        "pair": recipe.pair.name,
    }
    task = recipe.task.model_dump(exclude={"id", "plugin", *DESCRIPTIVE["task"]}, exclude_none=True)
    task |= {"plugin": str(recipe.task.plugin)} if recipe.task.plugin else {}
    fields |= {f"task.{name}": _scalar(value) for name, value in task.items()}
    fields |= _adapter("adapter", recipe.adapter, read_options)
    fields |= _backbone("student", recipe.pair.student)
    fields |= _backbone("teacher", recipe.pair.teacher)
    if recipe.teacher_adapter is not None:
        fields |= _adapter("teacher_adapter", recipe.teacher_adapter, read_options)
    fields |= _settings(recipe)
    idle = {*recipe.candidates, *(OF_TRAINING if recipe.protocol == "imported" else ())}
    idle |= {f"distillation.{name}" for name in recipe.candidates if name in FLAT_OPTIONS}
    return {name: value for name, value in fields.items() if name not in idle}


def network_of(result: Result) -> str:
    """The network that the top-1 is of: `teacher` where a teacher was evaluated, else `student`."""
    return "student" if result.kind == "run" else next(iter(result.backbone_sha256))


def _backbone(role: str, backbone: Backbone | None) -> dict[str, Scalar]:
    if backbone is None:
        return {role: "none"}
    values = backbone.model_dump(exclude={"name", "args", "licence", "plugin"}, exclude_none=True)
    values |= {"plugin": str(backbone.plugin)} if backbone.plugin else {}
    values |= {f"args.{name}": value for name, value in backbone.args.items()}
    return {role: backbone.name} | {f"{role}.{key}": _scalar(v) for key, v in values.items()}


def _adapter(role: str, choice: AdapterSpec, read_options: ReadOptions) -> dict[str, Scalar]:
    """An adapter's label and options.

    Options of plugins and of PEFT's tuners are taken as the recipe states them, because their code
    may not be installed.
    """
    options: Mapping[str, OptionValue]
    if choice.plugin is not None:
        options = {"plugin": str(choice.plugin), **choice.options}
    elif choice.name == BRIDGE:
        options = choice.options
    else:
        options = read_options(choice)
        options = {name: options[name] for name in sorted(options, key=lambda n: n != "blocks")}
    return {role: choice.label} | {f"{role}.{key}": _scalar(v) for key, v in options.items()}


def _settings(recipe: Recipe) -> dict[str, Scalar]:
    """The distillation term and the recipe's plain fields, as far as they act."""
    idle = {"pair", "task", "adapter", "teacher_adapter", "further_teachers"}
    if not recipe.distils:
        idle |= {*OF_THE_TERM}
    if recipe.selection == "none":
        idle |= {"candidates"}
    if recipe.pair.teacher is None:
        idle |= {*OF_THE_TEACHER}
    fields: dict[str, Scalar] = {}
    for name, value in recipe.model_dump(exclude=idle, exclude_none=True).items():
        fields |= _term(recipe) if name == "distillation" else {name: _scalar(value)}
    if recipe.further_teachers is not None:
        fields["further_teachers"] = ", ".join(map(str, recipe.further_teachers))
    return fields


def _term(recipe: Recipe) -> dict[str, Scalar]:
    """The distillation term and its options, where there is a teacher."""
    spec = recipe.distillation
    if recipe.pair.teacher is None:
        return {}
    options: Mapping[str, object] = {}
    if spec.plugin is not None:
        options = {"plugin": str(spec.plugin), **spec.options}
    elif recipe.distils:
        options = build_term(spec).options.model_dump()
    own = {f"distillation.{name}": _scalar(value) for name, value in options.items()}
    return {"distillation": spec.name} | own


def _scalar(value: object) -> Scalar:
    """A scalar as it is; tuples and mappings as text."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}=[{_scalar(inner)}]" for name, inner in value.items())
    assert isinstance(value, Sequence)
    return ", ".join(map(as_text, map(_scalar, value)))


def as_text(value: Scalar) -> str:
    """A value in the form that recipe files use."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_of_the_task(name: str) -> bool:
    """Whether recipes of one series may differ in this field from task to task."""
    return name in OF_THE_TASK or name.startswith(("task.", "adapter.", "teacher_adapter."))


def differing(recipes: Iterable[Fields]) -> set[str]:
    """The fields in which two recipes differ that agree in the field's parent."""
    values: dict[tuple[str, Scalar | None], set[tuple[type, Scalar]]] = defaultdict(set)
    for fields in recipes:
        for name, value in fields.items():
            values[name, fields.get(_parent(name))].add((type(value), value))
    return {
        name
        for (name, _), found in values.items()
        if len(found) > 1 and len({as_text(value) for _, value in found}) > 1
    }


@cache
def _parent(name: str) -> str:
    return PARENTS.get(name) or name.rpartition(".")[0].partition(".")[0]


def differing_within_tasks(recipes: Iterable[Fields]) -> set[str]:
    """The fields in which two recipes of one task differ."""
    by_task: dict[Scalar, list[Fields]] = defaultdict(list)
    for fields in recipes:
        by_task[fields["task"]].append(fields)
    return {name for same_task in by_task.values() for name in differing(same_task)}


def telling(recipes: Sequence[Fields]) -> set[str]:
    """The fields that labels show: those in which recipes differ, unless only tasks explain it."""
    within = differing_within_tasks(recipes)
    return {name for name in differing(recipes) if not is_of_the_task(name) or name in within}


def label(fields: Fields, shown: set[str]) -> dict[str, Scalar]:
    """The label of a recipe: its fields among `shown`, and any with an unusual PLAIN value."""
    return {
        name: value
        for name, value in fields.items()
        if (name in shown and name not in PLAIN) or (name in PLAIN and value != PLAIN[name])
    }
