"""An ONNX graph of a student gives the same logits, or is not written."""

import json
from pathlib import Path

import pytest
import torch
from command import idat
from families import facts_of
from students import CONVOLUTIONS, checkpoint_of, each, network_on, shaken

from conftest import toy_recipe
from idat_zoo.adapters import ADAPTERS
from idat_zoo.checkpoint import (
    load_checkpoint,
    write_checkpoint,
)
from idat_zoo.errors import CheckpointError
from idat_zoo.formats import onnx_graph
from idat_zoo.formats.onnx_graph import write_onnx
from idat_zoo.randomness import generator


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
