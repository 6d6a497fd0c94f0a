"""Every pair of the registry, as a person asks for it."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
from typer.testing import CliRunner, Result

from idat_zoo.backbones.frozen import faults_of, load_backbone
from idat_zoo.backbones.kinds import KINDS
from idat_zoo.cli import app
from idat_zoo.registry import load_registry
from idat_zoo.registry.parameters import load_parameters

REGISTRY = load_registry()
PRETRAINED = [name for name, backbone in REGISTRY.backbones.items() if backbone.from_hub]
TINY = [pair for pair in REGISTRY.pairs if pair.startswith("tiny_random")]
QUICK = ("tiny_random_beit", "tiny_random_swin", "tiny_random_convnext_to_vit")
"""Trained among the fast tests; the others are system tests."""
ACROSS = {
    "tiny_random_swin_to_vit": ("swin", "vit"),
    "tiny_random_convnext_to_vit": ("convnext", "vit"),
}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


@pytest.mark.parametrize("name", REGISTRY.backbones)
def test_every_backbone_of_the_registry_builds_and_the_small_ones_load(name: str) -> None:
    spec = REGISTRY.backbones[name]
    assert faults_of(spec) == []
    if name.startswith(("tiny_", "micro_")):
        assert load_backbone(spec).anatomy.num_features > 0


@pytest.mark.parametrize("name", PRETRAINED)
def test_every_licence_is_the_one_that_timm_states(name: str) -> None:
    spec = REGISTRY.backbones[name]
    stated: Any = timm.get_pretrained_cfg(f"{spec.timm}.{spec.weights}")
    assert spec.licence.lower() == stated.license


@pytest.mark.parametrize("pair", REGISTRY.pairs)
def test_a_dry_run_plans_every_pair(pair: str) -> None:
    done = idat(
        "train", "--task", "digits", "--adapter", "linear", "--pair", pair, "--dry-run", "--json"
    )
    assert done.exit_code == 0, done.stderr
    (plan,) = json.loads(done.stdout)["plans"]
    missing = [f"timm/{b.timm}.{b.weights}" for b in REGISTRY.pairs[pair].backbones() if b.from_hub]
    assert all(any(repo in told for told in plan["missing"]) for repo in missing)
    assert bool(plan["missing"]) == bool(missing)
    assert plan["recipe"]["pair"]["name"] == pair


def test_the_tiny_pairs_are_of_every_kind_and_some_are_across_kinds() -> None:
    kinds = {pair: kinds_of(pair) for pair in TINY}
    assert {kind for pair in kinds.values() for kind in pair} == set(KINDS)
    assert {pair: two for pair, two in kinds.items() if two[0] != two[1]} == ACROSS
    for pair in ACROSS:
        teacher, student = REGISTRY.pairs[pair].backbones()
        assert teacher.img_size != student.img_size
        assert teacher.mean != student.mean


def kinds_of(pair: str) -> tuple[str, str]:
    teacher, student = (load_backbone(b).anatomy.kind for b in REGISTRY.pairs[pair].backbones())
    return teacher, student


@pytest.mark.parametrize(
    "pair",
    [pytest.param(p, marks=() if p in QUICK else pytest.mark.system) for p in TINY],
)
def test_every_tiny_pair_trains_and_its_checkpoint_evaluates_the_same(pair: str) -> None:
    words = ("--task", "digits", "--adapter", "lora", "--pair", pair, "--device", "cpu", "epochs=1")
    done = idat("train", *words, "--json")
    assert done.exit_code == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["parameters"]["adapter"] == load_parameters()["lora"][pair].student
    again = idat("eval", "--checkpoint", result["folder"], "--json")
    assert again.exit_code == 0, again.stderr
    (evaluated,) = json.loads(again.stdout)["results"]
    assert evaluated["top1"] == result["top1"]


@pytest.mark.parametrize("pair", ["convnext_t_to_b", "convnext_t_to_vit_b", "tiny_random_convnext"])
@pytest.mark.parametrize("more", [("--dry-run",), ("--yes",)])
def test_what_a_kind_cannot_carry_is_refused_by_name_before_weights_are_fetched(
    pair: str, more: tuple[str, ...]
) -> None:
    asked = ("--task", "digits", "--adapter", "shared_parallel", "--pair", pair)
    done = idat("train", *asked, *more)
    assert done.exit_code == 2
    assert "adapter 'shared_parallel' cannot stand on backbone" in done.stderr
    assert "(convnext)" in done.stderr
    assert not any(Path().iterdir())
