"""LoRA."""

import math

from torch import Tensor

from families import WIDE, Case, Facts, Names, Theirs, Uniform

ROWS = {"q": "query", "k": "key", "v": "value"}


def separate(rows: str) -> Names:
    """Adapter+'s code has A and B of each of the rows."""

    def names(theirs: Theirs) -> dict[str, Tensor]:
        ours = {}
        for i in range(2):
            for letter in rows:
                own = f"blocks.{i}.attn.adapters.{letter}.bottleneck"
                ours[f"blocks.{i}.{ROWS[letter]}.down.weight"] = theirs[f"{own}.1.weight"]
                ours[f"blocks.{i}.{ROWS[letter]}.up.weight"] = theirs[f"{own}.4.weight"]
        return ours

    return names


def fused(theirs: Theirs) -> dict[str, Tensor]:
    """NOAH's has one A for all rows, and B for the fused ones."""
    ours = {}
    for i in range(2):
        ups = theirs[f"blocks.{i}.attn.LoRA_b.weight"].chunk(3)
        for rows, up in zip(ROWS.values(), ups, strict=True):
            ours[f"blocks.{i}.{rows}.down.weight"] = theirs[f"blocks.{i}.attn.LoRA_a.weight"]
            ours[f"blocks.{i}.{rows}.up.weight"] = up
    return ours


FACTS = {
    "lora": Facts(
        golden=(
            Case(
                file="adapter_plus_lora",
                variant="qv",
                names=separate("qv"),
                options={"rank": 4},
                stochastic={"dropout": 0.1},
            ),
            Case(
                file="noah_lora",
                names=fused,
                options={"rank": 4, "key": True},
                stochastic={"dropout": 0.1},
            ),
        ),
        count=lambda s: 4 * s.L * s.D * 8,
        published={"B": 294_912, "S": 147_456},
        initial={"blocks.*.down.weight": Uniform(1 / math.sqrt(WIDE.D)), "blocks.*.up.weight": 0.0},
        identity=True,
        dropout={"dropout": 0.5},
        unlike=({"rank": 2, "scale": 0.3, "dropout": 0.1}, {"rank": 5, "scale": 1.7}),
    ),
}
