"""Controls: named changes of a recipe, to which its student with a co-trained teacher is compared.

A gain of distillation can have other causes: more compute, more parameters, a second network of any
kind, or a second opinion at the end. Each control keeps one of these and takes the coupling away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.recipe import Pair, Recipe
from idat_zoo.registry.checks import check_fields
from idat_zoo.registry.pair_forms import swapped, twins
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.resolve import adjust, applying_rules
from idat_zoo.registry.shelves import Family
from idat_zoo.registry.terms import laid_over
from idat_zoo.specs import OF_THE_TERM, AdapterSpec
from idat_zoo.values import MOST_EPOCHS

Metric = Literal["student", "logit_ensemble"]
Change = Callable[[Recipe, Registry], Recipe]

CAPACITY = ("rank", "bottleneck", "num_prompts")
"""The options that set the size of an adapter, one of which `equal_parameters` raises."""
MOST_CAPACITY = 65_536


@dataclass(frozen=True, kw_only=True)
class Control:
    """A named change of a recipe; `metric` is the number of the run's result that counts.

    `student` is the student's top-1, `logit_ensemble` that of student and teacher together.
    """

    name: str
    title: str
    metric: Metric
    change: Change

    def apply(self, recipe: Recipe, registry: Registry) -> Recipe:
        """The recipe of the control. Raises: UsageError where the recipe cannot be changed so."""
        try:
            return self.change(recipe, registry)
        except RecipeError as error:
            why = "; ".join(error.faults)
        except _InapplicableError as error:
            why = str(error)
        raise UsageError(f"control '{self.name}' of {_named(recipe)} cannot be made: {why}.")


class _InapplicableError(Exception):
    """The reason why a control cannot be made of a recipe, in words."""


def _named(recipe: Recipe) -> str:
    return f"{recipe.pair.name}/{recipe.adapter.label}/{recipe.task.id}"


def _require_teacher(recipe: Recipe, *, online: bool = True) -> tuple[Pair, AdapterSpec]:
    """The pair of a recipe with a teacher, and the teacher's adapter."""
    if recipe.pair.teacher is None or recipe.teacher_adapter is None:
        raise _InapplicableError("it has no teacher")
    if online and recipe.teacher_mode == "offline":
        raise _InapplicableError(
            "its teachers were trained before (teacher_mode = 'offline'), and are not trained here"
        )
    return recipe.pair, recipe.teacher_adapter


def _no_coupling(recipe: Recipe, registry: Registry) -> Recipe:
    _require_teacher(recipe)
    words = {"distillation": "none", "task_loss": "each"}
    return adjust(recipe, registry, overrides=words)


def _alone(recipe: Recipe, registry: Registry) -> Recipe:
    _require_teacher(recipe, online=False)
    return adjust(recipe, registry, teacher="none")


def _equal_compute(recipe: Recipe, registry: Registry) -> Recipe:
    _require_teacher(recipe)
    if "epochs" in recipe.candidates or "warmup_epochs" in recipe.candidates:
        raise _InapplicableError("its epochs are among its candidates")
    ratio = compute_ratio(recipe)
    epochs = round(recipe.epochs * ratio)
    if epochs > MOST_EPOCHS:
        raise _InapplicableError(f"it would take {epochs:,} epochs, and {MOST_EPOCHS:,} are most")
    warmup = min(round(recipe.warmup_epochs * ratio), epochs)
    words = {"epochs": epochs, "warmup_epochs": warmup}
    return adjust(recipe, registry, teacher="none", overrides=words)


def compute_ratio(recipe: Recipe) -> float:
    """The cost of a step of student and teacher together, in steps of the student alone.

    It is the ratio of the operations in the two backbones' matrix products, which is the same with
    the backward pass as without it, as that costs the same multiple of a forward pass in both.
    """
    from idat_zoo.backbones.cost import forward_cost
    from idat_zoo.backbones.frozen import describe_anatomy

    costs = [forward_cost(describe_anatomy(spec)) for spec in recipe.pair.backbones()]
    return sum(costs) / costs[-1]  # the student is the last one


def _equal_parameters(recipe: Recipe, registry: Registry) -> Recipe:
    pair, of_teacher = _require_teacher(recipe)
    assert pair.teacher is not None
    family = registry.find_adapter(recipe.adapter.word)
    option = next((name for name in CAPACITY if name in family.options), None)
    if option is None:
        raise _InapplicableError(
            f"adapter '{family.word}' has no option for its size ({', '.join(CAPACITY)})"
        )
    if f"adapter.{option}" in recipe.candidates:
        raise _InapplicableError(f"adapter.{option} is among its candidates")
    classes = recipe.task.num_classes
    wanted = trained_numbers(pair.student, recipe.adapter, classes)
    wanted += trained_numbers(pair.teacher, of_teacher, classes)

    def count(value: int) -> int:
        options = {**recipe.adapter.options, option: value}
        choice = family.specify(options, where=f"adapter.{option}={value}")
        return trained_numbers(pair.student, choice, classes)

    least = _least(count, wanted, above=_size_of(recipe.adapter, family, option), option=option)
    return adjust(recipe, registry, teacher="none", overrides={f"adapter.{option}": least})


