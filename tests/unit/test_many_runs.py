"""Many runs of one command: their folders, their faults, their passes, and what resumes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from result_documents import common

from conftest import Notes, toy_recipe
from idat_zoo import files
from idat_zoo.backbones import pair as pair_module
from idat_zoo.data.load import load_task
from idat_zoo.engine import memory
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import (
    DataError,
    DivergedError,
    RunFolderError,
    TrainingError,
    UsageError,
    ZooError,
)
from idat_zoo.recipe import Recipe
from idat_zoo.results import Result
from idat_zoo.runs.device_setup import set_up
from idat_zoo.runs.folder import run_folder, run_label
from idat_zoo.runs.many import run, run_many
from idat_zoo.runs.passes import plan_passes
from idat_zoo.runs.training import Training
from idat_zoo.specs import AdapterSpec
from idat_zoo.switches import Switches

CPU = torch.device("cpu")


def recipes() -> list[Recipe]:
    """Three unlike runs that can be stacked."""
    return [
        toy_recipe(lr=5e-3, options={"dropout": 0.1}, precision="float32", epochs=3),
        toy_recipe(lr=1e-3, options={"rank": 3}, precision="float32", epochs=3),
        toy_recipe(lr=2e-3, drop_path=0.3, precision="float32", epochs=3),
    ]


def many(out: Path, asked: list[tuple[Recipe, int]], **how: Any) -> list[Result | ZooError]:
    return run_many(asked, device="cpu", out=out, **how)


def trained(out: Path, asked: list[tuple[Recipe, int]], **how: Any) -> list[Result]:
    outcomes = many(out, asked, **how)
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    assert len(results) == len(outcomes), outcomes
    return results


def contents(out: Path) -> dict[str, Any]:
    """Every file's bytes; of results what is not a time."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.name == "result.json":
            found[str(path.relative_to(out))] = common(path.read_bytes())
        elif path.is_file():
            found[str(path.relative_to(out))] = path.read_bytes()
    return found


@pytest.mark.system
def test_each_run_of_a_pass_has_the_folder_it_would_have_alone(tmp_path: Path) -> None:
    asked = [(recipe, 0) for recipe in recipes()]
    together = trained(tmp_path / "together", asked, stack=3)
    alone = [run(recipe, device="cpu", out=tmp_path / "alone") for recipe in recipes()]
    names = {"together": set(), "alone": set()}
    for place, found in names.items():
        found |= contents(tmp_path / place).keys()
    assert names["together"] == names["alone"]
    for ours, own in zip(together, alone, strict=True):
        assert ours.recipe == own.recipe
        # float32 sums in other orders: a few of 797 images may fall the other way
        assert ours.top1 == pytest.approx(own.top1, abs=0.02)
        assert own.stack == ()
        assert ours.stack == tuple(run_label(recipe, 0) for recipe in recipes())


