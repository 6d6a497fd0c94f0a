"""The training loop: rates, groups, one backward, exact state, number formats, drop path."""

import copy
import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import DIGITS, FAMILIES, learner_of, toy_pair, toy_recipe
from idat_zoo.backbones.pair import NetworkPair
from idat_zoo.data.load import load_task
from idat_zoo.data.task_data import TaskData
from idat_zoo.distillation.base import Outputs
from idat_zoo.engine.learner import EpochLog
from idat_zoo.engine.precision import find_device, resolve_precision
from idat_zoo.engine.schedule import learning_rates, standard_rates
from idat_zoo.engine.state import load_state, state_of
from idat_zoo.engine.train import Trainer, parameter_groups
from idat_zoo.errors import DeviceError, TrainingError, UsageError
from idat_zoo.randomness import Draws
from idat_zoo.recipe import Recipe
from idat_zoo.runs.many import run

CPU = torch.device("cpu")


@cache
def digits() -> TaskData:
    return load_task(DIGITS, img_size=16)


def trainer_for(recipe: Recipe, *, seed: int = 0) -> Trainer:
    """A trainer of one run, in float32 on the 200 images of digits' val."""
    return Trainer([learner_of(recipe, digits().val, seed=seed)])


def pair_of(trainer: Trainer) -> NetworkPair:
    (learner,) = trainer.learners
    return learner.pair


def epoch_of(trainer: Trainer, epoch: int) -> EpochLog:
    (log,) = trainer.train_epoch(epoch)
    assert log is not None
    return log


