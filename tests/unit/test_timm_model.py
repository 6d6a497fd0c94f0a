"""A merged student is a timm network with the adapted one's logits."""

import json
from pathlib import Path

import pytest
import timm
import torch
from command import idat
from kinds import FORMS
from PIL import Image
from students import CONVOLUTIONS, checkpoint_of, each, network_on, shaken
from timm.data import create_transform, resolve_model_data_config

from conftest import toy_pair, toy_recipe
from idat_zoo.adapters.lora import LoRA
from idat_zoo.checkpoint import (
    load,
    load_checkpoint,
    probe_images,
    write_checkpoint,
)
from idat_zoo.errors import CheckpointError, RunFolderError, UsageError
from idat_zoo.formats.timm_model import largest_difference, merge, write_merged
from idat_zoo.randomness import generator

FAST = ("distilled", "beit", "swin padded", "convnext 1x1")
MERGED = [
    *each(*FORMS, families=("lora",)),
    *each("siglip", "beit", "swin padded", *CONVOLUTIONS, families=("linear",)),
    *each("beit", "eva02 tiny", families=("bitfit", "layernorm", "ia3")),
    *each("beit", "convnext 1x1", families=("ssf", "repadapter")),
]


@pytest.mark.parametrize(
    ("form", "family"),
    [
        pytest.param(form, family, marks=() if form in FAST else pytest.mark.system)
        for form, family in MERGED
    ],
)
def test_on_every_kind_a_merged_network_is_the_adapted_one_and_timm_loads_it(
    form: str, family: str, tmp_path: Path
) -> None:
    network = network_on(form, family)
    assert largest_difference(network, merge(network)) < 1e-12
    write_merged(checkpoint_of(network, tmp_path / "a"), tmp_path / "merged")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'merged'}", pretrained=True).eval()
    assert type(loaded) is type(network.body)
    assert largest_difference(network, loaded) < 1e-5


@pytest.mark.parametrize(
    ("form", "family", "why"),
    [
        ("clip", "ssf", "at patch_embed needs a bias,"),
        ("dinov3", "ssf", "at qkv of block 0 needs a bias,"),
        ("eva02 base", "repadapter", "at k of block 0 needs a bias,"),
        ("eva02 tiny", "repadapter", "at qkv of block 0 needs a bias of k,"),
        ("swinv2", "ssf", "at qkv of block 0 needs a bias of k,"),
        ("swin padded", "repadapter", "windows of block 0 are padded with zeros"),
    ],
)
def test_what_a_backbone_cannot_hold_is_not_merged_and_it_is_said_why(
    form: str, family: str, why: str
) -> None:
    with pytest.raises(UsageError, match=f"adapter.* cannot be merged: .*{why}"):
        merge(network_on(form, family))


@pytest.mark.parametrize(
    ("form", "family", "check", "passed"),
    [
        ("eva02 tiny", "repadapter", "formats.timm_model._adds_alike", True),
        ("swinv2", "ssf", "formats.timm_model._adds_alike", True),
        ("swin padded", "repadapter", "adapters.normed.NormedAdapter.why_unmerged", ""),
    ],
)
def test_without_that_check_it_would_be_another_network(
    form: str, family: str, check: str, passed: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"idat_zoo.{check}", lambda *of: passed)
    network = network_on(form, family)
    assert largest_difference(network, merge(network)) > 1e-4


def test_the_network_itself_is_left_as_it_was() -> None:
    network = shaken("lora", rank=3, scale=0.7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    merge(network)
    after = network.state_dict()
    assert all(after[name].equal(tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_timm_loads_it_and_prepares_images_just_so(tmp_path: Path) -> None:
    network, transform = load("builtin:digits-lora")
    write_merged(load_checkpoint("builtin:digits-lora"), tmp_path / "vit")
    vit = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True).eval()
    assert type(vit).__module__.startswith("timm.")
    noise = torch.randint(256, (40, 60, 3), dtype=torch.uint8, generator=generator(0, "test", "p"))
    picture = Image.fromarray(noise.numpy())
    theirs = create_transform(**resolve_model_data_config(vit))(picture)
    ours = network.normalise(transform(picture)[None])[0]
    torch.testing.assert_close(theirs, ours)
    with torch.inference_mode():
        torch.testing.assert_close(vit(theirs[None]), network(ours[None]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_command_tells_how_to_load_it(tmp_path: Path) -> None:
    result = idat("merge", "builtin:digits-lora", "-o", str(tmp_path / "vit"))
    assert result.exit_code == 0, result.output
    assert f'timm.create_model("local-dir:{tmp_path / "vit"}", pretrained=True)' in result.stdout
    names = {path.name for path in (tmp_path / "vit").iterdir()}
    assert names == {"model.safetensors", "config.json"}
    again = idat("merge", "builtin:digits-lora", "-o", str(tmp_path / "json"), "--json")
    assert json.loads(again.stdout)["largest_difference"] < 1e-4


def test_names_of_classes_go_along(tmp_path: Path) -> None:
    recipe = toy_recipe("lora")
    names = tuple(f"kind {k}" for k in range(10))
    recipe = recipe.model_copy(
        update={"task": recipe.task.model_copy(update={"class_names": names})}
    )
    student = toy_pair(recipe).student
    write_checkpoint(tmp_path / "a", student, recipe, role="student", recipe_hash="0" * 64, seed=0)
    write_merged(load_checkpoint(tmp_path / "a"), tmp_path / "vit")
    assert json.loads((tmp_path / "vit" / "config.json").read_text())["label_names"] == list(names)
    vit = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True)
    assert vit.pretrained_cfg["label_names"] == list(names)


@pytest.mark.parametrize("form", ["vit", "beit", "eva02 base", "swin padded"])
def test_a_merge_that_changes_the_logits_writes_nothing(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of(network_on(form, "lora"), tmp_path / "a")
    forgetful = lambda self, site, tensors, frozen: dict(frozen)  # noqa: E731
    monkeypatch.setattr(LoRA, "merge", forgetful)
    with pytest.raises(CheckpointError, match="logits differ by"):
        write_merged(checkpoint, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is there already"):
        write_merged(load_checkpoint("builtin:digits-lora"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_family_that_cannot_be_merged_is_told_in_one_sentence(tmp_path: Path) -> None:
    recipe = toy_recipe("sequential")
    student = toy_pair(recipe).student
    write_checkpoint(tmp_path / "a", student, recipe, role="student", recipe_hash="0" * 64, seed=0)
    result = idat("merge", str(tmp_path / "a"), "-o", str(tmp_path / "vit"))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: adapter 'sequential' cannot be merged")
    assert not (tmp_path / "vit").exists()


def test_probe_images_are_those_a_checkpoint_is_known_by() -> None:
    network, _ = load("builtin:digits-lora")
    assert probe_images(network).shape == (8, 3, 48, 48)
