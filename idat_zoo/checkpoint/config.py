"""The config.json of a checkpoint: what is needed to load it, parsed and checked."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import NonNegativeInt, Strict, ValidationError, model_validator

from idat_zoo.backbones.pair import Role
from idat_zoo.candidates import Values, combinations, count_candidates, with_values
from idat_zoo.errors import CheckpointError
from idat_zoo.recipe import Backbone, Recipe, describe_faults
from idat_zoo.specs import AdapterSpec
from idat_zoo.values import Frozen, Rgb

Model = TypeVar("Model", bound=Frozen)
SCHEMA_VERSION = 1
CONFIG_FILE = "config.json"
SEVERAL = "checkpoints"
"""The field that an index has, and the config of one checkpoint has not."""
MOST_ITEM = 16
"""Bytes of one number of any type."""


class TensorSpec(Frozen):
    """The data type and shape of a tensor."""

    dtype: str
    shape: Annotated[tuple[NonNegativeInt, ...], Strict(False)]

    @property
    def num_bytes(self) -> int:
        """The most bytes that it takes in a file."""
        return math.prod(self.shape) * (4 if self.dtype == "float32" else MOST_ITEM)


class Config(Frozen):
    """What is needed to load an adapter, and the recipe and seed that made it.

    `mean` and `std` normalise pixels scaled to [0, 1]; they follow from the recipe, and are written
    for readers without idat-zoo. `members` are the values of the members of an ensemble, the
    candidates of its recipe in their order; `()` for a single network. `diverged` is True if the
    training diverged, or that of a member.
    """

    schema_version: int = SCHEMA_VERSION
    library: Literal["idat-zoo"] = "idat-zoo"
    library_version: str
    role: Role
    recipe: Recipe
    recipe_hash: str
    seed: int
    backbone_sha256: str
    mean: Rgb
    std: Rgb
    tensors: dict[str, TensorSpec]
    tensors_sha256: str
    members: Annotated[tuple[Values, ...], Strict(False)] = ()
    diverged: bool = False

    @property
    def backbone(self) -> Backbone:
        """The backbone of this network."""
        pair = self.recipe.pair
        if self.role == "student":
            return pair.student
        if pair.teacher is None:
            raise CheckpointError("this config is of a teacher, but its recipe has none.")
        return pair.teacher

    @property
    def adapter(self) -> AdapterSpec:
        """The adapter of this network; of an ensemble's, before the values of each are set."""
        if self.role == "student" or self.recipe.teacher_adapter is None:
            return self.recipe.adapter
        return self.recipe.teacher_adapter

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe of every member of an ensemble, or the recipe of a single network.

        Raises: RecipeError for members whose values do not fit the recipe.
        """
        return [with_values(self.recipe, own) for own in self.members] or [self.recipe]

    @model_validator(mode="after")
    def _has_its_members(self) -> "Config":
        expected = 0
        if self.recipe.selection == "ensemble":
            expected = count_candidates(self.recipe)
        if self.role == "teacher" and expected:
            raise ValueError("an ensemble is of students")
        if len(self.members) != expected or (
            expected and list(self.members) != combinations(self.recipe)
        ):
            raise ValueError("members are not the candidates of the recipe")
        return self


def read_content(path: Path) -> bytes:
    """The bytes of a config.json. Raises: CheckpointError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"'{path.parent}' holds no {path.name}: not a checkpoint.") from None
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from None


def parse_document(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON document of a schema that is known. `path` is named in errors.

    Raises: CheckpointError.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"'{path}' is not a config of idat-zoo: it has no schema_version.")
    if version > SCHEMA_VERSION:
        raise CheckpointError(
            f"'{path}' has schema {version}; this idat-zoo reads up to {SCHEMA_VERSION}.",
            hint="Upgrade idat-zoo.",
        )
    return dict(document)


def parse_config(document: Mapping[str, Any], path: Path) -> Config:
    """A checkpoint's own config.json, checked field by field.

    Raises: CheckpointError for an index of several checkpoints, and for wrong fields.
    """
    if SEVERAL in document:
        raise CheckpointError(
            f"'{path.parent}' holds several checkpoints; name one of its folders."
        )
    return checked(Config, document, path)


def checked(model: type[Model], document: Mapping[str, Any], path: Path) -> Model:
    """A document as a model. Raises: CheckpointError with every wrong field."""
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise CheckpointError("\n  ".join(describe_faults(error, where=str(path)))) from None
