"""The self-check of a walk: whether it computes what timm's own forward pass computes.

Residual sums, pooling and the parts between blocks are our code, and another version of timm may
compute them differently. So each loaded backbone is compared once, on one generated image.
"""

import hashlib
import inspect
import json
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.backbones import sites, walk
from idat_zoo.backbones.anatomy import blank_image, everywhere, pooled_alone
from idat_zoo.backbones.installed import timm
from idat_zoo.backbones.kinds import base
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.errors import RunFolderError, WalkError
from idat_zoo.places import default_cache
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone

TOLERANCE = 1e-4
"""The allowed relative difference of features; on one machine the walk equals timm bit for bit."""


def check_walk(kind: Kind, spec: Backbone, sha256: str) -> None:
    """Compare the walk with timm, unless this backbone passed before with the same code.

    Raises: WalkError where they differ.
    """
    passed = default_cache() / "walks" / _key(kind, sha256)
    if os.access(passed, os.F_OK):  # False, too, where the folder cannot be looked into
        return
    difference = relative_difference(kind, spec)
    if not difference <= TOLERANCE:
        raise WalkError(
            f"backbone '{spec.name}' ({spec.timm}): timm {timm.__version__} computes other "
            "features than the walk by which adapters are placed: they differ by "
            f"{difference:.1e} of the largest; up to {TOLERANCE:.0e} is expected.",
            hint="Versions of timm that are known to agree are named in pyproject.toml.",
        )
    _remember(passed, {"backbone": spec.timm, "difference": difference})


def relative_difference(kind: Kind, spec: Backbone, head: nn.Module | None = None) -> float:
    """The difference of the walk from timm on an image of noise, over timm's largest feature.

    It is the larger one of two walks: with all tokens, and with the pooled ones alone at the end.
    With the `head` that timm's network ends in, outputs are compared instead.
    """
    blank = blank_image(kind, spec.img_size)
    image = torch.randn(blank.shape, generator=generator(0, "walk", "image")).to(blank)
    differences = []
    with torch.no_grad():
        expected: Tensor = kind.body(image)
        for visitor in (everywhere(), pooled_alone()):
            found = walk.features(kind, walk.begin(image), visitor, None)
            found = found if head is None else head(found)
            differences.append((found - expected).abs().max())
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)  # of a head of zeros
    return (torch.stack(differences).max() / largest).item()


def _key(kind: Kind, sha256: str) -> str:
    """A key that changes with the backbone, the versions of torch and timm, and the walk's code."""
    modules = (walk, sites, base, sys.modules[type(kind).__module__])
    code = [inspect.getsource(module) for module in modules]
    parts = [sha256, timm.__version__, torch.__version__, *code]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _remember(passed: Path, document: dict[str, str | float]) -> None:
    """Store that a key passed. Where nothing can be written, the next load compares again."""
    try:
        passed.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(passed, files.dump_json(document))
    except (OSError, RunFolderError):
        pass
