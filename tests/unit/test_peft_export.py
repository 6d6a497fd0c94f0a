"""An adapter that is written for PEFT gives the same logits there, or is refused."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import idat
from families import facts_of
from kinds import FORMS, frozen_of, images_of, peft_logits
from students import CONVOLUTIONS, checkpoint_of, network_on, shaken

from conftest import toy_pair, toy_recipe
from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.checkpoint.probe import probe_images
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.errors import CheckpointError, UsageError
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.peft_forms import FORMS as FORMS_OF_PEFT
from idat_zoo.formats.peft_forms import LOW_RANK
from idat_zoo.formats.peft_import import import_peft
from idat_zoo.formats.timm_model import merge
from idat_zoo.specs import AdapterSpec

MERGEABLE = [f for f in ADAPTERS if build_adapter(AdapterSpec(name=f)).mergeable]


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
        moved = (model.merge_and_unload()(images) - expected).abs().max()
    assert moved > 1e-4 * expected.abs().max()


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
