"""Specs: how recipes name adapters and distillation terms, with their options and plugins.

Free of torch.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from idat_zoo.values import Frozen, Name, OptionValue

BRIDGE = "peft"
"""The name of the adapter that runs any tuner of PEFT; its option `tuner` says which."""
TUNER = r"[a-z0-9_]+"
"""The names of tuners, as a regular expression."""

DEFAULT_TERM = "mse"
NO_TERM = "none"
"""The term's name in a recipe without distillation."""
OF_THE_TERM = (
    "distillation_weight",
    "distillation_warmup_epochs",
    "distillation_gate",
    "distillation_until",
    "detach",
)
"""The fields of a recipe that act on whichever term it names."""
OF_THE_TEACHER = ("teacher_mode", "teacher_sha256")
"""The fields of a recipe that say which teacher is offline; `--teacher-from REF` sets them."""
FLAT_OPTIONS = ("temperature", "temperature_squared")
"""Options of `kl` that older recipes, and words of a command line, give as fields of the recipe."""


class Plugin(Frozen):
    """A plugin: a file with its SHA-256, or an installed distribution with its version."""

    file: str | None = Field(default=None, pattern=r"^[^/\\\x00-\x1f\x7f]+$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    distribution: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.+!-]+$")

    @property
    def words(self) -> list[str]:
        """The words of a command line that name it; none where it is an installed distribution."""
        return [] if self.file is None else ["--plugin", self.file]

    def __str__(self) -> str:
        if self.file is not None:
            return f"'{self.file}' (SHA-256 {(self.sha256 or 'unknown')[:12]})"
        return f"'{self.distribution}' {self.version}"


class NamedSpec(Frozen):
    """A class by its registered name, with its options.

    Options that are not set take their defaults. `plugin` is the plugin that brings the class; None
    for those that are built in.
    """

    name: Name
    options: dict[str, OptionValue] = Field(default_factory=dict)
    plugin: Plugin | None = None


class TermSpec(NamedSpec):
    """A distillation term. The name `none` stands for no term."""


class AdapterSpec(NamedSpec):
    """An adapter family, or with the name `peft` one of PEFT's tuners."""

    @model_validator(mode="after")
    def _names_a_tuner(self) -> "AdapterSpec":
        tuner = self.options.get("tuner")
        if self.name == BRIDGE and not re.fullmatch(TUNER, tuner if isinstance(tuner, str) else ""):
            raise ValueError(f"adapter '{BRIDGE}' needs the name of a tuner, e.g. {BRIDGE}:lokr")
        return self

    @property
    def word(self) -> str:
        """Its name on the command line: NAME, or peft:TUNER."""
        return f"{self.name}:{self.options.get('tuner')}" if self.name == BRIDGE else self.name

    @property
    def label(self) -> str:
        """Its name in paths of folders: NAME, or peft-TUNER."""
        return self.word.replace(":", "-")


def with_term(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's fields with the distillation term as one field: its name and its options.

    In older recipes the field is the term's name, and `temperature` and `temperature_squared` are
    fields beside it. These become options of the term. With `mse` or no term they have no effect,
    so they are dropped there if they have the defaults of `kl`.
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
    options = term.get("options", {})
    if isinstance(options, Mapping):
        term = {**term, "options": {**options, **beside}}
    return fields | {"distillation": term}
