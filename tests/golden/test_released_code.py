"""Our networks against tensors computed with iDAT's released code (a12406a) in float64.

tests/golden/data: tiny networks with random non-zero weights, evaluation mode, one backward pass.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from conftest import DIGITS, for_both, toy_recipe
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.idat import IdatBottleneck
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import NetworkPair
from idat_zoo.distillation.base import Outputs
from idat_zoo.engine import train as train_module
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.schedule import paper_epoch_rates
from idat_zoo.engine.train import Trainer
from idat_zoo.recipe import Backbone, Recipe
from idat_zoo.specs import AdapterSpec

DATA = Path(__file__).parent / "data"
MODES = {
    "sequential": "gist_seq_adapter",
    "shared_parallel": "gist_shared_par_adapter",
    "idat_adaptformer": "adaptformer",
}
RENAMED = {"linear1": "down", "linear2": "up"}
TOLERANCE = 1e-12  # float64; the released tensors repeat on timm 1.0.31 to 3e-16


class Golden:
    """One released mode: its tensors, and our pair with its weights."""

    def __init__(self, family: str) -> None:
        path = DATA / f"released_{MODES[family]}.safetensors"
        with safe_open(path, framework="pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.info: dict[str, Any] = json.loads(file.metadata()["info"])
        self.family = family

    def pair(self) -> NetworkPair:
        return NetworkPair(self._network("student"), self._network("teacher"))

    def _network(self, role: str) -> Network:
        size = self.info[role]
        args = {"patch_size": self.info["patch_size"], **size}
        spec = Backbone(
            name=role,
            timm="vit_tiny_patch16_224",
            weights="random",
            img_size=self.info["img_size"],
            args=args,
        )
        backbone = load_backbone(spec)
        prefix = f"weight.{role}."
        released = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }
        own = {n: t for n, t in released.items() if "gist_adapter" not in n and "head" not in n}
        backbone.body.double().load_state_dict(own)
        network = build_network(
            backbone,
            build_adapter(AdapterSpec(name=self.family)),
            num_classes=self.info["num_classes"],
            normalisation="model",
            seed=0,
            role=role,
        ).double()
        with torch.no_grad():
            for name, parameter in network.trainable().items():
                parameter.copy_(released[released_name(name)])
        return network

    def mismatches(self, pair: NetworkPair, distillation: str, **recipe: Any) -> Iterator[str]:
        """What differs from the released code after one training step's forward and backward."""
        learner = released_learner(pair, self, distillation=distillation, **recipe)
        logits = {role: net(self.tensors["input"]) for role, net in pair.roles()}
        for role, z in logits.items():
            if not close(z, self.tensors[f"logits.{role}"]):
                yield f"logits.{role}"
        outputs = {role: Outputs(z) for role, z in logits.items()}
        parts = learner.losses(outputs, self.tensors["target"])
        for ours, theirs in (("loss", "loss"), ("distillation_loss", "distillation")):
            if not close(parts[ours], self.tensors[f"{theirs}.{distillation}"].squeeze()):
                yield f"{theirs}.{distillation}"
        parts["loss"].backward()
        if learner.recipe.protocol == "paper":
            train_module.double_gradients(pair.teacher)
        for role, network in pair.roles():
            # The golden file holds one backward pass; the released loop doubles the teacher's.
            factor = 2 if role == "teacher" and learner.recipe.protocol == "paper" else 1
            for name, parameter in network.trainable().items():
                expected = self.tensors[f"grad.{distillation}.{role}.{released_name(name)}"]
                if parameter.grad is None or not close(parameter.grad, factor * expected):
                    yield f"grad.{role}.{name}"


def released_name(name: str) -> str:
    """adapter.blocks.0.down.weight -> blocks.0.gist_adapter.linear1.weight."""
    name = name.removeprefix("adapter.")
    for theirs, ours in RENAMED.items():
        name = name.replace(f".{ours}.", f".gist_adapter.{theirs}.")
    return name


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE)


