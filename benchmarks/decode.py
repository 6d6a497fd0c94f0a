"""Time decoding of generated image files against Pillow's own decode and resize of the same files.

    python benchmarks/decode.py [--files N] [--img-size S] [--repeats N]

In CPU seconds of one worker, pair by pair: Pillow's loop opens, converts to RGB and resizes each
file into an array; ours hashes, decodes and keeps them in an empty cache, then a second load finds
them there. Prints a table and writes it to benchmarks/results/decode.json.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tables import keep_table

from idat_zoo.data.decode import decode_files
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.engine.precision import find_device
from idat_zoo.randomness import generator

KINDS = {  # native size and format, as VTAB-1K's tasks have them
    "500 x 375 JPEG": ((500, 375), "jpg"),
    "256 x 256 JPEG": ((256, 256), "jpg"),
    "64 x 64 PNG": ((64, 64), "png"),
    "32 x 32 JPEG": ((32, 32), "jpg"),
}


def write_files(folder: Path, size: tuple[int, int], suffix: str, count: int) -> list[Path]:
    """Smooth noise with grain: neither flat nor incompressible."""
    import torch

    folder.mkdir()
    paths = []
    for i in range(count):
        source = generator(0, "benchmark", folder.name, i)
        coarse = torch.randint(256, (12, 12, 3), generator=source, dtype=torch.uint8).numpy()
        grain = torch.randint(24, (size[1], size[0], 3), generator=source, dtype=torch.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        paths.append(folder / f"{i:06d}.{suffix}")
        Image.fromarray((smooth // 2 + 40 + grain.numpy()).astype(np.uint8)).save(paths[-1])
    return paths


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of all threads: what a core is busy with, whatever else the machine does."""
    started = time.process_time()
    work()
    return time.process_time() - started


def with_pillow(paths: Sequence[Path], img_size: int) -> None:
    """What any reader has to do."""
    for path in paths:
        with Image.open(path) as image:
            size = (img_size, img_size)
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def time_kind(name: str, folder: Path, *, count: int, img_size: int, repeats: int) -> list[str]:
    """One row: files, Pillow's and our images a second, the ratio, its range, the second load."""
    size, suffix = KINDS[name]
    paths = write_files(folder, size, suffix, count)
    plain, ours, again = [], [], []
    for repeat in range(repeats):
        reading = Reading(cache=folder / f"cache{repeat}", workers=1)

        def load(reading: Reading = reading) -> object:
            return decode_files(
                paths, size=img_size, what=name, reading=reading, listener=Listener()
            )

        plain.append(cpu_seconds(lambda: with_pillow(paths, img_size)))
        ours.append(cpu_seconds(load))
        again.append(cpu_seconds(load))
        shutil.rmtree(reading.cache)  # or the disk's write-back would be timed later
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    return [
        name,
        f"{count / statistics.median(plain):.0f}",
        f"{count / statistics.median(ours):.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}–{max(ratios):.2f}",
        f"{count / statistics.median(again):.0f}",
    ]


def main() -> None:
    """Time every kind of file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = [
            time_kind(
                name,
                Path(place) / str(i),
                count=asked.files,
                img_size=asked.img_size,
                repeats=asked.repeats,
            )
            for i, name in enumerate(KINDS)
        ]
    keep_table(
        "decode",
        [
            "files",
            "Pillow alone, images per CPU second",
            "decoded and kept",
            "time against Pillow",
            "range",
            "second load",
        ],
        rows,
        device=find_device("cpu"),
        how=f"one worker decodes to {asked.img_size} pixels; medians of {asked.repeats} pairs of "
        f"{asked.files} files",
    )


if __name__ == "__main__":
    main()
