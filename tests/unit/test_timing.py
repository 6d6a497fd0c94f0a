"""Whether a number format is slow on a device, by timing one small product."""

import math
from collections.abc import Iterator

import pytest
import torch

from conftest import toy_recipe
from idat_zoo.engine import timing
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.engine.timing import SLOW, slowness, times_as_long

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_measured_before() -> Iterator[None]:
    times_as_long.cache_clear()
    yield
    times_as_long.cache_clear()


def clock(monkeypatch: pytest.MonkeyPatch, times: list[float]) -> Iterator[float]:
    """Let products take these times, one after the other."""
    left = iter(times)
    monkeypatch.setattr(timing, "seconds", lambda work, device: next(left))
    return left


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_this_machine_is_timed_and_a_slow_format_named_exactly_if_it_is(precision: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ratio = times_as_long(precision, CPU)
    assert 0 < ratio < math.inf
    told = slowness(precision, CPU)  # of the same measurement
    assert bool(told) == (ratio >= SLOW)
    assert told == "" or f"takes {ratio:.1f} times as long as in float32 (cpu: " in told
    assert torch.get_rng_state().equal(before)


def test_a_lucky_moment_of_float32_on_a_busy_machine_is_no_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock(monkeypatch, [0.0005, 0.016, 0.016, 0.016] + [0.016, 0.032] * 18)
    assert times_as_long("bf16", CPU) == 1


def test_a_very_slow_format_is_timed_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    left = clock(monkeypatch, [0.003, 0.474] * 9)
    assert times_as_long("bf16", CPU) == times_as_long("bf16", CPU) == pytest.approx(158)
    assert len(list(left)) == 2 * 7


@pytest.mark.parametrize(("ratio", "slow"), [(0.1, False), (1, False), (SLOW, True), (170, True)])
def test_a_format_is_slow_from_a_ratio_on_that_no_noise_reaches(
    ratio: float, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, [0.001, 0.001 * ratio] * 20)
    told = slowness("fp16", CPU)
    assert told.startswith("precision=fp16 is slow here: a small product takes ") == slow


def test_float32_is_never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, [])
    assert slowness("float32", CPU) == ""


def test_what_auto_chooses_is_timed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "times_as_long", lambda precision, device: 3.0)
    monkeypatch.setattr(timing, "describe_device", lambda device: "cuda: an old card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    card = torch.device("cuda")
    told = slowness(resolve_precision(toy_recipe(), card).precision, card)
    assert told == (
        "precision=fp16 is slow here: a small product takes 3.0 times as long as in float32 "
        "(cuda: an old card)"
    )
