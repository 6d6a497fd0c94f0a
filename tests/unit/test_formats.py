"""`idat merge` and `idat export`: other libraries give the adapter's logits."""

import errno
import json
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from families import facts_of
from kinds import FORMS, frozen_of, images_of, peft_logits
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from typer.testing import CliRunner, Result

from conftest import toy_pair, toy_recipe
from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.adapters.lora import LoRA
from idat_zoo.backbones.network import Network, build_network
from idat_zoo.checkpoint.loading import Checkpoint, load, load_checkpoint
from idat_zoo.checkpoint.opened import open_checkpoint
from idat_zoo.checkpoint.probe import probe_images
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.cli import app
from idat_zoo.errors import CheckpointError, RunFolderError, UsageError
from idat_zoo.files import whole_folder, write_whole
from idat_zoo.formats import onnx_graph
from idat_zoo.formats.onnx_graph import write_onnx
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.peft_forms import FORMS as FORMS_OF_PEFT
from idat_zoo.formats.peft_forms import LOW_RANK
from idat_zoo.formats.peft_import import import_peft
from idat_zoo.formats.timm_model import largest_difference, merge, write_merged
from idat_zoo.randomness import generator
from idat_zoo.recipe import AdapterChoice, Pair

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "digits"
MERGEABLE = [f for f in ADAPTERS if build_adapter(AdapterChoice(name=f)).mergeable]


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def shaken(family: str, **options: object) -> Network:
    """A student with every trained tensor away from its start."""
    network = toy_pair(toy_recipe(family, options={**facts_of(family).small, **options})).student
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(2, "test", name))
    return network


def network_on(form: str, family: str, **options: object) -> Network:
    """A student on a form of a backbone, every tensor of which is random, in float64."""
    network = build_network(
        frozen_of(form),
        build_adapter(AdapterChoice(name=family, options=options)),
        num_classes=10,
        normalisation="model",
        seed=0,
        role="student",
    ).double()
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(2, "test", name))
    return network.eval()


def checkpoint_of(network: Network, folder: Path) -> Checkpoint:
    """The same in float32, with what `write_checkpoint` says of it."""
    network, adapter = network.float(), network.adapter
    recipe = toy_recipe(adapter.name, options=adapter.options.model_dump(), teacher=False)
    recipe = recipe.model_copy(update={"pair": Pair(name="toy", student=network.backbone.spec)})
    write_checkpoint(folder, network, recipe, role="student", recipe_hash="0" * 64, seed=0)
    return Checkpoint(network=network, config=open_checkpoint(folder).config)


def each(*forms: str, families: Sequence[str]) -> list[tuple[str, str]]:
    """Each form with each family."""
    return [(form, family) for form in forms for family in families]


@pytest.mark.parametrize("family", MERGEABLE)
def test_a_merged_network_equals_the_adapted_one_in_float64(family: str) -> None:
    network = shaken(family).double()
    vit = merge(network)
    assert largest_difference(network, vit) < 1e-12
    assert not any(parameter.requires_grad for parameter in vit.parameters())


FAST = ("distilled", "beit", "swin padded", "convnext 1x1")
CONVOLUTIONS = ("convnext", "convnext 1x1", "convnext v2")
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


@pytest.mark.parametrize("family", [f for f in ADAPTERS if f not in MERGEABLE])
def test_a_bottleneck_cannot_be_merged(family: str) -> None:
    with pytest.raises(UsageError, match=f"adapter '{family}' cannot be merged"):
        merge(shaken(family))


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


