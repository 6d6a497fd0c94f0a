"""Decode a fake task in children that are killed with SIGKILL; look at what they leave behind.

    python decode_killing.py FOLDER timer COUNT SEED    killed after a random time
    python decode_killing.py FOLDER moments             killed around every step of making entries

Prints one line of JSON: how many children were killed and how many of them had begun an entry, and
all that was wrong. Children are forked from a process that has torch loaded.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import fakes
from killing import was_killed

from idat_zoo import files
from idat_zoo.data import decode as decoding
from idat_zoo.data.cache import Cache
from idat_zoo.data.digests import digest_images
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Reading
from idat_zoo.data.task_data import TaskData
from idat_zoo.recipe import Task

COUNTS = {"train": 60, "val": 30, "test": 40}
SIZE = 96
TASK = Task(
    id="toys",
    suite="vtab1k",
    num_classes=3,
    num_train=(COUNTS["train"],),
    num_val=(COUNTS["val"],),
    num_test=(COUNTS["test"],),
    folder="toys",
)
SPLITS = ("train", "val", "test")


def load(root: Path, cache: Path) -> TaskData:
    reading = Reading(cache=cache, workers=2)
    return load_task(TASK, img_size=SIZE, data_dir=root, reading=reading)


def child(root: Path, cache: Path, prepare: Callable[[], None]) -> int:
    """Fork a child that loads the task; its process id."""
    pid = os.fork()
    if pid == 0:
        prepare()
        try:
            load(root, cache)
        except BaseException as error:
            print(f"child failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return pid


class Examiner:
    """What an undisturbed load gives, and every way in which another differs from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.expected = load(root, root / "undisturbed")
        self.keys = set(Cache(root / "undisturbed").entries())
        self.wrong: list[str] = []

    def examine(self, cache: Path) -> bool:
        """Look at a cache after a kill, and load from it; whether an entry had been begun."""
        folder = cache / "pixels"
        left = [path.name for path in folder.glob("*") if path.is_dir()]
        begun = [name for name in left if name.endswith(".part")]
        whole = Cache(cache).entries()
        for name in set(left) - set(begun) - set(whole):
            self.wrong.append(f"{cache.name}: {name} is neither whole nor marked as a part")
        for key, entry in whole.items():
            if digest_images(Cache(cache).open(key, entry)) != entry.pixels_sha256:
                self.wrong.append(f"{cache.name}: {entry.what} is not what it says")
        decodes = self._load(cache)
        kept = sum(entry.count for entry in whole.values())
        if decodes != sum(COUNTS.values()) - kept:
            self.wrong.append(f"{cache.name}: {decodes} images decoded, {kept} were there")
        if self._load(cache):
            self.wrong.append(f"{cache.name}: decoded twice")
        names = {path.name for path in folder.iterdir() if path.suffix != ".lock"}
        if names != self.keys:
            self.wrong.append(f"{cache.name}: {sorted(names ^ self.keys)} left or lost")
        return bool(begun)

    def _load(self, cache: Path) -> int:
        """Load, compare every bit; how many images were decoded."""
        decode_image, count = decoding.decode_image, 0

        def counted(content: bytes, size: int, *, max_megapixels: float) -> object:
            nonlocal count
            count += 1
            return decode_image(content, size, max_megapixels=max_megapixels)

        decoding.decode_image = counted
        found = load(self.root, cache)
        decoding.decode_image = decode_image
        for split in SPLITS:
            if not getattr(found, split).held.equal(getattr(self.expected, split).held):
                self.wrong.append(f"{cache.name}: other pixels in {split}")
        if found.fingerprint != self.expected.fingerprint:
            self.wrong.append(f"{cache.name}: another fingerprint")
        return count


def die_at(point: int) -> Callable[[], None]:
    """Kill this process at the point-th moment: before and after each step that changes a file."""

    def prepare() -> None:
        passed = 0

        def watched(step: Callable[..., object]) -> Callable[..., object]:
            def take(*arguments: object, **options: object) -> object:
                moment()
                made = step(*arguments, **options)
                moment()
                return made

            return take

        def moment() -> None:
            nonlocal passed
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1

        for name in ("mkdir", "rename", "replace"):
            setattr(Path, name, watched(getattr(Path, name)))
        files.write_whole = watched(files.write_whole)
        os.fsync = watched(os.fsync)

    return prepare


def by_timer(examiner: Examiner, seconds: float, count: int, seed: int) -> dict[str, int]:
    """Kill `count` children, each at a random moment of an undisturbed load's time."""
    source = random.Random(seed)
    killed = begun = attempt = 0
    while killed < count:
        cache, attempt = examiner.root / f"timer{attempt}", attempt + 1
        pid = child(examiner.root, cache, prepare=lambda: None)
        time.sleep(source.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        killed += was_killed(pid)
        begun += examiner.examine(cache)
    return {"killed": killed, "begun": begun}


def at_moments(examiner: Examiner) -> dict[str, int]:
    """Kill a child before and after each step that makes, fills or moves a file."""
    killed = begun = 0
    while True:
        cache = examiner.root / f"moment{killed}"
        if not was_killed(child(examiner.root, cache, prepare=die_at(killed))):
            return {"killed": killed, "begun": begun}
        killed += 1
        begun += examiner.examine(cache)


def main() -> None:
    """Load undisturbed, then kill as the arguments ask."""
    torch.set_num_threads(1)
    root, how = Path(sys.argv[1]), sys.argv[2]
    fakes.write_vtab1k_task(root, TASK, COUNTS)
    started = time.perf_counter()
    examiner = Examiner(root)
    seconds = time.perf_counter() - started
    if how == "timer":
        counts = by_timer(examiner, seconds, int(sys.argv[3]), int(sys.argv[4]))
    else:
        counts = at_moments(examiner)
    print(json.dumps(counts | {"wrong": examiner.wrong}))


if __name__ == "__main__":
    main()
