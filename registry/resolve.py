"""The composition of a recipe from the names of its parts and KEY=VALUE words.

Later sources replace earlier ones: the defaults of Recipe; the tables [defaults], [adapter], [task]
and [override] of the pair's recipe file; the choice of a teacher; and last the words. All options
of the adapters are written out in the recipe, those at their defaults, too.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_zoo.errors import RecipeError, UnknownNameError, UsageError
from idat_zoo.outside import (
    ADAPTERS_GROUP,
    KINDS_GROUP,
    SUITES_GROUP,
    TERMS_GROUP,
    providers,
    warn_if_changed,
)
from idat_zoo.recipe import Backbone, Recipe, check_recipe
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.checks import check_fields
from idat_zoo.registry.load import load_registry
from idat_zoo.registry.overrides import defaults_of, override
from idat_zoo.registry.recipe_files import Rule
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.suite_faults import task_faults
from idat_zoo.registry.task_words import ARRAYS, FOLDER
from idat_zoo.registry.terms import laid_over, term_names
from idat_zoo.registry.words import Overrides, parse_words
from idat_zoo.specs import DEFAULT_TERM, NO_TERM, OF_THE_TEACHER, OF_THE_TERM, TermSpec
from idat_zoo.values import Scalar

if TYPE_CHECKING:
    from idat_zoo.data.arrays import Data
    from idat_zoo.data.reading import Reading

DEFAULT_WARMUP: int = Recipe.model_fields["warmup_epochs"].default


FOLDER_PAIR = "vit_s_to_vit_b"
"""The default pair for a user's own images."""


def get_recipe(
    task: str,
    adapter: str,
    *,
    pair: str | None = None,
    teacher: str | None = None,
    overrides: Overrides = (),
    data_dir: Path | str | None = None,
    data: "Data | None" = None,
    shelf: Path | None = None,
    weights: Mapping[str, Path | str] | None = None,
) -> Recipe:
    """The recipe of an adapter on a task, with the task's default pair or a given one.

    `teacher` is the name of another backbone, or `none` to train the student alone. `overrides` are
    a mapping, {"epochs": 2, "adapter.rank": 4}, or KEY=VALUE words as on the command line. The task
    `folder` stands for your own images in the folder `data_dir`. The task `arrays` stands for
    images and labels that your program holds in `data`: {"train": (images, labels), "test": …} or
    torch data sets; give the same `data` to `run`. `shelf` is a folder of your own TOML files.
    `weights` are files of your own, {"student": path, "teacher": path}; the recipe has their
    SHA-256 (`idat_zoo.own_weights`).

    Raises: WeightsError; UnknownNameError; RecipeError with every fault of the shelves or of the
    overrides; UsageError if `data_dir` or `data` is missing for its task, or given for another
    task, or for weights of a teacher without one; DataError for faults of the folder or of the
    data.
    """
    registry = load_registry(shelf)
    if (task == ARRAYS) != (data is not None):
        raise UsageError(
            f"task '{task}' {'without' if data is None else 'with'} data: these are the images of "
            f"task '{ARRAYS}', and of no other.",
            hint='get_recipe("arrays", adapter, data={"train": (images, labels), "test": …})',
        )
    if (task == FOLDER) != (data_dir is not None):
        raise UsageError(
            f"task '{task}' and data_dir = {data_dir!r}: data_dir is where the images of task "
            f"'{FOLDER}' are, and of no other.",
            hint='get_recipe("folder", adapter, data_dir=…); of other tasks: run(…, data_dir=…)',
        )
    if data_dir is not None:
        registry, task = with_folder(registry, Path(data_dir))
    if data is not None:
        registry, task = _with_arrays(registry, data)
    recipe = compose_recipe(
        registry, task, adapter, pair=pair, teacher=teacher, overrides=overrides
    )
    if not weights:
        return recipe
    from idat_zoo.registry.own_files import with_own_weights

    return with_own_weights(recipe, weights)


def with_folder(
    registry: Registry, data_dir: Path, reading: "Reading | None" = None
) -> tuple[Registry, str]:
    """The shelves with a task for the user's own images in a folder, and the id of that task.

    Raises: DataError with every fault of the folder.
    """
    from idat_zoo.data.folder import describe_folder
    from idat_zoo.data.reading import Reading

    own = describe_folder(data_dir, reading or Reading())
    return registry.with_task(own, pair=FOLDER_PAIR), own.id


def _with_arrays(registry: Registry, data: "Data") -> tuple[Registry, str]:
    """The shelves with a task for images and labels in memory, and its id.

    Raises: what `read_arrays` raises.
    """
    from idat_zoo.data.arrays import read_arrays

    own = read_arrays(data).task
    return registry.with_task(own, pair=FOLDER_PAIR), own.id


def compose_recipe(
    registry: Registry,
    task: str,
    adapter: str,
    *,
    pair: str | None = None,
    teacher: str | None = None,
    overrides: Overrides = (),
) -> Recipe:
    """The recipe as by `get_recipe`, from shelves that are already loaded."""
    chosen_task = registry.find_task(task)
    family = registry.find_adapter(adapter)
    chosen_pair = registry.find_pair(pair or registry.default_pairs[chosen_task.id])

    rules = applying_rules(
        registry, pair=chosen_pair.name, adapter=family.name, task=chosen_task.id
    )
    settings: dict[str, Any] = {}
    options: dict[str, Scalar] = {}
    for rule in rules:
        settings = laid_over(settings, rule.settings)
        options |= rule.options
    choice = family.as_fields(options)
    recipe = check_fields(
        {
            **settings,
            "pair": chosen_pair,
            "task": chosen_task,
            "adapter": choice,
            "teacher_adapter": choice,
        },
        registry=registry,
        where=_places(rules),
    )
    return adjust(recipe, registry, teacher=teacher, overrides=overrides)