# PEFT


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "scale", "key"), [(3, 0.7, False), (8, 1.0, False), (3, 2, True)])
def test_peft_gives_the_same_logits(rank: int, scale: float, key: bool, tmp_path: Path) -> None:
    options = {"rank": rank, "scale": scale, "key": key}
    network = shaken("lora", **options)
    recipe = toy_recipe("lora", options=options)
    write_checkpoint(tmp_path / "a", network, recipe, role="student", recipe_hash="0" * 64, seed=0)
    result = idat("export", str(tmp_path / "a"), "--to", "peft", "-o", str(tmp_path / "peft"))
    assert result.exit_code == 0, result.output
    images = probe_images(network)
    with torch.inference_mode():
        expected = network(images)
    found = peft_logits(tmp_path / "peft", network, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    frozen_alone = merge(shaken("linear"))(network.normalise(images))
    assert not torch.allclose(found, frozen_alone, atol=0.01)


PAST_QKV = (
    *("eva02 tiny", "eva02 small", "eva giant", "eva post-norm", "rope registers"),
    *("dinov3 qkvb", "dinov3 plus qkvb", "swinv2", "swinv2 padded"),
    *("beit", "beit shared bias", "beit v2"),
)
"""Forms in which timm reads the weight of qkv past its module."""
WITHOUT_PEFT = (*PAST_QKV, *CONVOLUTIONS, "distilled")
WITH_QKV = [form for form in FORMS if form not in WITHOUT_PEFT]


@pytest.mark.parametrize(
    ("form", "key"),
    [
        pytest.param(form, key, marks=() if form == "swin padded" else pytest.mark.system)
        for form in WITH_QKV
        for key in (False, True)
        if not key or form in ("swin padded", "eva02 base")
    ],
)
def test_peft_gives_the_same_logits_on_every_kind_that_calls_its_projections(
    form: str, key: bool, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(network_on(form, "lora", rank=3, scale=0.7, key=key), tmp_path / "a")
    network, images = checkpoint.network, probe_images(checkpoint.network)
    write_peft(checkpoint, tmp_path / "peft")
    with torch.inference_mode():
        expected = network(images)
    found = peft_logits(tmp_path / "peft", network, images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    import_peft(
        tmp_path / "peft",
        tmp_path / "back",
        backbone=network.backbone.spec,
        task=checkpoint.config.recipe.task,
    )
    first, second = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("a", "back")
    )
    assert first == second


@pytest.mark.parametrize("form", PAST_QKV)
def test_peft_has_no_form_of_lora_where_qkv_is_read_past_its_module(
    form: str, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(network_on(form, "lora"), tmp_path / "a")
    with pytest.raises(UsageError, match=r"no form in PEFT: .* reads the weight of .*attn"):
        write_peft(checkpoint, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_peft_has_no_form_where_the_classifier_is_two_layers(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(network_on("distilled", "lora"), tmp_path / "a")
    with pytest.raises(UsageError, match="has no form in PEFT: its classifier is two layers"):
        write_peft(checkpoint, tmp_path / "peft")


def test_there_an_update_of_peft_acts_only_once_it_is_merged() -> None:
    body = frozen_of("beit").body
    images = images_of("beit", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model

        expected = body(images)
        model = get_peft_model(body, LoraConfig(target_modules=["qkv"], init_lora_weights=False))
        assert model(images).equal(expected)
        assert not torch.allclose(model.merge_and_unload()(images), expected, atol=0.01)


EVERY = "qkv+proj+fc1+fc2"
IN_PEFT: dict[str, list[dict[str, Any]]] = {
    "lora": [{"parts": "q+v+proj+fc1+fc2", "rank": 3}, {"parts": "qkv+fc2", "scaling": "alpha"}],
    "dora": [{"rank": 3, "scale": 0.7}, {"parts": "q+k+v+proj+fc1+fc2"}, {"parts": EVERY}],
    "loha": [{"rank": 3, "scale": 0.7}, {"parts": "q+v+proj+fc1+fc2"}, {"parts": EVERY}],
    "lokr": [{"parts": EVERY, "rank": 2, "scale": 0.7}, {"parts": EVERY, "rank": 64}],
    "krona": [{"parts": EVERY, "factors": "small", "scale": 0.7}],
    "vera": [{}, {"parts": EVERY}, {"parts": "q+k+v+proj+fc2"}],
    "pvera": [{}, {"parts": "q+v+proj+fc1+fc2", "rank": 5}],
    "ia3": [{}, {"parts": EVERY}],
    "oft": [{"parts": EVERY, "block_size": 8, "exact": exact} for exact in (False, True)],
    "mlae": [{}, {"parts": EVERY}],
    "bi_lora": [{}, {"bits": 4, "parts": "q+v+fc1"}],
    "fact_tt": [{"rank": 3}],
    "fact_tk": [{"rank": 3}],
    "hydra": [{}],
    "repadapter": [{}],
    "arc": [{"rank": 5}],
    "bitfit": [{}],
    "layernorm": [{}],
}
"""Options of families that PEFT has, or that are exactly a LoRA once they are merged."""


def assert_peft_gives_its_logits(form: str, family: str, options: Any, folder: Path) -> None:
    checkpoint = checkpoint_of(network_on(form, family, **options), folder / "a")
    own = write_peft(checkpoint, folder / "peft")
    network, images = checkpoint.network.double(), probe_images(checkpoint.network)
    with torch.inference_mode():
        expected = network(images)
        frozen = merge(network_on(form, "linear"))(network.normalise(images))
    found = peft_logits(folder / "peft", network, images)
    bound = 1e-9 if family in FORMS_OF_PEFT else 1e-5
    assert (found - expected).abs().max() < bound * expected.abs().max()
    assert own.difference is not None
    assert own.difference < 1e-5
    assert not torch.allclose(found, frozen, atol=0.01)


@pytest.mark.parametrize(
    ("family", "options"), [(family, own) for family, each in IN_PEFT.items() for own in each]
)
def test_peft_gives_the_logits_of_every_family_that_it_can_write(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    assert_peft_gives_its_logits("vit", family, options, tmp_path)


WITH_OTHER_LAYERS = [
    ("swin padded", "dora", {"rank": 2}),
    ("swin padded", "vera", {"rank": 3, "parts": "q+v+proj+fc1"}),
    ("eva02 base", "loha", {"rank": 2}),
    ("eva02 base", "lokr", {"rank": 2}),
    ("dinov3", "ia3", {}),
    ("beit", "lora", {"parts": "proj+fc1+fc2"}),
    ("convnext", "lora", {}),
    ("convnext 1x1", "lora", {}),
    ("convnext 1x1", "mlae", {}),
    ("dinov2 SwiGLU", "loha", {"parts": "fc1+fc2"}),
    ("swinv2 padded", "oft", {"parts": "proj+fc1", "block_size": 4}),
]


@pytest.mark.parametrize(("form", "family", "options"), WITH_OTHER_LAYERS)
def test_peft_gives_their_logits_on_other_kinds_where_it_is_called(
    form: str, family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    assert_peft_gives_its_logits(form, family, options, tmp_path)


@pytest.mark.parametrize("blocks", ["1", "last1", "0"])
@pytest.mark.parametrize("family", ["lora", "dora", "loha"])
def test_peft_adapts_the_blocks_that_ours_stands_in_and_no_other(
    family: str, blocks: str, tmp_path: Path
) -> None:
    assert_peft_gives_its_logits("vit", family, {"blocks": blocks}, tmp_path)


WITHOUT_FORM = [
    ("vit", "lokr", {}, "one update for blocks.0.attn.qkv"),
    ("vit", "krona", {}, "one update for blocks.0.attn.qkv"),
    ("vit", "krona", {"parts": "proj"}, "a first factor of 4 by 4 on"),
    ("vit", "krona", {"parts": "fc1", "factors": "small", "terms": 2}, "has one product, not 2"),
    ("vit", "oft", {"block_size": 8}, "one update for blocks.0.attn.qkv"),
    ("beit", "dora", {}, "reads the weight of blocks.0.attn.qkv past its module"),
    ("beit", "mlae", {}, "reads the weight of blocks.0.attn.qkv past its module"),
    ("convnext 1x1", "loha", {}, "its stages.0.blocks.0.mlp.fc1 is a convolution"),
    ("distilled", "vera", {}, "its classifier is two layers"),
]


@pytest.mark.parametrize(("form", "family", "options", "reason"), WITHOUT_FORM)
def test_peft_has_no_form_where_it_computes_another_function(
    form: str, family: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(network_on(form, family, **options), tmp_path / "a")
    told = f"adapter '{family}' on backbone '{checkpoint.network.backbone.spec.name}' has no form"
    with pytest.raises(UsageError, match=f"{told} in PEFT: .*{reason}"):
        write_peft(checkpoint, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


PEFT_LACKS = [f for f in ADAPTERS if f not in FORMS_OF_PEFT and f not in LOW_RANK]


@pytest.mark.parametrize("family", PEFT_LACKS)
def test_other_families_are_refused_with_what_can_be_done(family: str, tmp_path: Path) -> None:
    recipe = toy_recipe(family, options=facts_of(family).small)
    student = toy_pair(recipe).student
    write_checkpoint(tmp_path / "a", student, recipe, role="student", recipe_hash="0" * 64, seed=0)
    words = ("export", str(tmp_path / "a"), "--to", "peft", "-o", str(tmp_path / "peft"))
    result = idat(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: adapter '{family}' has no form in PEFT.")
    assert ("--rank=8 converts it" in result.stderr) == student.adapter.mergeable
    assert not (tmp_path / "peft").exists()
    if not student.adapter.mergeable:
        result = idat(*words, "--rank", "8")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: adapter '{family}' cannot be merged")
        assert not (tmp_path / "peft").exists()


def test_a_form_that_would_change_the_logits_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of(network_on("vit", "dora"), tmp_path / "a")
    form = FORMS_OF_PEFT["dora"]
    monkeypatch.setitem(FORMS_OF_PEFT, "dora", replace(form, write=FORMS_OF_PEFT["lora"].write))
    with pytest.raises(CheckpointError, match="PEFT's logits would differ by"):
        write_peft(checkpoint, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


CONVERTED = [("vit", f) for f in PEFT_LACKS if f in MERGEABLE and f != "linear"]
CONVERTED += [("vit", "lora"), ("vit", "dora"), ("swin padded", "full"), ("swin padded", "lokr")]
CONVERTED += [("eva02 base", "full"), ("convnext", "lokr"), ("convnext", "ssf")]
CONVERTED += [("swin padded", "ssf")]


@pytest.mark.parametrize(("form", "family"), CONVERTED)
def test_what_a_conversion_loses_is_told_and_peft_gives_the_rest(
    form: str, family: str, tmp_path: Path
) -> None:
    options = facts_of(family).small
    checkpoint = checkpoint_of(network_on(form, family, **options), tmp_path / "a")
    network, images = checkpoint.network, probe_images(checkpoint.network)
    few, many = (write_peft(checkpoint, tmp_path / f"r{r}", r) for r in (1, 512))
    assert few.error is not None
    assert many.error is not None
    assert many.error < 1e-6
    assert few.error > 0.1
    assert bool(many.left_out) == (family == "full")
    with torch.inference_mode():
        expected = network(images)
    largest = expected.abs().max()
    for name, own in (("r1", few), ("r512", many)):
        found = peft_logits(tmp_path / name, network, images)
        off = ((found - expected).abs().max() / largest).item()
        assert off == pytest.approx(own.difference, rel=0.01, abs=1e-5)
    assert many.left_out or many.difference < 1e-5  # type: ignore[operator]


def test_the_command_says_what_a_conversion_loses(tmp_path: Path) -> None:
    network, recipe = shaken("full"), toy_recipe("full")
    write_checkpoint(tmp_path / "a", network, recipe, role="student", recipe_hash="0" * 64, seed=0)
    words = ("export", str(tmp_path / "a"), "--to", "peft", "--rank", "2")
    result = idat(*words, "-o", str(tmp_path / "peft"))
    assert result.exit_code == 0, result.output
    first, second, third, _ = result.stdout.splitlines()
    assert ": probe logits within " in first
    assert "converted to LoRA of rank 2, which loses " in second
    assert third == "  left out, having no place in it: cls_token, pos_embed"
    document = json.loads(idat(*words, "-o", str(tmp_path / "json"), "--json").stdout)
    assert document["rank"] == 2
    assert 0 < document["weights_lost"] < 1
    assert document["largest_difference"] > 0
    assert document["left_out"] == ["cls_token", "pos_embed"]
    result = idat("export", str(tmp_path / "a"), "--to", "onnx", "--rank", "2", "-o", "x")
    assert result.exit_code == 2
    assert "--rank is of LoRA" in result.stderr


# ONNX


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=() if family in ("lora", "sequential") else pytest.mark.system)
        for family in ADAPTERS
    ],
)
def test_onnxruntime_gives_the_same_logits_for_every_family(family: str, tmp_path: Path) -> None:
    import onnxruntime

    names = ("<b>two</b>\nlines", *(f"kind {k}" for k in range(1, 10)))
    recipe = toy_recipe(family, options=facts_of(family).small)
    task = recipe.task.model_copy(update={"class_names": names})
    recipe = recipe.model_copy(update={"task": task})
    network = shaken(family)
    write_checkpoint(tmp_path / "a", network, recipe, role="student", recipe_hash="0" * 64, seed=0)
    result = idat("export", str(tmp_path / "a"), "--to", "onnx", "-o", str(tmp_path / "onnx"))
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(
        tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for count in (1, 5):
        shape, source = (count, 3, 16, 16), generator(count, "test", "pixels")
        images = torch.randint(256, shape, dtype=torch.uint8, generator=source)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = network(images)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["class_names"]) == list(names)
    assert (tmp_path / "onnx" / "labels.txt").read_text().splitlines() == [
        "<b>two</b> lines",
        *names[1:],
    ]


ATTENTION = (
    *("siglip", "registers", "dinov2 SwiGLU", "beit", "beit shared bias", "eva02 tiny"),
    *("eva02 base", "dinov3", "dinov3 qkvb", "rope mixed", "pe core", "swin padded"),
    *("swinv2 padded",),
)
EXPORTED = [
    *((form, "lora") for form in ATTENTION),
    *each("swin padded", "swinv2 padded", "beit shared bias", families=("sequential",)),
    *each(*CONVOLUTIONS, families=("lora", "sequential", "linear")),
]


@pytest.mark.parametrize(
    ("form", "family"),
    [
        pytest.param(
            form,
            family,
            marks=pytest.mark.slow
            if (form, family) in (("beit", "lora"), ("convnext", "sequential"))
            else pytest.mark.system,
        )
        for form, family in EXPORTED
    ],
)
def test_onnxruntime_gives_the_same_logits_on_every_kind(
    form: str, family: str, tmp_path: Path
) -> None:
    import onnxruntime

    checkpoint = checkpoint_of(network_on(form, family), tmp_path / "a")
    network = checkpoint.network
    write_onnx(checkpoint, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for count in (1, 2, 7):
        size, source = network.backbone.spec.img_size, generator(count, "test", "pixels")
        images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=source)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = network(images)
        assert (torch.from_numpy(found) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_a_graph_with_other_logits_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "probe_logits", lambda network: torch.ones(8, 10))
    with pytest.raises(CheckpointError, match="the ONNX graph's logits differ by"):
        onnx_graph.write_onnx(load_checkpoint("builtin:digits-lora"), tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "NEEDED", ("onnx_of_tomorrow",))
    result = idat("export", "builtin:digits-lora", "--to", "onnx", "-o", str(tmp_path / "x"))
    assert result.exit_code == 2
    assert "an ONNX export needs onnx_of_tomorrow" in result.stderr
    assert "pip install onnx_of_tomorrow" in result.stderr


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    result = idat("export", "builtin:digits-lora", "--to", "pickle", "-o", str(tmp_path / "x"))
    assert result.exit_code == 2
    assert "peft" in result.stderr


# A new folder, whole or not at all


def test_a_folder_that_is_filled_in_part_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "new") as place:
            (place / "first").write_text("there")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        fill()
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "merge": ("merge", "builtin:digits-lora"),
    "peft": ("export", "builtin:digits-lora", "--to", "peft"),
    "onnx": ("export", "builtin:digits-lora", "--to", "onnx"),
}
"""What writes a new folder."""
SMALL_FILES = """
import resource, sys
from idat_zoo.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
sys.argv = ["idat", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_a_file_that_cannot_be_written_whole_is_told_and_leaves_nothing(
    what: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SMALL_FILES, *COMMANDS[what], "-o", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error == f"error: cannot write '{tmp_path / 'new'}': File too large"
    assert hint.endswith("choose another --out.")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_all_files_are_for_those_whom_the_umask_lets_read(what: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert idat(*COMMANDS[what], "-o", str(tmp_path / "new")).exit_code == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert len(modes) > 1 or what == "onnx"
    assert set(modes.values()) == {0o640}, modes


@pytest.mark.parametrize("place", [".", "", ".."])
@pytest.mark.parametrize(
    "words",
    [
        ("merge", "builtin:digits-lora", "--out"),
        ("export", "builtin:digits-lora", "--to", "peft", "--out"),
        ("report", str(RESULTS), "--out"),
        ("cp", "--force", "tiny_random/lora/digits"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_one_stands_in_is_no_place_for_a_new_one(
    words: tuple[str, ...], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = idat(*words, place)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    told = Path(place)
    known = (f"error: cannot write '{told}': ", f"error: '{told}' is there already.")
    assert result.stderr.startswith(known)
    assert "choose another" in result.stderr.lower()
    assert not list(here.iterdir())
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_told_by_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(RunFolderError, match=r"new': No space left on device\nFree space"),
        whole_folder(tmp_path / "new") as place,
    ):
        write_whole(place / "file", b"there")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled_and_one_with_files_is_left(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as place:
        (place / "first").write_text("there")
    assert (tmp_path / "empty" / "first").read_text() == "there"
    with pytest.raises(RunFolderError, match="is there already"), whole_folder(tmp_path / "empty"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is there already"), whole_folder(tmp_path / "file"):
        pass
