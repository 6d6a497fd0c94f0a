"""Study files: TOML tables of axes, read into the runs of a study.

A file has `title`, `reference` (the arm that the others are compared with), `pair` (the default of
its parts) and one or more tables [[part]], each the cross product of its axes. Recipes are composed
by `compose_recipe`, with the words that the command line takes. The studies that ship lie in
`studies/`; a user's shelf may have a folder `studies` of its own.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idat_zoo.errors import RecipeError, UnknownNameError, UsageError
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.comma_lists import resolve_adapters, resolve_tasks
from idat_zoo.registry.load import load_registry
from idat_zoo.registry.part_tables import (
    Arm,
    read_arms,
    read_table,
    read_values,
    written_labels,
)
from idat_zoo.registry.registry import BUILTIN, Registry
from idat_zoo.registry.resolve import compose_recipe
from idat_zoo.registry.shelves import check_table, collecting, unknown
from idat_zoo.registry.task_words import ALL
from idat_zoo.study.design import Run, Study
from idat_zoo.values import Frozen, Name

FOLDER = "studies"
COMMANDS = ("run", "status", "report")
"""The words after `idat study` that are commands, so that no study may have their names."""


class StudyTable(Frozen):
    """The keys of a study file outside of its parts."""

    name: Name
    title: str
    reference: str
    pair: str | None = None
    part: Any  # checked table by table


def study_files(shelf: Path | None = None) -> dict[str, Path]:
    """The study files by name: those that ship, and those of a user's shelf."""
    shelves = [BUILTIN] if shelf is None else [BUILTIN, shelf]
    return {file.stem: file for root in shelves for file in sorted((root / FOLDER).glob("*.toml"))}


def study_titles(shelf: Path | None = None) -> dict[str, str]:
    """The title of each study by its name. Raises: RecipeError for a file that is broken TOML."""
    return {
        name: str(parse_toml(read_text(file), where=str(file)).get("title", ""))
        for name, file in study_files(shelf).items()
    }


def find_study_file(what: str, shelf: Path | None = None) -> Path:
    """The study file that a path or the name of a study names.

    Raises: UnknownNameError for an unknown name; UsageError for a path where no file is.
    """
    known = study_files(shelf)
    if what in known:
        return known[what]
    path = Path(what)
    if path.is_file():
        return path
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise UsageError(f"there is no study file '{what}'.")
    here = Path(f"{what}.toml")
    on_shelf = [] if shelf is None else [f"in '{shelf / FOLDER}'"]
    places = ["among the studies that ship", *on_shelf, f"for a file in '{Path.cwd()}'"]
    raise UnknownNameError(
        "study", what, [*known, *([str(here)] if here.is_file() else [])], looked=", ".join(places)
    )


def get_study(what: Path | str, *, shelf: Path | None = None) -> Study:
    """The study in a file, or the one of a name, as `idat list studies` prints it.

    Raises: UnknownNameError; UsageError for a file that is not there; RecipeError with every fault
    of the file or of the shelves.
    """
    return read_study(find_study_file(str(what), shelf), registry=load_registry(shelf))


def read_study(file: Path, *, registry: Registry) -> Study:
    """The study in a file. Raises: RecipeError with every fault."""
    faults: list[str] = []
    content = parse_toml(read_text(file), where=str(file))
    if file.stem in COMMANDS:
        faults.append(f"{file}: a study cannot be called '{file.stem}'; rename the file")
    table = None
    with collecting(faults):
        table = check_table(StudyTable, content, where=str(file), given={"name": file.stem})
    parts = content.get("part")
    if not isinstance(parts, list) or not parts or not all(isinstance(own, dict) for own in parts):
        if parts is not None:
            faults.append(f"{file}: part: expected tables [[part]] (got {parts!r})")
        raise RecipeError(faults)
    pair = content.get("pair") if isinstance(content.get("pair"), str) else None
    read = [_Part(number, own, file, pair, registry, faults) for number, own in enumerate(parts, 1)]
    _check_arms(read, content.get("reference"), faults, file=file)
    runs = [run for part in read for run in part.runs(faults)]
    faults += _repeated(runs, file=file)
    if faults or table is None:
        raise RecipeError(dict.fromkeys(faults))
    return Study(
        name=table.name,
        title=table.title,
        reference=table.reference,
        runs=tuple(runs),
        optional=tuple(dict.fromkeys(word for part in read for word in part.optional)),
    )


