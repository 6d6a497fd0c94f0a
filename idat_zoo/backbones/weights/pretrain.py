"""Pretrain the micro pair on images made by formula, and write the files that ship.

Formula-driven supervision, arXiv:2101.08515 and arXiv:2206.09132; `formulas` says how ours
differs. Teacher and student see the same images and learn apart: each has its own heads, loss and
optimiser. Run it, kill it, run it again: it goes on from the last saved state, and ends with the
same weights as an unbroken run.

    python -m idat_zoo.backbones.weights.pretrain --images 614400 --seed 0 --state build/micro

Shape letters: B batch, C channels, H W image, D width.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from idat_zoo import files
from idat_zoo.backbones.weights.formulas import (
    BLOCK,
    COARSE,
    FINE,
    LABELS,
    UNKNOWN,
    Block,
    Formulas,
)

ARCHITECTURE: Final = "vit_tiny_patch16_224"
WIDTHS: Final = {"teacher": 64, "student": 128}
GRID: Final = 6
"""Patches of 8 x 8 pixels along one side of the image."""
TOKEN_HEADS: Final = {**LABELS, "ink_map_coarse": COARSE**2, "shape_map": COARSE**2}
"""What is read from the class token; `ink_map` is read from the patch tokens, each its own part."""
PATCH_CELLS: Final = (FINE // GRID) ** 2
MAPS: Final = ("ink_map_coarse", "shape_map", "ink_map")
LOSS_WEIGHTS: Final = {
    "shape": 1.0,
    "x": 0.4,
    "y": 0.4,
    "scale": 0.4,
    "rotation": 2.0,
    "axis": 1.0,
    "count": 1.0,
    "ink_map_coarse": 7.0,
    "shape_map": 7.0,
    "ink_map": 3.0,
}
POSITION_SIZE: Final = 1.5
BATCH: Final = 64
LR: Final = 2e-3
WEIGHT_DECAY: Final = 0.05
WARMUP_STEPS: Final = 400
DECAY_SHARE: Final = 0.3
CLIP_NORM: Final = 1.0
METRIC_MEMORY: Final = 0.995
SHOW_EVERY: Final = 50
SAVE_EVERY: Final = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What fixes a run. `images` may still change on resuming, until the rate decays."""

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


class Pretrained(nn.Module):
    """A backbone with linear heads on its class token, and one on its patch tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = create_backbone(width)
        with torch.no_grad():
            self.backbone.pos_embed.copy_(sine_positions(width))
        # PyTorch's fused attention is slow backwards in bfloat16 on CPU: plain is twice as fast.
        for block in self.backbone.blocks:
            block.attn.fused_attn = False
        self.token_head = nn.Linear(width, sum(TOKEN_HEADS.values()))
        self.patch_head = nn.Linear(width, PATCH_CELLS)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 3, 48, 48] -> logits [B, bins] or [B, cells] of each label and map."""
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self.backbone.forward_features(images)
            whole = self.token_head(tokens[:, 0]).float()
            parts = self.patch_head(tokens[:, 1:]).float()
        split = whole.split(list(TOKEN_HEADS.values()), dim=1)
        return {**dict(zip(TOKEN_HEADS, split, strict=True)), "ink_map": parts.flatten(1)}


def create_backbone(width: int) -> Any:
    """One of the two architectures; `Any`, as timm's modules do not type their parts."""
    return timm.create_model(
        ARCHITECTURE,
        pretrained=False,
        img_size=48,
        patch_size=8,
        embed_dim=width,
        depth=4,
        num_heads=4,
        num_classes=0,
        weight_init="jax",
    )


def sine_positions(width: int) -> Tensor:
    """Sines of the patch row and column at several wavelengths, [1, 37, D], zero for the class.

    Starting from these, and not from noise, the class token learns where things are far sooner.
    """
    turns = torch.pi / 8 * 2 ** torch.linspace(0, 2.5, width // 4)
    angle = torch.arange(GRID)[:, None] * turns
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = waves[:, None].expand(-1, GRID, -1)
    columns = waves[None].expand(GRID, -1, -1)
    grid = torch.cat([rows, columns], dim=2).reshape(1, GRID**2, width)
    return torch.cat([torch.zeros(1, 1, width), POSITION_SIZE * grid], dim=1)


class Learner:
    """One network, its optimiser, and running means of its metrics."""

    def __init__(self, width: int) -> None:
        self.model = Pretrained(width)
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=LR,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.metrics: dict[str, float] = {}

    def step(self, images: Tensor, targets: dict[str, Tensor], *, lr: float) -> None:
        """Take one optimiser step."""
        logits = self.model(images)
        losses = {name: label_loss(name, logits[name], target) for name, target in targets.items()}
        loss = torch.stack([LOSS_WEIGHTS[name] * value for name, value in losses.items()]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        seen = {"loss": float(loss.detach())}
        for name in MAPS:
            seen[f"{name}_loss"] = float(losses[name].detach())
        for name in LABELS:
            seen[f"{name}_accuracy"] = accuracy(logits[name], targets[name])
        for name, value in seen.items():
            if math.isnan(value):
                continue
            old = self.metrics.get(name, value)
            self.metrics[name] = METRIC_MEMORY * old + (1 - METRIC_MEMORY) * value

    def tensors(self) -> dict[str, Tensor]:
        """The weights and the optimiser's moments, by flat name."""
        flat = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        return flat

    def load_tensors(self, flat: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        model: dict[str, Tensor] = {}
        for key, value in flat.items():
            part, name = key.split(".", 1)
            if part == "model":
                model[name] = value
            else:
                index, name = name.split(".")
                state.setdefault(int(index), {})[name] = value
        self.model.load_state_dict(model)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def label_loss(name: str, logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, binary and by cell for the maps; mean over the batch, unknown counting 0."""
    if name not in MAPS:
        total = functional.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum")
        return total / len(target)
    known = target != UNKNOWN
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * known).mean()


def accuracy(logits: Tensor, target: Tensor) -> float:
    """The fraction of known labels that are guessed, NaN where none is known."""
    known = target != UNKNOWN
    return float((logits.argmax(dim=1) == target)[known].float().mean())


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
    """The two learners and how far they are, in blocks."""

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
        """All that is known of the run so far but its tensors."""
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
        """Go on from a saved state.

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
