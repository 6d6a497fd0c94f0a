"""Time T runs in one pass against the same T runs one after the other.

    python benchmarks/cotrain.py [--pair NAME] [--adapter NAME …] [--runs T …] [--batch N]

Both stand on one copy of each backbone, and train step for step on images of their own. Writes
benchmarks/results/cotrain.<device>.json.
"""

import argparse

import torch
from setting import Epochs, flops_of_epoch, learner_for, matmul_peak, noise, recipe_for
from tables import keep_table, time_pairs

from idat_zoo.backbones.pair import Backbones
from idat_zoo.engine.memory import step_bytes
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.switches import Switches


def time_runs(
    pair: str,
    adapter: str,
    runs: int,
    batch: int,
    device: torch.device,
    *,
    repeats: int,
    steps: int,
    switches: Switches,
) -> list[str]:
    """One row: images a second of both, their ratio, memory, share of the peak."""
    recipe = recipe_for(pair, adapter, batch, device)
    backbones = Backbones(device)
    images, targets = noise(recipe, batch * steps)
    alone, together = (
        [learner_for(recipe, images, targets, backbones, seed=seed) for seed in range(runs)]
        for _ in range(2)
    )
    single = [Epochs([one], switches) for one in alone]
    joint = Epochs(together, switches)

    def one_by_one() -> None:
        for epoch in single:
            epoch()

    found = time_pairs(one_by_one, joint, device, repeats=repeats)
    theirs, ours = (runs * batch * steps / one for one in found.medians)
    done = flops_of_epoch(joint) / found.medians[1]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        joint()
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f}"
    else:
        memory = f"{runs * step_bytes(together[0]) / 2**30:.2f}"
    return [
        adapter,
        str(runs),
        f"{theirs:.0f}",
        f"{ours:.0f}",
        *found.cells(),
        memory,
        f"{100 * done / matmul_peak(device, recipe.precision):.0f}",
    ]


def main() -> None:
    """Time every number of runs asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="micro")
    parser.add_argument("--adapter", nargs="+", default=["sequential", "lora"])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 6, 8, 19])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="in each repeat")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    device, switches = find_device(asked.device), Switches(compile=asked.compile)
    with computing(switches, device):
        rows = [
            time_runs(
                asked.pair,
                adapter,
                runs,
                asked.batch,
                device,
                repeats=asked.repeats,
                steps=asked.steps,
                switches=switches,
            )
            for adapter in asked.adapter
            for runs in asked.runs
        ]
    memory = "peak memory, GiB" if device.type == "cuda" else "kept by a step, GiB"
    keep_table(
        f"cotrain{'.compiled' if asked.compile else ''}.{device.type}",
        [
            "adapter",
            "runs",
            "one by one, images/s",
            "in one pass, images/s",
            "in one pass : one by one",
            "range",
            memory,
            "% of matmul peak",
        ],
        rows,
        device=device,
        how=f"pair {asked.pair}, batch {asked.batch} a run; medians of {asked.repeats} interleaved "
        f"pairs of {asked.steps} steps",
    )


if __name__ == "__main__":
    main()
