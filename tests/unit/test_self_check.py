"""The self-check: a walk that differs from timm's forward pass is refused at load."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from kinds import FORMS, images_of, tiny
from on_kinds import OF_EACH_KIND, TOLERANCE, difference, known, on, plain
from torch import Tensor, nn
from toy_families import Attending
from typer.testing import CliRunner

from idat_zoo.backbones import self_check
from idat_zoo.backbones.anatomy import everywhere
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.walk import begin, features
from idat_zoo.cli import app
from idat_zoo.errors import WalkError
from idat_zoo.places import CACHE_VARIABLE


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def comparisons(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backbones that were compared, in an empty cache."""
    seen: list[str] = []
    original = self_check.relative_difference

    def counted(kind: Kind, spec: Any) -> float:
        seen.append(spec.name)
        return original(kind, spec)

    monkeypatch.setattr(self_check, "relative_difference", counted)
    return seen


def test_a_passed_check_is_remembered(comparisons: list[str]) -> None:
    for form in ("vit", "swin", "vit", "swin"):
        load_backbone(tiny(form))
    assert comparisons == ["vit", "swin"]


def test_other_weights_other_versions_and_another_walk_are_compared_anew(
    comparisons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_backbone(tiny("vit"))
    load_backbone(tiny("vit").model_copy(update={"name": "other_weights"}))
    with monkeypatch.context() as patch:
        patch.setattr(timm, "__version__", "1.0.99")
        load_backbone(tiny("vit"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99")
        load_backbone(tiny("vit"))
    source = inspect.getsource
    for changed in ("sites", "kinds.vit"):
        with monkeypatch.context() as patch:
            name = f"idat_zoo.backbones.{changed}"
            patch.setattr(
                inspect, "getsource", lambda m, name=name: source(m) + "#" * (m.__name__ == name)
            )
            load_backbone(tiny("vit"))
    load_backbone(tiny("vit"))
    assert comparisons == ["vit", "other_weights", *["vit"] * 4]


def plant(patch: pytest.MonkeyPatch, form: str, factor: float) -> None:
    """A timm whose blocks add their branches at another scale."""
    block = type(known(form).kind.blocks[0])
    original = block.forward

    def forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = original(self, x, *args, **kwargs)
        return x + factor * (y - x)

    patch.setattr(block, "forward", forward)


@pytest.mark.parametrize("form", OF_EACH_KIND)
def test_a_change_in_timms_block_is_refused_by_name(
    form: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, form, 1.01)
    with pytest.raises(WalkError) as caught:
        load_backbone(tiny(form))
    spec = tiny(form)
    assert f"backbone '{spec.name}' ({spec.timm}): timm {timm.__version__}" in caught.value.message
    assert "of the largest; up to 1e-04 is expected." in caught.value.message
    told = caught.value.message.partition("they differ by ")[2].split(" ")[0]
    assert 1e-4 < float(told) < 1
    with pytest.raises(WalkError):  # what failed is not remembered as passed
        load_backbone(spec)


def test_another_scale_of_the_attention_branch_alone_is_refused(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = x + 1.01 * self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))

    monkeypatch.setattr(type(known("vit").kind.blocks[0]), "forward", forward)
    with pytest.raises(WalkError, match="they differ by"):
        load_backbone(tiny("vit"))


def test_features_that_are_no_numbers_are_refused(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "vit", float("nan"))
    with pytest.raises(WalkError, match="they differ by nan"):
        load_backbone(tiny("vit"))


def test_the_command_line_says_so_in_one_line(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "vit", 1.01)
    words = ["train", "--task", "digits", "--adapter", "lora", "--out", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "400"})
    assert result.exit_code == 1
    assert not result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert f"timm {timm.__version__} computes other features than the walk" in line


def other_softmax(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """timm's attention, with scores at another scale."""
    B, N, _ = x.shape
    q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    joined = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, scale=0.7)
    projected: Tensor = self.proj(joined.transpose(1, 2).reshape(B, N, -1))
    return projected


def test_a_change_inside_timms_attention_is_followed_to_the_bit(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of("vit", 2)
    before = plain("vit", images)
    network = on(known("vit"), Attending())
    monkeypatch.setattr(type(known("vit").kind.blocks[0].attn), "forward", other_softmax)
    after = plain("vit", images)
    assert difference(after, before) > 1e-4
    assert features(known("vit").kind, begin(images), everywhere(), None).equal(after)
    assert difference(network.features(images), after) < TOLERANCE  # it is handed the new scale
    load_backbone(tiny("vit"))


@pytest.mark.parametrize("below", ["file/cache", "x" * 300])
def test_a_cache_that_cannot_be_written_does_not_stop_a_load(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / below))
    assert load_backbone(tiny("vit")).sha256 == load_backbone(tiny("vit")).sha256


@pytest.mark.parametrize(
    "form",
    ["dinov3", "dinov3 qkvb", "eva02 tiny", "rope mixed", "beit", "beit shared bias", "swinv2"],
)
def test_buffers_that_are_not_saved_are_those_that_timm_makes(form: str) -> None:
    own, loaded = FORMS[form], load_backbone(tiny(form)).body
    built = timm.create_model(own.timm, num_classes=0, img_size=own.img_size, **own.args)
    expected = dict(built.named_buffers())
    assert expected
    for name, buffer in loaded.named_buffers():
        assert not buffer.is_meta
        assert buffer.equal(expected[name]), name
