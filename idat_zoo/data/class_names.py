"""Class names: their order, and the detection of one class written in two ways."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

NaturalKey = tuple[list[str | Decimal], str]


def natural_key(name: str) -> NaturalKey:
    """The sort key of natural order: 2 before 10, and case does not matter.

    It orders as timm's `natural_key` does, by which timm sorts class folders. Ours also has an
    order for names that are equal in timm's (`Cat` and `cat`), and accepts every name: timm's int()
    fails on `x1²` and on more than 5,000 digits.
    """
    parts = re.split(r"(\d+)", name.lower())
    return [Decimal(part) if place % 2 else part for place, part in enumerate(parts)], name


def likeness(name: str) -> str:
    """A form of the name without case, spacing, leading zeros and Unicode variants.

    Two names of equal form are likely one class.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.strip())
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)  # a spreadsheet's 1.0
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", text)


def like_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that are likely one class."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names), key=natural_key):
        groups[likeness(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def tell_apart(names: Sequence[str]) -> list[str]:
    """Names in quotes, with escapes where two of them would look the same on a screen."""
    alike = len({unicodedata.normalize("NFKC", name) for name in names}) < len(names)
    return [ascii(name) if alike else repr(name) for name in names]
