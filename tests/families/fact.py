"""FacT."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from families import WIDE, Case, Facts, Names, Theirs, Uniform

LAYERS = {
    "attn.q": "query",
    "attn.k": "key",
    "attn.v": "value",
    "attn.proj": "proj",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
CHUNKS = {"fc1": (4, 1), "fc2": (1, 4)}
"""Of outputs and inputs; all others have one of each."""
ALL = {"parts": "q+k+v+proj+fc1+fc2"}


def shared(theirs: Theirs) -> dict[str, Tensor]:
    return {"shared.u": theirs["FacTu.weight"], "shared.v": theirs["FacTv.weight"]}


def tensor_train(theirs: Theirs) -> dict[str, Tensor]:
    ours = shared(theirs)
    for i in range(2):
        for layer, part in LAYERS.items():
            outputs, inputs = CHUNKS.get(part, (1, 1))
            core = theirs[f"blocks.{i}.{layer}_FacTs.weight"]
            ours[f"blocks.{i}.{part}.core"] = core.view(outputs, 4, inputs, 4)
    return ours


def tucker(theirs: Theirs) -> dict[str, Tensor]:
    """Twelve columns a block: one for each layer of attention, four for each of the MLP."""
    ours = shared(theirs) | {"shared.cube": theirs["FacTc"]}
    counts = [math.prod(CHUNKS.get(part, (1, 1))) for part in LAYERS.values()]
    columns = iter(theirs["FacTp"].split(2 * counts, dim=1))
    for i in range(2):
        for part in LAYERS.values():
            ours[f"blocks.{i}.{part}.columns"] = next(columns)
    return ours


def on_all_layers(family: str) -> Callable[[], None]:
    """The laws of `laws.py` with its default layers, which have other widths on some kinds."""

    def keeps() -> None:
        import laws  # which reads these facts

        cell = laws.Cell(family, own=ALL)
        laws.is_alive(cell)
        laws.merges_to_the_same_logits(cell)
        laws.stacks_as_alone(cell)
        laws.mixes_as_alone(cell)
        laws.is_random_in_training_alone(cell)
        laws.bears_bf16(cell)

    return keeps


def facts(family: str, names: Names, initial: dict[str, Any], **more: Any) -> Facts:
    return Facts(
        golden=(
            Case(
                file=family,
                names=names,
                options={"rank": 4, "scale": 0.5, "dropout": 0.0},
                stochastic={"dropout": 0.1},
            ),
        ),
        more={"on all layers": on_all_layers(family)},
        initial={
            "shared.u": Uniform(1 / math.sqrt(WIDE.D)),
            "shared.v": 0.0,
            **initial,
        },
        identity=True,
        small={"rank": 3, "dropout": 0.0, "parts": "q+k+v+proj"},
        dropout={"dropout": 0.5},
        refused_by=frozenset({"swin", "swinv2", "convnext"}),
        **more,
    )


FACTS = {
    "fact_tt": facts(
        "fact_tt",
        tensor_train,
        {
            "blocks.*.fc2.core": Uniform(1 / math.sqrt(4 * 16)),
            "blocks.*[!2].core": Uniform(1 / math.sqrt(16)),
        },
        count=lambda s: 2 * s.D * 16 + 12 * s.L * 16**2,
        published={"B": 61_440, "S": 49_152},
        unlike=({"rank": 2, "scale": 0.3, "dropout": 0.1}, {"rank": 5, "scale": 1.7}),
    ),
    "fact_tk": facts(
        "fact_tk",
        tucker,
        {
            "shared.cube": Uniform(math.sqrt(3) / 32),
            "blocks.*.columns": Uniform(math.sqrt(6 / (32 + 12 * WIDE.L))),
        },
        count=lambda s: 2 * s.D * 32 + 32**3 + 12 * s.L * 32,
        published={"B": 86_528, "S": 61_952},
        unlike=({"scale": 0.3, "dropout": 0.1}, {"scale": 1.7}),
        alike="where a number stands in a chunk depends on the rank",
    ),
}
