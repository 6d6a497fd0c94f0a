"""Measure the memory of whole processes: a training, a decode, and a training on a large folder.

    python benchmarks/memory.py [--against COMMIT] [--pairs N] [--files N] [--folder N]

The peak resident memory of `idat train --task digits --adapter lora` and of a decode of generated
JPEG files into an empty cache, as GNU time's `-v` tells it, or where it is missing the kernel's
`getrusage` of the child, which GNU time reads, too. With --against, another commit's processes take
turns with ours, with its own code and this environment's packages.

With --folder, two trainings on a generated folder of N images of 224 pixels, too: the peak of
RssAnon, the anonymous part of resident memory, read from /proc/PID/status every 20 ms, and how much
of it is above that of a process that imports torch alone. Pages of mapped files are not in it.
Writes benchmarks/results/memory.json.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import IO

from beside import ROOT, checkout
from decode import write_files
from tables import keep_table

from idat_zoo.engine.precision import find_device

GNU_TIME = shutil.which("time")
GETRUSAGE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"Maximum resident set size (kbytes): {peak}", file=sys.stderr)
sys.exit(code)
"""
IDAT = "from idat_zoo.cli import main; main()"  # as the installed `idat` does
DIGITS = ("train", "--task", "digits", "--adapter", "lora", "epochs=3", "warmup_epochs=0")
DECODE = """
import sys
from pathlib import Path
from idat_zoo.data.decode import decode_files
from idat_zoo.data.reading import Listener, Reading

paths, reading = sorted(Path(sys.argv[1]).iterdir()), Reading(cache=Path(sys.argv[2]))
decode_files(paths, size=224, what="benchmark", reading=reading, listener=Listener())
"""
TORCH_ALONE = "import torch, time; time.sleep(1)"
SHELF = {
    "backbones.toml": """
[light]
timm = "vit_tiny_patch16_224"
img_size = 224
args = { patch_size = 32, embed_dim = 64, depth = 2, num_heads = 2 }
weights = "random"
""",
    "pairs.toml": '[light]\nteacher = "light"\nstudent = "light"\n',
}
"""A pair that is trained on all images, and evaluated, in minutes."""
STEPS = 20
FIRST_STEPS = f"""
import os, sys
from idat_zoo.registry import get_recipe
from idat_zoo.runs.many import run
from idat_zoo.runs.progress import Progress

class UntilAFewSteps(Progress):
    left = {STEPS}

    def note(self, text):
        print(text, flush=True)

    def step(self):
        self.left -= 1
        if not self.left:
            sys.stdout.flush()
            os._exit(0)

words = ["batch_size=8", "epochs=1", "warmup_epochs=0"]
pair = "vit_ti_to_vit_s_random"
recipe = get_recipe("folder", "lora", pair=pair, overrides=words, data_dir=sys.argv[1])
run(recipe, device="cpu", data_dir=sys.argv[1], out=sys.argv[2], progress=UntilAFewSteps())
"""
CLASSES, DISTINCT = 10, 8
MIB = 1024


def start(words: Sequence[str], tree: Path, cache: Path, told: IO[bytes]) -> Popen[bytes]:
    """A process of the code of a tree, with its own cache of decoded images; `told` is its stderr.

    It is a file and no pipe, which would have to be emptied meanwhile.
    """
    own = {"PYTHONPATH": str(tree), "IDAT_CACHE_DIR": str(cache)}
    return Popen(words, cwd=cache.parent, env=os.environ | own, stdout=DEVNULL, stderr=told)


def require_success(process: Popen[bytes], told: IO[bytes]) -> str:
    """What a process wrote to stderr, once it has ended well; else the benchmark ends."""
    code = process.wait()
    told.seek(0)
    text = told.read().decode()
    if code:
        raise SystemExit(f"{process.args!r} ended with {code}:\n{text}")
    return text


def peak_resident(words: Sequence[str], tree: Path, cache: Path) -> float:
    """The peak resident memory in MiB of a Python process that runs the code of a tree."""
    meter = [GNU_TIME, "-v"] if GNU_TIME else [sys.executable, "-c", GETRUSAGE]
    with tempfile.TemporaryFile() as told:
        process = start([*meter, sys.executable, "-c", *words], tree, cache, told)
        text = require_success(process, told)
    (peak,) = re.findall(r"Maximum resident set size \(kbytes\): (\d+)", text)
    return int(peak) / MIB


def peak_anonymous(words: Sequence[str], cache: Path) -> float:
    """The peak of RssAnon in MiB of a Python process that runs our code."""
    peak = 0
    with tempfile.TemporaryFile() as told:
        process = start([sys.executable, "-c", *words], ROOT, cache, told)
        status = Path(f"/proc/{process.pid}/status")
        try:
            while process.poll() is None:
                found = re.findall(r"RssAnon:\s+(\d+) kB", status.read_text())
                peak = max([peak, *map(int, found)])
                time.sleep(0.02)
        finally:
            process.kill()
        require_success(process, told)
    return peak / MIB


