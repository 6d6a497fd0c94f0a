"""Image files as uint8 tensors at an input size, decoded in parallel and once.

Decoded images are kept in a cache (`cache.py`). The key of an entry is a hash over the bytes of
every file in order, the size, and the decoder with its libraries' versions. The same images are
therefore found again wherever they lie, and a file that changed by one byte is decoded again. Every
run reads the files to know their bytes, and decodes them only where the cache has no entry.

Threads suffice: Pillow decodes and resizes without holding Python's lock.

Shape letters: N images, C channels, H W image, S input size.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from idat_zoo.data.cache import PIXELS_FILE, Cache, Entry, free_bytes, now
from idat_zoo.data.digests import digest_images, hash_files
from idat_zoo.data.image_file import (
    UnreadableImageError,
    decode_image,
    decoder,
    without_pillow_warnings,
)
from idat_zoo.data.parallel import in_parallel
from idat_zoo.data.pixel_file import map_pixels, nameless_file, write_at
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.errors import DataError, RunFolderError
from idat_zoo.joined_images import JoinedImages

Sink = Callable[[int, UInt8[np.ndarray, "S S 3"]], None]


class StreamedImages:
    """Images `[N, 3, S, S]` that are decoded whenever a slice of them is read, and not kept."""

    def __init__(
        self, paths: Sequence[Path], hashes: Sequence[str], size: int, reading: Reading
    ) -> None:
        self._paths, self._hashes, self._size, self._reading = paths, hashes, size, reading

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, part: slice) -> UInt8[Tensor, "N 3 S S"]:
        """Decode a slice. Raises: DataError where a file has changed."""
        return self.take(range(len(self))[part])

    def take(self, places: Sequence[int]) -> UInt8[Tensor, "N 3 S S"]:
        """Decode the images at some indices. Raises: as for a slice."""
        paths, hashes = [self._paths[i] for i in places], [self._hashes[i] for i in places]
        images = np.zeros((len(paths), self._size, self._size, 3), dtype=np.uint8)
        _decode_all(paths, hashes, self._size, self._reading, images.__setitem__)
        return channels_first(images)


Images = UInt8[Tensor, "N C H W"] | StreamedImages | JoinedImages


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The readable images of a list: their indices in it (`places`) and their pixels.

    `pixels_sha256` is over the SHA-256 of each image's pixels, `file_hashes` are the SHA-256 of the
    files' bytes. `unreadable` maps the indices of the other images to the reasons.
    """

    images: Images
    pixels_sha256: str
    places: list[int]
    unreadable: dict[int, str]
    file_hashes: list[str]


