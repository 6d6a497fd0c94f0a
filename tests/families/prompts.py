"""VPT."""

import math
from typing import Any

from torch import Tensor

from families import WIDE, Case, Facts, Names, Theirs, Uniform

WINDOWS = frozenset({"swin", "swinv2", "convnext"})


def vpt(*, deep: bool) -> Names:
    """Those of block 0 stand apart from all others."""

    def names(theirs: Theirs) -> dict[str, Tensor]:
        ours = {"blocks.0.prompt": theirs["transformer.prompt_embeddings"][0]}
        if deep:
            for i, prompt in enumerate(theirs["transformer.deep_prompt_embeddings"], start=1):
                ours[f"blocks.{i}.prompt"] = prompt
        for name in ("weight", "bias"):
            if f"transformer.prompt_proj.{name}" in theirs:
                ours[f"shared.project.{name}"] = theirs[f"transformer.prompt_proj.{name}"]
        return ours

    return names


def adapter_plus(theirs: Theirs) -> dict[str, Tensor]:
    return {f"blocks.{i}.prompt": theirs[f"blocks.{i}.prompt"] for i in range(2)}


def cases(file: str, *, deep: bool) -> tuple[Case, ...]:
    names, dropped = vpt(deep=deep), {"dropout": 0.1}
    return (
        Case(file=file, names=names, options={"num_prompts": 3}, stochastic=dropped),
        Case(
            file=file,
            variant="project5",
            names=names,
            options={"num_prompts": 3, "project": 5},
            stochastic=dropped,
        ),
    )


def facts(**more: Any) -> Facts:
    return Facts(
        initial={"blocks.*.prompt": Uniform(math.sqrt(6 / (3 * WIDE.P**2 + WIDE.D)))},
        identity=False,
        small={"num_prompts": 3},
        dropout={"dropout": 0.5},
        unlike=({"dropout": 0.1}, {"dropout": 0.4}),
        alike="tasks of one pass have sequences of one length",
        refused_by=WINDOWS,
        **more,
    )


FACTS = {
    "vpt_shallow": facts(
        golden=cases("vpt_shallow", deep=False),
        count=lambda s: 10 * s.D,
        published={"B": 7_680, "S": 3_840},
        outside="its prompts stand before the first block",
    ),
    "vpt_deep": facts(
        golden=(
            *cases("vpt_deep", deep=True),
            Case(
                file="adapter_plus_vpt",
                names=adapter_plus,
                options={"num_prompts": 3},
                stochastic={"dropout": 0.1},
            ),
        ),
        count=lambda s: 10 * s.L * s.D,
        published={"B": 92_160, "S": 46_080},
    ),
}
