"""A training that diverges, or in which a tensor does not learn, ends without a result."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import toy_recipe
from idat_zoo.engine import train as train_module
from idat_zoo.errors import DivergedError, TrainingError
from idat_zoo.evaluation import evaluate
from idat_zoo.recipe import Recipe
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.many import run
from idat_zoo.runs.training import Training


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite in epoch \d+: loss = (nan|inf)"):
        run(toy_recipe(lr=1e30, epochs=4), device="cpu", out=tmp_path)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("field", ["lr", "weight_decay"])
def test_a_last_step_that_breaks_the_network_is_told(
    field: str, protocol: str, tmp_path: Path
) -> None:
    recipe = toy_recipe(**{field: 1e30}, epochs=1, warmup_epochs=0, batch_size=2000)  # one step
    recipe = recipe.model_copy(update={"protocol": protocol})
    with pytest.raises(DivergedError, match="outputs are not finite"):
        run(recipe, device="cpu", out=tmp_path)
    assert not list(tmp_path.rglob("result.json"))


def diverging(**fields: object) -> Recipe:
    """A training whose loss is finite and far above that of guessing."""
    return toy_recipe(lr=10.0, epochs=2, warmup_epochs=0, precision="float32", **fields)


def test_a_training_that_diverged_leaves_no_result_and_says_how_to_go_on(tmp_path: Path) -> None:
    recipe = diverging()
    with pytest.raises(DivergedError, match=r"above 2 ln K = 4\.61 \(K = 10") as found:
        run(recipe, device="cpu", out=tmp_path)
    assert "lr=0.001" in found.value.hint
    assert "--keep-diverged" in found.value.hint
    folder = run_folder(tmp_path, recipe, 0)
    assert not (folder / "result.json").exists()
    assert not (folder / "adapter_model.safetensors").exists()


def test_a_training_that_diverged_is_not_repeated_but_kept_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = diverging()
    with pytest.raises(DivergedError) as first:
        run(recipe, device="cpu", out=tmp_path)
    monkeypatch.setattr(train_module.Trainer, "train_epoch", None)
    for resume in (False, True):
        with pytest.raises(DivergedError) as again:
            run(recipe, device="cpu", out=tmp_path, resume=resume)
        assert str(again.value) == str(first.value)
    result = run(recipe, device="cpu", out=tmp_path, keep_diverged=True)
    assert result.diverged
    assert "the training diverged" in str(result)
    assert evaluate(run_folder(tmp_path, recipe, 0), device="cpu").diverged
    assert run(recipe, device="cpu", out=tmp_path) == result


def test_a_training_on_noise_has_not_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = torch.Generator().manual_seed(0)
    training = LoadedRun.training

    def shuffled(self: LoadedRun, split: str, recipe: Recipe | None = None) -> Training:
        found = training(self, split, recipe)
        order = torch.randperm(len(found.targets), generator=source)
        return replace(found, targets=found.targets[order])

    monkeypatch.setattr(LoadedRun, "training", shuffled)
    assert not run(toy_recipe(epochs=1, drop_path=0.5), device="cpu", out=tmp_path).diverged


@pytest.mark.parametrize("rate", [10.0, 1e30])
def test_a_candidate_that_diverged_loses(rate: float, tmp_path: Path) -> None:
    recipe = toy_recipe(teacher=False, selection="val", candidates={"lr": (rate, 1e-2)})
    result = run(recipe, device="cpu", out=tmp_path)
    assert result.selection is not None
    assert result.selection.chosen == 1
    assert [one.diverged for one in result.selection.tried] == [True, False]


@pytest.mark.parametrize(
    ("lr", "lower"), [(1e30, "lr=0.001"), (10.0, "lr=0.001"), (0.002, "lr=0.0002")]
)
def test_the_lower_learning_rate_that_is_named_is_a_sane_one(
    lr: float, lower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.engine.learner._is_finite", lambda value: False)
    with pytest.raises(DivergedError) as caught:
        run(toy_recipe(lr=lr), device="cpu", out=tmp_path)
    assert caught.value.hint == f"A lower learning rate often helps: {lower}"


def test_an_adapter_that_gets_no_gradient_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.apply", lambda *args, **more: args[4])
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.weight_update", lambda *args: None)
    with pytest.raises(TrainingError, match=r"8 of 10 trainable tensors got no gradient"):
        run(toy_recipe(teacher=False), device="cpu", out=tmp_path)
