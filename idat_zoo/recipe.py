"""Pair, Task and Recipe: all that fixes a run except seed, device and paths.

Frozen, checked by pydantic, free of torch. The registry builds recipes from TOML; a hand-made
`Recipe` trains just as well.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from idat_zoo.errors import RecipeError

Scalar = bool | int | float | str
"""A value that an option or a candidate may take."""

BRIDGE = "peft"
"""The adapter that is any tuner of PEFT: its option `tuner` says which."""
TUNER = r"[a-z0-9_]+"

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME)]
"""A name that becomes the name of a folder."""

PART = r"[A-Za-z0-9_-][A-Za-z0-9_. -]*"
Below = Annotated[str, Field(pattern=rf"^{PART}(?:/{PART})*$")]
"""A path that stays below where it starts."""
BelowOrHere = Annotated[str, Field(pattern=rf"^(?:{PART}(?:/{PART})*)?$")]
"""The same, or ''."""

Rgb = Annotated[tuple[float, float, float], Strict(False)]
Augmentation = Literal["flip", "crop", "randaugment"]

DEFAULT_TERM = "mse"
NO_TERM = "none"
"""The name that a recipe without a distillation term has in the term's place."""
FLAT_OPTIONS = ("temperature", "temperature_squared")
"""Options of `kl` that older recipes have beside the term, and that a command line may name so."""
MOST_EPOCHS = 100_000  # a learning rate is written out for every step
MOST_CLASSES = 1_000_000
MOST_PIXELS = 4096  # along a side
MOST_NUMBER = 1e30  # float32 ends at 3e38, and rates are divided by what begins at 1e-3
MOST_OF_ANYTHING = 16_384  # blocks, heads, channels: beyond any backbone there is

# What describes a recipe without changing what it computes. Left out of the recipe's hash.
DESCRIPTIVE: Any = {  # as pydantic's `exclude` takes it
    "pair": {"teacher": {"licence"}, "student": {"licence"}},
    "task": {"title", "licence", "source", "class_names"},
}


def _check_size(value: Scalar) -> Scalar:
    if isinstance(value, int) and value > MOST_OF_ANYTHING:
        raise ValueError(f"at most {MOST_OF_ANYTHING:,}")
    if isinstance(value, float) and abs(value) > MOST_NUMBER:
        raise ValueError(f"at most {MOST_NUMBER:g}")
    return value


Bounded = Annotated[Scalar, AfterValidator(_check_size)]
"""A value that makes nothing larger than memory or than float32."""
Values = Bounded | Annotated[tuple[Bounded, ...], Strict(False)]
"""One of them, or several: a value for each stage of a backbone."""
OptionOf = Scalar | Annotated[tuple[Scalar, ...], Strict(False)] | dict[str, Scalar]


def _check_sizes(value: OptionOf) -> OptionOf:
    parts = value.values() if isinstance(value, dict) else value
    for part in parts if isinstance(parts, Iterable) and not isinstance(parts, str) else [parts]:
        _check_size(part)
    return value


OptionValue = Annotated[OptionOf, AfterValidator(_check_sizes)]
"""What an option of an adapter may be; lists and mappings are for PEFT's tuners."""
Number = Annotated[float, AfterValidator(_check_size)]
"""The same of a number."""


class Frozen(BaseModel):
    """Immutable, strict about types, and closed: an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )


class Plugin(Frozen):
    """Where something from outside came from: a file by its SHA-256, a distribution by version."""

    file: str | None = Field(default=None, pattern=r"^[^/\\\x00-\x1f\x7f]+$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    distribution: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.+!-]+$")

    @property
    def words(self) -> list[str]:
        """The words of a command line that name it; none of one that is installed."""
        return [] if self.file is None else ["--plugin", self.file]

    def __str__(self) -> str:
        if self.file is not None:
            return f"'{self.file}' (SHA-256 {(self.sha256 or 'unknown')[:12]})"
        return f"'{self.distribution}' {self.version}"


class Backbone(Frozen):
    """A pretrained network as timm names it, with its weights pinned.

    `weights` is a timm tag (`augreg_in21k`), `random`, or `builtin:<file>` for those that ship.
    `kind` names one that a `plugin` brings; others are asked of what timm builds.
    """

    name: str
    timm: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    weights: str = Field(pattern=r"^(?:builtin:)?[A-Za-z0-9_-][A-Za-z0-9_.-]*$")
    img_size: int = Field(default=224, gt=0, le=MOST_PIXELS)
    args: dict[str, Values] = Field(default_factory=dict)
    mean: Rgb = (0.5, 0.5, 0.5)
    std: Rgb = (0.5, 0.5, 0.5)
    licence: str = ""
    kind: Name | None = None
    plugin: Plugin | None = None

    @property
    def from_hub(self) -> bool:
        """Whether its weights are timm's on the Hub, neither random nor shipped."""
        return self.weights != "random" and not self.weights.startswith("builtin:")


