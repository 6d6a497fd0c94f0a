"""Names and KEY=VALUE words -> Recipe.

Laid over each other: Recipe's own defaults < [defaults] < [adapter] < [task] < [override] of the
pair's recipe file < the teacher asked for < words. An adapter's options are always written out.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_zoo.errors import RecipeError, UnknownNameError, UsageError, near_names
from idat_zoo.outside import (
    ADAPTERS_GROUP,
    KINDS_GROUP,
    SUITES_GROUP,
    TERMS_GROUP,
    lacking,
    providers,
    warn_if_changed,
    with_plugins,
)
from idat_zoo.recipe import (
    FLAT_OPTIONS,
    NO_TERM,
    AdapterChoice,
    Backbone,
    Recipe,
    Scalar,
    TermSpec,
    check_recipe,
)
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.load import load_registry
from idat_zoo.registry.recipe_files import SETTINGS, Rule
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.shelves import Family, collecting, unknown
from idat_zoo.registry.suite_faults import task_faults
from idat_zoo.registry.task_words import ARRAYS, FOLDER
from idat_zoo.registry.terms import check_option, term_options, write_out

if TYPE_CHECKING:
    from idat_zoo.data.arrays import Data
    from idat_zoo.data.reading import Reading

OF_THE_TERM = ("distillation_weight", "detach")
"""Fields that say how a distillation term acts, and do not carry over to another term."""

DEFAULT_WARMUP: int = Recipe.model_fields["warmup_epochs"].default

NO_CANDIDATES = {"selection", "candidates", "protocol", "precision", "augmentation"}
CANDIDATE_SETTINGS = [name for name in SETTINGS if name not in NO_CANDIDATES]

HAS_A_FLAG = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("task", "adapter", "pair", "teacher"),
        *("seed", "seeds", "device", "data_dir", "out", "stack"),
    )
}


FOLDER_PAIR = "vit_s_to_vit_b"
"""What one's own images are trained with unless another pair is named."""

