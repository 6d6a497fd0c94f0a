"""The script that makes `fashion.png` and `fashion.safetensors` from Fashion-MNIST's four files.

    apt-get download dataset-fashion-mnist
    dpkg-deb -x dataset-fashion-mnist_*.deb unpacked
    python -m idat_zoo.data.real.make_fashion unpacked/usr/share/datasets/fashion-mnist

The files may be packed by gzip or not; their unpacked bytes are compared with `SHA256`. Of each
class, 80 images of the official training split become train, 20 become val, and 100 of the official
test split become test: those whose SHA-256 of "SEED SPLIT INDEX" is smallest. Each split is in the
order of the official files. The pixels and the choice are the same bytes everywhere; how tightly
the PNG is packed depends on the zlib that Pillow was built with.

Shape letters: N images, H W image.
"""

import argparse
import gzip
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from safetensors.numpy import save

from idat_zoo.errors import DataError
from idat_zoo.files import write_whole

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""The SHA-256 of each file's unpacked bytes, as found in Debian's dataset-fashion-mnist."""
SEED = 0
PER_CLASS = {"train": ("train", 80), "val": ("train", 20), "test": ("t10k", 100)}
"""Split -> the official split that its images are of, and their number for each class."""
SIDE, COLUMNS = 28, 50
IMAGES_FILE, SPLITS_FILE = "fashion.png", "fashion.safetensors"


def read_idx(folder: Path, name: str, sha256: Mapping[str, str]) -> UInt8[np.ndarray, "..."]:
    """The numbers of an idx file of unsigned bytes.

    Raises: DataError where it is missing, or its unpacked bytes are not those of `sha256`.
    """
    try:
        packed = folder / f"{name}.gz"
        content = (
            gzip.decompress(packed.read_bytes())
            if packed.is_file()
            else (folder / name).read_bytes()
        )
    except (OSError, EOFError) as error:
        raise DataError(f"{folder / name}: cannot be read: {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256[name]:
        raise DataError(f"{name}: its unpacked bytes have SHA-256 {found}; expected {sha256[name]}")
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape.tolist())


def choose(targets: Mapping[str, UInt8[np.ndarray, "N"]]) -> dict[str, Int64[np.ndarray, "_"]]:
    """Split -> the indices of its images in the official split, ascending.

    `targets` are the classes of the official splits `train` and `t10k`.
    """
    chosen: dict[str, list[int]] = {split: [] for split in PER_CLASS}
    for official, labels in targets.items():
        for label in np.unique(labels):
            left = _ranked(np.flatnonzero(labels == label).tolist(), official)
            for split, (of, count) in PER_CLASS.items():
                if of == official:
                    chosen[split] += left[:count]
                    left = left[count:]
    return {split: np.array(sorted(indices), dtype=np.int64) for split, indices in chosen.items()}


def _ranked(indices: Sequence[int], official: str) -> list[int]:
    return sorted(indices, key=lambda i: hashlib.sha256(f"{SEED} {official} {i}".encode()).digest())


def make(folder: Path, *, sha256: Mapping[str, str] = SHA256) -> tuple[bytes, bytes]:
    """The contents of `IMAGES_FILE` and `SPLITS_FILE` from a folder of the four files.

    The PNG shows train, val and test one after another in rows of 50 images. The safetensors file
    has the class of each image, and its index in the official split. Raises: DataError.
    """
    images = {of: read_idx(folder, f"{of}-images-idx3-ubyte", sha256) for of in ("train", "t10k")}
    targets = {of: read_idx(folder, f"{of}-labels-idx1-ubyte", sha256) for of in ("train", "t10k")}
    splits = choose(targets)
    own = {split: PER_CLASS[split][0] for split in splits}
    pixels = np.concatenate([images[own[split]][index] for split, index in splits.items()])
    content = io.BytesIO()
    Image.fromarray(tiled(pixels)).save(content, format="PNG", optimize=True)
    tensors = {f"{split}.index": index.astype(np.int32) for split, index in splits.items()}
    tensors |= {f"{split}.targets": targets[own[split]][index] for split, index in splits.items()}
    return content.getvalue(), save(tensors)


def tiled(pixels: UInt8[np.ndarray, "N H W"]) -> UInt8[np.ndarray, "_ _"]:
    """Images as one sheet of rows of 50, the last row filled up with black."""
    empty = -len(pixels) % COLUMNS
    padded = np.concatenate([pixels, np.zeros((empty, SIDE, SIDE), dtype=np.uint8)])
    rows = padded.reshape(-1, COLUMNS, SIDE, SIDE).swapaxes(1, 2)
    sheet: UInt8[np.ndarray, "_ _"] = rows.reshape(-1, COLUMNS * SIDE)
    return sheet


def main() -> None:
    """Write both files beside this module."""
    parser = argparse.ArgumentParser(description="Make the images of the task fashion.")
    parser.add_argument("folder", type=Path, help="the folder of Fashion-MNIST's four files")
    contents = make(parser.parse_args().folder)
    for name, content in zip((IMAGES_FILE, SPLITS_FILE), contents, strict=True):
        write_whole(Path(__file__).with_name(name), content)
        print(f"{name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
