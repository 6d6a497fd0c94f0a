"""Pretrain the micro pair on images made by formula, and write the files that ship.

Formula-driven supervision, arXiv:2101.08515 and arXiv:2206.09132; `formulas` says how ours
differs. Teacher and student see the same images and learn apart: each has its own heads, loss and
optimiser. A run that was interrupted continues from its last saved state when the command is
repeated, and ends with the same weights as an uninterrupted one.

    python -m idat_zoo.backbones.weights.pretrain --images 614400 --seed 0 --state build/micro

Shape letters: B batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from idat_zoo import files
from idat_zoo.backbones.installed import timm
from idat_zoo.backbones.weights.formulas import BLOCK, FINE, Block, Formulas
from idat_zoo.backbones.weights.learner import LR, Learner
from idat_zoo.backbones.weights.micro_network import GRID

WIDTHS: Final = {"teacher": 64, "student": 128}
BATCH: Final = 64
WARMUP_STEPS: Final = 400
DECAY_SHARE: Final = 0.3
SHOW_EVERY: Final = 50
SAVE_EVERY: Final = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that determine a run.

    `images` may be changed on resuming until the learning rate begins to decay.
    """

    images: int
    seed: int

    @property
    def blocks(self) -> int:
        """Blocks to train on in all."""
        return self.images // BLOCK

    @property
    def stable_blocks(self) -> int:
        """Blocks before the learning rate decays: up to there, `images` changes nothing."""
        return int(self.blocks * (1 - DECAY_SHARE))


def to_tensors(block: Block) -> tuple[Tensor, dict[str, Tensor]]:
    """Images [B, 3, 48, 48] in [-1, 1], and the target of each head."""
    images = torch.from_numpy(block.images).float().div_(127.5).sub_(1)
    targets = {name: torch.from_numpy(value) for name, value in block.labels.items()}
    side = FINE // GRID
    patches = block.ink_map.reshape(-1, GRID, side, GRID, side).swapaxes(2, 3)
    maps = {
        "ink_map_coarse": block.ink_map_coarse,
        "shape_map": block.shape_map,
        "ink_map": patches,
    }
    return images, {
        **targets,
        **{name: torch.from_numpy(value).flatten(1) for name, value in maps.items()},
    }


def lr_at(step: int, *, steps: int) -> float:
    """Linear warm-up, then constant, then linear to zero over the last `DECAY_SHARE`."""
    warmup = (step + 1) / WARMUP_STEPS
    decay = (steps - step) / (steps * DECAY_SHARE)
    return LR * min(1.0, warmup, decay)


class Run:
    """A pretraining run: the two learners, and the number of blocks they have been trained on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.formulas = Formulas(settings.seed)
        self.done = 0
        self.seconds = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.learners = {name: Learner(width) for name, width in WIDTHS.items()}

    def step(self) -> None:
        """Draw the next block and train both networks on it."""
        start = time.monotonic()
        images, targets = to_tensors(self.formulas.block(self.done))
        parts = BLOCK // BATCH
        batches = zip(images.split(BATCH), *(t.split(BATCH) for t in targets.values()), strict=True)
        for part, (batch, *labels) in enumerate(batches):
            lr = lr_at(self.done * parts + part, steps=self.settings.blocks * parts)
            for learner in self.learners.values():
                learner.step(batch, dict(zip(targets, labels, strict=True)), lr=lr)
        self.done += 1
        self.seconds += time.monotonic() - start

    def record(self) -> dict[str, Any]:
        """The run's settings, progress, versions and metrics: its state without the tensors."""
        return {
            "settings": asdict(self.settings),
            "blocks_done": self.done,
            "images_seen": self.done * BLOCK,
            "seconds": round(self.seconds, 1),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "metrics": {
                name: {key: round(value, 4) for key, value in learner.metrics.items()}
                for name, learner in self.learners.items()
            },
        }

    def save(self, folder: Path) -> None:
        """Write the state: tensors first, then the JSON that names them, then drop the old."""
        folder.mkdir(parents=True, exist_ok=True)
        flat = {
            f"{name}.{key}": value
            for name, learner in self.learners.items()
            for key, value in learner.tensors().items()
        }
        tensors = f"state-{self.done}.safetensors"
        metrics = {name: learner.metrics for name, learner in self.learners.items()}
        record = {**self.record(), "metrics": metrics, "tensors": tensors}
        files.write_whole(folder / tensors, files.dump_tensors(flat))
        files.write_whole(folder / "state.json", files.dump_json(record))
        for old in folder.glob("state-*.safetensors"):
            if old.name != tensors:
                old.unlink()

    def load(self, folder: Path) -> None:
        """Continue from a saved state.

        Raises:
            SystemExit: the state was saved under other settings.
        """
        record = json.loads((folder / "state.json").read_text())
        saved, asked = Settings(**record["settings"]), self.settings
        stable = record["blocks_done"] <= min(saved.stable_blocks, asked.stable_blocks)
        if saved != asked and (saved.seed != asked.seed or not stable):
            raise SystemExit(
                f"{folder} holds a run with {saved}, not {asked}: "
                "name another --state, or repeat its arguments"
            )
        flat = load_file(folder / record["tensors"])
        for name, learner in self.learners.items():
            own = f"{name}."
            learner.load_tensors(
                {key.removeprefix(own): v for key, v in flat.items() if key.startswith(own)}
            )
            learner.metrics = record["metrics"][name]
        self.done, self.seconds = record["blocks_done"], record["seconds"]

    def export(self, folder: Path) -> None:
        """Write both backbones in fp16 without heads, and `micro.json`, into a folder."""
        for name, learner in self.learners.items():
            state = learner.model.backbone.state_dict()
            half = {key: value.half() for key, value in state.items()}
            files.write_whole(folder / f"micro_{name}.safetensors", files.dump_tensors(half))
        files.write_whole(folder / "micro.json", files.dump_json(self.record()))

    def line(self) -> str:
        """One line of progress."""
        parts = [f"{self.done}/{self.settings.blocks} blocks, {self.seconds:.0f} s"]
        for name, learner in self.learners.items():
            shown = ", ".join(f"{key} {value:.3f}" for key, value in learner.metrics.items())
            parts.append(f"{name}: {shown}")
        return "\n    ".join(parts)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, required=True, help="images to train on in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path("build/micro"), help="state folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="export folder")
    parser.add_argument("--export-only", action="store_true", help="write the saved state's pair")
    return parser.parse_args()


def main() -> None:
    """Train from the saved state, or from the start, to the end, and export."""
    options = arguments()
    torch.set_num_threads(1)
    run = Run(Settings(images=options.images, seed=options.seed))
    if options.export_only or (options.state / "state.json").exists():
        run.load(options.state)
    while not options.export_only and run.done < run.settings.blocks:
        run.step()
        if run.done % SHOW_EVERY == 0:
            print(run.line(), file=sys.stderr, flush=True)
        if run.done % SAVE_EVERY == 0 or run.done == run.settings.blocks:
            run.save(options.state)
    run.export(options.out)


if __name__ == "__main__":
    main()
