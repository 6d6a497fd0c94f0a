"""A linear layer with low-rank updates: equal to its plain form, and used only where it may be."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from laws import Cell, furthest, gradients, masks_of
from torch import Tensor

from idat_zoo.adapters.low_rank import WeightUpdate, updated_linear

TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-12}
SIZES = {"x": (3, 7, 24), "weight": (30, 24), "bias": (30,)}


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int, scale: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64).mul(scale).to(dtype)


def update_of(dtype: torch.dtype) -> WeightUpdate:
    """Of rank 3, as large as a trained one."""
    up, down = drawn((30, 3), dtype, 5, 0.05), drawn((3, 24), dtype, 6, 0.2)
    return WeightUpdate(up.requires_grad_(), down.requires_grad_())


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, update: WeightUpdate) -> Tensor:
    """The frozen layer's output, and the update added to it."""
    return F.linear(x, weight, bias) + F.linear(F.linear(x, update.down), update.up)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_layer_with_its_update(dtype: torch.dtype, biased: bool) -> None:
    x, weight, bias = (drawn(SIZES[name], dtype, k) for k, name in enumerate(SIZES))
    update = update_of(dtype)
    found = []
    for form in (plain, updated_linear):
        y = form(x.requires_grad_(), weight, bias if biased else None, update)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), [x, *update])])
    for expected, got in zip(*found, strict=True):
        assert furthest(expected, got) <= TOLERANCES[dtype] * expected.abs().max()


def test_its_derivatives_are_those_of_finite_differences() -> None:
    x, weight, bias = (drawn(SIZES[name], torch.float64, k) for k, name in enumerate(SIZES))

    def form(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return updated_linear(x, weight, bias, WeightUpdate(up, down))

    up, down = update_of(torch.float64)
    assert torch.autograd.gradcheck(form, (x.requires_grad_(), up, down))
    assert torch.autograd.gradgradcheck(form, (x[:1, :2], up, down))


def test_a_frozen_input_gets_no_gradient_and_the_weight_none_either() -> None:
    x, weight, bias = (drawn(SIZES[name], torch.float64, k) for k, name in enumerate(SIZES))
    weight.requires_grad_()
    update = update_of(torch.float64)
    updated_linear(x, weight, bias, update).sum().backward()
    assert x.grad is None
    assert weight.grad is None
    assert all(factor.grad is not None for factor in update)


def test_it_runs_under_vmap() -> None:
    _, weight, bias = (drawn(SIZES[name], torch.float64, k) for k, name in enumerate(SIZES))
    x = drawn((4, 7, 24), torch.float64, 9)
    ups, downs = drawn((4, 30, 3), torch.float64, 5), drawn((4, 3, 24), torch.float64, 6)

    def of_one(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return updated_linear(x, weight, bias, WeightUpdate(up, down))

    together = torch.vmap(of_one)(x, ups, downs)
    for k in range(4):
        assert furthest(together[k], of_one(x[k], ups[k], downs[k])) < 1e-12


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls = []

    def counted(*args: Tensor) -> Tensor:
        calls.append(args)
        return updated_linear(*args)

    monkeypatch.setattr("idat_zoo.backbones.network.updated_linear", counted)
    return lambda: len(calls)


def test_lora_adds_to_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives the logits and gradients that it gives beside the frozen layer."""
    calls = count_calls(monkeypatch)
    for options in ({}, {"parts": "qkv+fc1"}, {"parts": "k+proj+fc2"}):
        network, before = Cell("lora").network(**options), calls()
        images = Cell("lora").pixels()
        with_weights = network(images)
        found = gradients([network], [with_weights])
        assert calls() > before
        monkeypatch.setattr("idat_zoo.backbones.network.adds_to_weights", lambda *_: False)
        beside = network(images)
        expected = gradients([network], [beside])
        monkeypatch.undo()
        calls = count_calls(monkeypatch)
        assert furthest(with_weights, beside) < 1e-12
        for name, gradient in expected.items():
            assert furthest(gradient, found[name]) <= 1e-12 * gradient.abs().max()


def test_it_is_left_out_where_the_layer_is_trained_too() -> None:
    network, images = Cell("lora").network(), Cell("lora").pixels()
    biases = {n: p for n, p in network.body.named_parameters() if n.endswith("qkv.bias")}
    for bias in biases.values():
        bias.requires_grad_()
    try:
        found = torch.autograd.grad(network(images).square().sum(), list(biases.values()))
    finally:
        for bias in biases.values():
            bias.requires_grad_(False)
    assert len(found) > 1
    assert all(gradient.any() for gradient in found)


def test_it_is_left_out_where_it_would_not_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout on the update's input, and in 16 bits, which would round small updates away."""
    calls = count_calls(monkeypatch)
    network, images = Cell("lora").network(dropout=0.5), Cell("lora").pixels()
    network(images, masks_of(network, drop_path=0.0))
    assert calls() == 0
    with torch.autocast("cpu", torch.bfloat16):
        student = Cell("lora").learner().pair.student
        student(images)
    assert calls() == 0
    student(images)
    assert calls() > 0
