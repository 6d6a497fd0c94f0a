"""Weights of few bits: the table of their levels, and what stands for a weight."""

import pytest
import torch
from zoo import read

from idat_zoo.adapters.quantised import code_table, quantised, small_start
from idat_zoo.randomness import generator


def latent(*shape: int) -> torch.Tensor:
    source = generator(0, "test", "latent")
    return torch.empty(shape, dtype=torch.float64).normal_(0.2, 0.5, generator=source)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_table_is_the_authors(bits: int) -> None:
    theirs, table = read("bi_lora")[0], code_table(bits)
    assert all(tensor.dtype == torch.float32 for tensor in table.values())
    for name, tensor in table.items():
        expected = theirs[f"codebook.bit{bits}.{name}_f32"]
        assert torch.allclose(tensor.double(), expected, rtol=0, atol=1e-15), name


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_weight_takes_no_more_values_than_its_bits_tell_apart(bits: int) -> None:
    weight = latent(40, 60)
    found = quantised(weight, code_table(bits))
    assert 2**bits / 4 < len(found.unique()) <= 2**bits
    nearer = (found - weight).abs().mean()
    assert bits == 1 or nearer < (quantised(weight, code_table(bits - 1)) - weight).abs().mean()


def test_one_bit_stands_for_two_thirds_of_a_deviation() -> None:
    weight = latent(40, 60)
    levels = (quantised(weight, code_table(1)).unique() - weight.mean()) / weight.std()
    assert torch.allclose(levels, torch.tensor([-0.67449, 0.67449]).double(), rtol=0, atol=1e-5)


def test_a_gradient_passes_the_steps_and_reaches_mean_and_deviation() -> None:
    weight = latent(4, 6).requires_grad_()
    table = code_table(2)
    cotangent = latent(4, 6)
    (found,) = torch.autograd.grad((quantised(weight, table) * cotangent).sum(), weight)
    with torch.no_grad():
        z = (weight - weight.mean()) / (weight.std() + 1e-5)
        steps = (quantised(weight, table) - weight.mean()) / weight.std() - z
    smooth = (weight - weight.mean()) / (weight.std() + 1e-5) + steps
    whole = smooth * weight.std() + weight.mean()
    (expected,) = torch.autograd.grad((whole * cotangent).sum(), weight)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_with_32_bits_a_weight_is_itself_and_an_upper_one_starts_at_zero() -> None:
    assert code_table(32) == {}
    weight = latent(3, 4)
    assert quantised(weight, {}) is weight
    assert not small_start(3, 4, bits=32, generator=generator(0, "test", "up")).any()
    assert small_start(3, 4, bits=8, generator=generator(0, "test", "up")).all()