class Pair(Frozen):
    """A small teacher and a larger student, named teacher first, as knowledge flows in iDAT."""

    name: Name
    student: Backbone
    teacher: Backbone | None = None

    def backbones(self) -> list[Backbone]:
        """The teacher, if there is one, and the student."""
        return [self.student] if self.teacher is None else [self.teacher, self.student]


class Task(Frozen):
    """One image-classification task and what its data must look like.

    `num_classes` is declared, never counted from labels: SUN397's 1,000 training images show 325
    of 397 classes. `num_train`, `num_val` and `num_test` list every size of a split known to be
    right; none listed, none checked. `folder` lies below the data folder, `images` below that.
    `shots` is the images per class of a few-shot task. `suite` names a class of `data/suites`, or
    one that a `plugin` brings.
    """

    id: Name
    title: str = ""
    suite: Name
    group: Name | None = None
    num_classes: int = Field(gt=1, le=MOST_CLASSES)
    num_train: Annotated[tuple[int, ...], Strict(False)] = (800,)
    num_val: Annotated[tuple[int, ...], Strict(False)] = (200,)
    num_test: Annotated[tuple[int, ...], Strict(False)]
    folder: BelowOrHere = ""
    images: BelowOrHere = ""
    shots: int = Field(default=0, ge=0)
    class_names: Annotated[tuple[str, ...], Strict(False)] = ()
    licence: str = ""
    source: str = ""
    plugin: Plugin | None = None

    @model_validator(mode="after")
    def _names_every_class(self) -> "Task":
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"class_names: {len(self.class_names)} names for {self.num_classes} classes"
            )
        return self

    def with_names(self, names: Sequence[str]) -> "Task":
        """The task with its classes' names, where it does not state its own."""
        if self.class_names or not names:
            return self
        return self.model_copy(update={"class_names": tuple(names)})


class NamedSpec(Frozen):
    """One of the things that there are several of, by name, with its options.

    Options that are not set take their defaults. `plugin` is the plugin that brings it, if one
    does.
    """

    name: Name
    options: dict[str, OptionValue] = Field(default_factory=dict)
    plugin: Plugin | None = None


class TermSpec(NamedSpec):
    """A distillation term; the name `none` says that there is none."""


class AdapterChoice(NamedSpec):
    """An adapter family."""

    @model_validator(mode="after")
    def _names_a_tuner(self) -> "AdapterChoice":
        tuner = self.options.get("tuner")
        if self.name == BRIDGE and not re.fullmatch(TUNER, tuner if isinstance(tuner, str) else ""):
            raise ValueError(f"adapter '{BRIDGE}' needs the name of a tuner, e.g. {BRIDGE}:lokr")
        return self

    @property
    def word(self) -> str:
        """What the command line calls it: NAME, or peft:TUNER."""
        return f"{self.name}:{self.options.get('tuner')}" if self.name == BRIDGE else self.name

    @property
    def label(self) -> str:
        """The same as part of a folder's name."""
        return self.word.replace(":", "-")


