"""Train toy runs on all processes of torchrun and on one, and compare the trained tensors.

    torchrun --nproc-per-node=2 training_together.py CASES KIND
    torchrun --nproc-per-node=2 training_together.py apart|silent
    python training_together.py

CASES is `terms`, `fields` or `families`; KIND is `float64` or `float32`. The first process prints
one line of JSON: for each case, the largest difference of a trained tensor, of an AdamW moment and
of a loss of an epoch. Batches hold 7 images, which no even number of processes shares evenly.

With `apart`, one process changes its network; with `silent`, it sleeps in a step for longer than
the others wait. The first process then prints the error.

Without words, all cases are trained on two and on three processes, in both formats, and the largest
differences are printed as the table of docs/processes.md, with the cases that are furthest apart.
"""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from families import all_facts

from conftest import toy_recipe
from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.distillation import TERMS
from idat_zoo.engine import processes as processes_module
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.processes import ALONE, Processes
from idat_zoo.engine.state import state_of
from idat_zoo.engine.torchrun import connected
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import TrainingError
from idat_zoo.randomness import generator
from idat_zoo.recipe import Recipe
from idat_zoo.specs import TermSpec

IMAGES, BATCH, CPU = 30, 7, torch.device("cpu")
BASIC: dict[str, Any] = {
    "batch_size": BATCH,
    "precision": "float32",
    "drop_path": 0.2,
    "options": {"dropout": 0.2},
}
OF_TERM = {"features": {"distillation_weight": 0.5}}
FIELDS: dict[str, dict[str, Any]] = {
    "gate": {"distillation_gate": "teacher_right"},
    "until": {"distillation_until": "teacher"},
    "detached": {"detach": "teacher"},
    "joint": {"task_loss": "joint"},
    "class weights": {"class_weights": "balanced"},
    "warm-up": {"distillation_warmup_epochs": 1},
    "paper": {"protocol": "paper", "epochs": 1},
    "augmentation": {"augmentation": ("crop", "flip", "randaugment")},
    "without a teacher": {"teacher": False},
    "with cached prefixes": {},
}
PREFIXED = "with cached prefixes"


def cases(which: str) -> dict[str, Recipe]:
    """The recipes to train, by the names of what they stand for."""
    if which == "terms":
        return {
            name: toy_recipe(**BASIC | OF_TERM.get(name, {}), distillation=TermSpec(name=name))
            for name in TERMS
        }
    if which == "fields":
        return {name: toy_recipe(**BASIC | fields) for name, fields in FIELDS.items()} | {
            PREFIXED: toy_recipe("sequential", **BASIC)
        }
    return {
        name: toy_recipe(name, **BASIC | {"options": {**facts.small, **facts.dropout}})
        for name, facts in all_facts().items()
    }


def learner_of(recipe: Recipe, processes: Processes, kind: torch.dtype) -> Learner:
    """A learner of random images, with networks of a number format."""
    pair = build_pair(recipe, seed=0, backbones=Backbones(CPU))
    for _, network in pair.roles():
        network.to(kind)
    source = generator(0, "test", "images")
    images = torch.randint(256, (IMAGES, 3, 16, 16), generator=source, dtype=torch.uint8)
    targets = torch.randint(10, (IMAGES,), generator=source)
    both = {role: images for role, _ in pair.roles()}
    learner = Learner(pair, both, targets, recipe, seed=0, processes=processes)
    for tensor in learner.of_term.values():
        tensor.data = tensor.data.to(kind)
    return learner


def train(
    recipe: Recipe, processes: Processes, kind: torch.dtype, *, prefixes: bool
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The state after the last epoch, and the logs."""
    learner = learner_of(recipe, processes, kind)
    if prefixes:
        learner.cache_prefixes()
    trainer = Trainer([learner])
    logs = [trainer.train_epoch(epoch)[0] for epoch in range(trainer.epochs)]
    if learner.fault is not None:
        raise learner.fault
    return state_of(trainer, learner), [log.as_json() for log in logs if log is not None]


def furthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest difference of a value and of a moment."""
    assert found.keys() == expected.keys()
    apart = {name: (found[name] - expected[name]).abs().max().item() for name in found}
    values = [difference for name, difference in apart.items() if "/value/" in name]
    moments = [difference for name, difference in apart.items() if "/value/" not in name]
    return {"values": max(values), "moments": max(moments)}


def fail(how: str, processes: Processes) -> None:
    """Train an epoch in which the second process fails, and print the error of the first."""
    trainer = Trainer([learner_of(toy_recipe(**BASIC), processes, torch.float32)])

    def on_step() -> None:
        if processes.rank == 1 and how == "silent":
            time.sleep(8)
        if processes.rank == 1:
            with torch.no_grad():
                trainer.learners[0].pair.student.head.weight.add_(1e-7)

    try:
        with processes.in_step():
            trainer.train_epoch(0, on_step)
    except TrainingError as error:
        if not processes.rank:
            print(json.dumps(error.message))


def compare() -> None:
    """Train every case on all processes, then on this one."""
    kind = getattr(torch, sys.argv[2])
    found: dict[str, dict[str, float]] = {}
    with connected() as processes:
        processes.open(CPU)
        for name, recipe in cases(sys.argv[1]).items():
            together, logs = train(recipe, processes, kind, prefixes=name == PREFIXED)
            if processes.rank:
                continue
            alone, expected = train(recipe, ALONE, kind, prefixes=name == PREFIXED)
            losses = [
                abs(log[field] - other[field])
                for log, other in zip(logs, expected, strict=True)
                for field in log
            ]
            found[name] = {**furthest(together, alone), "losses": max(losses)}
        if processes.rank:
            assert processes.hear() is None
    if found:
        print(json.dumps(found))


def measured(which: str, count: int, kind: str) -> dict[str, dict[str, float]]:
    """The differences of cases, from processes that are started here."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    done = subprocess.run(
        [*launcher, __file__, which, kind],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def measure() -> None:
    """Print the table of docs/processes.md."""
    print("| cases | processes | format | trained tensors | losses | furthest apart |")
    print("|---|---|---|---|---|---|")
    for which in ("families", "terms", "fields"):
        for count in (2, 3):
            for kind in ("float64", "float32"):
                found = measured(which, count, kind)
                values, losses = (
                    max(apart[what] for apart in found.values()) for what in ("values", "losses")
                )
                last = sorted(found, key=lambda name: found[name]["values"], reverse=True)[:4]
                cells = (which, count, kind, f"{values:.0e}", f"{losses:.0e}", ", ".join(last))
                print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
    """Compare, fail or measure, as the arguments say."""
    torch.set_num_threads(1)
    if len(sys.argv) == 1:
        measure()
        return
    if len(sys.argv) == 3:
        compare()
        return
    if sys.argv[1] == "silent":
        processes_module.PATIENCE = timedelta(seconds=3)
    with connected() as processes:
        processes.open(CPU)
        fail(sys.argv[1], processes)


if __name__ == "__main__":
    main()
