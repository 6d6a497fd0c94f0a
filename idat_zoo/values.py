"""The types of the values in recipes: names, paths, bounded numbers, and closed tables of fields.

Free of torch.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

Scalar = bool | int | float | str
"""A value that an option or a candidate may take."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME)]
"""A name that becomes the name of a folder."""

PART = r"[A-Za-z0-9_-][A-Za-z0-9_. -]*"
Below = Annotated[str, Field(pattern=rf"^{PART}(?:/{PART})*$")]
"""A relative path that cannot lead outside the folder it starts in."""
BelowOrHere = Annotated[str, Field(pattern=rf"^(?:{PART}(?:/{PART})*)?$")]
"""The same, or '' for the folder itself."""

Rgb = Annotated[tuple[float, float, float], Strict(False)]
MOST_EPOCHS = 100_000  # a learning rate is written out for every step
MOST_CLASSES = 1_000_000
MOST_PIXELS = 4096  # along a side
MOST_NUMBER = 1e30  # float32 ends at 3e38, and rates are divided by what begins at 1e-3
MOST_OF_ANYTHING = 16_384  # blocks, heads, channels: beyond any backbone there is


def _check_size(value: Scalar) -> Scalar:
    if isinstance(value, int) and value > MOST_OF_ANYTHING:
        raise ValueError(f"at most {MOST_OF_ANYTHING:,}")
    if isinstance(value, float) and abs(value) > MOST_NUMBER:
        raise ValueError(f"at most {MOST_NUMBER:g}")
    return value


Bounded = Annotated[Scalar, AfterValidator(_check_size)]
"""A value that is small enough for sizes in memory and for float32."""
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
