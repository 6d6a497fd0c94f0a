"""Specs: how recipes name backbones, adapters, distillation terms and trained teachers.

Free of torch.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from idat_zoo.values import MOST_PIXELS, Frozen, Name, OptionValue, Rgb, Values

BRIDGE = "peft"
"""The name of the adapter that runs any tuner of PEFT; its option `tuner` says which."""
TUNER = r"[a-z0-9_]+"
"""The names of tuners, as a regular expression."""

IMAGENET: tuple[Rgb, Rgb] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels in [0, 1]."""

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
OF_THE_TEACHER = ("teacher_mode", "teacher_sha256", "further_teachers")
"""The fields of a recipe that say which teachers are offline; `--teacher-from REF` sets them."""
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


class Backbone(Frozen):
    """A pretrained network by its name in timm, with its weights pinned.

    `weights` is a timm tag (`augreg_in21k`), `random`, `builtin:<file>` for weights that ship with
    the package, or `file:<sha256>` for a file of the user's own (`idat_zoo.own_weights`). `kind`
    names the kind of backbone where a `plugin` brings it; a built-in kind is found from the class
    that timm builds.
    """

    name: str
    timm: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    weights: str = Field(
        pattern=r"^(?:(?:builtin:)?[A-Za-z0-9_-][A-Za-z0-9_.-]*|file:[0-9a-f]{64})$"
    )
    img_size: int = Field(default=224, gt=0, le=MOST_PIXELS)
    args: dict[str, Values] = Field(default_factory=dict)
    mean: Rgb = (0.5, 0.5, 0.5)
    std: Rgb = (0.5, 0.5, 0.5)
    licence: str = ""
    kind: Name | None = None
    plugin: Plugin | None = None

    @property
    def from_hub(self) -> bool:
        """Whether its weights are timm's weights on the Hub."""
        return self.weights != "random" and ":" not in self.weights

    @property
    def own_file(self) -> str:
        """The SHA-256 of its weights where they are a file of the user's own, else ''."""
        return self.weights.removeprefix("file:") if self.weights.startswith("file:") else ""


class TeacherSpec(Frozen):
    """An offline teacher: a checkpoint, by the SHA-256 of its adapter_model.safetensors.

    `adapter` is that of its config; for an ensemble, before the values of its members are set.
    """

    backbone: Backbone
    adapter: AdapterSpec
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    def __str__(self) -> str:
        return f"{self.backbone.name} {self.adapter.label} {self.sha256[:12]}"


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
