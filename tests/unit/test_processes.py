"""What the processes of one run share, as far as a single process can tell."""

from collections.abc import Sequence

import pytest
import torch
from command import idat
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import for_both, toy_pair, toy_recipe
from idat_zoo.cli import torchrun
from idat_zoo.engine.augment import augment
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.processes import ALONE, Processes
from idat_zoo.engine.torchrun import own_device
from idat_zoo.errors import DeviceError, TrainingError, UsageError
from idat_zoo.randomness import generator
from idat_zoo.runs.device_setup import set_up
from idat_zoo.switches import Switches

CPU = torch.device("cpu")
BATCH = 7


def processes_of(count: int) -> list[Processes]:
    """Each of them, not connected."""
    return [Processes(rank=rank, count=count) for rank in range(count)]


def images() -> torch.Tensor:
    source = generator(0, "test", "images")
    return torch.randint(256, (20, 3, 16, 16), generator=source, dtype=torch.uint8)


def learners(processes: Sequence[Processes], family: str, **fields: object) -> list[Learner]:
    """The same run, as each process sees it."""
    recipe = toy_recipe(family, batch_size=BATCH, drop_path=0.5, precision="float32", **fields)
    both, targets = for_both(images()), torch.arange(20) % 10
    return [
        Learner(toy_pair(recipe), both, targets, recipe, seed=0, processes=own) for own in processes
    ]


@settings(deadline=None)
@given(batch=st.integers(0, 100), count=st.integers(1, 12))
def test_the_rows_of_all_processes_are_the_batch_in_order(batch: int, count: int) -> None:
    rows = torch.arange(batch)
    shares = [rows[own.rows(batch)] for own in processes_of(count)]
    assert torch.cat(shares).equal(rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_has_all_rows_and_gathers_what_it_has() -> None:
    own = torch.randn(5, 3)
    assert ALONE.rows(5) == slice(0, 5)
    assert ALONE.gather(own, 5) is own
    assert ALONE.answers("own") == ["own"]


@pytest.mark.parametrize("family", ["lora", "mlae", "convpass", "vpt_deep"])
def test_processes_have_the_masks_and_images_of_one_in_their_rows(family: str) -> None:
    options = {} if family == "convpass" else {"options": {"dropout": 0.5}}
    alone, *shared = learners(
        [ALONE, *processes_of(3)], family, augmentation=("crop", "flip"), **options
    )
    batch = torch.arange(10, 10 + BATCH)
    for role in ("student", "teacher"):
        masks = alone.masks(role, 4)
        assert masks
        for name, mask in masks.items():
            dim = mask.ndim - 1 if name == "drop_path" else 0
            assert torch.cat([one.masks(role, 4)[name] for one in shared], dim=dim).equal(mask)
        starts = [one.start(role, 4, batch) for one in shared]
        assert torch.cat(starts).equal(alone.start(role, 4, batch))


def test_augmentation_goes_by_the_position_in_the_batch() -> None:
    kinds, whole = ("crop", "flip", "randaugment"), images()
    changed = augment(whole, kinds, seed=1, step=2)
    assert augment(whole[13:], kinds, seed=1, step=2, first=13).equal(changed[13:])


def test_a_batch_with_less_images_than_processes_is_refused() -> None:
    with pytest.raises(UsageError, match="8 processes share batches of 7 images"):
        learners(processes_of(8), "lora")


@pytest.mark.parametrize(
    ("option", "given_"),
    [
        ("--stack", {"stack": 2}),
        ("--jobs", {"jobs": 2}),
        ("--compile", {"switches": Switches(compile=True)}),
    ],
)
def test_what_processes_cannot_do_together_is_refused(option: str, given_: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"2 processes that train one .* take no {option}"):
        set_up(CPU, processes=Processes(count=2), **given_)
    assert set_up(CPU, **given_).processes is ALONE
    assert set_up(CPU, processes=Processes(count=2), stack=1).one_at_a_time


def test_every_process_has_a_cuda_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("cpu") == CPU
    assert own_device("auto") == own_device("cuda") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="the device 'cuda:0' serves one of them"):
        own_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="2 processes train here with a CUDA device each"):
        own_device("cuda")


def test_one_process_goes_on_after_an_error_in_a_step() -> None:
    """The next run of the same command trains, which `ALONE` is shared with."""
    with pytest.raises(ValueError, match="nan"), ALONE.in_step():
        raise ValueError("nan")
    ALONE.tell(0)
    first = Processes(rank=0, count=2)
    with pytest.raises(ValueError, match="nan"), first.in_step():
        raise ValueError("nan")
    with pytest.raises(TrainingError, match="another of the 2 processes"):
        first.tell(0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables by which torchrun says that this is the first of two processes."""
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    "words", [("study", "inverse", "--dry-run"), ("eval", "builtin:digits-lora"), ("list",)]
)
def test_commands_for_one_process_are_refused_under_torchrun(words: tuple[str, ...]) -> None:
    done = idat(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    says = f"error: torchrun has started 2 processes, and '{words[0]}' is the work of one."
    first, hint = done.stderr.splitlines()
    assert first == says
    assert ("--jobs" in hint) == (words[0] == "study")


def test_the_first_process_alone_prints(
    started: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("0", "1"):
        started.setenv("RANK", rank)
        with torchrun.first_alone_prints():
            print(f"of rank {rank}")
    assert capsys.readouterr().out == "of rank 0\n"


def test_the_first_process_or_one_of_the_others_reports_the_end() -> None:
    store = torch.distributed.HashStore()
    first, second, third = (Processes(rank=rank, count=3, store=store) for rank in range(3))
    assert [third.reports(), second.reports()] == [True, False]  # the first one was killed
    with pytest.raises(KeyboardInterrupt), first.in_step():
        raise KeyboardInterrupt
    assert first.lost
    assert [first.reports(), second.reports(), third.reports()] == [True, False, False]
