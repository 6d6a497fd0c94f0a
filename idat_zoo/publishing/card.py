"""The card of a repository as it is now, and as it becomes with other results."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from idat_zoo.errors import HubError, UsageError
from idat_zoo.formats import peft_folder
from idat_zoo.hub.card_file import Card, read_card, write_card
from idat_zoo.hub.download import fetch
from idat_zoo.hub.head import Head
from idat_zoo.hub.references import HubReference
from idat_zoo.publishing.repository import digests
from idat_zoo.report.benchmark import Averaged
from idat_zoo.report.card import PEFT_FOLDER, Exports, card_fields, card_scores, card_text
from idat_zoo.report.section import INVITATION, KEYS, Section, find_section, write_section
from idat_zoo.results import Result

CARD_FILE = "README.md"
LOCAL_PATH = re.compile(r"(?<![\w./-])(?:/(?:home|Users|root|tmp|mnt)/|[A-Z]:\\)\S+")


@dataclass(frozen=True, kw_only=True)
class CardThere:
    """The card of a repository, empty if it has none.

    `not_ours` says why a new card would overwrite what a person wrote, or is ''.
    """

    content: str = ""
    card: Card | None = None
    section: Section | None = None
    not_ours: str = ""

    @classmethod
    def read(cls, head: Head) -> "CardThere":
        """The head's card. Raises: HubError where it cannot be fetched."""
        if CARD_FILE not in head.files:
            return cls()
        folder = fetch(HubReference(repo=head.repo, revision=head.commit), (CARD_FILE,))
        try:
            content = (folder / CARD_FILE).read_bytes().decode()
            card = read_card(content)
        except (HubError, UnicodeDecodeError) as error:
            return cls(not_ours=str(error))
        section = find_section(card.text, card.metadata)
        if section is None:
            return cls(not_ours=f"to keep it, put {' and '.join(INVITATION)} into it, on two lines")
        changed = f"its section, or one of {', '.join(KEYS)}, was written by hand"
        return cls(
            content=content, card=card, section=section, not_ours="" if section.intact else changed
        )

    @property
    def files(self) -> Mapping[str, str]:
        """The SHA-256 of published files by path, which the card records."""
        return self.section.files if self.section else {}

    def renewed(
        self,
        repo: str,
        results: Mapping[str, Result],
        known: Mapping[str, str],
        exports: Exports,
        averaged: Averaged | None,
    ) -> bytes:
        """The card of these results; what a person wrote outside our section and metadata is kept.

        `known` are the SHA-256 of all files of ours, by path.

        Raises: UsageError where it would name this machine; HubError.
        """
        results, name = dict(sorted(results.items())), repo.partition("/")[2]
        fields, scores = card_fields(results), card_scores(results)
        head = write_card(name, fields, scores, "")
        own = read_card(head).metadata
        said = digests(results)
        unsaid = {path: digest for path, digest in known.items() if said.get(path) != digest}
        in_peft = any(path.endswith(f"{PEFT_FOLDER}/{peft_folder.CONFIG_FILE}") for path in known)
        text = card_text(repo, results, exports, in_peft=in_peft, averaged=averaged)
        section = write_section(text, own, unsaid)
        local = LOCAL_PATH.search(head + section)
        if local:
            raise UsageError(f"the card would show a path of this machine: {local[0]}")
        if self.card is None or self.section is None:
            return write_card(name, fields, scores, f"{section}\n").encode()
        if self.section.intact and f" {self.section.digest} " in section.partition("\n")[0]:
            return self.content.encode()
        theirs = {key: value for key, value in self.card.metadata.items() if key not in KEYS}
        tags = [*fields["tags"], *_listed(theirs.get("tags"))]
        fields = {**fields, **theirs, "tags": list(dict.fromkeys(tags))}
        text = f"{self.section.before}{section}{self.section.after}"
        return write_card(name, fields, scores, text).encode()


def _listed(tags: object) -> list[object]:
    """The tags of a card as a list; YAML may hold a single one as a plain text."""
    return list(tags) if isinstance(tags, list) else [tags] if tags else []