def recipe_from_file(
    path: Path,
    *,
    registry: Registry,
    teacher: str | None = None,
    overrides: Overrides = (),
) -> Recipe:
    """The recipe in a file that `idat cp` or a run wrote, changed by a teacher and overrides.

    `teacher` and `overrides` are those of `get_recipe`. A warning is given if a plugin of the
    recipe is not the one that it was written with.

    Raises: UnknownNameError; RecipeError with every fault of the file or of the overrides.
    """
    fields = parse_toml(read_text(path), where=str(path))
    written = check_recipe(_with_short_warmup(fields, registry), where=str(path))
    if faults := task_faults(written.task, where=str(path)):
        raise RecipeError(faults)
    choices = [written.adapter, written.teacher_adapter]
    choices += [one.adapter for one in written.further_teachers or ()]
    for choice in filter(None, choices):
        warn_if_changed("adapter", choice.name, choice.plugin, group=ADAPTERS_GROUP)
    for spec in written.backbones():
        if spec.kind in providers(KINDS_GROUP):
            warn_if_changed("kind of backbone", spec.kind, spec.plugin, group=KINDS_GROUP)
    term = written.distillation
    warn_if_changed("distillation term", term.name, term.plugin, group=TERMS_GROUP)
    if written.task.suite in providers(SUITES_GROUP):
        warn_if_changed("suite", written.task.suite, written.task.plugin, group=SUITES_GROUP)
    replaced = teacher == "none" or "distillation" in parse_words(overrides)
    if replaced and term.name not in term_names():  # its plugin is not needed
        fresh = {"distillation": TermSpec(name=DEFAULT_TERM), **defaults_of(OF_THE_TERM)}
        written = written.model_copy(update=fresh)
    recipe = check_fields(dict(written), registry=registry, where=str(path))
    return adjust(recipe, registry, teacher=teacher, overrides=overrides)


def _with_short_warmup(fields: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """A file's fields, with a shorter warm-up if it is longer than the training and a default.

    It is then half of the epochs, as with `epochs=N` on the command line. A warm-up that differs
    from the default of the shelves was set on purpose; it stays, and the recipe is refused.
    """
    epochs, warmup = fields.get("epochs"), fields.get("warmup_epochs", DEFAULT_WARMUP)
    if not (isinstance(epochs, int) and isinstance(warmup, int) and 0 < epochs < warmup):
        return fields
    names = (("pair", "name"), ("adapter", "name"), ("task", "id"))
    pair, adapter, task = (str(dict(fields.get(part) or {}).get(key)) for part, key in names)
    own = DEFAULT_WARMUP
    for rule in applying_rules(registry, pair=pair, adapter=adapter, task=task):
        own = rule.settings.get("warmup_epochs", own)
    return {**fields, "warmup_epochs": epochs // 2} if warmup == own else fields


def applying_rules(registry: Registry, *, pair: str, adapter: str, task: str) -> list[Rule]:
    """The tables of the pair's recipe file that apply to an adapter on a task, in order."""
    return [rule for rule in registry.rules_of(pair) if rule.fits(adapter=adapter, task=task)]


def _places(rules: Iterable[Rule]) -> str:
    """The files and tables that a recipe is composed from, for messages."""
    tables: dict[Path, list[str]] = {}
    for rule in rules:
        tables.setdefault(rule.file, []).append(f"[{rule.table}]")
    return "; ".join(f"{file}: {', '.join(names)}" for file, names in tables.items()) or "recipe"


def adjust(
    recipe: Recipe, registry: Registry, *, teacher: str | None = None, overrides: Overrides = ()
) -> Recipe:
    """The recipe with another teacher, or none, and then with overrides, as by `get_recipe`.

    Raises: UnknownNameError; RecipeError with every fault of the overrides.
    """
    if teacher is not None:
        changed = (
            _without_teacher(recipe)
            if teacher == "none"
            else _with_teacher(recipe, _find_teacher(teacher, registry))
        )
        recipe = check_fields(
            dict(recipe) | changed, registry=registry, where=f"--teacher {teacher}"
        )
    words = parse_words(overrides)
    return override(recipe, words, registry) if words else recipe


def _find_teacher(name: str, registry: Registry) -> Backbone:
    if name not in registry.backbones:
        raise UnknownNameError("backbone", name, ["none", *registry.backbones])
    return registry.backbones[name]


def _without_teacher(recipe: Recipe) -> dict[str, Any]:
    return defaults_of((*OF_THE_TERM, *OF_THE_TEACHER, "task_loss")) | {
        "pair": recipe.pair.model_copy(update={"teacher": None}),
        "teacher_adapter": None,
        "distillation": TermSpec(name=NO_TERM),
    }


def _with_teacher(recipe: Recipe, teacher: Backbone) -> dict[str, Any]:
    if recipe.pair.teacher == teacher and recipe.further_teachers is None:
        return {}
    name = f"{teacher.name}_to_{recipe.pair.student.name}"
    changed = {"pair": recipe.pair.model_copy(update={"name": name, "teacher": teacher})}
    changed |= defaults_of(OF_THE_TEACHER)
    if recipe.pair.teacher is not None:
        return changed
    return changed | defaults_of(["distillation"]) | {"teacher_adapter": recipe.adapter}
