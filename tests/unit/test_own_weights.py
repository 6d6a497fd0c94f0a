"""Weights of one's own: the same bits from a file, found again by SHA-256, and refused clearly."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import idat
from kinds import FORMS, built

from conftest import toy_backbone
from idat_zoo import own_weights
from idat_zoo.backbones.frozen import faults_of, load_backbone
from idat_zoo.checkpoint.loading import load
from idat_zoo.errors import UsageError, WeightsError
from idat_zoo.files import dump_tensors
from idat_zoo.own_weights import parse_roles, remember_weights, take_only
from idat_zoo.recipe import Backbone
from idat_zoo.registry import get_recipe
from idat_zoo.report.card import Exports, card_fields, card_text
from idat_zoo.results import find_results
from idat_zoo.runs.inputs import Inputs, missing_inputs

TINY = toy_backbone("own", embed_dim=32, num_heads=2)


@pytest.fixture(autouse=True)
def _own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDAT_CACHE_DIR", str(tmp_path / "cache"))
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a new process does, which knows the index alone."""
    monkeypatch.setattr(own_weights, "_seen", {})
    monkeypatch.setattr(own_weights, "_asked", {})


def micro() -> Backbone:
    return get_recipe("digits", "lora").pair.student


def saved(spec: Backbone, path: Path) -> Path:
    """A backbone's tensors in safetensors, with a classifier that is of no use."""
    tensors = dict(load_backbone(spec).body.state_dict())
    tensors["head.weight"] = torch.zeros(7, 3)
    path.write_bytes(dump_tensors(tensors))
    return path


def of(spec: Backbone, weights: str, **changed: Any) -> Backbone:
    return spec.model_copy(update={"weights": weights, **changed})


@pytest.mark.parametrize("spec", [TINY, None], ids=["random", "builtin"])
def test_a_file_gives_the_bits_that_were_saved(
    spec: Backbone | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec or micro()
    file = saved(spec, tmp_path / "own.safetensors")
    weights = remember_weights(file)
    assert weights == f"file:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    forget(monkeypatch)  # as another process, by the index
    assert load_backbone(of(spec, weights)).sha256 == load_backbone(spec).sha256
    assert faults_of(of(spec, weights)) == []


def test_positions_of_another_size_are_resampled_as_timm_does(tmp_path: Path) -> None:
    weights = remember_weights(saved(TINY, tmp_path / "own.safetensors"))
    small = load_backbone(TINY).body.pos_embed
    large = load_backbone(of(TINY, weights, img_size=2 * TINY.img_size)).body.pos_embed
    assert large.shape[1] - 1 == 4 * (small.shape[1] - 1)
    assert large[:, 0].equal(small[:, 0])


def test_a_recipe_has_the_hash_of_a_file_and_no_path(tmp_path: Path) -> None:
    file = saved(micro(), tmp_path / "own.safetensors")
    recipe = get_recipe("digits", "lora", weights={"student": file})
    assert recipe.pair.student.weights.startswith("file:")
    assert str(tmp_path) not in recipe.model_dump_json()
    assert recipe.pair.student.licence == ""
    assert recipe.pair.teacher == get_recipe("digits", "lora").pair.teacher
    with pytest.raises(UsageError, match="the recipe has no teacher"):
        get_recipe("digits", "lora", teacher="none", weights={"teacher": file})


def test_what_is_gone_or_changed_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(TINY, tmp_path / "own.safetensors")
    weights = remember_weights(file)
    other = tmp_path / "other.safetensors"
    other.write_bytes(dump_tensors({"a": torch.zeros(1)}))
    unlike = hashlib.sha256(other.read_bytes()).hexdigest()
    take_only(other)
    with pytest.raises(WeightsError, match=f"SHA-256 {weights[5:]}; .*{unlike}"):
        load_backbone(of(TINY, weights))
    forget(monkeypatch)
    file.write_bytes(other.read_bytes())
    with pytest.raises(WeightsError, match=f"SHA-256 {weights[5:]}; .*{unlike} now"):
        load_backbone(of(TINY, weights))
    file.unlink()
    with pytest.raises(WeightsError, match=r"last seen at .*, which is gone") as caught:
        load_backbone(of(TINY, weights))
    assert "--weights student=FILE" in caught.value.hint
    recipe = get_recipe("digits", "lora")
    pair = recipe.pair.model_copy(update={"student": of(recipe.pair.student, "file:" + "0" * 64)})
    (line,) = missing_inputs(recipe.model_copy(update={"pair": pair}), Inputs())
    assert "0" * 64 in line
    assert "\n" not in line


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    tensors = dict(load_backbone(TINY).body.state_dict())
    del tensors["norm.weight"]
    tensors["extra"] = torch.zeros(2)
    tensors["norm.bias"] = torch.zeros(3)
    file = tmp_path / "own.safetensors"
    file.write_bytes(dump_tensors(tensors))
    with pytest.raises(WeightsError) as caught:
        load_backbone(of(TINY, remember_weights(file)))
    for part in ("they lack norm.weight", "no place for extra", "norm.bias is [3]"):
        assert part in caught.value.message


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match="is a pickle of PyTorch"):
        remember_weights(tmp_path / "own.pth")
    (tmp_path / "words.txt").write_text("these are no weights")
    with pytest.raises(WeightsError, match="is of another format"):
        remember_weights(tmp_path / "words.txt")
    with pytest.raises(WeightsError, match="cannot read the weights"):
        remember_weights(tmp_path / "nothing")


@pytest.mark.parametrize("words", [["own.npz"], ["pupil=a"], ["student="], ["student=a"] * 2])
def test_other_words_than_roles_and_files_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--weights"):
        parse_roles(words)


