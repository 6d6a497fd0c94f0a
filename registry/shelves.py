"""The tables of a shelf, which is a folder of TOML files, and their checks."""

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
"""The types of the options of built-in families; PEFT checks options of type `any` itself."""

Model = TypeVar("Model", bound=Frozen)


class PairTable(Frozen):
    """A table of pairs.toml: a pair by the names of its two backbones."""

    name: str
    teacher: str
    student: str


class TaskTable(Task):
    """A table of tasks.toml: a task with its aliases and the name of its default pair."""

    aliases: Annotated[tuple[str, ...], Strict(False)] = ()
    pair: str


class Option(Frozen):
    """One option of an adapter family; `gt`, `ge`, `lt` and `le` are pydantic's bounds.

    `unwritten` marks an option that was added after recipes were released: at its default it is
    left out of recipes.
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
        """The type of its values, as pydantic takes it."""
        if self.choices:
            return Annotated[Literal[self.choices], BeforeValidator(no_bool)]
        return FORMS[self.form] if self.form else OPTION_TYPES[self.type]

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds that are set, as pydantic's Field takes them."""
        return self.model_dump(include={"gt", "ge", "lt", "le"}, exclude_none=True)


class Family(Frozen):
    """The description of an adapter family, as in adapters.toml, which does not need torch."""

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
        """The name that the command line takes."""
        return self.name

    def as_fields(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an AdapterSpec of this family, not yet checked."""
        return {"name": self.name, "options": dict(options)}

    def specify(self, options: Mapping[str, Any], *, where: str) -> AdapterSpec:
        """The spec of the family with these options, and the others at their defaults.

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
        """The checked values of all options, with defaults for those that are not given.

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
    """The model's object of a TOML table; `given` are fields that are not part of the table.

    Raises: RecipeError with every fault; for unknown keys it suggests similar ones.
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
    """The message for an unknown name, on one line, with similar known names."""
    error = UnknownNameError(kind, name, known)
    return f"{error.message} {error.hint}".rstrip()


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """Catch a RecipeError in the block, and append its faults to the list."""
    try:
        yield
    except RecipeError as error:
        faults.extend(error.faults)


@dataclass(frozen=True)
class Known:
    """The known names by kind, without the kinds whose file is broken."""

    names: Mapping[str, Collection[str]]

    def dangling(self, kind: str, names: object, *, where: str) -> list[str]:
        """The faults of unknown names among `names`, which is one name or a list.

        Values that are not strings are skipped; the models of the tables report them.
        """
        if kind not in self.names:
            return []
        return [
            f"{where}: {unknown(kind, name, self.names[kind])}"
            for name in strings(names)
            if name not in self.names[kind]
        ]


def strings(value: object) -> list[str]:
    """The strings among the items of a list, or among the single value that is given."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]