def _size_of(choice: AdapterSpec, family: Family, option: str) -> int:
    return int(family.check(choice.options, where="recipe")[option])


def _least(count: Callable[[int], int], wanted: int, *, above: int, option: str) -> int:
    """The least value above another one for which `count`, which never falls, is as wanted."""
    low, high = above, 2 * max(above, 1)
    try:
        while count(high) < wanted:
            low, high = high, 2 * high
            if high > MOST_CAPACITY:
                raise _InapplicableError(f"no {option} up to {low:,} trains {wanted:,} numbers")
    except (RecipeError, ValueError) as error:
        raise _InapplicableError(
            f"no {option} that the adapter takes trains {wanted:,} numbers ({error})"
        ) from None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle, high)
    return high


def trained_numbers(spec: Any, choice: AdapterSpec, num_classes: int) -> int:
    """How many numbers an adapter and a head train on a backbone; nothing is drawn or loaded."""
    import torch

    from idat_zoo.adapters import build_adapter
    from idat_zoo.backbones.frozen import describe_anatomy
    from idat_zoo.randomness import generator

    anatomy = describe_anatomy(spec)
    with torch.device("meta"):
        created = build_adapter(choice).create(anatomy, generator(0, "count", choice.name))
    head = (anatomy.num_features + 1) * num_classes
    return head + sum(tensor.numel() for tensor in created.trainable.values())


def _twins(recipe: Recipe, registry: Registry) -> Recipe:
    pair, _ = _require_teacher(recipe)
    changed = {"pair": twins(pair), "teacher_adapter": recipe.adapter}
    return check_fields(dict(recipe) | changed, registry=registry, where="twins")


def _swapped(recipe: Recipe, registry: Registry) -> Recipe:
    pair, of_teacher = _require_teacher(recipe)
    changed = {"pair": swapped(pair), "adapter": of_teacher, "teacher_adapter": recipe.adapter}
    return check_fields(dict(recipe) | changed, registry=registry, where="swapped")


def _joint_probe(recipe: Recipe, registry: Registry) -> Recipe:
    _require_teacher(recipe)
    probe = _with_family(recipe, registry, "linear")
    return adjust(probe, registry, overrides={"distillation": "none", "task_loss": "joint"})


def _full(recipe: Recipe, registry: Registry) -> Recipe:
    return adjust(_with_family(recipe, registry, "full"), registry, teacher="none")


def _with_family(recipe: Recipe, registry: Registry, name: str) -> Recipe:
    """The recipe with another adapter family, and the values that the recipe files set for it.

    A field that the recipe has otherwise than its own recipe files say was set by the user, and is
    kept.
    """
    family = registry.find_adapter(name)
    before, _ = _set_by_files(recipe, registry, recipe.adapter.name)
    after, options = _set_by_files(recipe, registry, family.name)
    usual = {key: own.default for key, own in Recipe.model_fields.items()}
    kept = {"distillation", "selection", "candidates", *OF_THE_TERM}
    changed = {
        key: after.get(key, usual[key])
        for key in before | after
        if key in usual and key not in kept and getattr(recipe, key) == before.get(key, usual[key])
    }
    choice = family.as_fields(options)
    roles = {"adapter": choice, "teacher_adapter": recipe.teacher_adapter and choice}
    return check_fields(dict(recipe) | changed | roles, registry=registry, where=name)


def _set_by_files(
    recipe: Recipe, registry: Registry, family: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and adapter options that recipe files give a family on the recipe's task."""
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    pair, task = recipe.pair.name, recipe.task.id
    for rule in applying_rules(registry, pair=pair, adapter=family, task=task):
        settings = laid_over(settings, rule.settings)
        options |= rule.options
    return settings, options


def _control(name: str, title: str, change: Change, metric: Metric = "student") -> Control:
    return Control(name=name, title=title, metric=metric, change=change)


CONTROLS: Mapping[str, Control] = {
    control.name: control
    for control in (
        _control(
            "no_coupling", "Student and teacher are trained beside each other, apart.", _no_coupling
        ),
        _control("alone", "The student is trained without a teacher.", _alone),
        _control(
            "equal_compute",
            "The student is trained alone, for as many more epochs as a teacher would cost.",
            _equal_compute,
        ),
        _control(
            "equal_parameters",
            "The student is trained alone, with as many trained numbers as both networks have.",
            _equal_parameters,
        ),
        _control("twins", "The teacher is a second network of the student's backbone.", _twins),
        _control(
            "swapped", "The larger network teaches the smaller one, which is the student.", _swapped
        ),
        _control(
            "logit_ensemble",
            "The logits of student and teacher, trained apart, are averaged.",
            _no_coupling,
            "logit_ensemble",
        ),
        _control(
            "joint_probe",
            "One linear probe reads the features of both frozen networks.",
            _joint_probe,
            "logit_ensemble",
        ),
        _control("full", "All parameters of the student are trained, without a teacher.", _full),
    )
}
"""All controls by name."""