@pytest.mark.slow
def test_one_after_another_gives_the_bits_of_each_alone(tmp_path: Path) -> None:
    asked = [(recipe, 0) for recipe in recipes()]
    trained(tmp_path / "many", asked)
    for recipe in recipes():
        run(recipe, device="cpu", out=tmp_path / "alone")
    assert contents(tmp_path / "many") == contents(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("stack", [None, 3])
def test_each_backbone_is_loaded_once(
    stack: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = pair_module.load_backbone

    def counting(spec: Any) -> Any:
        loaded.append(spec.name)
        return load(spec)

    monkeypatch.setattr(pair_module, "load_backbone", counting)
    trained(tmp_path, [(recipe, 0) for recipe in recipes()], stack=stack)
    assert sorted(loaded) == ["toy_student", "toy_teacher"]


def test_a_run_of_a_pass_that_diverged_ends_alone(tmp_path: Path) -> None:
    first, *others = recipes()
    wild = first.model_copy(update={"lr": 10.0, "warmup_epochs": 0, "precision": "float32"})
    outcomes = run_many(
        [(wild, 0), *((one, 0) for one in others)], device="cpu", out=tmp_path, stack=3
    )
    assert [type(one) for one in outcomes] == [DivergedError, *(Result for _ in others)]
    (kept,) = many(tmp_path, [(wild, 0)], stack=3, keep_diverged=True)
    assert isinstance(kept, Result), kept
    assert kept.diverged


@pytest.mark.slow
def test_seeds_of_one_recipe_share_a_pass(tmp_path: Path) -> None:
    recipe = recipes()[0]
    results = trained(tmp_path, [(recipe, seed) for seed in (0, 1, 2)], stack=3)
    assert [result.seed for result in results] == [0, 1, 2]
    assert len({result.files["adapter_model.safetensors"] for result in results}) == 3


def test_a_run_asked_for_twice_is_named(tmp_path: Path) -> None:
    recipe = recipes()[0]
    with pytest.raises(UsageError, match=r"asked for twice: .*seed0"):
        many(tmp_path, [(recipe, 0), (recipe, 1), (recipe, 0)])


def test_a_pass_of_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one run"):
        many(tmp_path, [(recipes()[0], 0)], stack=0)


# Faults


@pytest.mark.slow
@pytest.mark.parametrize("stack", [None, 3])
def test_a_fault_ends_one_run_alone(stack: int | None, tmp_path: Path) -> None:
    broken = toy_recipe(lr=1e30, precision="float32", epochs=3)
    asked = [(recipes()[0], 0), (broken, 0), (recipes()[2], 0)]
    first, fault, last = many(tmp_path, asked, stack=stack)
    assert isinstance(first, Result)
    assert isinstance(last, Result)
    assert isinstance(fault, TrainingError)
    assert "not finite" in fault.message
    assert not (run_folder(tmp_path, broken, 0) / "result.json").exists()


@pytest.mark.slow
def test_faults_are_told_with_the_run_they_belong_to(tmp_path: Path) -> None:
    class Heard(Notes):
        def __init__(self) -> None:
            super().__init__()
            self.failures: list[str] = []

        def failed(self, label: str, error: ZooError) -> None:
            self.failures.append(label)

    heard, broken = Heard(), toy_recipe(lr=1e30, precision="float32", epochs=2)
    many(tmp_path, [(recipes()[0], 0), (broken, 0)], stack=2, progress=heard)
    assert heard.failures == [run_label(broken, 0)]
    (told,) = [note for note in heard.notes if "go on" in note]
    assert told.startswith(run_label(broken, 0))


@pytest.mark.slow
def test_images_that_are_missing_end_their_own_run_alone(tmp_path: Path) -> None:
    absent = recipes()[1].task.model_copy(update={"id": "dtd", "suite": "vtab1k", "folder": "dtd"})
    lacking = recipes()[1].model_copy(update={"task": absent})
    there, missing = many(tmp_path, [(recipes()[0], 0), (lacking, 0)], stack=2)
    assert isinstance(there, Result)
    assert isinstance(missing, DataError)


# Going on


class StopError(Exception):
    """What stops a pass in a test."""


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """Stops when a state is about to be written for the n-th time."""
    write, count = files.write_whole, iter(range(10_000))

    def counting(path: Path, content: bytes) -> None:
        if path.name == "resume.safetensors" and next(count) == at:
            raise StopError
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", counting)
        with pytest.raises(StopError):
            yield


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [
        pytest.param(at, marks=() if at in (1, 5) else pytest.mark.system)
        for at in (0, 1, 3, 4, 5, 8)
    ],
)
def test_a_stopped_pass_goes_on_to_the_same_bits(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one run was saved an epoch further on than another."""
    asked = [(recipe, 0) for recipe in recipes()]
    with stopping(monkeypatch, at):
        many(tmp_path / "stopped", asked, stack=3)
    trained(tmp_path / "stopped", asked, stack=3, resume=True)
    trained(tmp_path / "whole", asked, stack=3)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


@pytest.mark.system
def test_a_damaged_state_ends_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(recipe, 0) for recipe in recipes()]
    with stopping(monkeypatch, 4):
        many(tmp_path / "stopped", asked, stack=3)
    damaged = run_folder(tmp_path / "stopped", recipes()[1], 0)
    (damaged / "resume.safetensors").write_bytes(b"\x00" * 40)
    first, fault, last = many(tmp_path / "stopped", asked, stack=3, resume=True)
    assert isinstance(fault, RunFolderError)
    whole = trained(tmp_path / "whole", asked, stack=3)
    for ours, undisturbed in ((first, whole[0]), (last, whole[2])):
        assert isinstance(ours, Result)
        assert ours.files == undisturbed.files


@pytest.mark.system
def test_a_pass_stopped_between_two_results_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(recipe, 0) for recipe in recipes()]
    write = files.write_whole

    def until_the_second(path: Path, content: bytes) -> None:
        if path.name == "result.json" and list((tmp_path / "stopped").rglob("result.json")):
            raise StopError
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", until_the_second)
        with pytest.raises(StopError):
            many(tmp_path / "stopped", asked, stack=3)
    trained(tmp_path / "stopped", asked, stack=3, resume=True)
    whole = trained(tmp_path / "whole", asked, stack=3)
    assert whole[0].stack
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("again", "other"),
    [
        ({"stack": 1}, "runs in one pass"),
        ({"stack": 3, "switches": Switches(fused=True)}, "switches"),
    ],
)
def test_a_pass_goes_on_only_as_it_was_begun(
    again: dict[str, Any], other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(recipe, 0) for recipe in recipes()]
    with stopping(monkeypatch, 4):
        many(tmp_path, asked, stack=3)
    for outcome in many(tmp_path, asked, resume=True, **again):
        assert isinstance(outcome, RunFolderError)
        assert f"was begun with other {other}" in outcome.message


# Passes


def trainings(chosen: list[Recipe]) -> list[Training]:
    train = load_task(chosen[0].task, img_size=16).train
    images = {"student": train.held, "teacher": train.held}
    return [
        Training(
            recipe=recipe,
            seed=0,
            folder=Path(f"{number}"),
            images=images,
            targets=train.targets,
            data="",
        )
        for number, recipe in enumerate(chosen)
    ]


def passes(chosen: list[Recipe], heard: Notes, *, stack: int | None) -> list[list[str]]:
    planned = plan_passes(trainings(chosen), set_up(CPU, stack=stack), heard)
    return [[str(position) for position in together] for together in planned]


def alike(count: int, **fields: Any) -> list[Recipe]:
    return [toy_recipe(lr=1e-3 * (k + 1), precision="float32", **fields) for k in range(count)]


def test_passes_are_of_nearly_one_size() -> None:
    heard = Notes()
    assert passes(alike(7), heard, stack=3) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert heard.notes == ["7 runs take 3 passes, 3 at most in each"]
    assert passes(alike(4), heard, stack=3) == [["0", "1"], ["2", "3"]]


def test_on_a_cpu_each_run_has_a_pass_of_its_own_unless_asked_otherwise() -> None:
    heard = Notes()
    assert passes(alike(2), heard, stack=None) == [["0"], ["1"]]
    assert passes(alike(2), heard, stack=1) == [["0"], ["1"]]
    assert not heard.notes


def test_no_more_runs_go_through_a_pass_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    (one, *_) = trainings(alike(5))
    setup = set_up(CPU, stack=5)
    pair = pair_module.build_pair(one.recipe, seed=0, backbones=setup.backbones)
    learner = Learner(pair, one.images, one.targets, one.recipe, seed=0)
    needed = memory.MARGINS["cpu"] * memory.step_bytes(learner) + memory._prefix_bytes(learner)
    monkeypatch.setattr(memory, "free_memory", lambda device: int(2.5 * needed / 0.8))
    heard = Notes()
    assert passes(alike(5), heard, stack=5) == [["0", "1"], ["2", "3"], ["4"]]
    assert heard.notes == ["5 runs take 3 passes, 2 at most in each"]


def test_what_a_step_keeps_is_measured() -> None:
    """It grows with the batch, and nothing of it is a parameter or outlives the measuring."""
    kept = {}
    for batch in (16, 32, 48):
        (one,) = trainings(alike(1, batch_size=batch))
        backbones = set_up(CPU).backbones
        pair = pair_module.build_pair(one.recipe, seed=0, backbones=backbones)
        kept[batch] = memory.step_bytes(Learner(pair, one.images, one.targets, one.recipe, seed=0))
    # but for what a batch does not scale: LoRA's scaled matrices, the means of the losses
    assert kept[48] - kept[32] == pytest.approx(kept[32] - kept[16], rel=0.02)
    assert kept[32] == pytest.approx(2 * kept[16], rel=0.1)
    tokens, width, depth = 5, 24, 2
    stream = 4 * 16 * tokens * width * depth
    assert kept[16] > 10 * stream


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 32},
        {"augmentation": ("flip",)},
        {"adapter": "sequential"},
        {"teacher": False},
    ],
)
def test_runs_too_unlike_for_one_pass_have_several(other: dict[str, Any]) -> None:
    first, second = alike(2)
    fields = {"precision": "float32", **other}
    third = toy_recipe(fields.pop("adapter", "lora"), **fields)
    assert passes([first, third, second], Notes(), stack=3) == [["0", "2"], ["1"]]


@pytest.mark.parametrize("role", ["adapter", "teacher_adapter"])
def test_adapters_that_differ_in_what_apply_reads_have_passes_of_their_own(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = alike(2)
    wider = first.model_copy(update={role: AdapterSpec(name="lora", options={"rank": 3})})
    assert passes([first, wider, second], Notes(), stack=3) == [["0", "1", "2"]]
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.stacks_over", frozenset({"scale"}))
    assert passes([first, wider, second], Notes(), stack=3) == [["0", "2"], ["1"]]


def test_a_family_that_cannot_be_stacked_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.stackable", False)
    heard = Notes()
    assert passes(alike(2), heard, stack=2) == [["0"], ["1"]]
    (told,) = heard.notes
    assert told.startswith("cannot be stacked, so one after the other: toy/lora/digits/")


def test_fp16_scalers_serve_one_run_each() -> None:
    chosen = [toy_recipe(lr=1e-3 * (k + 1), precision="fp16") for k in range(2)]
    heard = Notes()
    assert passes(chosen, heard, stack=2) == [["0"], ["1"]]
    assert heard.notes
    quiet = Notes()
    assert passes(chosen[:1], quiet, stack=2) == [["0"]]
    assert not quiet.notes


@pytest.mark.slow
def test_candidates_of_several_runs_share_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    begin: Callable[..., None] = Trainer.__init__

    def counting(self: Trainer, learners: Any, **how: Any) -> None:
        sizes.append(len(learners))
        begin(self, learners, **how)

    monkeypatch.setattr(Trainer, "__init__", counting)
    chosen = [
        toy_recipe(selection="val", candidates={"lr": (1e-5, 1e-2)}, weight_decay=decay)
        for decay in (0.0, 1e-3)
    ]
    results = trained(tmp_path, [(recipe, 0) for recipe in chosen], stack=4)
    assert sizes == [4, 2]
    for result in results:
        assert result.selection is not None
        assert [tried.values for tried in result.selection.tried] == [{"lr": 1e-5}, {"lr": 1e-2}]
        assert result.selection.chosen == 1


# What is said of how it was computed


@pytest.mark.slow
def test_a_result_names_its_switches(tmp_path: Path) -> None:
    plain = run(recipes()[0], device="cpu", out=tmp_path / "a")
    other = run(
        recipes()[0],
        device="cpu",
        out=tmp_path / "b",
        switches=Switches(prefix_cache=False, fused=True, deterministic=True),
    )
    assert plain.switches == Switches(fused=False)
    assert other.switches == Switches(prefix_cache=False, fused=True, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert other.top1 == pytest.approx(plain.top1, abs=0.02)


@pytest.mark.slow
def test_without_the_prefix_cache_or_kept_memory_the_bits_are_the_same(tmp_path: Path) -> None:
    """On a CPU: a row of a product does not depend on the rows beside it."""
    names = ("adapter_model.safetensors", "predictions.safetensors")
    plain = run(recipes()[0], device="cpu", out=tmp_path / "a")
    for place, switches in (
        ("b", Switches(prefix_cache=False)),
        ("c", Switches(keep_memory=False)),
        ("d", Switches(deterministic=True)),
    ):
        other = run(recipes()[0], device="cpu", out=tmp_path / place, switches=switches)
        assert [other.files[name] for name in names] == [plain.files[name] for name in names]


@pytest.mark.slow
def test_augmented_images_have_no_prefix(tmp_path: Path) -> None:
    recipe = toy_recipe(augmentation=("flip",), precision="float32", epochs=1)
    result = run(recipe, device="cpu", out=tmp_path)
    assert result.switches == Switches(prefix_cache=False, fused=False)


@pytest.mark.slow
def test_prefixes_that_would_fill_the_memory_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 1_000_000)
    heard = Notes()
    result = run(recipes()[0], device="cpu", out=tmp_path, progress=heard)
    assert result.switches is not None
    assert not result.switches.prefix_cache
    assert heard.notes == ["what comes before the first adapter takes too much memory to be kept"]


def test_memory_is_that_of_the_machine_or_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  600 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.total_memory(CPU) == 1000 * 1024
    assert memory.free_memory(CPU) == 600 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.total_memory(CPU) == 1000 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert memory.total_memory(CPU) == 500_000
    assert memory.free_memory(CPU) == 100_000
