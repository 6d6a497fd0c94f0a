"""The card of a repository (its README.md) as the Hub reads it: metadata above Markdown."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from idat_zoo.errors import HubError
from idat_zoo.hub.requests import first_line


@dataclass(frozen=True, kw_only=True)
class Card:
    """A repository's README: the metadata that the Hub reads, and the Markdown below it."""

    metadata: dict[str, Any]
    text: str


def read_card(content: str) -> Card:
    """A card as the Hub's library reads it. Raises: HubError where it cannot."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a card may have no metadata
    try:
        card: Any = ModelCard(content)  # typed as any kind of card
        return Card(metadata=card.data.to_dict(), text=card.text)
    except (YAMLError, ValueError, TypeError, KeyError) as error:
        raise HubError(f"the metadata of a card cannot be read: {first_line(error)}") from None


def write_card(
    name: str, fields: Mapping[str, Any], scores: Iterable[Mapping[str, Any]], text: str
) -> str:
    """The text of a card with its model-index, once it was read back to the same values.

    Scores that agree in task, data set, config, split and revision are one entry of a model-index
    and would share the first one's names, arguments and source.

    Raises: HubError that names the values that would be read back differently.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    meant = [EvalResult(**score) for score in scores]
    data = ModelCardData(model_name=name, eval_results=meant, **fields)
    content = f"---\n{data.to_yaml()}\n---\n{text}"
    read_card(content)
    card: Any = ModelCard(content)  # typed as any kind of card
    found = {**card.data.to_dict(), "model_name": card.data.model_name, "text": card.text}
    expected = {**fields, "model_name": name, "text": text}
    differing = {
        key: (expected.get(key), found.get(key))
        for key in expected.keys() | found.keys() - {"model-index"}
        if expected.get(key) != found.get(key)
    }
    back = card.data.eval_results or []
    if len(back) != len(meant):
        differing["model-index"] = (f"{len(meant)} scores", f"{len(back)}")
    for place, (one, other) in enumerate(zip(meant, back, strict=False)):
        differing |= {
            f"{key} of score {place + 1}": (value, vars(other)[key])
            for key, value in vars(one).items()
            if value != vars(other)[key]
        }
    if differing:
        told = [f"{key}: {one!r} becomes {other!r}" for key, (one, other) in differing.items()]
        raise HubError(f"the card would not be read back as it is meant: {'; '.join(told[:4])}.")
    return content