def step_of(trainer: Trainer, step: int, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """One step of a trainer's only run on these images."""
    forwards = trainer._forwards_of(trainer.learners)
    (parts,) = trainer._step(step, trainer.learners, trainer.learners, [batch], forwards)
    return parts


def saved_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A copy of the state."""
    (learner,) = trainer.learners
    return {name: value.clone() for name, value in state_of(trainer, learner).items()}


def restored(recipe: Recipe, saved: dict[str, torch.Tensor]) -> Trainer:
    """A trainer that goes on from a state after one epoch."""
    trainer = trainer_for(recipe)
    (learner,) = trainer.learners
    load_state(trainer, learner, saved)
    learner.done = 1
    return trainer


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


# Learning rates


@pytest.mark.parametrize(("warmup", "total"), [(150, 1500), (1, 2), (10, 100), (7, 8)])
def test_rates_rise_from_a_hundredth_and_fall_to_a_thousandth(warmup: int, total: int) -> None:
    rates = standard_rates(2.0, warmup=warmup, total=total)
    assert len(rates) == total
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[warmup] == pytest.approx(2.0)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert total - warmup < 2 or rates[-1] == pytest.approx(0.002)
    assert min(rates) > 0


def test_rates_rise_and_fall_evenly() -> None:
    rates = standard_rates(1.0, warmup=100, total=301)
    steps = [second - first for first, second in itertools.pairwise(rates[:101])]
    assert steps == pytest.approx([0.0099] * 100)
    assert rates[200] == pytest.approx((1 + 0.001) / 2)


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 10), (5, 5)])
def test_rates_without_warm_up_or_without_a_fall_are_whole(warmup: int, total: int) -> None:
    rates = standard_rates(1.0, warmup=warmup, total=total)
    assert len(rates) == total
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[0] == (0.01 if warmup else 1.0)


def test_the_recipe_has_one_rate_per_step_and_each_step_takes_its_own() -> None:
    recipe = toy_recipe(epochs=3, warmup_epochs=1)
    trainer = trainer_for(recipe)
    rates = trainer.learners[0].rates
    assert trainer.steps_per_epoch == 200 // 64
    assert rates == learning_rates(recipe, 3)
    assert len(rates) == 9
    logs = [epoch_of(trainer, epoch) for epoch in range(3)]
    assert [log.lr for log in logs] == [rates[2], rates[5], rates[8]]
    assert {group["lr"] for group in trainer.optimiser.param_groups} == {rates[8]}


# Optimisers


@pytest.mark.parametrize("family", FAMILIES)
def test_only_matrices_decay(family: str) -> None:
    recipe = toy_recipe(family, weight_decay=0.03)
    network = toy_pair(recipe).student
    names = {id(parameter): name for name, parameter in network.trainable().items()}
    groups = parameter_groups(network.trainable(), recipe)
    decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays.keys() == network.trainable().keys()
    for name, parameter in network.trainable().items():
        plain = parameter.ndim <= 1 or name.endswith("bias")
        assert decays[name] == (0.0 if plain else 0.03), name
    assert decays["head.bias"] == 0.0
    assert decays["head.weight"] == 0.03


@pytest.mark.parametrize("distillation", ["mse", "none"])
def test_the_first_step_is_adamws_by_its_formula(distillation: str) -> None:
    recipe = toy_recipe("sequential", distillation=distillation, weight_decay=0.1, drop_path=0.0)
    trainer = trainer_for(recipe)
    images, targets = digits().val.held[:64], digits().val.targets[:64]
    reference = copy.deepcopy(pair_of(trainer))
    assert reference.teacher is not None
    student, teacher = reference.student(images), reference.teacher(images)
    loss = F.cross_entropy(student, targets) + F.cross_entropy(teacher, targets)
    if distillation == "mse":
        loss = loss + F.mse_loss(student, teacher)
    loss.backward()
    parts = step_of(trainer, 0, torch.arange(64))
    assert parts["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    lr = trainer.learners[0].rates[0]
    for (_, before), (_, after) in zip(reference.roles(), pair_of(trainer).roles(), strict=True):
        for name, old in before.trainable().items():
            grad, plain = old.grad, old.ndim == 1
            assert grad is not None
            # with both moments corrected for their start, the first step is lr * sign(grad)
            expected = old.detach() * (1 - (0.0 if plain else 0.1) * lr)
            expected = expected - lr * grad / (grad.abs() + 1e-8)
            torch.testing.assert_close(after.trainable()[name].detach(), expected, msg=name)


@pytest.mark.parametrize("teacher", [True, False])
@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_a_step_is_one_backward_and_one_step_of_all_tensors(
    teacher: bool, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_for(toy_recipe(teacher=teacher, protocol=protocol))
    calls: list[str] = []
    backward = torch.Tensor.backward

    def counting(self: torch.Tensor, *args: Any, **options: Any) -> None:
        calls.append("backward")
        backward(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "backward", counting)
    trainer.optimiser.register_step_pre_hook(lambda *_: calls.append("step"))
    learnt = {id(p) for group in trainer.optimiser.param_groups for p in group["params"]}
    named = trainer.learners[0].trainable()
    assert {id(parameter) for parameter in named.values()} == learnt
    values = {
        f"{role} {name}": parameter.detach().clone()
        for role, network in pair_of(trainer).roles()
        for name, parameter in network.trainable().items()
    }
    step_of(trainer, 0, torch.arange(64))
    assert calls == ["backward", "step"]
    for role, network in pair_of(trainer).roles():
        assert not values[f"{role} head.weight"].equal(network.trainable()["head.weight"])
        assert all(p.grad is None for p in network.parameters())


def test_without_a_teacher_there_is_one_network_and_one_loss() -> None:
    trainer = trainer_for(toy_recipe(teacher=False))
    assert pair_of(trainer).teacher is None
    assert all(name.startswith("student/") for name in trainer.learners[0].trainable())
    log = epoch_of(trainer, 0)
    assert log.as_json().keys() == {"epoch", "lr", "loss", "student_task_loss"}
    assert log.loss == log.student_task_loss


def test_the_weight_of_distillation_scales_its_part_alone() -> None:
    logits = {role: Outputs(torch.randn(8, 10)) for role in ("student", "teacher")}
    targets = torch.arange(8)
    light, heavy = (
        trainer_for(toy_recipe(distillation_weight=w)).learners[0].losses(logits, targets)
        for w in (1.0, 3.0)
    )
    assert light["distillation_loss"] == heavy["distillation_loss"]
    gained = heavy["loss"] - light["loss"]
    torch.testing.assert_close(gained, 2 * light["distillation_loss"])


def test_frozen_tensors_do_not_move() -> None:
    trainer = trainer_for(toy_recipe("shared_parallel", lr=0.1))
    roles = list(pair_of(trainer).roles())
    before = {role: copy.deepcopy(net.body.state_dict()) for role, net in roles}
    trainer.train_epoch(0)
    for role, network in roles:
        assert same(before[role], network.body.state_dict())


def test_each_epoch_sees_other_images_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = trainer_for(toy_recipe(batch_size=50))
    seen: list[int] = []
    step = trainer._step

    def watching(number: int, present: Any, learning: Any, batches: Any, forwards: Any) -> Any:
        seen.extend(batches[0].tolist())
        return step(number, present, learning, batches, forwards)

    monkeypatch.setattr(trainer, "_step", watching)
    trainer.train_epoch(0)
    trainer.train_epoch(1)
    first, second = seen[:200], seen[200:]
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second


def test_fewer_images_than_a_batch_are_a_smaller_batch() -> None:
    trainer = trainer_for(toy_recipe(batch_size=201))
    assert (trainer.learners[0].batch_size, trainer.steps_per_epoch) == (200, 1)


# State


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restored_trainer_goes_on_to_the_same_bits(family: str) -> None:
    recipe = toy_recipe(family, options={"dropout": 0.1}, drop_path=0.2)
    whole = trainer_for(recipe)
    whole.train_epoch(0)
    saved = saved_of(whole)
    again = restored(recipe, saved)
    assert same(saved_of(again), saved)
    logs = [epoch_of(trainer, 1) for trainer in (whole, again)]
    assert logs[0] == logs[1]
    assert same(saved_of(whole), saved_of(again))
    assert not same(saved_of(whole), saved)


def test_a_restored_trainer_keeps_no_part_of_the_saved_state() -> None:
    trainer = trainer_for(toy_recipe())
    trainer.train_epoch(0)
    saved = saved_of(trainer)
    kept = {name: value.clone() for name, value in saved.items()}
    restored(toy_recipe(), saved).train_epoch(1)
    assert same(saved, kept)


# Number formats


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.half)])
def test_only_frozen_linear_weights_are_cast(precision: str, dtype: torch.dtype) -> None:
    trainer = trainer_for(toy_recipe("sequential", precision=precision))
    for _, network in pair_of(trainer).roles():
        linear = {
            id(p)
            for m in network.body.modules()
            if isinstance(m, nn.Linear)
            for p in m.parameters()
        }
        assert len(linear) == 2 * 4 * 2
        for name, parameter in network.body.named_parameters():
            assert parameter.dtype == (dtype if id(parameter) in linear else torch.float32), name
        assert {p.dtype for p in network.trainable().values()} == {torch.float32}
        assert network.mean.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_lower_precision_trains_and_reloads_in_float32(
    precision: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    results = {
        name: run(
            toy_recipe("sequential", precision=name),
            device="cpu",
            out=tmp_path_factory.mktemp(name),
        )
        for name in (precision, "float32")
    }
    low, full = results[precision], results["float32"]
    assert low.recipe.precision == precision
    assert low.backbone_sha256 == full.backbone_sha256
    assert low.files["adapter_model.safetensors"] != full.files["adapter_model.safetensors"]
    assert low.top1 == pytest.approx(full.top1, abs=0.1)


def test_the_scalers_state_goes_along() -> None:
    recipe = toy_recipe(precision="fp16")
    whole = trainer_for(recipe)
    whole.train_epoch(0)
    saved = saved_of(whole)
    assert saved["scaler/growth"] > 0
    again = restored(recipe, saved)
    assert again.scaler.get_scale() == whole.scaler.get_scale()
    assert same(saved_of(again), saved)
    assert epoch_of(whole, 1) == epoch_of(again, 1)
    assert same(saved_of(whole), saved_of(again))


@contextmanager
def scaled_by(scale: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainers whose scaler begins at another scale than 65536."""
    with monkeypatch.context() as patch:
        scaler = functools.partial(torch.amp.GradScaler, init_scale=scale)
        patch.setattr(torch.amp, "GradScaler", scaler)
        yield


TOO_LARGE = 2.0**24
"""A scale at which fp16 gradients of the toy pair overflow, so that first steps are skipped."""


@pytest.mark.parametrize("family", ["lora", "sequential", "idat_adaptformer"])
def test_only_steps_that_the_optimiser_took_show_which_tensors_learn(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scaled_by(TOO_LARGE, monkeypatch):
        trainer = trainer_for(toy_recipe(family, precision="fp16", batch_size=16))
    (learner,) = trainer.learners
    log = epoch_of(trainer, 0)
    assert log.skipped is not None
    assert log.skipped > 2
    assert trainer.steps_taken(learner) == trainer.steps_per_epoch - log.skipped
    assert learner.fault is None
    assert not learner.watched
    assert trainer.scaler.get_scale() == TOO_LARGE / 2**log.skipped


def test_an_adapter_that_is_dead_is_found_behind_skipped_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.apply", lambda *args, **more: args[4])
    with scaled_by(TOO_LARGE, monkeypatch):
        trainer = trainer_for(toy_recipe(precision="fp16", batch_size=8))
    assert trainer.train_epoch(0) == [None]
    (fault,) = [learner.fault for learner in trainer.learners]
    assert "16 of 20 trainable tensors got no gradient in two steps" in str(fault)


def test_a_skipped_step_keeps_its_place_among_the_learning_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scaled_by(TOO_LARGE, monkeypatch):
        skipping = trainer_for(toy_recipe(precision="fp16", batch_size=16))
    plain = trainer_for(toy_recipe(precision="float32", batch_size=16))
    logs = [[epoch_of(trainer, epoch) for epoch in range(2)] for trainer in (skipping, plain)]
    assert logs[0][0].skipped
    assert [log.lr for log in logs[0]] == [log.lr for log in logs[1]]


def test_a_state_without_any_step_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(precision="fp16", batch_size=50, epochs=9)
    with scaled_by(2.0**22, monkeypatch):
        whole = trainer_for(recipe)
    assert epoch_of(whole, 0).skipped == whole.steps_per_epoch
    saved = saved_of(whole)
    assert not [name for name in saved if "/exp_avg/" in name]
    again = restored(recipe, saved)
    for epoch in range(1, 9):
        assert epoch_of(whole, epoch) == epoch_of(again, epoch)
    assert whole.steps_taken(whole.learners[0]) > 2
    assert same(saved_of(whole), saved_of(again))


def test_a_run_whose_every_step_is_skipped_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with scaled_by(TOO_LARGE, monkeypatch):
        trainer = trainer_for(toy_recipe(precision="fp16", epochs=1))
    assert trainer.train_epoch(0) == [None]
    (fault,) = [learner.fault for learner in trainer.learners]
    assert isinstance(fault, TrainingError)
    assert "took no step in epoch 1" in fault.message
    assert "more epochs" in fault.hint


def test_gradients_that_no_scale_makes_finite_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(toy_recipe(precision="fp16", epochs=30))

    def no_number(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")

    for parameter in trainer.learners[0].trainable().values():
        parameter.register_hook(no_number)
    logs = [log for epoch in range(30) for log in trainer.train_epoch(epoch)]
    told = [log for log in logs if log is not None]
    assert [log.skipped for log in told] == [3] * 5  # 65536 falls below 1 in the sixth epoch
    (fault,) = [learner.fault for learner in trainer.learners]
    assert "took no step in epoch 6" in str(fault)
    assert "more epochs" not in str(fault)


def test_precision_is_float32_on_a_cpu_unless_another_is_asked_for() -> None:
    assert resolve_precision(toy_recipe(), CPU).precision == "float32"
    assert resolve_precision(toy_recipe(precision="bf16"), CPU).precision == "bf16"


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_on_cuda_the_card_decides(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision(toy_recipe(), torch.device("cuda")).precision == precision


def test_devices_are_found_or_named() -> None:
    assert find_device("cpu") == CPU
    with pytest.raises(DeviceError, match="no device 'cuda:99'"):
        find_device("cuda:99")
    for name in ("", "gpu", "cuda:x", "meta"):
        with pytest.raises(UsageError, match="unknown device"):
            find_device(name)


# Drop path


def test_drop_path_rises_from_nothing_at_the_first_block() -> None:
    pair = toy_pair(toy_recipe())
    masks = pair.student.draw_masks(4000, drop_path=0.4, draws=Draws(0, "student", 0))["drop_path"]
    assert masks.shape == (2, 2, 4000)
    assert masks[0].eq(1).all()
    for branch in masks[1]:
        assert branch.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
        # six standard deviations of a share of 4,000
        assert branch.eq(0).double().mean().item() == pytest.approx(0.4, abs=0.05)
    assert not masks[1, 0].equal(masks[1, 1])


def test_without_drop_path_there_is_no_mask() -> None:
    pair = toy_pair(toy_recipe())
    assert pair.student.draw_masks(8, drop_path=0.0, draws=Draws(0, "student", 0)) == {}
