"""Classes by name: their order, and which names are likely one class written in two ways."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

NaturalKey = tuple[list[str | Decimal], str]


def natural_key(name: str) -> NaturalKey:
    """The order of people: 2 before 10, whatever the case.

    timm's `natural_key`, which sorts its class folders. Ours also orders what that calls equal
    (`Cat` and `cat`), and takes every name (timm's int() fails over `x1²` and over 5,000 digits).
    """
    parts = re.split(r"(\d+)", name.lower())
    return [Decimal(part) if place % 2 else part for place, part in enumerate(parts)], name


def likeness(name: str) -> str:
    """What is equal for names that are likely one: of unlike case, blanks, zeros, Unicode form."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.strip())
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)  # a spreadsheet's 1.0
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", text)


def like_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of unlike names that are likely one."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names), key=natural_key):
        groups[likeness(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def tell_apart(names: Sequence[str]) -> list[str]:
    """Names in quotes; spelled out where they would look alike."""
    alike = len({unicodedata.normalize("NFKC", name) for name in names}) < len(names)
    return [ascii(name) if alike else repr(name) for name in names]
