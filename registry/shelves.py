"""The tables of a shelf's TOML files, and how they are checked."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, Strict, ValidationError, create_model

from idat_zoo.errors import RecipeError, UnknownNameError
from idat_zoo.option_words import FORMS, no_bool
from idat_zoo.recipe import Task, describe_faults
from idat_zoo.specs import AdapterSpec, Plugin
from idat_zoo.values import Frozen, Scalar

OPTION_TYPES = {"int": int, "float": float, "bool": bool, "str": str}
"""Of the options of built-in families; PEFT checks `any` by its own types."""

Model = TypeVar("Model", bound=Frozen)


class PairTable(Frozen):
    """A pair as pairs.toml has it: two names of backbones."""

    name: str
    teacher: str
    student: str


class TaskTable(Task):
    """A task as tasks.toml has it: with its other names and the pair it is trained with."""

    aliases: Annotated[tuple[str, ...], Strict(False)] = ()
    pair: str


class Option(Frozen):
    """One option of an adapter family; its bounds are pydantic's.

    An `unwritten` one came after recipes were released: at its default it is left out of them.
    """

    type: Literal["int", "float", "bool", "str", "any"]
    default: Any
    help: str
    gt: int | float | None = None
    ge: int | float | None = None
    lt: int | float | None = None
    le: int | float | None = None
    choices: Annotated[tuple[Scalar, ...], Strict(False)] | None = None
    form: Literal["blocks", "half_or_blocks", "parts"] | None = None
    unwritten: bool | None = None

    @property
    def annotation(self) -> Any:
        """The type of its values."""
        if self.choices:
            return Annotated[Literal[self.choices], BeforeValidator(no_bool)]
        return FORMS[self.form] if self.form else OPTION_TYPES[self.type]

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds that are set, as pydantic's Field takes them."""
        return self.model_dump(include={"gt", "ge", "lt", "le"}, exclude_none=True)


class Family(Frozen):
    """An adapter family as adapters.toml describes it, so that nothing here needs torch."""

    name: str
    title: str
    summary: str
    paper: str
    year: int
    merge: bool
    stack: bool
    options: dict[str, Option]
    plugin: Plugin | None = None

    @property
    def word(self) -> str:
        """What the command line calls it."""
        return self.name

    def as_fields(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A choice of it that is still to be checked."""
        return {"name": self.name, "options": dict(options)}

    def specify(self, options: Mapping[str, Any], *, where: str) -> AdapterSpec:
        """The family with these options; the rest at their defaults, as recipes write them.

        Raises: what `check` raises.
        """
        unwritten = {
            name: option.default for name, option in self.options.items() if option.unwritten
        }
        values = self.check(options, where=where).items()
        chosen = {k: v for k, v in values if k not in unwritten or v != unwritten[k]}
        return check_table(
            AdapterSpec,
            {"name": self.name, "options": chosen},
            where=f"{where}: adapter '{self.name}'",
        )

    def check(self, options: Mapping[str, Any], *, where: str) -> dict[str, Any]:
        """Every option's value.

        Raises: RecipeError with every option that is unknown, of a wrong type or out of range.
        """
        where = f"{where}: adapter '{self.name}'"
        return check_table(self._options_model, options, where=where).model_dump()

    @cached_property
    def _options_model(self) -> type[Frozen]:
        fields: Any = {  # create_model's overloads cannot follow computed fields
            name: (
                option.annotation,
                Field(default=option.default, **option.bounds),
            )
            for name, option in self.options.items()
        }
        return create_model("Options", __base__=Frozen, **fields)


def check_table(
    model: type[Model],
    table: Mapping[str, Any],
    *,
    where: str,
    given: Mapping[str, Any] | None = None,
) -> Model:
    """A table checked against a model; `given` are fields that the table itself does not state.

    Raises: RecipeError with every fault; unknown keys answer "did you mean".
    """
    given = given or {}
    known = set(model.model_fields) - set(given)
    faults = [f"{where}: {unknown('key', key, known)}" for key in table if key not in known]
    try:
        checked = model.model_validate(
            {key: value for key, value in table.items() if key in known} | dict(given)
        )
    except ValidationError as error:
        raise RecipeError(faults + describe_faults(error, where=where)) from None
    if faults:
        raise RecipeError(faults)
    return checked


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not among the known ones."""
    error = UnknownNameError(kind, name, known)
    return f"{error.message} {error.hint}".rstrip()


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """Put the faults of a RecipeError on the list instead of stopping."""
    try:
        yield
    except RecipeError as error:
        faults.extend(error.faults)


@dataclass(frozen=True)
class Known:
    """Names by kind. A kind with a broken file is left out: no one can say what it names."""

    names: Mapping[str, Collection[str]]

    def dangling(self, kind: str, names: object, *, where: str) -> list[str]:
        """Faults of those among `names` (one, or a list) that are not known.

        Values of a wrong type are no names; the tables' models tell of them.
        """
        if kind not in self.names:
            return []
        return [
            f"{where}: {unknown(kind, name, self.names[kind])}"
            for name in strings(names)
            if name not in self.names[kind]
        ]


def strings(value: object) -> list[str]:
    """The strings of a list, or the one that it is itself."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]