def write_copies(folder: Path, source: Path, size: int, count: int, classes: int = 1) -> None:
    """JPEG files of a size in folders of classes: few images, each many times with other bytes.

    Bytes behind the end of a JPEG are no pixels, but make another file of it.
    """
    originals = write_files(source, (size, size), "jpg", DISTINCT)
    contents = [path.read_bytes() for path in originals]
    for i in range(count):
        place = folder / f"class{i % classes}" if classes > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        content = contents[i % DISTINCT] + i.to_bytes(4, "little")
        (place / f"{i:06d}.jpg").write_bytes(content)


def shown(peaks: Sequence[float]) -> str:
    """The median and the range."""
    middle = sorted(peaks)[len(peaks) // 2]
    return f"{middle:,.0f} ({min(peaks):,.0f}–{max(peaks):,.0f})"


def compare(
    name: str, measure: Callable[[Path], float], tree: Path | None, pairs: int
) -> list[str]:
    """One row: our peaks, the other commit's, and the ratios of the pairs."""
    theirs, ours = list[float](), list[float]()
    for _ in range(pairs):
        if tree is not None:
            theirs.append(measure(tree))
        ours.append(measure(ROOT))
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=False))
    if not ratios:
        return [name, "resident", shown(ours), "", "", ""]
    middle = f"{ratios[len(ratios) // 2]:.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"
    return [name, "resident", shown(ours), shown(theirs), middle, "≤ 1"]


def measure_resident(place: Path, tree: Path | None, *, pairs: int, files: int) -> list[list[str]]:
    """The rows of the training of digits and of the decode."""
    cache, images = place / "cache", place / "decode"
    images.mkdir()
    write_copies(images, place / "distinct", 256, files)

    def train(tree: Path) -> float:
        with tempfile.TemporaryDirectory(dir=place) as out:
            return peak_resident([IDAT, *DIGITS, "--device", "cpu", "--out", out], tree, cache)

    def decode(tree: Path) -> float:
        with tempfile.TemporaryDirectory(dir=place) as empty:
            return peak_resident([DECODE, str(images), empty], tree, cache)

    rows = [
        compare("idat train --task digits --adapter lora", train, tree, pairs),
        compare(f"decode of {files:,} JPEG of 256 pixels to 224", decode, tree, pairs),
    ]
    shutil.rmtree(images)
    return rows


def measure_folder(place: Path, count: int) -> list[list[str]]:
    """The rows of the trainings on a folder; both have the same decoded images."""
    cache, images, shelf, out = (place / name for name in ("cache", "images", "shelf", "out"))
    write_copies(images, place / "originals", 224, count, CLASSES)
    shelf.mkdir()
    for name, text in SHELF.items():
        (shelf / name).write_text(text)
    torch_alone = peak_anonymous([TORCH_ALONE], cache)
    light = [IDAT, "train", "--task", "folder", "--data-dir", str(images), "--device", "cpu"]
    light += ["--adapter", "lora", "--shelf", str(shelf), "--pair", "light", "--out", str(out)]
    work = {
        f"ViT-Ti → ViT-S, {STEPS} steps of 8": [FIRST_STEPS, str(images), str(out)],
        "a light pair, one epoch and test": [*light, "epochs=1", "warmup_epochs=0"],
    }
    rows = []
    for name, words in work.items():
        peak = peak_anonymous(words, cache)
        title = f"--task folder, {count:,} images of 224 pixels: {name}"
        above = f"{peak - torch_alone:,.0f} above torch's {torch_alone:,.0f}"
        rows.append([title, "anonymous", f"{peak:,.0f}: {above}", "", "", "≤ 1,536 above torch"])
    return rows


def main() -> None:
    """Measure everything that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--folder", type=int, default=0, metavar="N")
    asked = parser.parse_args()
    other = nullcontext(None) if asked.against is None else checkout(asked.against)
    with tempfile.TemporaryDirectory() as folder, other as tree:
        place = Path(folder)
        rows = measure_resident(place, tree, pairs=asked.pairs, files=asked.files)
        if asked.folder:
            rows += measure_folder(place, asked.folder)
    against = f"at {asked.against}, MiB" if asked.against else "at another commit, MiB"
    meter = "GNU time -v" if GNU_TIME else "getrusage of the child"
    keep_table(
        "memory",
        ["process", "memory", "peak, MiB", against, "ours : theirs", "target"],
        rows,
        device=find_device("cpu"),
        how=f"resident: {meter}, medians and ranges of {asked.pairs} processes in turn; "
        "anonymous: RssAnon, every 20 ms",
    )


if __name__ == "__main__":
    main()
