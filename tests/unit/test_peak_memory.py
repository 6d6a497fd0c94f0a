"""The peak of a training's memory: that it is one, where it is unknown, and where it is shown."""

import csv
import io
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import build_report, made
from page_of_inverse import entries_of, inverse, page
from toy_runs import StopError

from conftest import toy_recipe
from idat_zoo.engine import memory
from idat_zoo.engine import train as train_module
from idat_zoo.page.costs import build_costs, cost_figures, draw_costs, memory_note
from idat_zoo.page.write import build_page
from idat_zoo.report.csv_rows import as_csv
from idat_zoo.results import Result, load_result
from idat_zoo.runs.many import run, run_many

MIB = 2**20
LARGE = 300 * MIB
linux = pytest.mark.skipif(not memory.CLEAR_REFS.exists(), reason="only Linux resets a peak")


def peak_of(result: Result) -> int:
    assert result.peak_memory is not None
    return result.peak_memory


@contextmanager
def large_epochs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every epoch takes memory for a while, which the system gets back."""
    train_epoch = train_module.Trainer.train_epoch

    def with_memory(self: train_module.Trainer, *args: object) -> object:
        with mmap.mmap(-1, LARGE) as block:
            np.frombuffer(block, dtype=np.uint8).fill(1)
            return train_epoch(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(train_module.Trainer, "train_epoch", with_memory)
        yield


@linux
def test_the_peak_is_that_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with large_epochs(monkeypatch):
        large = run(toy_recipe(), device="cpu", out=tmp_path / "large")
    after = run(toy_recipe(), device="cpu", out=tmp_path / "after")
    own = after.parameters
    assert 4 * (own.adapter + own.head + own.backbone) < peak_of(after)
    assert peak_of(large) < memory.total_memory(torch.device("cpu"))
    assert peak_of(large) - peak_of(after) == pytest.approx(LARGE, abs=100 * MIB)
    (path,) = (tmp_path / "large").rglob("result.json")
    assert json.loads(path.read_bytes())["peak_memory"] == large.peak_memory
    assert load_result(path) == large
    assert str(large).endswith(f", peak {peak_of(large) / MIB:,.0f} MiB")


@linux
def test_runs_of_a_pass_share_its_peak(tmp_path: Path) -> None:
    asked = [(toy_recipe(lr=lr), 0) for lr in (1e-3, 5e-3)]
    first, second = run_many(asked, device="cpu", out=tmp_path, stack=2)
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert len(first.stack) == 2
    assert peak_of(first) == peak_of(second)


def test_an_ensemble_has_the_largest_of_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter((5, 900, 30))
    monkeypatch.setattr("idat_zoo.runs.passes.measure_peak", lambda _: repeat(next(peaks)).__next__)
    recipe = toy_recipe(selection="ensemble", candidates={"lr": (1e-3, 2e-3, 5e-3)}, teacher=False)
    assert run(recipe, device="cpu", out=tmp_path).peak_memory == 900


def test_it_is_unknown_where_the_peak_cannot_be_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    result = run(toy_recipe(), device="cpu", out=tmp_path / "runs")
    assert result.peak_memory is None
    assert "peak" not in str(result)
    (path,) = (tmp_path / "runs").rglob("result.json")
    assert "peak_memory" not in json.loads(path.read_bytes())


def test_it_is_unknown_on_other_devices_and_without_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.measure_peak(torch.device("mps"))() is None
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "clear_refs")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    tell = memory.measure_peak(torch.device("cpu"))
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert tell() is None
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert tell() == 2 * MIB


def test_a_resumed_training_with_no_epoch_left_has_that_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: object, **__: object) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr("idat_zoo.runs.passes.measure_peak", lambda _: lambda: 900)
        patch.setattr("idat_zoo.runs.turn.finish", stopping)
        with pytest.raises(StopError):
            run(toy_recipe(), device="cpu", out=tmp_path)
    monkeypatch.setattr("idat_zoo.runs.passes.measure_peak", lambda _: lambda: 7)
    result = run(toy_recipe(), device="cpu", out=tmp_path, resume=True)
    assert result.peak_memory == 900
    assert result.images_per_second is not None


def test_csv_and_json_have_the_largest_peak_of_the_seeds() -> None:
    report = build_report([made(90, peak_memory=5), made(80, seed=1, peak_memory=7)])
    (line,) = [
        one for one in csv.DictReader(io.StringIO(as_csv(report))) if "peak" in one["metric"]
    ]
    assert (line["metric"], line["value"], line["seeds"]) == ("peak_memory", "7", "0 1")
    assert json.loads(report.model_dump_json())["rows"][0]["peak_memory"] == 7
    unknown = build_report([made(90, peak_memory=5), made(80, seed=1)])
    assert "peak_memory" not in as_csv(unknown)


def test_the_page_draws_it_where_every_method_has_it() -> None:
    small, large = toy_recipe(teacher=False), toy_recipe()
    found = [
        made(90, small, peak_memory=600 * MIB),
        made(91, small, seed=1, peak_memory=612 * MIB),
        made(95, large, peak_memory=1200 * MIB),
    ]
    report, groups, entries = entries_of(found)
    costs = build_costs(entries)
    assert [cost.memory for cost in costs] == [612, 1200]
    assert [figure.name for figure in cost_figures(costs)][-1] == "cost-memory"
    svg = draw_costs(costs, "cost-memory", of="memory").svg()
    assert "95.00 %, 1,200 MiB" in svg
    text = build_page(report, groups).render(title="A report")
    assert "Mean top-1 by peak memory of a run, MiB" in text
    assert "<td>612</td>" in text
    assert "Memory is the largest peak" in text


def test_the_page_says_of_how_many_methods_it_is_unknown() -> None:
    found = [made(90, toy_recipe(teacher=False), peak_memory=600 * MIB), made(95)]
    report, groups, entries = entries_of(found)
    costs = build_costs(entries)
    assert memory_note(costs).endswith("It is unknown of 1 of 2 methods, so no figure shows it.")
    assert [figure.name for figure in cost_figures(costs)] == ["cost-parameters", "cost-minutes"]
    text = build_page(report, groups).render(title="A report")
    assert memory_note(costs) in text.replace("&#39;", "'")
    assert "<td>–</td>" in text


def test_the_page_of_older_results_says_that_they_have_none() -> None:
    _, _, entries = inverse()
    assert memory_note(build_costs(entries)) == "The results do not record their memory."
    assert "The results do not record their memory." in page()
    assert "cost-memory" not in page()
