"""Pinned weights of every kind: what timm would load, tensor by tensor, and strictly."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from kinds import FORMS, Form, tiny

from idat_zoo import files, hub
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.errors import WeightsError
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone

CLASSES = 5
FILES = {
    "vit": 64,
    "dinov2 registers": 56,
    "dinov2 SwiGLU": 28,
    "deit3": 64,
    "clip": 64,
    "siglip": 64,
    "eva02 tiny": 56,
    "eva02 base": 56,
    "dinov3": 64,
    "dinov3 plus qkvb": 32,
    "rope mixed positions": 64,
    "pe core": 64,
    "beit": 64,
    "beit v2": 32,
    "swin": 224,
    "swin padded": 64,
    "swinv2": 128,
    "convnext": 32,
    "convnext 1x1": 64,
    "convnext v2": 64,
}
"""Forms, and the size of image that their files are of: for most, another than the network's."""
WINDOWS = {"swin padded": {"window_size": 4}}
"""How a file's network was built otherwise: its tables of relative positions have another size."""


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the file of any tag."""
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(hub, "fetch_weights", lambda name, tag: file)
    return file


def built(form: Form, **changes: Any) -> Any:
    """One of timm's networks as it is meant, with other arguments."""
    size = {} if form.kind == "convnext" else {"img_size": form.img_size}
    return timm.create_model(form.timm, **size, **form.args, **changes)


def file_of(form: str) -> dict[str, torch.Tensor]:
    """What timm saves of a network of 5 classes, of another size of image where it has one."""
    own = FORMS[form]
    args = own.args | WINDOWS.get(form, {})
    body = built(replace(own, img_size=FILES[form], args=args), num_classes=CLASSES)
    return {
        name: torch.randn(tensor.shape, generator=generator(0, "test", name))
        for name, tensor in body.state_dict().items()
    }


def pinned(form: str) -> Backbone:
    """The form with weights of a tag of timm's."""
    tag = timm.list_pretrained(f"{FORMS[form].timm}.*")[0].partition(".")[2]
    return tiny(form).model_copy(update={"weights": tag})


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
@pytest.mark.parametrize("form", FILES)
def test_every_kinds_body_is_what_timm_loads_of_a_file_of_another_size_and_head(
    form: str, weights_file: Path
) -> None:
    weights_file.write_bytes(files.dump_tensors(file_of(form)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = load_backbone(pinned(form)).body.state_dict()
    theirs = built(
        FORMS[form],
        pretrained=True,
        num_classes=0,
        pretrained_cfg_overlay={
            "file": str(weights_file),
            "num_classes": CLASSES,
            "custom_load": False,  # timm before 1.0.31 has some weights in another format
        },
    ).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize("form", ["eva02 tiny", "beit", "swin", "swinv2", "convnext"])
def test_every_kinds_body_is_whole_or_refused(form: str, weights_file: Path) -> None:
    tensors = file_of(form)
    head = next(name for name in tensors if name.endswith(("head.weight", "head.fc.weight")))
    (norm,) = (n for n in tensors if n in {"fc_norm.weight", "norm.weight", "head.norm.weight"})
    weights_file.write_bytes(files.dump_tensors({n: t for n, t in tensors.items() if n != head}))
    load_backbone(pinned(form))  # the classifier is not wanted
    for name in (norm, next(name for name in tensors if name.endswith("mlp.fc2.weight"))):
        kept = {n: t for n, t in tensors.items() if n != name}
        weights_file.write_bytes(files.dump_tensors(kept))
        with pytest.raises(WeightsError) as caught:
            load_backbone(pinned(form))
        assert "they lack " in caught.value.message
        assert name in caught.value.message


def test_the_older_name_of_deits_layer_scale_is_taken_as_timm_takes_it(weights_file: Path) -> None:
    tensors = file_of("deit3")
    older = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): tensor
        for name, tensor in tensors.items()
    }
    weights_file.write_bytes(files.dump_tensors(older))
    ours = load_backbone(pinned("deit3")).body.state_dict()
    assert ours["blocks.1.ls2.gamma"].equal(tensors["blocks.1.ls2.gamma"])
