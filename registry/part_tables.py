"""Part tables: the tables [[part]] of a study file, whose axes are crossed into runs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationError

from idat_zoo.errors import RecipeError
from idat_zoo.registry.controls import CONTROLS, Control
from idat_zoo.registry.recipe_files import SETTINGS
from idat_zoo.registry.shelves import check_table, unknown
from idat_zoo.registry.terms import term_names, term_options
from idat_zoo.study.design import Metric
from idat_zoo.values import NAME, Frozen

Item = TypeVar("Item")

NESTED = ("adapter", "teacher_adapter", "candidates", "distillation")
"""Keys that may be written as tables: `adapter.rank` in TOML is a table `adapter` with `rank`."""
HAS_A_KEY = {
    "task": "tasks",
    "adapter": "adapters",
    "seed": "seeds",
    "pair": "pair",
    "distillation": "terms",
    "protocol": "protocol",
}
"""Words that a part sets by keys of its own."""


def _is_list(axis: object) -> object:
    if not isinstance(axis, list | tuple):
        raise ValueError("expected a list")
    return axis


def _is_table(words: object) -> object:
    if not isinstance(words, dict):
        raise ValueError("expected a table")
    return words


def _not_empty(axis: tuple[Item, ...]) -> tuple[Item, ...]:
    if not axis:
        raise ValueError("is an empty axis: it needs at least one value")
    repeated = [one for place, one in enumerate(axis) if one in axis[:place]]
    if repeated:
        raise ValueError(f"holds {repeated[0]!r} twice")
    return axis


Axis = Annotated[
    tuple[Item, ...], Strict(False), BeforeValidator(_is_list), AfterValidator(_not_empty)
]
WordTable = Annotated[dict[str, Any], BeforeValidator(_is_table)]


class PartTable(Frozen):
    """A table [[part]] of a study file. `set` are fixed words, `values` axes of words."""

    tasks: Axis[str]
    adapters: Axis[str]
    seeds: Axis[Annotated[int, Field(ge=0)]] = (0,)
    terms: Axis[Any] | None = None
    controls: Axis[str] | None = None
    values: WordTable = Field(default_factory=dict)
    set: WordTable = Field(default_factory=dict)
    pair: str | None = None
    protocol: Literal["standard", "paper"] | None = None


def read_table(content: Mapping[str, Any], faults: list[str], *, where: str) -> PartTable:
    """The table of a part. Faults are appended to the list; keys that have one are then empty.

    So what the other keys say is checked, too, and all faults of a file are told at once.
    """
    try:
        return check_table(PartTable, content, where=where)
    except RecipeError as error:
        faults += error.faults
    empty = {"tasks": (), "adapters": (), "seeds": (), "terms": (), "controls": ()}
    sound = {key: own for key, value in content.items() for own in _sound(key, value)}
    return PartTable.model_construct(**(empty | sound))


def _sound(key: str, value: object) -> list[Any]:
    """The checked value of a key of a part; none where the key or its value has a fault."""
    needed = {"tasks": ["any"], "adapters": ["any"]}
    try:
        return [getattr(PartTable.model_validate({**needed, key: value}), key)]
    except ValidationError:
        return []


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm of a study: a distillation term with its words, or a control."""

    label: str
    words: Mapping[str, Any] = field(default_factory=dict)
    control: Control | None = None

    @property
    def metric(self) -> Metric:
        """The part of a result that counts for the arm."""
        return "student" if self.control is None else self.control.metric


def read_arms(table: PartTable, faults: list[str], *, where: str) -> list[Arm]:
    """The arms of a part: its terms, then its controls. Faults are appended to the list."""
    arms = [
        arm
        for place, item in enumerate(table.terms or (), start=1)
        if (arm := _read_term(item, faults, where=f"{where}: terms: item {place}")) is not None
    ]
    for name in table.controls or ():
        if name in CONTROLS:
            arms.append(Arm(label=name, control=CONTROLS[name]))
        else:
            faults.append(f"{where}: controls: {unknown('control', name, CONTROLS)}")
    if table.terms is None and table.controls is None:
        faults.append(f"{where}: has no arms: give terms, controls or both")
    labels = [arm.label for arm in arms]
    faults += [
        f"{where}: two arms are called '{label}'; `label` of a term gives it another name"
        for label in dict.fromkeys(labels)
        if labels.count(label) > 1
    ]
    return list({arm.label: arm for arm in reversed(arms)}.values())[::-1]


def _read_term(item: Any, faults: list[str], *, where: str) -> Arm | None:
    """The arm of a distillation term, given by its name or a table; None if it has faults."""
    table = {"name": item} if isinstance(item, str) else item
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        faults.append(
            f"{where}: expected the name of a distillation term, or a table with its name "
            f"(got {item!r})"
        )
        return None
    own, name = dict(table), table["name"]
    del own["name"]
    label = own.pop("label", name)
    if name not in term_names():
        faults.append(f"{where}: {unknown('distillation term', name, term_names())}")
        return None
    if not isinstance(label, str) or not _is_name(label):
        faults.append(f"{where}: label: expected a name of letters, digits, '_', '-' and '.'")
        return None
    options = term_options(name)
    settings = [key for key in SETTINGS if key not in HAS_A_KEY]
    known = list(dict.fromkeys(["name", "label", *options, *settings]))
    wrong = [f"{where}: {unknown('key', key, known)}" for key in own if key not in known]
    faults += wrong
    words = {f"distillation.{key}" if key in options else key: value for key, value in own.items()}
    return None if wrong else Arm(label=label, words={"distillation": name, **words})


def written_labels(terms: object) -> list[str]:
    """The labels of the terms that are written as tables, whether or not these have faults."""
    tables = [item for item in terms if isinstance(item, dict)] if isinstance(terms, list) else []
    return [str(table.get("label", table.get("name"))) for table in tables]


def _is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None


def flat_words(table: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a table with dotted keys, such as `adapter.rank`, written out."""
    words: dict[str, Any] = {}
    for key, value in table.items():
        if key in NESTED and isinstance(value, dict):
            words |= {f"{key}.{inner}": own for inner, own in value.items()}
        else:
            words[key] = value
    return words


def read_values(
    table: PartTable, faults: list[str], *, where: str
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The fixed words of a part, and its axes of words, without those that have faults.

    Faults are appended to the list; a word that stands where a list should is an axis of one.
    """
    fixed, axes = flat_words(table.set), flat_words(table.values)
    for name, words in (("set", fixed), ("values", axes)):
        for key in [key for key in words if key in HAS_A_KEY]:
            del words[key]
            faults.append(
                f"{where}: {name}: {key}: is set by the part's own key `{HAS_A_KEY[key]}`"
            )
    for key, axis in list(axes.items()):
        found = list(_axis_faults(axis, twice=key in fixed))
        faults += [f"{where}: values: {key}: {fault}" for fault in found]
        if found:  # a word alone is a fault of the axis, but it may be wrong itself, too
            axes[key] = [axis] if isinstance(axis, bool | int | float | str) else []
    return fixed, {key: axis for key, axis in axes.items() if axis}


def _axis_faults(axis: object, *, twice: bool) -> Iterator[str]:
    if not isinstance(axis, list) or not all(
        isinstance(one, bool | int | float | str) for one in axis
    ):
        yield f"expected a list of numbers, words or booleans (got {axis!r})"
        return
    try:
        _not_empty(tuple(axis))
    except ValueError as error:
        yield str(error)
    if twice:
        yield "is in `set`, too; give one of them"
