"""The plan of a study: made once, stored, compared with what its file asks for later."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import toy_recipe
from idat_zoo.errors import RecipeError, RunFolderError, UsageError
from idat_zoo.recipe import Recipe
from idat_zoo.runs.device_setup import set_up
from idat_zoo.runs.folder import run_folder
from idat_zoo.study import train
from idat_zoo.study.design import Metric, Run, Study
from idat_zoo.study.failures import Failures
from idat_zoo.study.plan import StudyPlan, has_plan, load_plan, store_plan
from idat_zoo.study.planning import agreed_plan, changes_between, make_plan

CPU = torch.device("cpu")


def short(lr: float = 5e-3, adapter: str = "linear", **fields: Any) -> Recipe:
    return toy_recipe(adapter, lr=lr, **{"epochs": 1, "warmup_epochs": 0} | fields)


def run_of(arm: str, recipe: Recipe, *, seed: int = 0, metric: Metric = "student") -> Run:
    return Run(
        part=1,
        task=recipe.task.id,
        adapter=recipe.adapter.word,
        arm=arm,
        seed=seed,
        metric=metric,
        recipe=recipe,
    )


def study_of(*runs: Run, **fields: Any) -> Study:
    return Study(**{"name": "toy", "title": "A toy study", "reference": "none"} | fields, runs=runs)


NONE = run_of("none", short(distillation="none"))
MSE = run_of("mse", short(distillation="mse"))
SOFT = run_of("soft", short(distillation="kl"))


def plan_of(*runs: Run, stack: int | None = None, **fields: Any) -> StudyPlan:
    return make_plan(study_of(*runs, **fields), set_up(CPU, stack=stack))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is an error of the test."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a run was trained")

    monkeypatch.setattr(train, "train_planned", never)


# The plan and its file


def test_a_plan_has_the_folders_of_idat_train() -> None:
    plan = plan_of(NONE, MSE)
    assert [entry.arm for entry in plan.entries] == plan.arms == ["none", "mse"]
    assert plan.tasks == ["digits"]
    for entry in plan.entries:
        assert entry.recipe.precision == "float32"
        assert entry.folder == run_folder(Path(), entry.recipe, entry.seed).as_posix()


def test_a_stored_plan_is_read_as_it_was(tmp_path: Path) -> None:
    values = {"lr": 1e-3, "drop_path": 0, "precision": "float32", "augmentation": True}
    varied = MSE.model_copy(update={"values": values, "seed": 3})
    plan = plan_of(NONE, varied, stack=2)
    assert not has_plan(tmp_path)
    store_plan(plan, tmp_path)
    assert has_plan(tmp_path)
    loaded = load_plan(tmp_path)
    assert loaded == plan
    assert loaded.entries[1].values == values
    assert [type(value) for value in loaded.entries[1].values.values()] == [float, int, str, bool]
    stored = (tmp_path / "plan.json").read_bytes()
    store_plan(loaded, tmp_path)
    assert (tmp_path / "plan.json").read_bytes() == stored


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"name": "toy"}', b"\xff\xfe", b'{"entries": 3}']
)
def test_a_damaged_plan_is_one_line_and_replan_makes_it_anew(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"cannot read '.*plan\.json'") as caught:
        load_plan(tmp_path)
    assert "\n" not in caught.value.message
    assert "--replan makes it anew" in caught.value.hint
    fresh = plan_of(NONE)
    with pytest.raises(RunFolderError, match="cannot read"):
        agreed_plan(fresh, tmp_path, replan=False)
    assert agreed_plan(fresh, tmp_path, replan=True) == fresh


def test_a_folder_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"holds no study: there is no plan\.json"):
        load_plan(tmp_path / "nowhere")
    (tmp_path / "plan.json").mkdir()
    assert not has_plan(tmp_path)
    with pytest.raises(RunFolderError, match="cannot read"):
        load_plan(tmp_path)


def test_networks_that_do_not_fit_are_faults_unless_the_file_says_all() -> None:
    wrong = run_of("none", short(adapter="sequential", options={"blocks": "7"}))
    with pytest.raises(RecipeError, match="study 'toy': part 1: ") as caught:
        plan_of(NONE, wrong, wrong.model_copy(update={"seed": 1}))
    assert len(caught.value.faults) == 1
    plan = plan_of(NONE, wrong, optional=("sequential",))
    assert [entry.adapter for entry in plan.entries] == ["linear"]
    assert len(plan.left_out) == 1


# Arms that share a run, and passes


def test_arms_that_read_different_metrics_share_one_run() -> None:
    apart = run_of("logit_ensemble", NONE.recipe, metric="logit_ensemble")
    plan = plan_of(NONE, apart, MSE)
    assert len(plan.entries) == 3
    assert len(plan.runs) == 2
    assert [len(own) for own in plan.passes] == [1, 1]
    assert [folder for own in plan.passes for folder in own] == list(plan.runs)


@pytest.mark.parametrize(
    ("stack", "sizes"), [(None, [1] * 6), (1, [1] * 6), (2, [2, 2, 1, 1]), (9, [5, 1])]
)
def test_runs_are_grouped_into_passes(stack: int | None, sizes: list[int]) -> None:
    runs = [NONE.model_copy(update={"seed": seed}) for seed in range(5)]
    other = run_of("mse", short(batch_size=32))
    plan = plan_of(*runs[:2], other, *runs[2:], stack=stack)
    assert sorted(map(len, plan.passes), reverse=True) == sizes
    assert sorted(folder for own in plan.passes for folder in own) == sorted(plan.runs)
    assert plan.stack == stack


# The same call, and another one


def test_the_same_call_keeps_the_plan(tmp_path: Path) -> None:
    store_plan(plan_of(NONE, MSE, stack=2), tmp_path)
    stored = load_plan(tmp_path)
    for stack in (None, 2):  # without --stack, the stored one is kept
        assert agreed_plan(plan_of(NONE, MSE, stack=stack), tmp_path, replan=False) == stored


def test_what_has_changed_is_told_run_by_run() -> None:
    before = plan_of(NONE, MSE, SOFT)
    assert changes_between(before, before) == []
    assert changes_between(before, plan_of(NONE, MSE)) == [
        "removed 1 run (linear on digits, soft, seed 0)"
    ]
    more = [MSE.model_copy(update={"seed": seed}) for seed in (1, 2, 3)]
    assert changes_between(before, plan_of(NONE, MSE, SOFT, *more)) == [
        "added 3 runs (linear on digits, mse, seed 1; linear on digits, mse, seed 2; …)"
    ]
    other = run_of("mse", short(1e-2, distillation="mse"))
    (told,) = changes_between(before, plan_of(NONE, other, SOFT))
    assert told.startswith("changed 1 run (linear on digits, mse, seed 0 (lr = 0.005 ")
    assert "0.01" in told
    metric = MSE.model_copy(update={"metric": "logit_ensemble"})
    (told,) = changes_between(before, plan_of(NONE, metric, SOFT))
    assert "metric = student (asked for: logit_ensemble)" in told
    assert changes_between(before, plan_of(NONE, MSE, SOFT, reference="mse", title="B")) == [
        "title is 'B', and was 'A toy study'",
        "reference is 'mse', and was 'none'",
    ]
    assert changes_between(before, plan_of(NONE, MSE, SOFT, stack=2)) == [
        "--stack is 2, and was not given"
    ]


@pytest.mark.usefixtures("no_training")
def test_a_changed_study_trains_nothing(tmp_path: Path) -> None:
    store_plan(plan_of(NONE, MSE), tmp_path)
    stored = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(
        UsageError, match=r"is not as it was planned in .*: removed 1 run"
    ) as caught:
        train.run_study(study_of(NONE), out=tmp_path, device="cpu")
    assert "\n" not in caught.value.message
    assert "--replan" in caught.value.hint
    assert (tmp_path / "plan.json").read_bytes() == stored
    with pytest.raises(RunFolderError, match="is the folder of study 'toy', not of 'other'"):
        train.run_study(study_of(NONE, MSE, name="other"), out=tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_replan_accepts_it_and_keeps_what_is_finished(tmp_path: Path) -> None:
    first = train.run_study(study_of(NONE, MSE), out=tmp_path, device="cpu")
    assert first.is_complete
    assert len(first.results) == 2
    (kept,) = (run for run, result in first.results.items() if not result.recipe.distils)
    file = tmp_path / kept / "result.json"
    before = file.read_bytes()
    again = train.run_study(study_of(NONE, SOFT), out=tmp_path, device="cpu", replan=True)
    assert again.is_complete
    assert [entry.arm for entry in load_plan(tmp_path).entries] == ["none", "soft"]
    assert file.read_bytes() == before
    assert again.results[kept] == first.results[kept]


def test_a_study_that_another_process_trains_is_refused(tmp_path: Path) -> None:
    from idat_zoo.runs.lock import alone_in

    with (
        alone_in(tmp_path, wait=False, note=lambda _: None),
        pytest.raises(RunFolderError, match="is in use by process"),
    ):
        train.run_study(study_of(NONE), out=tmp_path, device="cpu")
    assert not has_plan(tmp_path)


# Failures


def test_failures_are_counted_until_they_are_forgotten(tmp_path: Path) -> None:
    failures = Failures(tmp_path)
    for count in (1, 2, 3):
        failure = failures.add("a/seed0", UsageError(f"no\n  use {count}", hint="none"))
        assert (failure.count, failure.message) == (count, f"no use {count}")
        assert failure.is_final == (count == 3)
        assert Failures(tmp_path).of == failures.of
    failures.forget("a/seed0")
    assert Failures(tmp_path).of == {}
    (tmp_path / "failures.json").write_text("{")
    assert Failures(tmp_path).of == {}


def test_a_plan_is_json_that_others_can_read(tmp_path: Path) -> None:
    store_plan(plan_of(NONE, MSE), tmp_path)
    document = json.loads((tmp_path / "plan.json").read_bytes())
    assert [entry["arm"] for entry in document["entries"]] == ["none", "mse"]
    assert document["passes"] == [[entry["folder"]] for entry in document["entries"]]