Overrides = Iterable[str] | Mapping[str, Any]
"""Recipe fields to set: KEY=VALUE words, or a mapping of dotted names."""


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
) -> Recipe:
    """The recipe of an adapter on a task, with the task's own pair unless another is named.

    `teacher` is the name of another backbone, or `none` to train the student alone. `overrides` are
    a mapping, {"epochs": 2, "adapter.rank": 4}, or KEY=VALUE words as on the command line. The task
    `folder` is one's own images, and `data_dir` where they are; `arrays` is images and labels that
    your program holds, and `data` these: {"train": (images, labels), "test": …} or torch data sets.
    Hand them to `run`, too. `shelf` is a folder of your own TOML files.

    Raises: UnknownNameError; RecipeError with every fault of the shelves or of the overrides;
    UsageError where `data_dir` or `data` is given for another task, or lacks; DataError for what is
    no folder of images, or for faults of the data.
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
    return compose_recipe(registry, task, adapter, pair=pair, teacher=teacher, overrides=overrides)


def with_folder(
    registry: Registry, data_dir: Path, reading: "Reading | None" = None
) -> tuple[Registry, str]:
    """The shelves with the task that one's own images are, and its id.

    Raises: DataError with every fault of the folder.
    """
    from idat_zoo.data.folder import describe_folder
    from idat_zoo.data.reading import Reading

    own = describe_folder(data_dir, reading or Reading())
    return registry.with_task(own, pair=FOLDER_PAIR), own.id


def _with_arrays(registry: Registry, data: "Data") -> tuple[Registry, str]:
    """The same with the task that images and labels of one's own are. Raises as `read_arrays`."""
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
    """As `get_recipe`, from shelves that are already loaded."""
    chosen_task = registry.find_task(task)
    family = registry.find_adapter(adapter)
    chosen_pair = registry.find_pair(pair or registry.default_pairs[chosen_task.id])

    rules = applying_rules(
        registry, pair=chosen_pair.name, adapter=family.name, task=chosen_task.id
    )
    settings: dict[str, Any] = {}
    options: dict[str, Scalar] = {}
    for rule in rules:
        settings |= rule.settings
        options |= rule.options
    choice = family.as_fields(options)
    recipe = _check(
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
    return _adjust(recipe, registry, teacher=teacher, overrides=overrides)


def recipe_from_file(
    path: Path,
    *,
    registry: Registry,
    teacher: str | None = None,
    overrides: Overrides = (),
) -> Recipe:
    """A resolved recipe as `idat cp` or a run writes it; teacher and words as in `get_recipe`.

    Raises: UnknownNameError; RecipeError with every fault of the file or of the words.
    """
    fields = parse_toml(read_text(path), where=str(path))
    written = check_recipe(_with_short_warmup(fields, registry), where=str(path))
    if faults := task_faults(written.task, where=str(path)):
        raise RecipeError(faults)
    for choice in filter(None, (written.adapter, written.teacher_adapter)):
        warn_if_changed("adapter", choice.name, choice.plugin, group=ADAPTERS_GROUP)
    for spec in written.pair.backbones():
        if spec.kind in providers(KINDS_GROUP):
            warn_if_changed("kind of backbone", spec.kind, spec.plugin, group=KINDS_GROUP)
    term = written.distillation
    warn_if_changed("distillation term", term.name, term.plugin, group=TERMS_GROUP)
    if written.task.suite in providers(SUITES_GROUP):
        warn_if_changed("suite", written.task.suite, written.task.plugin, group=SUITES_GROUP)
    recipe = _check(dict(written), registry=registry, where=str(path))
    return _adjust(recipe, registry, teacher=teacher, overrides=overrides)


def _with_short_warmup(fields: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """A file's fields; a warm-up that is the shelves' own gives way to fewer epochs, as to a word.

    One that a person wrote stays, and is refused where it is longer than the training.
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
    """The tables of the pair's recipe file that speak about the adapter on the task, in order."""
    return [rule for rule in registry.rules.get(pair, ()) if rule.fits(adapter=adapter, task=task)]


def _places(rules: Iterable[Rule]) -> str:
    """The files and tables that made a recipe, for messages."""
    tables: dict[Path, list[str]] = {}
    for rule in rules:
        tables.setdefault(rule.file, []).append(f"[{rule.table}]")
    return "; ".join(f"{file}: {', '.join(names)}" for file, names in tables.items()) or "recipe"


def recipe_id(recipe: Recipe) -> str:
    """pair/adapter/task."""
    return f"{recipe.pair.name}/{recipe.adapter.word}/{recipe.task.id}"


def unlike_recipe_ids(registry: Registry) -> list[str]:
    """One pair/adapter/task of all to which the same tables apply: tasks alone make no fault."""
    first: dict[tuple[object, ...], str] = {}
    for pair in registry.pairs:
        for adapter in registry.adapters:
            for task in registry.tasks:
                rules = applying_rules(registry, pair=pair, adapter=adapter, task=task)
                first.setdefault((pair, adapter, *map(id, rules)), f"{pair}/{adapter}/{task}")
    return list(first.values())


def find_recipe(registry: Registry, name: str) -> Recipe:
    """The recipe with an id; its task may be an alias.

    Raises: UnknownNameError; RecipeError when its tables do not fit together; UsageError for
    `folder`, whose recipe is made of images.
    """
    pair, _, rest = name.partition("/")
    adapter, _, task = rest.partition("/")
    if task == FOLDER:
        registry.find_task(task)  # which says where its recipe is
    if not (pair in registry.pairs and adapter in registry.adapters and registry.has_task(task)):
        error = UnknownNameError("recipe", name, _near_ids(registry, pair, adapter, task))
        error.hint = "`idat list recipes` lists them."
        raise error
    return compose_recipe(registry, task, adapter, pair=pair)


def _near_ids(registry: Registry, *parts: str) -> list[str]:
    """Ids whose parts are the given ones, or near to those that are unknown."""
    known = (registry.pairs, registry.adapters, registry.tasks)
    near = [
        [part] if part in names else near_names(part, names)
        for part, names in zip(parts, known, strict=True)
    ]
    return ["/".join(id) for id in itertools.product(*near)]


def _adjust(
    recipe: Recipe, registry: Registry, *, teacher: str | None, overrides: Overrides
) -> Recipe:
    if teacher is not None:
        changed = (
            _without_teacher(recipe)
            if teacher == "none"
            else _with_teacher(recipe, _find_teacher(teacher, registry))
        )
        recipe = _check(dict(recipe) | changed, registry=registry, where=f"--teacher {teacher}")
    words = parse_words(overrides)
    return _override(recipe, words, registry) if words else recipe


def _find_teacher(name: str, registry: Registry) -> Backbone:
    if name not in registry.backbones:
        raise UnknownNameError("backbone", name, ["none", *registry.backbones])
    return registry.backbones[name]


def _without_teacher(recipe: Recipe) -> dict[str, Any]:
    return _defaults(OF_THE_TERM) | {
        "pair": recipe.pair.model_copy(update={"teacher": None}),
        "teacher_adapter": None,
        "distillation": TermSpec(name=NO_TERM),
    }


def _with_teacher(recipe: Recipe, teacher: Backbone) -> dict[str, Any]:
    if recipe.pair.teacher == teacher:
        return {}
    name = f"{teacher.name}_to_{recipe.pair.student.name}"
    changed = {"pair": recipe.pair.model_copy(update={"name": name, "teacher": teacher})}
    if recipe.pair.teacher is not None:
        return changed
    return changed | _defaults(["distillation"]) | {"teacher_adapter": recipe.adapter}


def parse_words(words: Overrides) -> dict[str, Any]:
    """KEY=VALUE words as a mapping; VALUE is read as TOML, and as a plain string if it is not.

    A mapping is what it is. Raises: RecipeError for words without `=` and for keys given twice.
    """
    if isinstance(words, str):  # one word, not its letters
        words = [words]
    if not isinstance(words, Iterable):
        raise RecipeError([f"{words!r}: expected a mapping, or KEY=VALUE words"])
    words = words if isinstance(words, Mapping) else list(words)
    given: dict[str, str] = {}
    faults = [f"{word!r}: expected a string" for word in words if not isinstance(word, str)]
    if faults:
        raise RecipeError(faults)
    if isinstance(words, Mapping):
        return dict(words)
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            faults.append(f"'{word}': expected KEY=VALUE, e.g. lr=1e-3")
        elif key in given:
            faults.append(f"'{key}' is given twice: {key}={given[key]} and {word}")
        else:
            given[key] = text
    if faults:
        raise RecipeError(faults)
    return {key: _parse_value(text) for key, text in given.items()}


def spread_words(words: Iterable[str]) -> list[list[str]]:
    """KEY=A,B words as every combination of single values, in the order they are written.

    Commas in brackets, braces or quotes do not part values: KEY=["a","b"] is one.
    """
    choices = []
    for word in words:
        key, equals, text = word.partition("=")
        choices.append([f"{key}{equals}{value}" for value in _split_values(text)])
    return [list(combination) for combination in itertools.product(*choices)]


def _split_values(text: str) -> list[str]:
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[]{}":
            depth += 1 if character in "[{" else -1
        elif character == "," and depth == 0:
            values.append("")
            continue
        values[-1] += character
    return values


def _parse_value(text: str) -> object:
    try:
        parsed = parse_toml(f"value = {text}", where="")
    except RecipeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _override(recipe: Recipe, words: Mapping[str, Any], registry: Registry) -> Recipe:
    student = registry.find_adapter(recipe.adapter.word)
    teacher_word = words.get("teacher_adapter", (recipe.teacher_adapter or recipe.adapter).word)
    teacher = registry.find_adapter(str(teacher_word))
    _check_words(words, recipe, student, teacher)

    settings = {key: value for key, value in words.items() if key in SETTINGS}
    settings = {key: value for key, value in settings.items() if key not in FLAT_OPTIONS}
    candidates = _below("candidates", words)
    if settings.get("selection") != "none":
        candidates = {**recipe.candidates, **candidates}
    options = {**recipe.adapter.options, **_below("adapter", words)}
    return _check(
        dict(recipe)
        | _settled(recipe, settings)
        | {
            "candidates": candidates,
            "distillation": _term(recipe, words),
            "adapter": student.as_fields(options),
            "teacher_adapter": _teacher_adapter(recipe, words, teacher, options),
        },
        registry=registry,
        where="override",
        fixed=words,
    )


def _check_words(
    words: Mapping[str, Any], recipe: Recipe, student: Family, teacher: Family
) -> None:
    """Every word must name something that exists; values are checked later, with the recipe."""
    term = _term(recipe, words)
    options = [
        *(f"adapter.{option}" for option in student.options),
        *(f"distillation.{option}" for option in term_options(term.get("name"))),
    ]
    known = {
        *(name for name in SETTINGS if name != "candidates"),
        *options,
        "teacher_adapter",
        *(f"teacher_adapter.{option}" for option in teacher.options),
        *(f"candidates.{name}" for name in (*CANDIDATE_SETTINGS, *options)),
    }
    faults = []
    for key in words:
        if key in HAS_A_FLAG:
            faults.append(f"override: {key}: is chosen by {HAS_A_FLAG[key]}, not by a word")
        elif key not in known:
            faults.append(f"override: {unknown('key', key, known)}")
        elif key.startswith("teacher_adapter") and recipe.teacher_adapter is None:
            faults.append(f"override: {key}: this recipe has no teacher")
    if faults:
        raise RecipeError(faults)


def _settled(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what follows from them: another term starts afresh, a warm-up stays short."""
    follows: dict[str, Any] = {}
    if "distillation" in settings and _term(recipe, settings)["name"] != recipe.distillation.name:
        follows |= _defaults(OF_THE_TERM)
    epochs = settings.get("epochs")
    if isinstance(epochs, int):
        follows["warmup_epochs"] = max(0, min(recipe.warmup_epochs, epochs // 2))
    return follows | dict(settings)


def _term(recipe: Recipe, words: Mapping[str, Any]) -> dict[str, Any]:
    """The distillation term as words change it: another term starts at its own defaults."""
    before = recipe.distillation
    given = words.get("distillation", before)
    fields = dict(given) if isinstance(given, Mapping | TermSpec) else {"name": given}
    options = {**dict(fields.get("options") or {})}
    if "options" not in fields and fields.get("name") == before.name:
        options = dict(before.options)
    beside = {name: words[name] for name in FLAT_OPTIONS if name in words}
    return {**fields, "options": options | beside | _below("distillation", words)}


def _teacher_adapter(
    recipe: Recipe, words: Mapping[str, Any], family: Family, student_options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The student's adapter where it was that before; a family named anew at its own defaults."""
    before = recipe.teacher_adapter
    if before is None:
        return None
    word = family.word
    if word == recipe.adapter.word and ("teacher_adapter" in words or before == recipe.adapter):
        options = dict(student_options)
    else:
        options = dict(before.options) if word == before.word else {}
    return family.as_fields(options | _below("teacher_adapter", words))


def _below(prefix: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """The words `prefix.KEY`, by KEY."""
    return {
        key.removeprefix(f"{prefix}."): value
        for key, value in words.items()
        if key.startswith(f"{prefix}.")
    }


def _defaults(names: Iterable[str]) -> dict[str, Any]:
    return {name: Recipe.model_fields[name].default for name in names}


def _check(
    fields: Mapping[str, Any],
    *,
    registry: Registry,
    where: str,
    fixed: Iterable[str] = (),
) -> Recipe:
    """The recipe, its adapters' options written out and its candidates known to be possible.

    `fixed` are keys that were set by hand, so that no candidates may stand for them.
    """
    faults: list[str] = []
    roles = [role for role in ("adapter", "teacher_adapter") if fields.get(role) is not None]
    choices = {role: AdapterChoice.model_construct(**dict(fields[role])) for role in roles}
    chosen: dict[str, Any] = {}
    for role, choice in choices.items():
        with collecting(faults):
            chosen[role] = _write_out(choice, registry, where=where)
    bare = {role: {"name": "linear"} for role in roles}
    with collecting(faults):
        recipe = check_recipe({**fields, **bare}, where=where).model_copy(update=chosen)
        term = write_out(recipe.distillation, where=where)
        recipe = recipe.model_copy(update={"distillation": term})
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


def _write_out(choice: AdapterChoice, registry: Registry, *, where: str) -> AdapterChoice:
    if choice.word not in registry.adapters:
        told = unknown("adapter", choice.name, registry.adapters)
        if choice.plugin is not None:
            told = str(lacking("adapter", choice.name, choice.plugin)).replace("\n", " ")
        raise RecipeError([f"{where}: {told}"])
    return registry.adapters[choice.word].choose(choice.options, where=where)


def _check_candidates(
    recipe: Recipe, student: Family, *, where: str
) -> dict[str, tuple[Scalar, ...]]:
    """The candidates, each value as the field it stands for takes it."""
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
            return write_out(TermSpec(name=str(value)), where=where).name
        if key in CANDIDATE_SETTINGS:
            setting: Scalar = getattr(check_recipe(plain | {key: value}, where=where), key)
            return setting
        checked: Scalar = student.check({option: value}, where=where)[option]
        return checked

    for key, values in recipe.candidates.items():
        if key not in known:
            faults.append(f"{where}: {unknown('field', key, known)}")
            continue
        with collecting(faults):
            checked[key] = tuple(check_value(key, value) for value in values)
    if faults:
        raise RecipeError(faults)
    return checked
