"""Runs of toy recipes, what they leave behind, and how they are stopped."""

from pathlib import Path

import pytest
import torch
from result_documents import common

from conftest import FAMILIES
from idat_zoo.engine import train as train_module
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.recipe import Recipe
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run
from idat_zoo.runs.progress import Progress

WRITTEN = {
    "recipe.toml",
    "log.jsonl",
    "adapter_model.safetensors",
    "config.json",
    "teacher/adapter_model.safetensors",
    "teacher/config.json",
    "predictions.safetensors",
    "probe.safetensors",
    "result.json",
}
EVERY_FAMILY = [
    pytest.param(family, marks=() if family == "lora" else pytest.mark.slow) for family in FAMILIES
]
"""All families, of which `make quick` trains one."""


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def same_but_for_times(first: Path, second: Path) -> bool:
    ours, theirs = below(first), below(second)
    results = [common(contents.pop("result.json")) for contents in (ours, theirs)]
    return ours == theirs and results[0] == results[1]


def trained(recipe: Recipe, out: Path, **options: object) -> Path:
    run(recipe, device="cpu", out=out, **options)
    return run_folder(out, resolve_precision(recipe, torch.device("cpu")), 0)


class StopError(Exception):
    """What stops a run in a test."""


def stopped_after(epochs: int, recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is stopped in the middle of the epoch after `epochs` whole ones."""
    train_epoch = train_module.Trainer.train_epoch

    def stopping(self: train_module.Trainer, epoch: int, *args: object) -> object:
        if epoch == epochs:
            raise StopError
        return train_epoch(self, epoch, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(train_module.Trainer, "train_epoch", stopping)
        with pytest.raises(StopError):
            run(recipe, device="cpu", out=out)
    return run_folder(out, resolve_precision(recipe, torch.device("cpu")), 0)


class Notes(Progress):
    """Keeps what a run has to say."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)
