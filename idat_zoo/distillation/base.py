"""The base class of distillation terms, and the network outputs that a term can compare.

iDAT, arXiv:2403.15750, adds one term D between student and teacher to the sum of their task losses.
A term is a function of the outputs that it declares in `reads`; no others are kept, except for the
logits. Student and teacher differ in width, so a term that reads features compares something that
does not depend on it, such as similarities between images, or maps them by tensors that it learns.

Shape letters: B batch, K classes, N tokens, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ValidationError

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import describe_faults
from idat_zoo.values import Frozen

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Output(StrEnum):
    """An output of a network's forward pass."""

    LOGITS = "logits"
    """[B, K]"""
    FEATURES = "features"
    """[B, D]: the pooled features that enter the head."""
    TOKENS = "tokens"
    """[B, N, D]: the tokens that leave the last block, before the final norm and pooling. Maps are
    flattened to tokens, and prompts are left out."""


class Outputs(NamedTuple):
    """One network's outputs for one batch; None where nothing reads them."""

    logits: "Tensor"
    features: "Tensor | None" = None
    tokens: "Tensor | None" = None


class Sizes(NamedTuple):
    """The sizes of one network's outputs for one image."""

    classes: int
    features: int
    tokens: tuple[int, int]
    """N and D."""


class NoOptions(Frozen):
    """The options of a term without options."""


class Term(ABC):
    """One distillation term with its options, which `Options` checks.

    `reads` are the outputs that it compares; `paper` is an arXiv id. With fewer than
    `least_classes` it, or a part of it, has no gradient: `FALLBACK` stands in for it. `tensors` are
    those that it learns: what `create` returned, as the training has changed it.

    Raises: RecipeError with every fault of the options.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int]
    Options: ClassVar[type[Frozen]] = NoOptions
    reads: ClassVar[frozenset[Output]]
    least_classes: ClassVar[int] = 2

    options: Any
    tensors: "Mapping[str, Tensor]" = MappingProxyType({})

    def __init__(self, **options: Any) -> None:  # values are checked by Options
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            raise RecipeError(describe_faults(error, where=f"distillation '{self.name}'")) from None

    def why_not(self, student: Sizes, teacher: Sizes) -> str:
        """The reason why outputs of these sizes cannot be compared, or ''."""
        return ""

    def create(self, student: Sizes, teacher: Sizes, source: "Generator") -> dict[str, "Tensor"]:
        """The tensors that the term learns, at their start; they are dropped after the training."""
        return {}

    @abstractmethod
    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """The term D without its weight, a scalar: a mean over the batch.

        Both sides have the outputs that the term reads, in float32 or wider, and `targets` are the
        true classes `[B]`. The engine has detached the side that the recipe's `detach` names.
        """