def released_learner(pair: NetworkPair, golden: Golden, **fields: Any) -> Learner:
    task = DIGITS.model_copy(update={"num_classes": golden.info["num_classes"]})
    recipe = toy_recipe(golden.family, batch_size=golden.info["batch"], **fields)
    recipe = recipe.model_copy(update={"task": task, "precision": "float32"})
    images = golden.tensors["input"]
    blank = torch.zeros(images.shape, dtype=torch.uint8)
    return Learner(pair, for_both(blank), golden.tensors["target"], recipe, seed=0)


@pytest.fixture(params=MODES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("distillation", ["mse", "kl"])
def test_logits_losses_and_gradients_are_the_released_codes(
    golden: Golden, distillation: str, protocol: str
) -> None:
    assert not list(golden.mismatches(golden.pair(), distillation, protocol=protocol))


def test_every_golden_gradient_was_compared(golden: Golden) -> None:
    compared = {
        f"grad.mse.{role}.{released_name(name)}"
        for role, network in golden.pair().roles()
        for name in network.trainable()
    }
    assert compared == {name for name in golden.tensors if name.startswith("grad.mse.")}


# Each fault that these tensors are to catch, planted one by one.


@pytest.mark.parametrize("family", ["shared_parallel", "idat_adaptformer"])
def test_a_scale_of_0_11_is_caught(family: str) -> None:
    golden = Golden(family)
    pair = golden.pair()
    for _, network in pair.roles():
        network.constants.tensors()["scale"].fill_(0.11)
    assert list(golden.mismatches(pair, "mse"))


def test_relu_for_gelu_is_caught(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = SimpleNamespace(linear=F.linear, gelu=F.relu)
    monkeypatch.setattr("idat_zoo.adapters.idat.F", functions)
    assert list(golden.mismatches(golden.pair(), "mse"))


def test_a_dropped_bias_is_caught(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = IdatBottleneck.apply

    def without_bias(self: Any, site: Any, tensors: Any, *args: Any, **more: Any) -> Tensor:
        zeroed = {**tensors, "up.bias": torch.zeros_like(tensors["up.bias"])}
        return apply(self, site, zeroed, *args, **more)

    monkeypatch.setattr(IdatBottleneck, "apply", without_bias)
    assert list(golden.mismatches(golden.pair(), "mse"))


@pytest.mark.parametrize("distillation", ["mse", "kl"])
def test_a_detached_teacher_is_caught(golden: Golden, distillation: str) -> None:
    wrong = list(golden.mismatches(golden.pair(), distillation, detach="teacher"))
    assert wrong
    assert all(name.startswith("grad.teacher") for name in wrong)


def test_a_teacher_gradient_that_is_not_doubled_is_caught(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "double_gradients", lambda teacher: None)
    wrong = list(golden.mismatches(golden.pair(), "mse", protocol="paper"))
    assert wrong
    assert all(name.startswith("grad.teacher") for name in wrong)


def test_the_paper_protocol_steps_with_the_doubled_gradient(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop itself doubles: seen at the optimiser, teacher twice and student once."""

    def gradients(protocol: str) -> dict[str, Tensor]:
        pair = golden.pair()
        trainer = Trainer([released_learner(pair, golden, protocol=protocol, drop_path=0.0)])
        seen: dict[str, Tensor] = {}

        def note(role: str, network: Network) -> Callable[..., None]:
            def hook(*_: object) -> None:
                named = network.trainable().items()
                seen.update({f"{role} {n}": p.grad.clone() for n, p in named if p.grad is not None})

            return hook

        for role, network in pair.roles():
            trainer.optimiser.register_step_pre_hook(note(role, network))
        trainer.train_epoch(0)
        return seen

    paper, standard = gradients("paper"), gradients("standard")
    for name, gradient in standard.items():
        factor = 2 if name.startswith("teacher") else 1
        assert close(paper[name], factor * gradient), name


def test_the_110_learning_rates_are_the_released_ones() -> None:
    with (DATA / "released_lr_schedule_5e-3.csv").open() as file:
        released = [float(row["lr"]) for row in csv.DictReader(file)]
    recipe: Recipe = toy_recipe(protocol="paper", epochs=100, warmup_epochs=10, lr=5e-3)
    ours = paper_epoch_rates(recipe)
    assert len(ours) == len(released) == 110
    assert ours == pytest.approx(released, rel=1e-12, abs=0)
