"""Offline distillation: the laws of the learner, what a run records, and what is refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_runs import StopError, same_but_for_times, trained
from typer.testing import CliRunner

from conftest import TOY_PAIR, toy_pair, toy_recipe
from idat_zoo import load
from idat_zoo.backbones.pair import Role
from idat_zoo.checkpoint.opened import Opened, open_checkpoint
from idat_zoo.cli import app
from idat_zoo.data.load import load_task
from idat_zoo.data.task_data import Split
from idat_zoo.distillation.base import Outputs
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import CheckpointError, RecipeError, UsageError, ZooError
from idat_zoo.logits import predict_logits
from idat_zoo.recipe import Recipe, check_recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.registry import load_registry
from idat_zoo.registry.resolve import recipe_from_file
from idat_zoo.report.fields import flatten
from idat_zoo.report.teachers import teachers_in_words
from idat_zoo.results import load_result
from idat_zoo.runs.device_setup import set_up
from idat_zoo.runs.many import run, run_many
from idat_zoo.runs.offline import offline_logits, open_teachers, with_offline_teachers

NO_SHA = "0" * 64
FIXED = {"teacher_mode": "offline", "teacher_sha256": NO_SHA, "precision": "float32"}


class FrozenTeacher(Learner):
    """An online learner whose teacher is constant: no update of it, no masks, and no gradient."""

    def losses(
        self, outputs: Mapping[Role, Outputs], targets: Tensor, *, step: int = 0
    ) -> dict[str, Tensor]:
        fixed = Outputs(outputs["teacher"].logits.detach())
        return super().losses({**outputs, "teacher": fixed}, targets, step=step)

    def masks(self, role: Role, step: int) -> dict[str, Tensor]:
        return super().masks(role, step) if role == "student" else {}


@pytest.fixture(scope="module")
def split() -> Split:
    return load_task(toy_recipe().task, img_size=16, seed=0).train


def trained_tensors(learner: Learner) -> dict[str, Tensor]:
    learner.watched = False  # the teacher of FrozenTeacher gets no gradient
    trainer = Trainer([learner])
    for epoch in range(trainer.epochs):
        assert trainer.train_epoch(epoch)[0] is not None
    return {name: tensor.detach() for name, tensor in learner.pair.student.trainable().items()}


@pytest.mark.parametrize(
    "fields",
    [
        {"distillation": "mse"},
        {"distillation": "kl_t2", "distillation_gate": "teacher_right", "drop_path": 0.1},
        {"distillation": "mutual", "distillation_warmup_epochs": 1},
        {"distillation": "dkd", "distillation_until": "teacher"},
    ],
    ids=lambda fields: fields["distillation"],
)
def test_offline_equals_online_with_a_detached_frozen_teacher(
    fields: dict[str, object], split: Split
) -> None:
    online = toy_recipe(detach="teacher", precision="float32", **{"drop_path": 0.0, **fields})
    offline = toy_recipe(**{"drop_path": 0.0, **fields}, **FIXED)
    both = toy_pair(online, seed=3)
    teacher = both.network("teacher").double()
    both.student.double()
    images = {"student": split.held, "teacher": split.held}
    first = FrozenTeacher(both, images, split.targets, online, seed=3)
    every = torch.arange(len(split.targets))
    with torch.no_grad():
        logits = teacher.eval()(first.starts["teacher"][every])
    assert logits.dtype == torch.float64
    before = {name: tensor.clone() for name, tensor in teacher.trainable().items()}
    alone = toy_pair(offline, seed=3)
    alone.student.double()
    assert alone.teacher is None
    second = Learner(
        alone, {"student": split.held}, split.targets, offline, seed=3, teacher_logits=logits
    )
    mine, other = trained_tensors(first), trained_tensors(second)
    assert all(torch.equal(teacher.trainable()[name], tensor) for name, tensor in before.items())
    assert mine.keys() == other.keys()
    assert max((mine[name] - other[name]).abs().max().item() for name in mine) < 1e-9


def test_an_offline_teacher_has_no_loss_and_no_parameters(split: Split) -> None:
    recipe = toy_recipe(**FIXED)
    pair = toy_pair(recipe)
    logits = torch.zeros(len(split.targets), 10)
    learner = Learner(
        pair, {"student": split.held}, split.targets, recipe, seed=0, teacher_logits=logits
    )
    assert {name.partition("/")[0] for name in learner.trainable()} == {"student"}
    (log,) = Trainer([learner]).train_epoch(0)
    assert log is not None
    assert log.teacher_task_loss is None
    assert log.distillation_loss is not None
    assert log.loss == pytest.approx(log.student_task_loss + log.distillation_loss)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"augmentation": ["flip"]}, "augmentation needs an online teacher"),
        ({"detach": "student"}, "leaves nothing to learn"),
        ({"distillation": "none"}, "needs a teacher and a distillation term"),
        ({"teacher_sha256": None}, "come together; --teacher-from REF sets both"),
        ({"teacher_mode": "online"}, "come together; --teacher-from REF sets both"),
    ],
)
def test_recipes_that_cannot_be_are_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        toy_recipe(**{**FIXED, **fields})


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose student will be a teacher."""
    out = tmp_path_factory.mktemp("taught")
    return trained(toy_recipe(precision="float32", epochs=1, warmup_epochs=0), out)


