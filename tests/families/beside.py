"""DTL."""

import math

from torch import Tensor

from families import WIDE, Case, Facts, Theirs, Uniform


def without_fusion(theirs: Theirs) -> dict[str, Tensor]:
    return {
        f"blocks.{i}.{ours}.weight": theirs[f"lora_dict.{i}.{own}"]
        for i in range(2)
        for ours, own in (("down", "lora_A"), ("up", "lora_B"))
    }


def with_fusion(theirs: Theirs) -> dict[str, Tensor]:
    return without_fusion(theirs) | {"shared.conv.weight": theirs["lora_fusion.weight"]}


def starts_as_frozen_if_pooled_alike() -> None:
    """Without its mean, what runs beside begins with nothing."""
    import torch
    from laws import Cell  # which reads these facts

    for fusion in (0, 3):
        cell = Cell("dtl", own={"mean_pool": False, "fusion": fusion})
        network = cell.network()
        with torch.no_grad():
            for name, parameter in network.trainable().items():
                if name.endswith("up.weight"):
                    parameter.zero_()
        images = network.normalise(cell.pixels())
        plain = network.body.forward_head(network.body.forward_features(images))
        assert (network.features(images) - plain).abs().max() < 1e-12


def keeps_laws_with_fusion() -> None:
    import laws

    cell = laws.Cell("dtl", own={"fusion": 3})
    laws.is_alive(cell)
    laws.stacks_as_alone(cell)
    laws.mixes_as_alone(cell)
    laws.bears_bf16(cell)
    laws.walks_on_from_its_prefix(cell, drop_path=0.3)


FACTS = {
    "dtl": Facts(
        golden=(
            Case(
                file="dtl",
                variant="dtl",
                names=without_fusion,
                options={"beta": 1.0, "add_after": "1"},
            ),
            Case(
                file="dtl",
                variant="dtlplus",
                names=with_fusion,
                options={"fusion": 3, "add_after": "1"},
            ),
            Case(
                file="dtl",
                variant="dtlplus_all",
                names=with_fusion,
                options={"fusion": 3, "add_after": "all"},
            ),
        ),
        more={
            "starts as the frozen network": starts_as_frozen_if_pooled_alike,
            "keeps laws with its convolution": keeps_laws_with_fusion,
        },
        count=lambda s: 4 * s.L * s.D,
        published={"B": 36_864, "S": 18_432},
        initial={"blocks.*.down.weight": Uniform(1 / math.sqrt(WIDE.D)), "blocks.*.up.weight": 0.0},
        identity=False,
        unlike=({"rank": 2, "beta": 3.0}, {"rank": 5, "beta": 100.0}),
        refused_by=frozenset({"swin", "swinv2", "convnext"}),
    ),
}