def decode_files(
    paths: Sequence[Path],
    *,
    size: int,
    what: str,
    reading: Reading,
    listener: Listener,
    may_stream: bool = False,
    skip_unreadable: bool = False,
) -> Decoded:
    """The images of a list at an input size, from the cache if it has them.

    If an image is unreadable, there are no pixels but only the reasons, unless `skip_unreadable`
    leaves such images out. `what` names the list in messages. A list with `may_stream` (test) is
    not kept on disk if `reading` says so or too little space would stay free. If the cache cannot
    be written, the pixels are in a temporary file until the process ends.

    Raises: DataError where there is no space for them, or a file changes meanwhile.
    """
    hashes, unreadable = hash_files(paths, reading)
    places = [place for place in range(len(paths)) if place not in unreadable]

    def decode_readable() -> tuple[Entry, Images]:
        source = _Source(
            paths=[paths[i] for i in places],
            hashes=[hashes[i] for i in places],
            size=size,
            what=what,
            reading=reading,
        )
        return source.decode(listener, may_stream=may_stream)

    entry, images = decode_readable()
    if entry.unreadable:
        unreadable |= {places[i]: reason for i, reason in entry.unreadable.items()}
        places = [place for place in places if place not in unreadable]
        if skip_unreadable:
            entry, images = decode_readable()
    return Decoded(
        images=images,
        pixels_sha256=entry.pixels_sha256,
        places=places,
        unreadable=dict(sorted(unreadable.items())),
        file_hashes=[hashes[i] for i in places],
    )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A list of readable files with the size they are decoded to."""

    paths: list[Path]
    hashes: list[str]
    size: int
    what: str
    reading: Reading

    @property
    def key(self) -> str:
        settings = [decoder(), self.size, self.reading.max_megapixels, self.hashes]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]

    def decode(self, listener: Listener, *, may_stream: bool) -> tuple[Entry, Images]:
        """The pixels from the cache, or decoded now and added to it."""
        cache = Cache(self.reading.cache)
        stream = may_stream and self._must_stream(cache, listener)
        found = self._find(cache, stream=stream)
        if found is not None:
            return found
        try:
            with cache.making(self.key, listener) as part:
                found = self._find(cache, stream=stream)  # another process may have been faster
                if found is not None:
                    return found
                entry = self._fill(None if stream else part / PIXELS_FILE, listener)
                cache.finish(part, entry)
                return self._open(cache, entry)  # under the lock, as others may clean the cache
        except (OSError, RunFolderError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message
            listener.note(
                f"{self.what}: cannot keep decoded images in '{self.reading.cache}' ({reason}); "
                "they are decoded for this run alone (IDAT_CACHE_DIR names another folder)"
            )
            return self._decode_for_now(listener, stream=stream)

    def _must_stream(self, cache: Cache, listener: Listener) -> bool:
        if self.reading.stream_test:
            return True
        entry = cache.find(self.key)
        if entry is not None and entry.kept:
            return False
        needed = len(self.paths) * 3 * self.size**2
        left = free_bytes(cache.folder) - needed
        if left >= self.reading.spare_bytes:
            return False
        listener.note(
            f"{self.what}: {needed / 1e9:.1f} GB of decoded images would leave {left / 1e9:.1f} GB "
            "free on the cache's disk; they are decoded whenever they are needed"
        )
        return True

    def _find(self, cache: Cache, *, stream: bool) -> tuple[Entry, Images] | None:
        entry = cache.find(self.key)
        if entry is None or not (entry.kept or stream or entry.unreadable):
            return None
        try:
            return self._open(cache, entry)
        except FileNotFoundError:  # another process has cleaned the cache
            return None

    def _open(self, cache: Cache, entry: Entry) -> tuple[Entry, Images]:
        if entry.kept:
            return entry, channels_first(cache.open(self.key, entry))
        return entry, StreamedImages(self.paths, self.hashes, self.size, self.reading)

    def _fill(self, target: Path | None, listener: Listener) -> Entry:
        """Decode all images into a file; without one, only check that all can be decoded.

        Raises: OSError where the file cannot be written.
        """
        if target is None:
            return self._write(None, listener)
        with target.open("wb") as file:
            entry = self._write(file.fileno(), listener)
            os.fsync(file.fileno())
        if not entry.kept:
            target.unlink()
        return entry

    def _decode_for_now(self, listener: Listener, *, stream: bool) -> tuple[Entry, Images]:
        if stream:
            entry = self._fill(None, listener)
            return entry, StreamedImages(self.paths, self.hashes, self.size, self.reading)
        with nameless_file(self.what) as file:
            entry = self._write(file.fileno(), listener)
            shape = entry.shape if entry.kept else (0, self.size, self.size, 3)
            return entry, channels_first(map_pixels(Path(file.name), shape))

    def _write(self, target: int | None, listener: Listener) -> Entry:
        """Decode all images, and write them to an open file descriptor if there is one."""
        image_bytes = 3 * self.size**2

        def keep(place: int, pixels: UInt8[np.ndarray, "S S 3"]) -> None:
            if target is not None:
                write_at(target, pixels.data, place * image_bytes)

        def heard(done: int) -> None:
            listener.decoding(self.what, done, len(self.paths))

        digest, unreadable = _decode_all(
            self.paths, self.hashes, self.size, self.reading, keep, heard
        )
        return Entry(
            what=self.what,
            count=len(self.paths),
            size=self.size,
            decoder=decoder(),
            pixels_sha256=digest,
            unreadable=unreadable,
            kept=target is not None and not unreadable,
            made=now(),
        )


def decode_bytes(
    contents: Sequence[bytes], size: int, reading: Reading
) -> tuple[UInt8[Tensor, "N 3 S S"], dict[int, str]]:
    """Image files' bytes as pixels, and the reasons by index for bytes that are no image.

    Such images are black.
    """
    images = np.zeros((len(contents), size, size, 3), dtype=np.uint8)
    unreadable: dict[int, str] = {}

    def decode(place: int) -> str:
        try:
            images[place] = decode_image(
                contents[place], size, max_megapixels=reading.max_megapixels
            )
        except UnreadableImageError as error:
            return str(error)
        return ""

    with without_pillow_warnings():
        for place, reason in enumerate(in_parallel(decode, range(len(contents)), reading.workers)):
            if reason:
                unreadable[place] = reason
    return channels_first(images), unreadable


def _decode_all(
    paths: Sequence[Path],
    hashes: Sequence[str],
    size: int,
    reading: Reading,
    keep: Sink,
    heard: Callable[[int], None] = lambda done: None,
) -> tuple[str, dict[int, str]]:
    """Decode each file and pass its index and pixels to `keep`, from several threads at once.

    Returns the SHA-256 over the SHA-256 of each image's pixels, and the reasons by index for files
    that are no image. `heard` is called with the number of files that are done.

    Raises: DataError where a file's bytes do not have the given hash any more.
    """
    digest = hashlib.sha256()
    unreadable: dict[int, str] = {}

    def decode(place: int) -> bytes | str:
        content = _read_again(paths[place], hashes[place])
        try:
            pixels = decode_image(content, size, max_megapixels=reading.max_megapixels)
        except UnreadableImageError as error:
            return str(error)
        keep(place, pixels)
        return hashlib.sha256(pixels.data).digest()

    with without_pillow_warnings():
        for place, made in enumerate(in_parallel(decode, range(len(paths)), reading.workers)):
            if isinstance(made, str):
                unreadable[place] = made
            else:
                digest.update(made)
            heard(place + 1)
    return digest.hexdigest(), unreadable


def _read_again(path: Path, sha256: str) -> bytes:
    """The bytes of a file, which must have this hash: the cache's key was made of it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' changed while it was in use: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"'{path}' changed while it was in use.")
    return content


def channels_first(pixels: UInt8[np.ndarray, "N H W C"]) -> UInt8[Tensor, "N C H W"]:
    """Pixels as a tensor that shares their memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def digest_pixels(images: UInt8[Tensor, "N C H W"]) -> str:
    """What `Decoded.pixels_sha256` is, for images that do not come from files."""
    return digest_images(image.permute(1, 2, 0).numpy() for image in images)