def test_a_run_records_its_offline_teacher(taught: Path, tmp_path: Path) -> None:
    asked = toy_recipe(precision="float32")
    result = run(asked, device="cpu", out=tmp_path, teacher_from=taught)
    sha = json.loads((taught / "config.json").read_text())["tensors_sha256"]
    recipe = result.recipe
    assert (recipe.teacher_mode, recipe.teacher_sha256) == ("offline", sha)
    assert recipe.pair.teacher == TOY_PAIR.student
    assert result.teacher is None
    assert "with the fixed logits of toy_student" in str(result)
    fields = flatten(result)
    assert (fields["teacher_mode"], fields["teacher_sha256"]) == ("offline", sha)
    assert result.recipe_hash != recipe_hash(asked)
    (folder,) = [path.parent for path in tmp_path.rglob("result.json")]
    assert not (folder / "teacher").exists()
    assert load_result(folder / "result.json").recipe == recipe


def test_its_own_teacher_and_stacks_jobs_and_selection_work(taught: Path, tmp_path: Path) -> None:
    chosen = toy_recipe(
        precision="float32", epochs=1, selection="val", candidates={"lr": [1e-3, 5e-3]}
    )
    asked = [(chosen, 0), (toy_recipe(precision="float32", epochs=1), 1)]
    for options in ({}, {"stack": 2}, {"jobs": 2}):
        out = tmp_path / str(len(options) + sum(map(len, options)))
        ended = run_many(asked, device="cpu", out=out, teacher_from=taught / "teacher", **options)
        assert [getattr(one, "kind", one) for one in ended] == ["run", "run"]


