"""Run toy recipes in children that are killed with SIGKILL, resume them, compare every byte.

    python killing.py FOLDER WHAT timer COUNT SEED    killed after a random time
    python killing.py FOLDER WHAT writes              killed before, in and after every file write

WHAT is `alone`, one run with two candidates, or `pass`: two such runs, stacked.

Prints one line of JSON: how many children were killed, and what differed. Children are forked from
a process that has torch loaded, so each costs a second and not ten.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from result_documents import common

from conftest import toy_recipe
from idat_zoo import files
from idat_zoo.baselines import find_baselines
from idat_zoo.data.load import load_task
from idat_zoo.errors import ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.runs.many import run_many

Runs = Sequence[Recipe]
CANDIDATES: dict[str, Any] = {"selection": "val", "candidates": {"lr": (1e-3, 5e-3)}}
WHAT: dict[str, Runs] = {
    "alone": [toy_recipe("sequential", options={"dropout": 0.1}, epochs=2, **CANDIDATES)],
    "pass": [
        toy_recipe("sequential", options={"dropout": 0.1}, epochs=2, **CANDIDATES),
        toy_recipe("sequential", options={"bottleneck": 2}, epochs=1, **CANDIDATES),
    ],
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; of results what equal runs have in common."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "result.json":
                content = json.dumps(common(content)).encode()
            found[str(path.relative_to(folder))] = content
    return found


def child(out: Path, runs: Runs, *, resume: bool, prepare: Callable[[], None]) -> int:
    """Fork a child that trains, stacked if there are several runs; its process id."""
    pid = os.fork()
    if pid == 0:
        prepare()
        try:
            asked, stack = [(recipe, 0) for recipe in runs], 1 if len(runs) == 1 else 4
            for outcome in run_many(asked, device="cpu", out=out, resume=resume, stack=stack):
                if isinstance(outcome, ZooError):
                    raise outcome
        except BaseException as error:
            print(f"child failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return pid


def was_killed(pid: int) -> bool:
    """Wait for a child: True if it was killed, False if it finished; it may not fail."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed"
    return False


def finish(out: Path, runs: Runs) -> dict[str, bytes]:
    """Resume undisturbed, and read all files."""
    assert not was_killed(child(out, runs, resume=True, prepare=lambda: None))
    return contents(out)


def die_at(point: int) -> Callable[[], None]:
    """Kill this process at the point-th moment around its file writes, three for each write."""

    def prepare() -> None:
        passed = 0
        write_whole, replace = files.write_whole, Path.replace

        def moment() -> None:
            nonlocal passed
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1

        def watched_write(path: Path, content: bytes) -> None:
            moment()
            write_whole(path, content)
            moment()

        def watched_replace(self: Path, target: Path) -> Path:
            moment()
            return replace(self, target)

        files.write_whole = watched_write
        Path.replace = watched_replace

    return prepare


def differing(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    return sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))


def by_timer(
    root: Path, runs: Runs, expected: dict[str, bytes], seconds: float, count: int, seed: int
) -> None:
    """Kill `count` children, each at a random moment of an undisturbed run's time."""
    source = random.Random(seed)
    killed, wrong, attempt = 0, [], 0
    while killed < count:
        out, attempt = root / f"timer{attempt}", attempt + 1
        pid = child(out, runs, resume=False, prepare=lambda: None)
        time.sleep(source.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        killed += was_killed(pid)
        wrong += differing(expected, finish(out, runs))
    print(json.dumps({"killed": killed, "differing": wrong}))


def at_every_write(root: Path, runs: Runs, expected: dict[str, bytes]) -> None:
    """Kill a child before, in and after each of its file writes."""
    killed, wrong = 0, []
    while True:
        out = root / f"write{killed}"
        if not was_killed(child(out, runs, resume=False, prepare=die_at(killed))):
            break
        wrong += differing(expected, finish(out, runs))
        killed += 1
    print(json.dumps({"killed": killed, "differing": wrong}))


def main() -> None:
    """Make the undisturbed run, then kill as the arguments ask."""
    torch.set_num_threads(1)
    root, runs, how = Path(sys.argv[1]), WHAT[sys.argv[2]], sys.argv[3]
    find_baselines(load_task(runs[0].task, img_size=16), root)  # loads scikit-learn
    started = time.perf_counter()
    expected = finish(root / "undisturbed", runs)
    seconds = time.perf_counter() - started
    if how == "timer":
        by_timer(root, runs, expected, seconds, int(sys.argv[4]), int(sys.argv[5]))
    else:
        at_every_write(root, runs, expected)


if __name__ == "__main__":
    main()
