"""`selection = "ensemble"`: all candidates answer together, from one checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import Notes, below, stopped_after, trained

from conftest import toy_recipe
from idat_zoo import evaluate, files, load
from idat_zoo.backbones.ensemble import Ensemble, log_mean_softmax, tensors_of_member
from idat_zoo.candidates import combinations, count_candidates, with_values
from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_images, probe_logits
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.cli.list_runs import list_runs
from idat_zoo.engine import train as train_module
from idat_zoo.errors import CheckpointError, DivergedError, InputError, RecipeError, UsageError
from idat_zoo.formats.onnx_graph import write_onnx
from idat_zoo.formats.peft_export import as_peft
from idat_zoo.formats.timm_model import write_merged
from idat_zoo.pool import AdapterPool
from idat_zoo.prediction import Predictor, find_adapters
from idat_zoo.recipe import Recipe
from idat_zoo.results import Candidate, Result, Selection, load_result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run, run_many
from idat_zoo.study.estimate import images_seen

GRID = {"lr": (5e-3, 1e-3), "adapter.rank": (2, 4)}


def of_all(candidates: dict[str, tuple[Any, ...]] = GRID, **fields: Any) -> Recipe:
    fields = {"teacher": False, "precision": "float32", "epochs": 1} | fields
    return toy_recipe(selection="ensemble", candidates=candidates, **fields)


def singles(recipe: Recipe) -> list[Recipe]:
    return [with_values(recipe, values) for values in combinations(recipe)]


def logits(folder: Path) -> torch.Tensor:
    found = files.parse_tensors((folder / "predictions.safetensors").read_bytes())
    return found["student"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ensembles")


@pytest.fixture(scope="module")
def grid(out: Path) -> Path:
    """The run of four candidates, with a teacher each."""
    return trained(of_all(teacher=True), out)


@pytest.fixture(scope="module")
def alone(out: Path) -> list[Path]:
    """The same four as runs of their own."""
    return [trained(one, out) for one in singles(of_all(teacher=True))]


def test_it_answers_the_log_of_the_mean_softmax_of_separate_runs(
    grid: Path, alone: list[Path]
) -> None:
    expected = log_mean_softmax([logits(folder) for folder in alone])
    assert torch.equal(logits(grid), expected)
    by_hand = torch.stack([logits(folder).double().softmax(1) for folder in alone]).mean(0).log()
    assert (expected - by_hand).abs().max() < 1e-5
    stored = files.parse_tensors((grid / TENSORS_FILE).read_bytes())
    for number, folder in enumerate(alone):
        own = files.parse_tensors((folder / TENSORS_FILE).read_bytes())
        ours = tensors_of_member(stored, number)
        assert own.keys() == ours.keys()
        assert all(torch.equal(own[name], ours[name]) for name in own)


def test_of_one_candidate_it_is_that_run(tmp_path: Path) -> None:
    recipe = of_all({"lr": (5e-3,)})
    (single,) = singles(recipe)
    together, apart = trained(recipe, tmp_path), trained(single, tmp_path)
    assert torch.equal(logits(together), logits(apart).log_softmax(dim=1))
    first, second = (load_result(folder / "result.json") for folder in (together, apart))
    assert first.student.confusion == second.student.confusion
    assert first.parameters == second.parameters


def test_in_one_pass_it_is_the_same_within_rounding(grid: Path, tmp_path: Path) -> None:
    (result,) = run_many([(of_all(teacher=True), 0)], device="cpu", out=tmp_path, stack=4)
    assert isinstance(result, Result)
    stacked = run_folder(tmp_path, of_all(teacher=True), 0)
    assert (logits(grid) - logits(stacked)).abs().max() < 1e-5
    assert len(result.stack) == 4
    network = load_checkpoint(grid).network
    assert isinstance(network, Ensemble)
    images = probe_images(network)
    with torch.inference_mode():
        one_pass, each = (network.logits_of_each(images, stacked=own) for own in (True, False))
        assert torch.equal(network(images), log_mean_softmax(each))
    for first, second in zip(one_pass, each, strict=True):
        assert (first - second).abs().max() < 1e-5


def test_its_result_names_every_member_and_no_choice(grid: Path) -> None:
    result = load_result(grid / "result.json")
    document = json.loads((grid / "result.json").read_text())
    expected = [
        {"lr": lr, "adapter.rank": rank} for lr in GRID["lr"] for rank in GRID["adapter.rank"]
    ]
    assert document["selection"] == {
        "mode": "ensemble",
        "tried": [{"values": values, "diverged": False} for values in expected],
    }
    assert result.selection is not None
    assert result.selection.values == tuple(expected)
    assert "ensemble of 4: lr = 0.005, adapter.rank = 2; lr = 0.005, adapter.rank = 4; " in str(
        result
    )
    assert result.teacher is None
    assert result.logit_ensemble is None
    assert not (grid / "teacher").exists()
    assert {path.name for path in (grid / "ensemble").iterdir()} == {"0", "1", "2", "3"}
    config = json.loads((grid / CONFIG_FILE).read_text())
    assert config["members"] == expected
    ranks = (2, 4, 2, 4)
    network = load_checkpoint(grid).network
    assert isinstance(network, Ensemble)
    assert result.parameters.adapter == sum(
        tensor.numel()
        for one, rank in zip(network.members, ranks, strict=True)
        for name, tensor in one.trainable().items()
        if name.startswith("adapter.") and rank in tensor.shape
    )


def test_its_checkpoint_gives_the_same_bits(grid: Path, alone: list[Path], tmp_path: Path) -> None:
    network = load_checkpoint(grid).network
    assert torch.equal(
        probe_logits(network),
        files.parse_tensors((grid / "probe.safetensors").read_bytes())["logits"],
    )
    evaluated = evaluate(grid, device="cpu", out=tmp_path / "eval")
    assert torch.equal(logits(grid), logits(tmp_path / "eval"))
    result = load_result(grid / "result.json")
    assert evaluated.student == result.student
    assert evaluated.recipe_hash == result.recipe_hash
    assert evaluated.recipe.selection == "ensemble"
    assert evaluated.selection == result.selection
    assert "ensemble of 4: lr = 0.005" in str(evaluated)
    assert evaluated.parameters.adapter == result.parameters.adapter


def test_a_pool_takes_it_beside_adapters(grid: Path, alone: list[Path]) -> None:
    pool = AdapterPool(device="cpu", capacity=2)  # fewer than the members
    pool.add("all", grid)
    pool.add("one", alone[1])
    assert pool.names() == ["all", "one"]
    network = load_checkpoint(grid).network
    images = probe_images(network)
    names = ["all", "one"] * 4
    together = pool.predict(images, names)
    with torch.inference_mode():
        expected = {"all": network(images), "one": load_checkpoint(alone[1]).network(images)}
    for row, (name, own) in enumerate(zip(names, together, strict=True)):
        assert (own - expected[name][row]).abs().max() < 1e-5
    assert pool.transfers >= 5
    pool.add("all", alone[0])
    with torch.inference_mode():
        replaced = load_checkpoint(alone[0]).network(images)
    assert (pool.predict(images[:1], ["all"])[0] - replaced[0]).abs().max() < 1e-5
    pool.remove("all")
    assert pool.names() == ["one"]


def test_predictions_are_its_probabilities(grid: Path) -> None:
    (name,) = find_adapters([str(grid)])
    predictor = Predictor(find_adapters([str(grid)]), device="cpu")
    assert predictor.configs[name].recipe.selection == "ensemble"
    network, transform = load(grid)
    assert isinstance(network, Ensemble)
    image = probe_images(network)[:1]
    with torch.inference_mode():
        answer = network(image)
    ranked = predictor._rank("", name, answer[0], 10).ranked
    assert sum(one.probability for one in ranked) == pytest.approx(1)
    assert answer.exp().sum().item() == pytest.approx(1)
    assert transform.img_size == 16
    with pytest.raises(InputError, match="takes uint8 images"):
        network(255 * image.float())


def test_members_may_normalise_differently(tmp_path: Path) -> None:
    recipe = of_all({"normalisation": ("model", "imagenet")})
    folder = trained(recipe, tmp_path)
    expected = [trained(one, tmp_path) for one in singles(recipe)]
    assert torch.equal(logits(folder), log_mean_softmax([logits(one) for one in expected]))
    network = load_checkpoint(folder).network
    with pytest.raises(InputError, match="normalise images differently"):
        network(torch.zeros(1, 3, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["full", "linear", "sequential", "vpt_deep", "ssf"])
def test_so_do_other_families(family: str, tmp_path: Path) -> None:
    recipe = of_all({"lr": (5e-3, 1e-3)}, adapter=family)
    folder = trained(recipe, tmp_path)
    alone = [trained(one, tmp_path) for one in singles(recipe)]
    assert torch.equal(logits(folder), log_mean_softmax([logits(one) for one in alone]))
    network = load_checkpoint(folder).network
    assert isinstance(network, Ensemble)
    images = probe_images(network)
    pool = AdapterPool(device="cpu")
    pool.add("one", alone[1])
    pool.add("all", folder)
    other = load_checkpoint(alone[1]).network
    with torch.inference_mode():
        answer, single = network(images), other(images)
        in_one_pass = log_mean_softmax(network.logits_of_each(images, stacked=True))
    assert (answer - in_one_pass).abs().max() < 1e-5
    found = pool.predict(images, ["all", "one"] * 4)
    for row, own in enumerate(found):
        assert (own - (single if row % 2 else answer)[row]).abs().max() < 1e-5


def test_what_needs_a_single_network_refuses_it(grid: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(grid)
    named = r"an ensemble of 4 adapters, and "
    with pytest.raises(UsageError, match=named + "one backbone"):
        write_merged(checkpoint, tmp_path / "merged")
    with pytest.raises(UsageError, match=named + "no graph"):
        write_onnx(checkpoint, tmp_path / "graph")
    with pytest.raises(UsageError, match=named + "PEFT"):
        as_peft(checkpoint)
    with pytest.raises(UsageError, match=named + "PEFT"):
        as_peft(checkpoint, 4)


def test_a_run_killed_between_members_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = of_all({"lr": (5e-3, 1e-3), "epochs": (1, 2)}, warmup_epochs=0)
    whole = trained(recipe, tmp_path / "whole")
    folder = stopped_after(1, recipe, tmp_path / "resumed", monkeypatch)  # in the second member
    first = folder / "ensemble" / "0"
    before = (first / "log.jsonl").read_bytes()
    assert not (folder / "ensemble" / "2").exists()
    began: list[int] = []
    train_epoch = train_module.Trainer.train_epoch

    def counting(self: train_module.Trainer, epoch: int, *args: Any) -> Any:
        began.append(epoch)
        return train_epoch(self, epoch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.Trainer, "train_epoch", counting)
        assert trained(recipe, tmp_path / "resumed", resume=True) == folder
    assert began == [1, 0, 0, 1]
    assert (first / "log.jsonl").read_bytes() == before
    names = [name for name in below(whole) if not name.endswith(("log.jsonl", "result.json"))]
    assert all((whole / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert not list(folder.rglob("resume.safetensors"))


def test_a_member_that_diverged_is_the_error_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = of_all({"lr": (5e-3, 1e3)}, epochs=2)
    line = r"member 2 of 2 of the ensemble \(lr = 1000\.0\): the training diverged"
    with pytest.raises(DivergedError, match=line) as caught:
        run(recipe, device="cpu", out=tmp_path)
    assert "\n" not in caught.value.message
    with pytest.raises(DivergedError, match=line):  # nothing is trained for it
        run(recipe, device="cpu", out=tmp_path)
    list_runs(tmp_path, None, json=False)
    done = sum(log.read_bytes().count(b"\n") for log in tmp_path.rglob("ensemble/*/log.jsonl"))
    listed = capsys.readouterr().out
    assert f"diverged, {done} of 4 epochs of 2 members" in listed
    kept = run(recipe, device="cpu", out=tmp_path, keep_diverged=True)
    assert kept.diverged
    assert kept.selection is not None
    assert [one.diverged for one in kept.selection.tried] == [False, True]


def test_passes_are_counted_for_the_runs_that_were_asked_for(tmp_path: Path) -> None:
    asked = [(of_all({"lr": (5e-3, 1e-3, 2e-3)}), seed) for seed in (0, 1)]
    notes = Notes()
    run_many(asked, device="cpu", out=tmp_path, stack=2, progress=notes)
    assert notes.told == ["6 trainings of 2 runs take 3 passes, 2 at most in each"]


def test_candidates_that_share_no_pass_are_told(tmp_path: Path) -> None:
    recipe = of_all({"batch_size": (64, 128), "lr": (5e-3, 1e-3)})
    notes = Notes()
    (result,) = run_many([(recipe, 0)], device="cpu", out=tmp_path, stack=4, progress=notes)
    assert isinstance(result, Result)
    assert notes.told == [
        "ensemble of 4 on digits: its candidates cannot all share a pass, so they take 2, one "
        "after the other"
    ]
    assert len(result.stack) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"candidates": {}}, "selection = 'ensemble' needs candidates"),
        ({"protocol": "paper"}, "it takes no selection = 'ensemble'"),
        ({"protocol": "imported"}, "has no teacher and no selection"),
        (
            {"teacher": True, "task_loss": "joint", "distillation": "none"},
            "task_loss = 'joint' takes no selection = 'ensemble'",
        ),
        ({"watch": "val"}, "watch = 'val' takes no selection"),
    ],
)
def test_what_it_cannot_be_combined_with_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        of_all(**({"candidates": GRID} | fields))


def test_a_config_whose_members_are_not_its_candidates_is_refused(
    grid: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(grid, folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    for members in ([], config["members"][:3], [{"lr": 1.0}] * 4):
        (folder / CONFIG_FILE).write_text(json.dumps({**config, "members": members}))
        with pytest.raises(CheckpointError, match="members are not the candidates"):
            load_checkpoint(folder)
    recipe = config["recipe"] | {"candidates": {"nothing.rank": [2, 4]}}
    members = [{"nothing.rank": 2}, {"nothing.rank": 4}]
    changed = {**config, "recipe": recipe, "members": members}
    (folder / CONFIG_FILE).write_text(json.dumps(changed))
    with pytest.raises(RecipeError, match=r"nothing\.rank: unknown key"):
        load_checkpoint(folder)


def test_a_selection_says_whether_one_was_chosen() -> None:
    tried = (Candidate(values={"lr": 0.1}), Candidate(values={"lr": 0.2}))
    assert Selection(tried=tried, chosen=1).values == ({"lr": 0.2},)
    assert Selection(mode="ensemble", tried=tried).values == ({"lr": 0.1}, {"lr": 0.2})
    for wrong in ({"tried": tried}, {"tried": tried, "chosen": 2}):
        with pytest.raises(ValueError, match="names one of its candidates"):
            Selection(**wrong)
    older = {"tried": [{"values": {"lr": 0.1}, "val_top1": 0.5}], "chosen": 0}
    assert Selection.model_validate(older).mode == "val"
    with pytest.raises(ValueError, match="has no chosen candidate"):
        Selection(mode="ensemble", tried=tried, chosen=0)


def test_the_number_of_candidates_is_that_of_the_combinations() -> None:
    recipe = of_all()
    assert count_candidates(recipe) == len(combinations(recipe)) == 4
    assert images_seen(recipe, None) == 4 * 1000
    longer = of_all({"epochs": (1, 2)}, warmup_epochs=0)
    assert images_seen(longer, None) == (1 + 2) * 1000
    chosen = longer.model_copy(update={"selection": "val"})
    assert images_seen(chosen, None) == 1000 + 2 * 800
