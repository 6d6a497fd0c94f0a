"""Pinned weights of every kind: what timm would load, tensor by tensor, and strictly."""

import warnings
from pathlib import Path

import pytest
from kinds import CLASSES, FILES, FORMS, built, file_of, pinned

from idat_zoo import files
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.errors import WeightsError
from idat_zoo.hub import weights as hub_weights


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the file of any tag."""
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(hub_weights, "fetch_weights", lambda name, tag: file)
    return file


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
