"""Project whole runs of 100 epochs from one epoch, one test pass and one decoding, in turn.

    python benchmarks/whole_run.py [--pair NAME] [--adapter NAME] [--stack N] [--device D]

The released loop (its step is reference.py's) decodes every image and tests the student in every
epoch. Ours decodes once, trains, and tests student and teacher once:

    theirs = 100 x (epoch + test + decoding by Pillow alone of training and test images)
    ours   = decoding into the cache + prefixes + 100 x epoch + student's test + teacher's test

for digits, for digits with 20,000 generated test images, and for VTAB-1K's 19 tasks together (their
numbers of test images; files of 256 x 256 pixels). Decoding uses all cores in both. With `--stack`
our epoch is that of N runs in one pass, divided by N. Writes
benchmarks/results/whole_run.<device>.json.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from decode import KINDS, with_pillow, write_files
from PIL import Image
from reference import ReferenceLoop
from setting import Epochs, learner_for, noise, recipe_for
from sklearn.datasets import load_digits
from tables import RATIO, Pairs, keep_table

from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.data.decode import decode_files
from idat_zoo.data.reading import Listener, Reading, usable_cores
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.engine.timing import seconds
from idat_zoo.logits import BATCH, predict_logits
from idat_zoo.recipe import Recipe
from idat_zoo.registry import load_registry, task_suites
from idat_zoo.switches import Switches

EPOCHS, TRAIN = 100, 1000
TESTED = 4 * BATCH  # images of a test pass; longer ones are as many times longer
DECODED = 500  # files


@dataclass(frozen=True)
class Case:
    """What a row projects: so many trainings, so many test images in all, one kind of file."""

    name: str
    tasks: int
    test: int
    files: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Seconds measured next to each other; those of decoding are per image."""

    their_epoch: float
    our_epoch: float
    prefixes: float
    student_batch: float
    teacher_batch: float
    their_decoding: float
    our_decoding: float

    def theirs(self, case: Case) -> float:
        """Seconds of all runs of a case by the released loop."""
        images = case.tasks * TRAIN + case.test
        batches = math.ceil(case.test / BATCH)
        training = case.tasks * self.their_epoch + batches * self.student_batch
        return EPOCHS * (training + images * self.their_decoding)

    def ours(self, case: Case) -> float:
        """Seconds of all runs of a case by our loop."""
        images = case.tasks * TRAIN + case.test
        batches = math.ceil(case.test / BATCH)
        tests = batches * (self.student_batch + self.teacher_batch)
        return (
            images * self.our_decoding
            + case.tasks * (self.prefixes + EPOCHS * self.our_epoch)
            + tests
        )


def write_digits(folder: Path) -> list[Path]:
    """The digits as files of their own size."""
    folder.mkdir()
    paths = []
    for number, pixels in enumerate(load_digits().images[:DECODED]):
        paths.append(folder / f"{number:06d}.png")
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(paths[-1])
    return paths


def decode_plainly(paths: Sequence[Path], img_size: int) -> None:
    """Pillow's own loop, on all cores."""
    cores = usable_cores()
    parts = [paths[i::cores] for i in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda part: with_pillow(part, img_size), parts))


