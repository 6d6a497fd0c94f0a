"""Weights of backbones in files of the user's own, which recipes name by their SHA-256.

A recipe has `weights = "file:<sha256>"`, so that no path is part of a recipe, its hash or a card.
The cache folder keeps an index from the SHA-256 to the path at which the file was last seen. Its
bytes are hashed again whenever they are read. Loads no torch.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from idat_zoo.errors import RunFolderError, UsageError, WeightsError
from idat_zoo.places import default_cache
from idat_zoo.recipe import Backbone

PREFIX = "file:"
ROLES = ("student", "teacher")
FORMATS = "safetensors with timm's names, or .npz of timm's ViTs"

_seen: dict[str, Path] = {}
"""SHA-256 -> path of the files of this process, for caches that cannot be written."""
_asked: dict[str, Path] = {}
"""SHA-256 -> path of the files that this command was given; no other file is then taken."""


def remember_weights(path: Path | str) -> str:
    """Hash a file of weights and keep its path in the index; returns the recipe's `weights`.

    Raises: WeightsError where it cannot be read, or is neither safetensors nor .npz.
    """
    place = Path(path).expanduser().absolute()
    content = _read(place)
    if not (is_safetensors(content) or is_npz(content)):
        raise WeightsError(f"'{place}' {_told_format(content)}; expected {FORMATS}.")
    sha256 = hashlib.sha256(content).hexdigest()
    _seen[sha256] = place
    from idat_zoo import files  # what lists recipes does without

    with contextlib.suppress(RunFolderError):  # where it cannot be written, this process knows it
        files.write_whole(_entry(sha256), files.dump_json({"path": str(place)}))
    return PREFIX + sha256


def take_only(path: Path | str) -> None:
    """Remember a file, and refuse the others for the rest of this process. Raises: WeightsError."""
    sha256 = remember_weights(path).removeprefix(PREFIX)
    _asked[sha256] = _seen[sha256]


def parse_roles(words: Iterable[str]) -> dict[str, Path]:
    """Role -> path of ROLE=PATH words.

    Raises: UsageError for other words, unknown roles, and roles that are given twice.
    """
    found: dict[str, Path] = {}
    for word in words:
        role, equals, path = word.partition("=")
        if role not in ROLES or not (equals and path):
            raise UsageError(
                f"--weights {word}: expected student=FILE or teacher=FILE.",
                hint=f"FILE is {FORMATS}.",
            )
        if role in found:
            raise UsageError(f"--weights {role}=… is given twice: {found[role]} and {path}")
        found[role] = Path(path)
    return found


def missing_file(spec: Backbone) -> str:
    """Why a backbone's own file cannot be read, in one line; '' if it is there, or not needed.

    Its bytes are not hashed.
    """
    sha256 = spec.own_file
    if not sha256:
        return ""
    known = _known_path(sha256)
    if known is not None and known.is_file():
        return ""
    seen = f", last seen at '{known}', which is gone" if known is not None else ""
    return f"the file of the weights of backbone '{spec.name}', SHA-256 {sha256}{seen}"


def read_file(spec: Backbone) -> bytes:
    """The bytes of a backbone's own file, whose SHA-256 is the recipe's.

    Raises: WeightsError where no path is known, or the file is gone or another one.
    """
    sha256 = spec.own_file
    if _asked and sha256 not in _asked:
        given = "; ".join(f"'{path}' has SHA-256 {other}" for other, path in _asked.items())
        raise WeightsError(
            f"the weights of backbone '{spec.name}' are a file with SHA-256 {sha256}; {given}."
        )
    missing = missing_file(spec)
    if missing:
        raise WeightsError(f"not here: {missing}.", hint=how_to_give())
    path = _known_path(sha256)
    assert path is not None
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"the weights of backbone '{spec.name}' are a file with SHA-256 {sha256}; '{path}' has "
            f"SHA-256 {found} now.",
            hint=how_to_give(),
        )
    return content


def how_to_give() -> str:
    """How a user gives a file of weights."""
    return (
        "--weights student=FILE (or teacher=FILE) gives it; in Python, "
        "idat_zoo.own_weights.remember_weights(FILE)."
    )


def with_files(weights: Mapping[str, Path | str]) -> dict[str, str]:
    """Role -> the recipe's `weights` for files by role.

    Raises: UsageError for an unknown role; as `remember_weights`.
    """
    wrong = [role for role in weights if role not in ROLES]
    if wrong:
        raise UsageError(f"weights of '{wrong[0]}': expected {' or '.join(ROLES)}.")
    return {role: remember_weights(path) for role, path in weights.items()}


def is_safetensors(content: bytes) -> bool:
    """Whether a file's bytes begin as safetensors do."""
    return content[8:9] == b"{"


def is_npz(content: bytes) -> bool:
    """Whether a file's bytes are a zip archive of NumPy arrays."""
    names = _names_in_zip(content)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _told_format(content: bytes) -> str:
    """What other files are, in words that follow their name."""
    if content[:1] == b"\x80" or any(name.endswith(".pkl") for name in _names_in_zip(content)):
        return (
            "is a pickle of PyTorch (.pth, .bin), which may run code when it is read: convert it "
            "with safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
        )
    return "is of another format"


def _names_in_zip(content: bytes) -> list[str]:
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def _entry(sha256: str) -> Path:
    return default_cache() / "weights" / f"{sha256}.json"


def _known_path(sha256: str) -> Path | None:
    """The path at which a file was last seen, if any."""
    if sha256 in _seen:
        return _seen[sha256]
    try:
        return Path(json.loads(_entry(sha256).read_text(encoding="utf-8"))["path"])
    except (OSError, ValueError, KeyError, TypeError):  # there is no entry, or a damaged one
        return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the weights '{path}': {error.strerror}.") from None