def test_a_resumed_run_ends_in_the_same_bits(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(toy_recipe(precision="float32"), tmp_path / "a", teacher_from=taught)
    offline = with_offline_teachers(toy_recipe(precision="float32"), open_checkpoint(taught))

    def stopping(recipe: Recipe) -> None:
        run(recipe, device="cpu", out=tmp_path / "b", teacher_from=taught)

    train_epoch = Trainer.train_epoch
    with monkeypatch.context() as patch:

        def once(self: Trainer, epoch: int, *args: object) -> object:
            if epoch == 1:
                raise StopError
            return train_epoch(self, epoch, *args)  # type: ignore[arg-type]

        patch.setattr(Trainer, "train_epoch", once)
        with pytest.raises(StopError):
            stopping(offline)
    again = trained(offline, tmp_path / "b", teacher_from=taught, resume=True)
    (first,) = (tmp_path / "a").rglob("result.json")
    assert whole is not None
    assert again is not None
    assert same_but_for_times(first.parent, again)


def test_a_wrong_teacher_is_one_line_and_ends_its_runs_alone(taught: Path, tmp_path: Path) -> None:
    recipe = with_offline_teachers(toy_recipe(precision="float32"), open_checkpoint(taught))
    with pytest.raises(CheckpointError, match="and none is given"):
        run(recipe, device="cpu", out=tmp_path)
    with pytest.raises(CheckpointError, match="not the one of the recipe"):
        run(recipe, device="cpu", out=tmp_path, teacher_from=taught / "teacher")
    with pytest.raises(CheckpointError, match="there is no checkpoint folder"):
        run(toy_recipe(), device="cpu", out=tmp_path, teacher_from=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        run(toy_recipe(), device="cpu", out=tmp_path, teacher_from=tmp_path / "empty")
    fewer = recipe.task.model_copy(update={"id": "textures", "num_classes": 8})
    other = toy_recipe(precision="float32").model_copy(update={"task": fewer})
    asked = [(other, 0), (toy_recipe(precision="float32", epochs=1), 0)]
    failed, fine = run_many(asked, device="cpu", out=tmp_path / "two", teacher_from=taught)
    assert isinstance(failed, CheckpointError)
    assert "trained on task 'digits' (10 classes); this run's task is 'textures'" in str(failed)
    assert not isinstance(fine, ZooError)


def test_tensors_that_changed_since_are_refused(taught: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(taught, moved)
    tensors = moved / "adapter_model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not the file its config was written for"):
        run(toy_recipe(precision="float32"), device="cpu", out=tmp_path, teacher_from=moved)


def test_terms_that_read_features_are_refused(taught: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(distillation="features", precision="float32")
    with pytest.raises(UsageError, match="distillation 'features' reads more than logits"):
        run(recipe, device="cpu", out=tmp_path, teacher_from=taught)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ensemble of two settings."""
    recipe = toy_recipe(
        precision="float32",
        epochs=1,
        warmup_epochs=0,
        selection="ensemble",
        candidates={"lr": [1e-3, 5e-3]},
    )
    return trained(recipe, tmp_path_factory.mktemp("grid"))


def test_several_teachers_answer_by_the_mean_of_their_softmaxes(
    taught: Path, grid: Path, split: Split
) -> None:
    backbones = set_up(torch.device("cpu")).backbones
    opened = [open_checkpoint(path) for path in (taught, taught / "teacher", grid)]

    def logits_of(*teachers: Opened) -> Tensor:
        return offline_logits([(one, split.held) for one in teachers], backbones=backbones)

    raw, other, mean = map(logits_of, opened)
    expected = torch.stack([own.double().softmax(1) for own in (raw, other, mean)]).mean(0).log()
    assert (logits_of(*opened).double() - expected).abs().max().item() < 1e-6
    first, second = load(grid)[0].members  # type: ignore[union-attr]
    alone = [network.eval()(split.held).double().softmax(1) for network in (first, second)]
    assert (mean.double() - torch.stack(alone).mean(0).log()).abs().max().item() < 1e-6
    network, _ = load(taught)
    with torch.no_grad():  # of one teacher the raw outputs
        assert torch.equal(raw, predict_logits(network, split.held, device=torch.device("cpu")))


def test_the_order_of_teachers_changes_nothing(taught: Path, grid: Path, tmp_path: Path) -> None:
    asked = toy_recipe(precision="float32", epochs=1)
    paths = [taught / "teacher", grid, taught]
    first = run(asked, device="cpu", out=tmp_path / "a", teacher_from=paths)
    second = run(asked, device="cpu", out=tmp_path / "b", teacher_from=paths[::-1])
    assert first.recipe == second.recipe
    digests = [one.sha256 for one in first.recipe.offline_teachers]
    assert digests == sorted(
        json.loads((path / "config.json").read_text())["tensors_sha256"] for path in paths
    )
    one, other = (next((tmp_path / out).rglob("result.json")).parent for out in "ab")
    assert same_but_for_times(one, other)
    alone = run(asked, device="cpu", out=tmp_path / "c", teacher_from=taught)
    assert alone.recipe_hash != first.recipe_hash
    recipe = recipe_from_file(one / "recipe.toml", registry=load_registry())
    assert recipe_hash(recipe) == first.recipe_hash
    assert run(recipe, device="cpu", out=tmp_path / "a", teacher_from=paths) == first
    fields = flatten(first)
    assert all(digest[:12] in str(fields) for digest in digests)
    assert all(digest in teachers_in_words(first.recipe) for digest in digests)


def test_teachers_that_are_not_those_of_the_recipe_are_refused(
    taught: Path, grid: Path, tmp_path: Path
) -> None:
    asked = toy_recipe(precision="float32", epochs=1)
    with pytest.raises(UsageError, match="are the same checkpoint"):
        run(asked, device="cpu", out=tmp_path, teacher_from=[taught, grid, taught])
    with pytest.raises(CheckpointError, match="there is no checkpoint folder"):
        run(asked, device="cpu", out=tmp_path, teacher_from=[taught, tmp_path / "nowhere"])
    recipe = with_offline_teachers(asked, *open_teachers([taught, grid]))
    with pytest.raises(CheckpointError, match="has 2 offline teachers, and the checkpoint"):
        run(recipe, device="cpu", out=tmp_path, teacher_from=taught)
    with pytest.raises(CheckpointError, match="is not one of those of the recipe"):
        run(recipe, device="cpu", out=tmp_path, teacher_from=[taught, taught / "teacher", grid])
    with pytest.raises(RecipeError, match="must ascend, each once"):
        check_recipe(
            dict(recipe) | {"further_teachers": recipe.offline_teachers[:1]}, where="recipe"
        )
    with pytest.raises(RecipeError, match="further_teachers need teacher_mode = 'offline'"):
        check_recipe(
            dict(recipe) | {"teacher_mode": "online", "teacher_sha256": None}, where="recipe"
        )


def test_the_command_takes_several_teachers_and_resumes(
    taught: Path, grid: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "toy.toml"
    recipe.write_text(dump_recipe(toy_recipe(precision="float32", epochs=1)))
    words = ["train", "--recipe", str(recipe), "--out", str(tmp_path), "--device", "cpu"]
    several = ["--teacher-from", str(taught), "--teacher-from", str(grid)]
    done = CliRunner().invoke(app, [*words, *several])
    assert done.exit_code == 0, done.stderr
    (folder,) = [path.parent for path in tmp_path.rglob("result.json")]
    before = (folder / "result.json").read_bytes()
    again = CliRunner().invoke(app, [*words, *several[2:], *several[:2], "--resume"])
    assert again.exit_code == 0, again.stderr
    assert (folder / "result.json").read_bytes() == before
    gone = CliRunner().invoke(app, [*words, *several[:2], "--teacher-from", str(tmp_path / "no")])
    assert gone.exit_code == 1
    assert "there is no checkpoint folder" in gone.stderr
    twice = CliRunner().invoke(app, [*words, *several[:2], *several[:2]])
    assert twice.exit_code == 2