def as_flax(tensors: dict[str, torch.Tensor], *, heads: int) -> dict[str, np.ndarray]:
    """A timm ViT's tensors under the names, and in the shapes, of Google's first ViT files."""
    width = tensors["norm.weight"].numel()
    rest = (heads, width // heads)
    own = {name: tensor.numpy() for name, tensor in tensors.items()}
    flax = {
        "embedding/kernel": own["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": own["patch_embed.proj.bias"],
        "cls": own["cls_token"],
        "Transformer/posembed_input/pos_embedding": own["pos_embed"],
        "Transformer/encoder_norm/scale": own["norm.weight"],
        "Transformer/encoder_norm/bias": own["norm.bias"],
    }
    depth = sum(name.endswith("norm1.weight") for name in own)
    for i in range(depth):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for part, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            flax[f"{theirs}{part}/scale"] = own[f"{ours}{norm}.weight"]
            flax[f"{theirs}{part}/bias"] = own[f"{ours}{norm}.bias"]
        weights = np.split(own[f"{ours}attn.qkv.weight"], 3)
        biases = np.split(own[f"{ours}attn.qkv.bias"], 3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            flax[f"{attention}{name}/kernel"] = weight.T.reshape(width, *rest)
            flax[f"{attention}{name}/bias"] = bias.reshape(rest)
        flax[f"{attention}out/kernel"] = own[f"{ours}attn.proj.weight"].T.reshape(*rest, width)
        flax[f"{attention}out/bias"] = own[f"{ours}attn.proj.bias"]
        for number in range(2):
            dense = f"{theirs}MlpBlock_3/Dense_{number}"
            flax[f"{dense}/kernel"] = own[f"{ours}mlp.fc{number + 1}.weight"].T
            flax[f"{dense}/bias"] = own[f"{ours}mlp.fc{number + 1}.bias"]
    return flax


def spec_of(form: str, **changed: Any) -> Backbone:
    own = FORMS[form]
    fields = {"name": "own", "timm": own.timm, "weights": "random", "img_size": own.img_size}
    return Backbone(**{**fields, "args": own.args, **changed})


def npz(path: Path, arrays: dict[str, np.ndarray]) -> str:
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.write_bytes(content.getvalue())
    return remember_weights(path)


def test_an_npz_gives_the_network_that_it_was_made_of(tmp_path: Path) -> None:
    network = built(FORMS["vit"], num_classes=0).eval()
    arrays = as_flax(network.state_dict(), heads=FORMS["vit"].args["num_heads"])
    arrays["head/kernel"] = np.zeros((32, 5), dtype=np.float32)
    weights = npz(tmp_path / "own.npz", arrays)
    ours = load_backbone(spec_of("vit", weights=weights)).body
    expected = network.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in ours.state_dict().items())
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert ours(image).equal(network(image))
    larger = load_backbone(spec_of("vit", weights=weights, img_size=64)).body
    assert larger.pos_embed.shape == (1, 17, 32)


def test_an_npz_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    heads = FORMS["vit"].args["num_heads"]
    arrays = as_flax(built(FORMS["vit"], num_classes=0).state_dict(), heads=heads)
    missing = {n: a for n, a in arrays.items() if n != "Transformer/encoder_norm/bias"}
    shape = {**arrays, "Transformer/encoder_norm/bias": np.zeros(1, dtype=np.float32)}
    whole = npz(tmp_path / "whole.npz", arrays)
    shallow = {**FORMS["vit"].args, "depth": 1}
    cases = [
        (spec_of("vit", weights=npz(tmp_path / "a.npz", missing)), "encoder_norm/bias"),
        (spec_of("vit", weights=npz(tmp_path / "b.npz", shape)), r"norm.bias is \[1\], expected"),
        (spec_of("vit", weights=whole, args=shallow), "they have 2 blocks, expected 1"),
        (spec_of("LayerScale", weights=whole), "they lack blocks.0.ls1.gamma"),
        (spec_of("swin", weights=whole), r"\.npz files are of ViTs, and this is a Swin"),
    ]
    for spec, words in cases:
        with pytest.raises(WeightsError, match=words):
            load_backbone(spec)


@pytest.mark.slow
def test_commands_train_and_evaluate_on_a_file_and_need_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = get_recipe("digits", "linear", pair="tiny_random").pair.student
    file = saved(student, tmp_path / "own.safetensors")
    words = ["train", "--task", "digits", "--adapter", "linear", "--pair", "tiny_random"]
    words += ["--teacher", "none", "--out", str(tmp_path / "runs"), "epochs=1"]
    given = ["--weights", f"student={file}"]
    plan = idat(*words, *given, "--dry-run").stdout
    assert "missing: nothing" in plan
    assert str(file) not in plan
    assert idat(*words, *given).exit_code == 0
    run = str(next((tmp_path / "runs").rglob("result.json")).parent)
    assert load(run)[0].num_classes == 10
    assert idat("eval", run).exit_code == 0
    moved = file.rename(tmp_path / "moved.safetensors")
    forget(monkeypatch)
    done = idat("eval", run)
    assert done.exit_code == WeightsError.exit_code
    assert "which is gone" in done.stderr
    assert idat("eval", run, "--weights", f"student={moved}").exit_code == 0
    found = {"": find_results([Path(run)])[0][1]}
    card = card_text("me/own", found, Exports(peft=False, merged=True), in_peft=False)
    sha256 = hashlib.sha256(moved.read_bytes()).hexdigest()
    assert f"weights of the publisher's own, SHA-256 `{sha256}`" in card
    assert "idat eval hub:me/own --weights student=FILE" in card
    assert str(tmp_path) not in card
    assert "base_model" not in card_fields(found)
    merged = ["merge", run, "-o", str(tmp_path / "merged"), *given[:1], f"student={moved}"]
    assert idat(*merged).exit_code == 0
