"""A task's folder inside a zip file of many tasks, unpacked without trusting the zip.

Only the needed parts of the zip are read: its directory, then the task's entries in the order of
their offsets. Files that an earlier attempt unpacked completely (equal size and CRC-32) are kept.
"""

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

from idat_zoo.data.cache import free_bytes
from idat_zoo.data.listing import refuse, shown
from idat_zoo.data.reading import Listener
from idat_zoo.data.suites import suite_of
from idat_zoo.errors import DataError
from idat_zoo.recipe import Task

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LARGEST_FILE = 256 * 2**20
"""In bytes. No single image or list is as large."""
SMALL, MOST_RATIO = 2**20, 200
"""A file above `SMALL` bytes may be at most `MOST_RATIO` times as large as when it was packed."""
PIECE = 2**20
ENCRYPTED = 1  # bit of an entry's flags
NOT_TASKS = "__MACOSX/"

Members = Mapping[str, zipfile.ZipInfo]
"""The entries of a task by their path below its folder, in the order of their offsets."""


def open_archive(file: BufferedIOBase, what: str) -> zipfile.ZipFile:
    """Read a zip's directory. Raises: DataError for a file that is not a zip."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"'{what}' is no zip that can be read: {error}") from None


def find_members(archive: zipfile.ZipFile, task: Task, what: str) -> Members:
    """The files of a task's folder, which is found by the last of the task's needed lists.

    Raises: DataError where there is no such folder or more than one, and for names that lead out of
    it, links, entries that are encrypted, overlap or occur twice, and files that would unpack to
    many times their packed size. Nothing has been unpacked then.
    """
    lists = suite_of(task).needed_lists(task)
    if not lists:
        raise DataError(f"'{what}': tasks of suite '{task.suite}' have no list to find them by")
    sign = f"/{task.folder}/{lists[-1]}"
    signs = [
        entry.filename
        for entry in archive.infolist()
        if f"/{entry.filename}".endswith(sign) and not entry.filename.startswith(NOT_TASKS)
    ]
    if len(signs) != 1:
        found = ", ".join(map(shown, signs)) or "none"
        raise DataError(f"'{what}' should hold one {sign[1:]}; found: {found}")
    root = signs[0].rpartition("/")[0] + "/"
    inside = [entry for entry in archive.infolist() if entry.filename.startswith(root)]
    faults = [
        f"{what}: {shown(entry.filename)} {fault}"
        for entry in inside
        if (fault := _why_refused(entry, entry.filename.removeprefix(root)))
    ]
    files = sorted((e for e in inside if not e.is_dir()), key=lambda entry: entry.header_offset)
    faults += [f"{what}: {fault}" for fault in _clashes(files)]
    if faults:
        raise refuse(task.id, faults)
    return {entry.filename.removeprefix(root): entry for entry in files}


def _why_refused(entry: zipfile.ZipInfo, name: str) -> str:
    """Why an entry must not be unpacked, or ''. `name` is its path below the task's folder."""
    parts = name.rstrip("/").split("/") if name else []
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.filename != entry.orig_filename or not entry.filename.isprintable():
        return "has a name with characters that do not belong there"
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        return "leads out of its folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is no plain file, but a link or a device"
    if entry.flag_bits & ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in METHODS:
        return f"is compressed by method {entry.compress_type}; only 0 and 8 are read"
    if entry.file_size > LARGEST_FILE:
        return f"would be {entry.file_size:,} bytes large"
    if entry.file_size > max(SMALL, MOST_RATIO * entry.compress_size):
        return f"would unpack {entry.compress_size:,} bytes to {entry.file_size:,}"
    return ""


def _clashes(files: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
    """Faults of entries with equal names or overlapping bytes; `files` are sorted by offset."""
    files = list(files)
    counted = Counter(entry.filename for entry in files)
    yield from (f"{shown(name)} is there {n} times" for name, n in counted.items() if n > 1)
    folders = {str(parent) for name in counted for parent in PurePosixPath(name).parents}
    yield from (f"{shown(name)} is a file and a folder" for name in counted if name in folders)
    end = 0
    for entry in files:
        if entry.header_offset < end:
            yield f"{shown(entry.filename)} overlaps with the entry before it"
        end = max(end, entry.header_offset + entry.compress_size)


def unpack(
    archive: zipfile.ZipFile, members: Members, folder: Path, *, what: str, listener: Listener
) -> None:
    """Unpack members into a folder, and check each against the size and CRC-32 in the zip.

    Raises: DataError where the disk has too little room or a file arrives damaged; and whatever
    reading the zip's file raises. Files that are complete by then are kept for another attempt.
    """
    total = sum(entry.file_size for entry in members.values())
    if folder.is_symlink():
        raise DataError(f"'{folder}' is a link, which is not followed.", hint="Remove it.")
    for path in folder.rglob("*"):  # of another copy, begun before; or somebody's links
        known = path.relative_to(folder).as_posix() in members
        if path.is_symlink() or (path.is_file() and not known):
            path.unlink()
    lacking = [name for name, entry in members.items() if not _is_whole(folder / name, entry)]
    needed, free = sum(members[name].file_size for name in lacking), free_bytes(folder)
    if needed > free:
        raise DataError(
            f"{what} needs {needed:,} bytes in '{folder.parent}', where {free:,} are free.",
            hint="Free space, or choose another --data-dir.",
        )
    done = total - needed
    listener.fetching(what, done, total)
    for name in lacking:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(members[name]) as packed, path.open("wb") as file:
                while piece := packed.read(PIECE):
                    file.write(piece)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            raise DataError(
                f"{what}: {shown(name)} did not arrive as the zip says it is: {error}",
                hint="Repeat the command; what did arrive is kept.",
            ) from None
        done += members[name].file_size
        listener.fetching(what, done, total)


def _is_whole(path: Path, entry: zipfile.ZipInfo) -> bool:
    try:
        return path.stat().st_size == entry.file_size and zlib.crc32(path.read_bytes()) == entry.CRC
    except OSError:
        return False