class _Part:
    """A part that was read: its axes, as far as they are free of faults."""

    def __init__(
        self,
        number: int,
        content: Mapping[str, Any],
        file: Path,
        pair: str | None,
        registry: Registry,
        faults: list[str],
    ) -> None:
        self.number, self.registry, self.where = number, registry, f"{file}: part {number}"
        self.arms: list[Arm] = []
        self.written = written_labels(content.get("terms"))
        self.optional: list[str] = []
        self._tasks: list[str] = []
        self._adapters: list[str] = []
        self._seeds: Sequence[int] = ()
        self._settings: list[tuple[dict[str, Any], dict[str, Any]]] = []
        table = read_table(content, faults, where=self.where)
        self.arms = read_arms(table, faults, where=self.where)
        self._pair = table.pair or pair
        if self._pair is not None and self._pair not in registry.pairs:
            faults.append(f"{self.where}: {unknown('pair', self._pair, registry.pairs)}")
            self._pair = None  # the words are checked with the tasks' own pairs
        self._seeds = table.seeds
        self._tasks = [
            task.id
            for word in table.tasks
            for task in self._named("tasks", word, resolve_tasks, faults)
        ]
        families = [
            (word, family.word)
            for word in table.adapters
            for family in self._named("adapters", word, resolve_adapters, faults)
        ]
        self._tasks = list(dict.fromkeys(self._tasks))
        self._adapters = list(dict.fromkeys(name for _, name in families))
        self.optional = [name for word, name in families if word == ALL]
        fixed, axes = read_values(table, faults, where=self.where)
        protocol = {} if table.protocol is None else {"protocol": table.protocol}
        for chosen in itertools.product(*axes.values()):
            values = protocol | dict(zip(axes, chosen, strict=True))
            self._settings.append((values, fixed | values))

    def _named(self, key: str, word: str, find: Any, faults: list[str]) -> Any:
        """What a word names among tasks or adapters; empty where it names nothing."""
        try:
            return find(word, self.registry)
        except RecipeError as error:
            faults += [f"{self.where}: {fault}" for fault in error.faults]
        except UsageError as error:
            faults.append(f"{self.where}: {key}: {_in_one_line(error)}")
        return []

    def runs(self, faults: list[str]) -> Iterator[Run]:
        """The runs of the part; faults of their recipes are appended to the list.

        A part without tasks, adapters or arms has faults: its words are then checked with others.
        """
        if not (self._tasks and self._adapters and self.arms):
            self._check_words(faults)
            return
        for adapter, (values, words), arm, task in itertools.product(
            self._adapters, self._settings, self.arms, self._tasks
        ):
            recipe = self._recipe(task, adapter, words, arm, faults)
            if recipe is None:
                continue
            for seed in self._seeds:
                yield Run(
                    part=self.number,
                    task=task,
                    adapter=adapter,
                    arm=arm.label,
                    seed=seed,
                    values=values,
                    metric=arm.metric,
                    recipe=recipe,
                )

    def _check_words(self, faults: list[str]) -> None:
        """Check the words of a part whose tasks, adapters or arms have faults, each word once.

        Options of adapters and terms that are not known cannot be checked.
        """
        task = next(iter(self._tasks or self.registry.tasks))
        adapter = next(iter(self._adapters or self.registry.adapters))
        arm = next(iter(self.arms), Arm(label="none", words={"distillation": "none"}))
        unchecked: tuple[str, ...] = ("distillation.",) if not self.arms else ()
        if not self._adapters:
            unchecked += ("adapter.", "teacher_adapter.", "candidates.")
        for _, words in self._settings:
            own = {key: value for key, value in words.items() if not key.startswith(unchecked)}
            self._recipe(task, adapter, own, arm, faults)

    def _recipe(
        self, task: str, adapter: str, words: Mapping[str, Any], arm: Arm, faults: list[str]
    ) -> Recipe | None:
        try:
            recipe = compose_recipe(
                self.registry, task, adapter, pair=self._pair, overrides={**words, **arm.words}
            )
            return recipe if arm.control is None else arm.control.apply(recipe, self.registry)
        except RecipeError as error:
            found = [fault.removeprefix("override: ") for fault in error.faults]
        except UsageError as error:
            if adapter in self.optional:
                return None
            found = [_in_one_line(error)]
        faults += [f"{self.where}: {fault}" for fault in found]
        return None


def _in_one_line(error: UsageError) -> str:
    return " ".join(f"{error.message} {error.hint}".split())


def _check_arms(
    parts: Sequence[_Part], reference: object, faults: list[str], *, file: Path
) -> None:
    """Check that the reference is an arm, and that each label has one meaning in all parts."""
    meanings: dict[str, Arm] = {}
    for part in parts:
        for arm in part.arms:
            if meanings.setdefault(arm.label, arm) != arm:
                faults.append(
                    f"{part.where}: arm '{arm.label}' is another one in an earlier part; `label` "
                    "of a term gives it another name"
                )
    faulty = {label for part in parts for label in part.written} - meanings.keys()
    if isinstance(reference, str) and meanings and reference not in {*meanings, *faulty}:
        faults.append(f"{file}: reference: {unknown('arm', reference, meanings)}")


def _repeated(runs: Sequence[Run], *, file: Path) -> Iterator[str]:
    """Faults of runs that occur twice: in two parts, or as two arms with one recipe."""
    seen: dict[tuple[object, ...], Run] = {}
    same: dict[tuple[object, ...], Run] = {}
    repeated: dict[tuple[object, ...], list[Run]] = {}
    texts = {id(run.recipe): run.recipe.model_dump_json() for run in runs}
    for run in runs:
        place = (run.task, run.adapter, run.arm, run.seed, tuple(sorted(run.values.items())))
        first = seen.setdefault(place, run)
        if first is not run:
            repeated.setdefault(("part", first.part, run.part), []).append(run)
            continue
        first = same.setdefault((texts[id(run.recipe)], run.seed, run.metric, run.adapter), run)
        if first is not run:
            repeated.setdefault(("arm", _place(first, run), _place(run, first)), []).append(run)
    for (kind, first_name, name), own in repeated.items():
        if kind == "part":
            yield (
                f"{file}: part {name} repeats {len(own)} run{'s' * (len(own) > 1)} of part "
                f"{first_name}: {own[0]}"
            )
        else:
            yield f"{file}: {first_name} and {name} are the same: {own[0]} occurs twice"


def _place(run: Run, other: Run) -> str:
    """The position of a run on the axes on which it differs from another one."""
    if run.arm != other.arm:
        return f"arm '{run.arm}'"
    return ", ".join(
        f"{key} = {value}" for key, value in run.values.items() if other.values.get(key) != value
    )
