"""How many times what a training step keeps it takes at its peak, on a CPU.

    python benchmarks/step_memory.py FAMILY [BATCH_SIZE]

Trains the micro pair on digits for two epochs and prints the resident memory that this added, in
times of `engine.memory.step_bytes`. `engine.memory.MARGINS` rests on these numbers.
"""

import resource
import sys

from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.data.load import load_task
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.memory import step_bytes
from idat_zoo.engine.precision import describe_device, find_device, resolve_precision
from idat_zoo.engine.train import Trainer
from idat_zoo.registry import get_recipe


def peak() -> int:
    """The most memory that this process ever had resident, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(family: str, batch_size: int = 250) -> None:
    """Measure one family; the peak is the process' own, so each takes a process."""
    cpu = find_device("cpu")
    words = ["epochs=2", f"batch_size={batch_size}"]
    recipe = resolve_precision(get_recipe("digits", family, overrides=words), cpu)
    pair = build_pair(recipe, seed=0, backbones=Backbones(cpu))
    data = load_task(recipe.task, img_size=recipe.pair.student.img_size).trainval
    images = {role: data.held for role, _ in pair.roles()}
    learner = Learner(pair, images, data.targets, recipe, seed=0)
    before, kept = peak(), step_bytes(learner)
    trainer = Trainer([learner])
    for epoch in range(2):
        trainer.train_epoch(epoch)
    times = (peak() - before) / kept
    print(f"{family}: {times:.1f} times {kept / 1e6:.0f} MB, batches of {batch_size}", end="; ")
    print(describe_device(cpu))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
