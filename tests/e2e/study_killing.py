"""Train a toy study with two workers, kill it with SIGKILL again and again, compare every byte.

    python study_killing.py FOLDER COUNT SEED

Each call of the study is killed after a random time, the parent alone or with its workers, and the
next call goes on at once. A study that is finished before the last kill is compared, and another
one is begun. Prints one line of JSON: how many calls were killed, and what differed. Calls are
forked from a process that has torch loaded.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from killing import contents, differing

from conftest import toy_recipe
from idat_zoo.baselines import find_baselines
from idat_zoo.data.load import load_task
from idat_zoo.recipe import Recipe
from idat_zoo.runs.lock import is_lock
from idat_zoo.study.design import Metric, Run, Study
from idat_zoo.study.train import run_study

JOBS = 2


def run_of(arm: str, recipe: Recipe, *, metric: Metric = "student") -> Run:
    """A run of the toy study."""
    place = {"task": recipe.task.id, "adapter": recipe.adapter.word, "seed": 0}
    return Run(part=1, arm=arm, metric=metric, recipe=recipe, **place)


def study(epochs: int) -> Study:
    """Four runs, of which one is read by two arms."""
    terms = {term: toy_recipe("sequential", distillation=term, epochs=epochs) for term in TERMS}
    runs = [run_of(term, recipe) for term, recipe in terms.items()]
    alone = toy_recipe("sequential", teacher=False, options={"dropout": 0.1}, epochs=epochs)
    apart = run_of("logit_ensemble", terms["none"], metric="logit_ensemble")
    return Study(
        name="toy", title="Toy", reference="none", runs=(*runs, apart, run_of("alone", alone))
    )


TERMS = ("none", "mse", "kl")
STUDY = study(epochs=20)


def call(out: Path) -> int:
    """Fork a call of the study, which leads a process group of its own; its process id."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            outcome = run_study(STUDY, out=out, device="cpu", jobs=JOBS)
        except BaseException as error:
            print(f"a call failed: {error!r}", file=sys.stderr)
            os._exit(1)
        print(f"failed: {outcome.failed}", file=sys.stderr)
        os._exit(0 if outcome.is_complete else 3)
    return pid


def exit_code(pid: int) -> int:
    """Wait for a call: its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finish(out: Path) -> dict[str, bytes]:
    """Call the study until it is complete, and read all files but locks.

    Workers whose parent was killed may still hold a run's folder in the first call.
    """
    codes = []
    while not codes or codes[-1] == 3:
        assert len(codes) < 4, codes
        codes.append(exit_code(call(out)))
    assert codes[-1] == 0, codes
    return {name: own for name, own in contents(out).items() if not is_lock(Path(name))}


def kill(pid: int, *, with_workers: bool) -> bool:
    """Kill a call; False if it was over before."""
    (os.killpg if with_workers else os.kill)(pid, signal.SIGKILL)
    code = exit_code(pid)
    assert code in (-signal.SIGKILL, 0, 3), code
    return code < 0


def main() -> None:
    """Make the undisturbed study, then kill as the arguments ask."""
    torch.set_num_threads(1)
    root, count, source = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    find_baselines(load_task(STUDY.runs[0].recipe.task, img_size=16), root)  # loads scikit-learn
    started = time.perf_counter()
    expected = finish(root / "undisturbed")
    seconds = time.perf_counter() - started
    killed, studies, wrong = 0, 0, []
    while killed < count:
        out = root / f"killed{studies}"
        pid = call(out)
        time.sleep(source.uniform(0, seconds))
        killed += kill(pid, with_workers=source.random() < 0.5)
        if killed == count or len(list(out.rglob("result.json"))) == len(
            expected_results(expected)
        ):
            wrong += differing(expected, finish(out))
            studies += 1
    print(
        json.dumps(
            {"killed": killed, "differing": wrong, "results": len(expected_results(expected))}
        )
    )


def expected_results(expected: dict[str, bytes]) -> list[str]:
    """The paths of results."""
    return [name for name in expected if name.endswith("result.json")]


if __name__ == "__main__":
    main()
