"""A checkpoint that was opened: where it is, and its config, which is read once and handed down."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from idat_zoo.checkpoint.builtin import BUILTIN, builtin_names, find_builtin
from idat_zoo.checkpoint.config import (
    CONFIG_FILE,
    Config,
    parse_config,
    parse_document,
    read_content,
)
from idat_zoo.checkpoint.index import parse_index
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.errors import CheckpointError, ZooError
from idat_zoo.hub.download import fetch, resolve
from idat_zoo.hub.references import HubReference, parse_reference

Reference = str | Path | HubReference
"""A folder, `builtin:NAME`, or `hub:ORG/NAME[@REVISION][/SUBFOLDER]`."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint whose config was read. The tensors stay where they are until they are loaded.

    `folder` holds the config; `content` is its very bytes. `on_hub` is the place on the Hub that
    the folder was downloaded from, at its commit; None for a checkpoint of this machine.
    """

    folder: Path
    config: Config
    content: bytes = field(repr=False)
    on_hub: HubReference | None = None

    def __str__(self) -> str:
        return str(self.on_hub or self.folder)

    def find_tensors(self) -> Path:
        """The tensor file, downloaded if the checkpoint is on the Hub. Raises: HubError."""
        if self.on_hub is not None:
            fetch(self.on_hub, (CONFIG_FILE, TENSORS_FILE))
        return self.folder / TENSORS_FILE


def open_checkpoint(reference: Reference | Opened) -> Opened:
    """Find a checkpoint and read its config; one that is opened already is returned as it is.

    Of a checkpoint on the Hub, the config alone is downloaded.

    Raises: CheckpointError where there is none, or its config is damaged, of a newer schema, or an
    index of several; UnknownNameError for a built-in that does not exist; UsageError for what
    begins like a place on the Hub and is none; HubError.
    """
    if isinstance(reference, Opened):
        return reference
    place = _locate(reference)
    if isinstance(place, HubReference):
        folder, on_hub = fetch(place, (CONFIG_FILE,)), place
        if not (folder / CONFIG_FILE).is_file():
            raise _no_checkpoint(place)
    else:
        folder, on_hub = place, None
    return open_content(read_content(folder / CONFIG_FILE), folder, on_hub=on_hub)


def open_checkpoints(reference: Reference) -> dict[str, Opened]:
    """Every student's checkpoint at or below a reference, by its path from there ('.': itself).

    Raises: as `open_each`, and the first error that it returns.
    """
    opened = {}
    for below, one in open_each(reference).items():
        if isinstance(one, ZooError):
            raise one
        opened[below] = one
    return opened


def open_each(reference: Reference) -> dict[str, Opened | ZooError]:
    """As `open_checkpoints`, but with the error in place of an index's checkpoint that has one.

    An index says where the checkpoints are; without one, all folders below are searched.

    Raises: what `open_checkpoint` raises, for the reference itself and without an index;
    CheckpointError where there is no student's checkpoint.
    """
    place = _locate(reference)
    root = _fetch_configs(place) if isinstance(place, HubReference) else place
    on_hub = place if isinstance(place, HubReference) else None
    if not (root / CONFIG_FILE).is_file():
        return {**_search(root, on_hub)}
    path = root / CONFIG_FILE
    content = read_content(path)
    document = parse_document(content, path)
    index = parse_index(document, path)
    if index is None:
        config = parse_config(document, path)
        return {".": Opened(folder=root, config=config, content=content, on_hub=on_hub)}
    opened: dict[str, Opened | ZooError] = {}
    for below in index.checkpoints:
        try:
            opened[below] = open_checkpoint(_below(on_hub, below) if on_hub else root / below)
        except ZooError as error:
            opened[below] = error
    return opened


def open_content(content: bytes, folder: Path, *, on_hub: HubReference | None = None) -> Opened:
    """A checkpoint whose config.json was read already. Raises: CheckpointError."""
    path = folder / CONFIG_FILE
    config = parse_config(parse_document(content, path), path)
    return Opened(folder=folder, config=config, content=content, on_hub=on_hub)


def _locate(reference: Reference) -> Path | HubReference:
    """The folder of a reference, or its place on the Hub at the commit that it is now.

    Raises: CheckpointError, UnknownNameError, UsageError, HubError.
    """
    if isinstance(reference, str):
        reference = parse_reference(reference) or reference
    if isinstance(reference, HubReference):
        return resolve(reference)
    if str(reference).startswith(BUILTIN):
        return find_builtin(str(reference).removeprefix(BUILTIN))
    folder = Path(reference)
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no checkpoint folder '{folder}'.",
            hint="Give a run's folder, hub:ORG/NAME, or one that ships: "
            + ", ".join(BUILTIN + name for name in builtin_names()),
        )
    return folder


def _fetch_configs(place: HubReference) -> Path:
    """The folder of a place on the Hub, with its config or, without one, all those below it."""
    folder = fetch(place, (CONFIG_FILE,))
    if (folder / CONFIG_FILE).is_file():
        return folder
    return fetch(place, (CONFIG_FILE,), below=True)


def _search(root: Path, on_hub: HubReference | None) -> dict[str, Opened]:
    """The students' checkpoints of all folders below one, by their paths from there."""
    students = {}
    for path in sorted(root.rglob(CONFIG_FILE)):
        below = path.parent.relative_to(root).as_posix()
        place = None if on_hub is None else _below(on_hub, below)
        opened = open_content(read_content(path), path.parent, on_hub=place)
        if opened.config.role == "student":
            students[below] = opened
    if not students:
        raise _no_checkpoint(on_hub or root)
    return students


def _below(place: HubReference, below: str) -> HubReference:
    return replace(place, subfolder=f"{place.subfolder}/{below}".strip("/."))


def _no_checkpoint(place: Path | HubReference) -> CheckpointError:
    return CheckpointError(f"'{place}' holds no {CONFIG_FILE}: not a checkpoint.")