class Recipe(Frozen):
    """All that fixes a run except seed, device and paths.

    Epochs, warm-up in epochs; `lr` is the peak learning rate of AdamW, for both networks. The
    term `distillation` has weight `distillation_weight`; `detach` names the side whose outputs are
    constants in it (iDAT as released: `none`, both learn). `candidates` (field -> values) are what
    `selection = "val"` chooses among. `protocol = "imported"` marks an adapter trained elsewhere,
    whose training is not known.

    The older form is taken, too: the term's name alone, with `temperature` and
    `temperature_squared` beside it.
    """

    pair: Pair
    task: Task
    adapter: AdapterChoice
    teacher_adapter: AdapterChoice | None = None

    lr: Number = Field(default=1e-3, gt=0)
    weight_decay: Number = Field(default=1e-4, ge=0)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=64, gt=0)
    epochs: int = Field(default=100, gt=0, le=MOST_EPOCHS)
    warmup_epochs: int = Field(default=10, ge=0, le=MOST_EPOCHS)

    distillation: TermSpec = TermSpec(name=DEFAULT_TERM)
    distillation_weight: Number = Field(default=1.0, ge=0)
    detach: Literal["none", "teacher", "student"] = "none"

    protocol: Literal["standard", "paper", "imported"] = "standard"
    selection: Literal["none", "val"] = "none"
    candidates: dict[str, Annotated[tuple[Scalar, ...], Strict(False)]] = Field(
        default_factory=dict
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    normalisation: Literal["model", "imagenet", "none"] = "model"
    augmentation: Annotated[tuple[Augmentation, ...], Strict(False)] = ()

    @property
    def distils(self) -> bool:
        """Whether there is a distillation term."""
        return self.distillation.name != NO_TERM

    @property
    def plugins(self) -> list[Plugin]:
        """Those that it needs."""
        specs = (self.adapter, self.teacher_adapter, self.distillation)
        parts = (*specs, *self.pair.backbones(), self.task)
        named = (part.plugin for part in parts if part is not None)
        return list(dict.fromkeys(plugin for plugin in named if plugin is not None))

    @property
    def plugin_words(self) -> list[str]:
        """The words of a command line that name them."""
        return [word for plugin in self.plugins for word in plugin.words]

    @model_validator(mode="before")
    @classmethod
    def _takes_the_older_form(cls, fields: Any) -> Any:  # whatever a caller hands in
        return with_term(fields) if isinstance(fields, Mapping) else fields

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        faults = [
            message
            for wrong, message in (
                (
                    self.warmup_epochs > self.epochs,
                    f"warmup_epochs = {self.warmup_epochs} is more than epochs = {self.epochs}",
                ),
                (
                    self.pair.teacher is None and self.distils,
                    f"distillation = '{self.distillation.name}' needs a teacher; "
                    "without one it is 'none'",
                ),
                (
                    (self.pair.teacher is None) != (self.teacher_adapter is None),
                    "a teacher and a teacher_adapter come together",
                ),
                (
                    self.distillation.name in (DEFAULT_TERM, NO_TERM)
                    and any(name in self.distillation.options for name in FLAT_OPTIONS),
                    "temperature and temperature_squared act only with distillation = 'kl'",
                ),
                (
                    not self.distils and (self.detach != "none" or self.distillation_weight != 1.0),
                    "detach and distillation_weight need a distillation term",
                ),
                (
                    self.selection == "val" and not self.candidates,
                    "selection = 'val' needs candidates, e.g. candidates.lr=[1e-3,1e-2]",
                ),
                (
                    self.selection == "none" and bool(self.candidates),
                    "candidates need selection = 'val'",
                ),
                (
                    any(not values for values in self.candidates.values()),
                    "each of candidates needs at least one value",
                ),
                (
                    self.selection == "val" and self.protocol == "paper",
                    "protocol = 'paper' chooses on test; it takes no selection = 'val'",
                ),
                (
                    self.protocol == "imported"
                    and (self.selection == "val" or self.pair.teacher is not None),
                    "protocol = 'imported' (trained elsewhere) has no teacher and no selection",
                ),
                (
                    bool(self.augmentation)
                    and self.pair.teacher is not None
                    and self.pair.teacher.img_size != self.pair.student.img_size,
                    "augmentation needs a teacher and a student of one input size",
                ),
            )
            if wrong
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def with_term(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's fields with the distillation term as one field: its name and its options.

    A term may be given by its name alone, and `temperature` and `temperature_squared` beside it,
    as in recipes before the term had options of its own. Beside a term that has no such options
    they are dropped where they have the values that `kl` has by default.
    """
    fields = dict(fields)
    beside = {name: fields.pop(name) for name in FLAT_OPTIONS if name in fields}
    term = fields.get("distillation", DEFAULT_TERM)
    if isinstance(term, str):
        term = {"name": term}
    elif isinstance(term, TermSpec):
        term = term.model_dump(exclude_none=True)
    if not isinstance(term, Mapping):
        return fields
    if term.get("name") in (DEFAULT_TERM, NO_TERM):
        usual = {"temperature": 5.0, "temperature_squared": False}
        beside = {name: value for name, value in beside.items() if value != usual[name]}
    options = {**term.get("options", {}), **beside}
    return fields | {"distillation": {**term, "options": options}}


def check_recipe(fields: Mapping[str, Any], *, where: str) -> Recipe:
    """Build a recipe from nested mappings; `where` (a file, a command line) names its origin.

    Raises: RecipeError with every fault, each naming `where` and the key.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(describe_faults(error, where=where)) from None


def describe_faults(error: ValidationError, *, where: str) -> list[str]:
    """One line for each fault pydantic found: where, key, what is wrong, what was got."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "unknown key"
        if fault["type"] == "string_pattern_mismatch":
            message = "holds characters that do not belong there"
        got = "" if not key or fault["type"] == "missing" else f" (got {fault['input']!r})"
        lines.append(": ".join(part for part in (where, key, message) if part) + got)
    return lines
