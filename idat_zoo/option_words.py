"""The options that select blocks and linear layers for an adapter family. Free of torch.

    blocks   all · last6 · 0-5 · 0+2+5          numbered from 0, continuing through stages
    parts    q+v · q+k+v+proj · qkv · fc1+fc2   timm's names; qkv is the fused projection as one

Each selection has one canonical spelling, which recipes hold: `5+0+2` becomes `0+2+5`, and `0+1+2`
becomes `0-2`.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from idat_zoo.values import Frozen

UNWRITTEN: dict[str, JsonValue] = {"unwritten": True}
"""The `json_schema_extra` of an option that was added after recipes were released.

At its default such an option is left out of recipes, so that these stay the same.
"""

ALL, HALF = "all", "half"
MOST_BLOCKS = 512
PARTS = ("q", "k", "v", "qkv", "proj", "fc1", "fc2")
"""The linear layers of a block, in the order of the forward pass; qkv is q, k and v as one."""


def canonical_blocks(text: str) -> str:
    """The canonical spelling of a selection of blocks. Raises: ValueError."""
    if text == ALL:
        return text
    last = re.fullmatch(r"last([1-9]\d{0,2})", text)
    if last:
        return text
    numbers = sorted(_numbers(text))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "+".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for word in text.split("+"):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", word)
        if match is None:
            raise ValueError("expected blocks as all, last6, 0-5 or 0+2+5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{word} runs backwards")
        found.update(range(first, last + 1))
    if max(found) >= MOST_BLOCKS:
        raise ValueError(f"no backbone has a block {max(found)}")
    return found


def chosen_blocks(text: str, depth: int) -> tuple[int, ...]:
    """The numbers of the blocks that a canonical spelling selects in a network with `depth` blocks.

    Raises: ValueError if the network has fewer blocks than that.
    """
    if text in (ALL, HALF):
        return tuple(range(depth // 2 if text == HALF else 0, depth))
    if text.startswith("last"):
        count = int(text.removeprefix("last"))
        if count > depth:
            raise ValueError(f"it has {depth} blocks, and blocks is {text}")
        return tuple(range(depth - count, depth))
    numbers = sorted(_numbers(text))
    if numbers[-1] >= depth:
        raise ValueError(f"its blocks are 0 to {depth - 1}, and blocks is {text}")
    return tuple(numbers)


def canonical_parts(text: str) -> str:
    """The canonical spelling of a selection of linear layers. Raises: ValueError."""
    words = text.split("+")
    unknown = [word for word in words if word not in PARTS]
    if unknown:
        raise ValueError(f"expected parts among {', '.join(PARTS)}, with + between")
    if "qkv" in words and {"q", "k", "v"} & set(words):
        raise ValueError("qkv is q, k and v as one layer: name it, or some of the three")
    return "+".join(part for part in PARTS if part in words)


def _as_text(value: object) -> object:
    """A single block given as a number, as in `blocks=5`, as text."""
    return str(value) if type(value) is int else value


def no_bool(value: object) -> object:
    """Refuse a bool, as Python's `True` would pass for the number 1. Raises: ValueError."""
    if isinstance(value, bool):
        raise ValueError("expected one of the numbers, not true or false")
    return value


Blocks = Annotated[str, BeforeValidator(_as_text), AfterValidator(canonical_blocks)]
Parts = Annotated[str, AfterValidator(canonical_parts)]

HalfOrBlocks = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(lambda text: text if text == HALF else canonical_blocks(text)),
    Field(json_schema_extra={"form": "half_or_blocks"}),
]
"""A selection of blocks, or `half` for the second half of all blocks."""

FORMS = {"blocks": Blocks, "half_or_blocks": HalfOrBlocks, "parts": Parts}
"""The types of such options, by the value of `form` in adapters.toml."""


class InBlocks(Frozen):
    """The option that all families with tensors in blocks share."""

    blocks: Blocks = Field(
        default=ALL,
        description="where it stands: all, last6, 0-5, 0+2+5",
        json_schema_extra={**UNWRITTEN, "form": "blocks"},
    )


class OnLayers(InBlocks):
    """The options that all families on linear layers share."""

    parts: Parts = Field(
        default="q+v",
        description="layers: some of q, k, v, proj, fc1, fc2, or qkv as one",
        json_schema_extra={**UNWRITTEN, "form": "parts"},
    )