class Bench:
    """All that is timed for one pair and one kind of file."""

    def __init__(
        self, recipe: Recipe, paths: Sequence[Path], device: torch.device, *, stack: int
    ) -> None:
        self.recipe, self.paths, self.device, self.stack = recipe, paths, device, stack
        self.images, self.targets = noise(recipe, TRAIN)
        networks = build_pair(recipe, seed=0, backbones=Backbones(device))
        self.reference = ReferenceLoop(networks, recipe, device=device)
        backbones = Backbones(device)
        self.learners = [self._learner(backbones, seed) for seed in range(stack)]
        self.prefixes = seconds(self._cache_prefixes, device) / stack
        self.epoch = Epochs(self.learners)

    def _learner(self, backbones: Backbones, seed: int) -> Learner:
        return learner_for(
            self.recipe, self.images, self.targets, backbones, seed=seed, prefix_cache=False
        )

    def _cache_prefixes(self) -> None:
        for learner in self.learners:
            learner.cache_prefixes()

    def train_reference(self) -> None:
        """One epoch, the last, partial batch left out."""
        size = self.recipe.batch_size
        whole = TRAIN // size * size
        batches = zip(
            self.images[:whole].split(size), self.targets[:whole].split(size), strict=True
        )
        for images, targets in batches:
            self.reference.step(images, targets)

    def test(self, role: str) -> None:
        """A pass of one network over test images."""
        pair, images = self.learners[0].pair, self.images.repeat(2, 1, 1, 1)[:TESTED]
        network = pair.student if role == "student" else pair.teacher
        assert network is not None
        assert self.recipe.precision != "auto"
        predict_logits(network, images, device=self.device, precision=self.recipe.precision)

    def decode(self, cache: Path) -> None:
        """Our decoding, into an empty cache."""
        decode_files(
            self.paths,
            size=self.recipe.pair.student.img_size,
            what="benchmark",
            reading=Reading(cache=cache),
            listener=Listener(),
        )

    def sample(self) -> Sample:
        """Each once, one after the other."""
        size, count = self.recipe.pair.student.img_size, len(self.paths)
        with tempfile.TemporaryDirectory() as place:
            return Sample(
                their_epoch=seconds(self.train_reference, self.device),
                our_epoch=seconds(self.epoch, self.device) / self.stack,
                prefixes=self.prefixes,
                student_batch=seconds(lambda: self.test("student"), self.device) * BATCH / TESTED,
                teacher_batch=seconds(lambda: self.test("teacher"), self.device) * BATCH / TESTED,
                their_decoding=seconds(lambda: decode_plainly(self.paths, size), self.device)
                / count,
                our_decoding=seconds(lambda: self.decode(Path(place)), self.device) / count,
            )


def project(case: Case, samples: Sequence[Sample]) -> list[str]:
    """One row: minutes of both, their ratio, and what they are made of."""
    found = Pairs([one.theirs(case) for one in samples], [one.ours(case) for one in samples])
    theirs, ours = (one / 60 for one in found.medians)

    def median(name: str, unit: float = 1.0) -> str:
        return f"{statistics.median(getattr(one, name) for one in samples) / unit:.3g}"

    return [
        case.name,
        f"{theirs:.1f}",
        f"{ours:.1f}",
        *found.cells(),
        median("their_epoch"),
        median("our_epoch"),
        f"{case.test:,}",
        f"{median('student_batch')} + {median('teacher_batch')}",
        f"{median('their_decoding', 1e-3)}, {median('our_decoding', 1e-3)}",
    ]


def main() -> None:
    """Measure and project."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="micro")
    parser.add_argument("--adapter", default="sequential")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--stack", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    device = find_device(asked.device)
    recipe = recipe_for(asked.pair, asked.adapter, asked.batch, device)
    vtab = task_suites(load_registry())["vtab1k"]
    cases = [
        Case("digits", 1, 797, "digits"),
        Case("digits, 20,000 test images", 1, 20_000, "64 x 64 PNG"),
        Case("VTAB-1K", len(vtab), sum(task.num_test[0] for task in vtab), "256 x 256 JPEG"),
    ]
    rows = []
    with computing(Switches(), device), tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(cases):
            folder = Path(place) / str(number)
            if case.files == "digits":
                paths = write_digits(folder)
            else:
                paths = write_files(folder, *KINDS[case.files], DECODED)
            bench = Bench(recipe, paths, device, stack=asked.stack)
            bench.sample()  # to warm up
            rows.append(project(case, [bench.sample() for _ in range(asked.repeats)]))
    keep_table(
        f"whole_run.{device.type}",
        [
            "run",
            "released loop, min",
            "ours, min",
            *RATIO,
            "their epoch, s",
            "our epoch, s",
            "test images",
            f"test by {BATCH}: student + teacher, s",
            "decoding an image: theirs, ours, ms",
        ],
        rows,
        device=device,
        how=f"pair {asked.pair}, {asked.adapter}, batch {asked.batch}, {asked.stack} in a pass; "
        f"projected to {EPOCHS} epochs from {asked.repeats} interleaved samples",
    )


if __name__ == "__main__":
    main()
