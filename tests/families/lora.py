"""LoRA."""

import math
from collections.abc import Mapping

from torch import Tensor

from families import WIDE, Case, Facts, Names, Theirs, Uniform

ROWS = {"q": "query", "k": "key", "v": "value"}
PARTS = {"attn.qkv.": "qkv", "attn.proj.": "proj", "mlp.fc1.": "fc1", "mlp.fc2.": "fc2"}


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


def per_layer(layers: Mapping[str, str] = PARTS, down: str = "lora_A", up: str = "lora_B") -> Names:
    """PEFT's code, and NOAH's, has one A and one B a layer, the fused qkv too."""

    def names(theirs: Theirs) -> dict[str, Tensor]:
        ours = {}
        for i in range(2):
            for layer, part in layers.items():
                ours[f"blocks.{i}.{part}.down.weight"] = theirs[f"blocks.{i}.{layer}{down}.weight"]
                ours[f"blocks.{i}.{part}.up.weight"] = theirs[f"blocks.{i}.{layer}{up}.weight"]
        return ours

    return names


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
                file="adapter_plus_lora",
                names=separate("qk"),
                options={"rank": 4, "parts": "q+k"},
                stochastic={"dropout": 0.1},
            ),
            Case(
                file="noah_lora",
                names=per_layer({"attn.": "qkv"}, "LoRA_a", "LoRA_b"),
                options={"rank": 4, "parts": "qkv"},
                stochastic={"dropout": 0.1},
            ),
            Case(
                file="peft_lora",
                names=per_layer(),
                options={"rank": 4, "scale": 8.0, "scaling": "alpha", "parts": "qkv+proj+fc1+fc2"},
            ),
        ),
        count=lambda s: 4 * s.L * s.D * 8,
        published={"B": 294_912, "S": 147_456},
        initial={"blocks.*.down.weight": Uniform(1 / math.sqrt(WIDE.D)), "blocks.*.up.weight": 0.0},
        identity=True,
        dropout={"dropout": 0.5},
        unlike=(
            {"rank": 2, "scale": 0.3, "dropout": 0.1},
            {"rank": 5, "scale": 1.7, "scaling": "rslora"},
        ),
    ),
}
