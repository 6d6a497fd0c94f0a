"""Options of bottlenecks and of Kronecker products beside branches: starts, and what is refused."""

import math
from typing import Any

import pytest
import torch
from families import WIDE, Start, Uniform
from laws import is_spread, wide
from torch import Tensor

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.base import Adapter
from idat_zoo.errors import RecipeError
from idat_zoo.randomness import generator
from idat_zoo.specs import AdapterSpec


def adapter_of(family: str, **options: Any) -> Adapter:
    return build_adapter(AdapterSpec(name=family, options=options))


def started(family: str, **options: Any) -> dict[str, Tensor]:
    """What it starts with on a ViT of width 384, of its four blocks' tensors those of one name."""
    adapter = adapter_of(family, **options)
    created = adapter.create(wide().anatomy, generator(0, "test", "start")).trainable
    joined: dict[str, list[Tensor]] = {}
    for name, tensor in created.items():
        joined.setdefault(name.split(".", 2)[-1], []).append(tensor.flatten())
    return {name: torch.cat(tensors).double() for name, tensors in joined.items()}


@pytest.mark.parametrize(
    ("family", "options", "tensor", "start"),
    [
        ("adapter_plus", {"start": "lora"}, "down.weight", Uniform(1 / math.sqrt(WIDE.D))),
        ("adapter_plus", {"start": "lora"}, "down.bias", Uniform(1 / math.sqrt(WIDE.D))),
        ("adapter_plus", {"start": "lora"}, "up.weight", 0.0),
        ("adapter_plus", {"scale": 0.5}, "scale", 0.5),
        ("adaptformer", {"scale": 0.5, "learned_scale": True}, "scale", 0.5),
        ("adaptformer", {"norm": "out"}, "norm.weight", 1.0),
        ("bi_adaptformer", {"bits": 32}, "up.weight", 0.0),
        ("convpass", {"start": "xavier"}, "attn.conv.weight", Uniform(math.sqrt(6 / (18 * 8)))),
        ("krona_res", {"residual_start": 1.0}, "gate", 1.0),
    ],
)
def test_an_option_changes_where_a_tensor_starts(
    family: str, options: dict[str, Any], tensor: str, start: Start
) -> None:
    is_spread(tensor, started(family, **options)[tensor], start)


def test_adapter_plus_starts_at_20_thousandths_where_that_is_asked_for() -> None:
    weights = started("adapter_plus", start="bert")
    assert weights["up.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert not weights["up.bias"].any()


def test_what_is_left_out_has_no_tensors() -> None:
    assert not [name for name in started("adapter_plus", bias=False) if name.endswith("bias")]
    assert not [name for name in started("houlsby", train_norms=False) if "norm" in name]
    assert not [name for name in started("convpass", branches="attn") if name.startswith("mlp")]
    names = started("compacter", branches="mlp", train_norms=False)
    assert not [name for name in names if name.startswith("attn")]
    assert "gate" not in started("krona_b")


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("krona_b", {"rows": 7}, "its width is 384, and rows=7 does not divide that"),
        ("krona_b", {"columns": 1024}, "and columns=1024 does not divide that"),
        ("krona_res", {"rows": 16, "columns": 5}, "and columns=5 does not divide that"),
        ("compacter", {"terms": 5}, "its width is 384, and terms=5 does not divide that"),
    ],
)
def test_shapes_that_do_not_divide_the_width_are_refused_by_name(
    family: str, options: dict[str, Any], why: str
) -> None:
    assert not adapter_of(family).why_not(wide().anatomy)
    assert why in adapter_of(family, **options).why_not(wide().anatomy)


@pytest.mark.parametrize(
    ("family", "option", "value"),
    [
        ("adaptformer", "bottleneck", 0),
        ("adaptformer", "position", "behind"),
        ("pfeiffer", "drop_path", 1.0),
        ("adapter_plus", "position", "houlsby"),
        ("adapter_plus", "scale", 0.0),
        ("convpass", "branches", "mlp"),
        ("bi_adaptformer", "bits", 16),
        ("bi_adaptformer", "bits", 0),
        ("krona_b", "terms", 0),
        ("krona_res", "rows", -1),
        ("compacter", "reduction", 0),
        ("compacter", "terms", 65),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_name(family: str, option: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=rf"adapter '{family}'.*{option}"):
        adapter_of(family, **{option: value})
