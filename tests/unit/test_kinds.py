"""Every kind of backbone: its walk is timm's own forward, and what stands in it acts as it says.

In float64. Bit-equal where the walk does what timm does; 1e-12 where a test computes it otherwise.
"""

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
import torch.nn.functional as F
from kinds import FORMS, LACKING, SINCE, frozen_of, images_of, tiny
from torch import Tensor, nn
from torch.func import functional_call
from typer.testing import CliRunner

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.backbones import self_check
from idat_zoo.backbones.anatomy import Everywhere, everywhere
from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.backbones.kinds import KINDS, kind_of
from idat_zoo.backbones.kinds.base import ROLES, Kind
from idat_zoo.backbones.network import Network, build_network, new_head
from idat_zoo.backbones.sites import Compute, Visitor
from idat_zoo.backbones.stack import MixedNetwork, StackedNetwork
from idat_zoo.backbones.walk import begin, features
from idat_zoo.cli import app
from idat_zoo.engine.precision import cast_frozen
from idat_zoo.errors import UsageError, WalkError
from idat_zoo.places import CACHE_VARIABLE
from idat_zoo.randomness import generator
from idat_zoo.recipe import AdapterChoice, Frozen

TOLERANCE = 1e-12


@cache
def known(form: str) -> FrozenBackbone:
    """A form that no test changes."""
    return frozen_of(form)


def on(backbone: FrozenBackbone, adapter: Adapter, *, seed: int = 0, noise: float = 0.0) -> Network:
    """A float64 network of 5 classes, its adapter's tensors moved by some noise."""
    created = adapter.create(backbone.anatomy, generator(seed, "test", "adapter"))
    head = new_head(backbone.anatomy.num_features, 5, generator(seed, "test", "head"))
    middle = (0.5, 0.5, 0.5)
    network = Network(backbone, adapter, created, head, mean=middle, std=middle).double()
    for name, tensor in network.trainable().items():
        tensor.data += noise * torch.randn(tensor.shape, generator=generator(seed, "test", name))
    return network


def plain(form: str, images: Tensor) -> Tensor:
    """timm's own features."""
    with torch.no_grad():
        found: Tensor = known(form).body(images)
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    """Of the largest."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def assert_together_as_alone(form: str, networks: list[Network]) -> None:
    """In one pass as a stack, and in one as a mixed batch."""
    size = FORMS[form].img_size
    pictures = [
        torch.randint(0, 256, (2, 3, size, size), generator=generator(seed, "test", "pictures"))
        for seed in range(len(networks))
    ]
    images = [own.to(torch.uint8) for own in pictures]
    for together in (StackedNetwork(networks)(images), MixedNetwork(networks)(images)):
        for found, network, own in zip(together, networks, images, strict=True):
            assert difference(found, network(own)) < TOLERANCE


# The walk


def nobody() -> Visitor:
    return Visitor((), lambda site, block, x, compute, frozen: compute(x, {}))


@pytest.mark.parametrize("form", FORMS)
def test_the_walk_is_timms_own_forward_to_the_bit(form: str) -> None:
    kind = known(form).kind
    for count in (1, 3):
        images = images_of(form, count)
        expected = plain(form, images)
        assert expected.isfinite().all()
        assert expected.std() > 0.05
        for visitor in (everywhere(), nobody()):
            assert features(kind, begin(images), visitor, None).equal(expected)


@pytest.mark.parametrize("form", [f for f in FORMS if "dynamic size" in f])
def test_the_walk_takes_images_of_other_sizes_where_the_network_does(form: str) -> None:
    images = images_of(form, 2)[:, :, :, :16]
    found = features(known(form).kind, begin(images), everywhere(), None)
    assert found.equal(plain(form, images))


FEATURES: dict[str, Callable[[Any], bool]] = {
    "a class token": lambda body: getattr(body, "cls_token", None) is not None,
    "no class token": lambda body: getattr(body, "cls_token", 0) is None,
    "registers": lambda body: getattr(body, "reg_token", None) is not None,
    "a norm before": lambda body: hasattr(getattr(body, "norm_pre", None), "weight"),
    "pooling by attention": lambda body: getattr(body, "attn_pool", None) is not None,
    "average pooling": lambda body: getattr(body, "global_pool", "") == "avg",
    "pooling by the class token": lambda body: getattr(body, "global_pool", "") == "token",
    "no last norm": lambda body: (
        not hasattr(getattr(body, "norm", body), "weight")
        and not hasattr(getattr(body, "fc_norm", body), "weight")
    ),
    "rotations": lambda body: getattr(body, "rope", None) is not None,
    "rotations of each block": lambda body: getattr(body, "rope_mixed", False),
    "a bias that is shared": lambda body: getattr(body, "rel_pos_bias", None) is not None,
    "a size that changes": lambda body: getattr(body, "dynamic_img_size", False),
}
"""What a network may have, asked of what timm built."""
BLOCKS: dict[str, Callable[[Any], bool]] = {
    "LayerScale": lambda block: hasattr(getattr(block, "ls1", None), "gamma"),
    "a scale as a vector": lambda block: getattr(block, "gamma_1", None) is not None,
    "norms of queries and keys": lambda block: hasattr(
        getattr(getattr(block, "attn", None), "q_norm", None), "weight"
    ),
    "a packed gate": lambda block: type(block.mlp).__name__ == "GluMlp",
    "a gate of its own": lambda block: type(block.mlp).__name__ == "SwiGLU",
    "a norm that comes last": lambda block: type(block).__name__ == "ResPostBlock",
    "a norm that comes last in EVA": lambda block: type(block).__name__ == "EvaBlockPostNorm",
    "a bias of its own": lambda block: (
        getattr(getattr(block, "attn", None), "relative_position_bias_table", None) is not None
    ),
    "a fused weight read past its module": lambda block: (
        getattr(getattr(block, "attn", None), "q_bias", None) is not None
    ),
    "q, k and v apart": lambda block: (
        getattr(getattr(block, "attn", None), "q_proj", None) is not None
    ),
    "shifted windows": lambda block: any(getattr(block, "shift_size", ())),
    "linear layers as convolutions": lambda block: isinstance(block.mlp.fc2, nn.Conv2d),
    "response normalisation": lambda block: type(block.mlp).__name__.startswith("GlobalResponse"),
}
FAMILIES_OF_TIMM = (
    "vit_tiny_",
    "dinov2",
    "reg4_dinov2",
    "deit3",
    "clip",
    "siglip",
    "eva02_tiny",
    "eva02_small",
    "eva02_base",
    "small_patch16_dinov3",
    "dinov3_qkvb",
    "plus_patch16_dinov3",
    "rope_224",
    "rope_mixed",
    "vit_pe_",
    "beit_",
    "beitv2_",
    "swin_",
    "swinv2_",
    "convnext_tiny",
    "convnext_atto",
    "convnextv2_",
)


def test_the_forms_cover_every_kind_and_all_that_a_network_may_have() -> None:
    assert {form.kind for form in FORMS.values()} == KINDS.keys()
    assert len(FORMS) >= 46
    for form, own in FORMS.items():
        assert kind_of(KINDS, type(known(form).body)) == own.kind
    names = [form.timm for form in FORMS.values()]
    bodies = [known(form).body for form in FORMS]
    blocks = [block for form in FORMS for block in known(form).kind.blocks]
    lacking = [part for part in FAMILIES_OF_TIMM if not any(part in name for name in names)]
    lacking += [what for what, has in FEATURES.items() if not any(map(has, bodies))]
    lacking += [what for what, has in BLOCKS.items() if not any(map(has, blocks))]
    assert not lacking


@pytest.mark.parametrize("form", SINCE)
def test_the_installed_timm_has_every_form(form: str) -> None:
    if form in LACKING:
        pytest.skip(f"timm {timm.__version__} has no {form}; {LACKING[form]} has")
    assert form in FORMS


def test_a_size_that_windows_do_not_divide_is_among_the_forms() -> None:
    for form in ("swin padded", "swinv2 padded"):
        (side, _), (window, _) = (
            known(form).anatomy.blocks[0].grid,
            known(form).kind.blocks[0].window_size,
        )
        assert side % window


NOT_MET = ("cpb_mlp.", "attn.gate")  # SwinV2's bias of positions, and a gate of EVA's attention


@pytest.mark.parametrize("form", FORMS)
def test_every_linear_layer_of_a_block_is_met_once(form: str) -> None:
    kind = known(form).kind
    met: list[tuple[int, int]] = []

    def note(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
        if site in ROLES.values():
            met.append((block, id(frozen["weight"])))
        return compute(x, {})

    features(kind, begin(images_of(form, 1)), Visitor(Everywhere(), note), None)
    expected = [
        (i, id(module.weight))
        for i, block in enumerate(kind.blocks)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) or getattr(module, "kernel_size", 0) == (1, 1)
        if not any(part in f"{name}." for part in NOT_MET)
    ]
    assert sorted(met) == sorted(expected)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_put_in_at_any_site_changes_the_features(form: str) -> None:
    kind, anatomy = known(form).kind, known(form).anatomy
    images = images_of(form, 1)
    expected = plain(form, images)
    last = anatomy.depth - 1
    places = [(site, last) for site in anatomy.blocks[last].sites]
    places += [(site, -1 if site is Site.PATCH_EMBED else anatomy.depth) for site in anatomy.ends]

    def at(place: tuple[Site, int]) -> Tensor:
        def stir(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
            y = compute(x, {})
            noise = torch.randn(y.shape, generator=generator(0, "test", site), dtype=y.dtype)
            return y + noise if block == place[1] else y

        return features(kind, begin(images), Visitor({Place(place[1], place[0])}, stir), None)

    dead = [place for place in places if place[0] is not Site.PROMPT and at(place).equal(expected)]
    assert not dead


# The check at load


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


OF_EACH_KIND = [
    "vit",
    "res-post-norm",
    "eva02 tiny",
    "eva post-norm",
    "dinov3",
    "beit",
    "swin",
    "swinv2",
    "convnext",
]


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


# Prompts


class PromptOptions(Frozen):
    """Options of the toy."""

    count: int = 3
    deep: bool = False


class Prompted(Adapter):
    """Prompts before block 0, or new ones before every block."""

    name, title, paper, year = "prompted", "prompted", "", 0
    Options = PromptOptions
    options: PromptOptions
    sites: ClassVar = frozenset({Site.PROMPT})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        shape = (self.options.count, anatomy.blocks[0].width)
        blocks = range(anatomy.depth if self.options.deep else 1)
        draw = {f"blocks.{i}.prompt": torch.randn(shape, generator=generator) for i in blocks}
        return Created(trainable=draw)

    @property
    def num_prompts(self) -> int:
        return self.options.count

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        return tensors.get("prompt")

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        raise AssertionError(f"nothing else was asked for, but {site}")


def with_still_rows(rope: Tensor, count: int) -> Tensor:
    """Rotations of 0 degrees, sine 0 and cosine 1, before the others."""
    sin, cos = rope.chunk(2, -1)
    row = torch.cat([torch.zeros_like(sin[..., :1, :]), torch.ones_like(cos[..., :1, :])], -1)
    return torch.cat([row] * count + [rope], -2)


def with_empty_rows(bias: Tensor, count: int) -> Tensor:
    """A bias of scores in which so many tokens behind the first have none."""
    N = bias.shape[-1]
    full = bias.new_zeros(*bias.shape[:-2], N + count, N + count)
    old = [0, *range(1 + count, N + count)]
    for row, place in enumerate(old):
        full[..., place, old] = bias[..., row, :]
    return full


def prompted_by_hand(body: Any, images: Tensor, prompts: dict[int, Tensor], count: int) -> Tensor:
    """What timm's own blocks make of tokens with prompts among them."""
    name, x = type(body).__name__, body.patch_embed(images)
    prefix = 1 if name == "Beit" else body.num_prefix_tokens
    arguments: list[dict[str, Tensor]] = [{} for _ in body.blocks]
    restored = []
    if name == "Eva":
        x, rope = body._pos_embed(x)
        x = body.norm_pre(x)
        for i, own in enumerate(arguments):
            if rope is not None:
                mixed = getattr(body, "rope_mixed", False)
                own["rope"] = with_still_rows(rope[i] if mixed else rope, count)
    elif name == "Beit":
        x = torch.cat([body.cls_token.expand(len(x), -1, -1), x], 1)
        if body.pos_embed is not None:
            x = x + body.pos_embed
        for block, own in zip(body.blocks, arguments, strict=True):
            if body.rel_pos_bias is not None:
                own["shared_rel_pos_bias"] = with_empty_rows(body.rel_pos_bias(), count)
            else:
                bias = with_empty_rows(block.attn._get_rel_pos_bias(), count)
                block.attn._get_rel_pos_bias = lambda bias=bias: bias
                restored.append(block.attn)
    else:
        x = body.norm_pre(body.patch_drop(body._pos_embed(x)))
    standing = 0
    for i, (block, own) in enumerate(zip(body.blocks, arguments, strict=True)):
        if i in prompts:
            new = prompts[i].expand(len(x), -1, -1)
            x = torch.cat([x[:, :prefix], new, x[:, prefix + standing :]], 1)
            standing = count
        x = block(x, **own)
    for attention in restored:
        del attention._get_rel_pos_bias
    x = torch.cat([x[:, :prefix], x[:, prefix + count :]], 1)
    pooled: Tensor = body.forward_head(body.norm(x), pre_logits=True)
    return pooled


TAKE_PROMPTS = [form for form, own in FORMS.items() if own.kind in ("vit", "eva", "beit")]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("form", TAKE_PROMPTS)
def test_prompts_stand_behind_the_prefix_unturned_and_unbiased(form: str, deep: bool) -> None:
    network = on(known(form), Prompted(count=3, deep=deep))
    prompts = {i: network.local(i)["prompt"] for i in range(2) if "prompt" in network.local(i)}
    assert len(prompts) == 1 + deep
    images = images_of(form, 2)
    with torch.no_grad():
        found = network.features(images)
        expected = prompted_by_hand(network.body, images, prompts, 3)
    assert difference(found, expected) < TOLERANCE
    assert difference(found, plain(form, images)) > 1e-3
    network(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.trainable().values())


def test_average_pooling_leaves_prompts_out() -> None:
    network = on(known("average pooling"), Prompted(count=4))
    entering: list[Tensor] = []
    hook = network.body.fc_norm.register_forward_pre_hook(lambda m, args: entering.append(args[0]))
    with torch.no_grad():
        network.features(images_of("average pooling", 2))
    hook.remove()
    last: list[Tensor] = []

    class Watched(Prompted):
        sites: ClassVar = frozenset({Site.PROMPT, Site.AFTER_MLP})

        def apply(
            self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, **others: Any
        ) -> Tensor:
            last.append(y)
            return y

    with torch.no_grad():
        on(known("average pooling"), Watched(count=4)).features(images_of("average pooling", 2))
    stream = last[-1]
    assert stream.shape[1] == 1 + 4 + 4
    assert difference(entering[0], stream[:, 5:].mean(1)) < TOLERANCE


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "form", ["vit", "siglip", "eva02 tiny", "dinov3", "rope mixed", "beit", "beit shared bias"]
)
def test_prompts_of_two_tasks_stack(form: str, deep: bool) -> None:
    networks = [on(known(form), Prompted(deep=deep), seed=seed) for seed in (0, 1)]
    assert_together_as_alone(form, networks)


@pytest.mark.parametrize("form", ["swin", "swinv2", "convnext"])
def test_a_backbone_that_takes_no_prompts_refuses_them_by_name(form: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_network(
            known(form),
            Prompted(),
            num_classes=5,
            normalisation="imagenet",
            seed=0,
            role="student",
        )
    told = f"{caught.value.message} {caught.value.hint}"
    assert "'prompted'" in told
    assert f"'{tiny(form).name}'" in told
    assert "it has no prompt" in told


# Trained copies

LINEAR = frozenset(ROLES.values())
NORMS = frozenset({Site.NORM1, Site.NORM2, Site.FINAL_NORM})
COPIED = LINEAR | NORMS | {Site.PATCH_EMBED}


class CopyOptions(Frozen):
    """Options of the toy."""

    tensors: tuple[str, ...] = ("weight", "bias")


class Copied(Adapter):
    """Trains copies of all that the frozen network reads: full fine-tuning, or biases alone."""

    name, title, paper, year = "copied", "copied", "", 0
    Options = CopyOptions
    options: CopyOptions
    sites: ClassVar = COPIED

    def misfit(self, anatomy: Anatomy) -> str:
        return ""

    def copies(self, site: Site) -> tuple[str, ...]:
        return self.options.tensors

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        places = [(f"blocks.{i}", i) for i in range(anatomy.depth)]
        places += [("embed", -1), ("pool", anatomy.depth)]
        return Created(
            trainable={
                f"{where}.{site}.{name}": tensor.clone()
                for where, block in places
                for site in sorted(COPIED)
                for name, tensor in anatomy.frozen(site, block).items()
                if name in self.options.tensors
            }
        )

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        return y


def modules_at(kind: Kind) -> Iterator[tuple[str, str, nn.Module]]:
    """(where and site, timm's name, the module) of all that may be copied."""
    names = {id(module): name for name, module in kind.body.named_modules()}
    for i, block in enumerate(kind.blocks):
        for own, module in block.named_modules():
            if own in ROLES:
                yield f"blocks.{i}.{ROLES[own]}", names[id(module)], module
            elif own in ("norm1", "norm2", "norm"):
                site = {"norm1": Site.NORM1}.get(own, Site.NORM2)
                yield f"blocks.{i}.{site}", names[id(module)], module
    yield "embed.patch_embed", names[id(kind.patch_projection)], kind.patch_projection
    if hasattr(kind.final_norm, "weight"):
        yield "pool.final_norm", names[id(kind.final_norm)], kind.final_norm


def timms_names(kind: Kind, copies: Tensors) -> dict[str, Tensor]:
    """Copies by the names that timm has for what they are of; q, k and v share one of the bias."""
    found, tensors = {}, dict(kind.body.named_parameters()) | dict(kind.body.named_buffers())
    for place, name, _ in modules_at(kind):
        for part in ("weight", "bias"):
            if f"{place}.{part}" not in copies:
                continue
            copy = copies[f"{place}.{part}"]
            if f"{name}.{part}" in tensors:
                found[f"{name}.{part}"] = copy
            else:
                above = name.removesuffix(".qkv")
                for letter, third in zip("qkv", copy.chunk(3), strict=True):
                    found[f"{above}.{letter}_bias"] = third
    assert len(found) >= len(copies)
    return found


@pytest.mark.parametrize("form", [*OF_EACH_KIND, "siglip", "dinov3 plus", "pe spatial"])
def test_what_is_said_to_be_frozen_has_the_values_of_the_backbone(form: str) -> None:
    loaded = load_backbone(tiny(form))
    network = on(FrozenBackbone(**vars(loaded)), Copied())
    tensors = dict(loaded.body.named_parameters()) | dict(loaded.body.named_buffers())
    copies = {
        name.removeprefix("adapter."): tensor
        for name, tensor in network.trainable().items()
        if name.startswith("adapter.")
    }
    named = timms_names(loaded.kind, copies)
    assert all(tensor.equal(tensors[name].double()) for name, tensor in named.items())
    expected = {
        f"{place}.{part}"
        for place, _, module in modules_at(loaded.kind)
        for part, _ in module.named_parameters()
    }
    assert expected <= copies.keys()


@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_copies_is_timms_own_with_their_values(form: str) -> None:
    images = images_of(form, 2)
    network = on(known(form), Copied())
    # not to the bit: products of matrices depend on where in memory their weights lie
    assert difference(network.features(images), plain(form, images)) < TOLERANCE
    for name, tensor in network.trainable().items():
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator(0, "test", name))
    named = timms_names(network.kind, network.adapter_tensors.tensors())
    expected = functional_call(network.body, named, (images,))
    assert difference(expected, plain(form, images)) > 1e-3
    assert difference(network.features(images), expected) < TOLERANCE
    network(images).square().sum().backward()
    dead = [n for n, p in network.trainable().items() if p.grad is None or not p.grad.any()]
    assert not dead
    assert all(p.grad is None for p in network.body.parameters())


@pytest.mark.parametrize("tensors", [("bias",), ("weight", "bias")])
@pytest.mark.parametrize("form", OF_EACH_KIND)
def test_copies_of_two_tasks_stack(form: str, tensors: tuple[str, ...]) -> None:
    networks = [on(known(form), Copied(tensors=tensors), seed=seed, noise=0.1) for seed in (0, 1)]
    assert_together_as_alone(form, networks)


def test_a_backbone_that_is_copied_from_is_not_cast() -> None:
    networks = [
        on(frozen_of("vit"), adapter)
        for adapter in (Copied(), build_adapter(AdapterChoice(name="lora")))
    ]
    for network in networks:
        cast_frozen(network.float(), "bf16")
    copied, lora = (network.body.blocks[0].attn.qkv.weight.dtype for network in networks)
    assert (copied, lora) == (torch.float32, torch.bfloat16)


# Attention


class Attending(Adapter):
    """Computes attention anew from q, k and v, and adds a share of it to what was computed."""

    name, title, paper, year = "attending", "attending", "", 0
    Options = Frozen
    sites: ClassVar = frozenset({Site.ATTENTION})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        return Created(trainable={"shared.gain": torch.zeros(())})

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        q, k, v = x.unbind(dim=1)
        scores = q @ k.transpose(-2, -1) * frozen["scale"]
        if "bias" in frozen:
            scores = scores + frozen["bias"]
        return scores.softmax(dim=-1) @ v + tensors["gain"] * y


class PromptedAttending(Attending):
    """The same among prompts."""

    sites: ClassVar = frozenset({Site.ATTENTION, Site.PROMPT})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        own = super().create(anatomy, generator).trainable
        return Created(trainable=own | Prompted().create(anatomy, generator).trainable)

    @property
    def num_prompts(self) -> int:
        return 3

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        return tensors.get("prompt")


ATTENDING = [form for form in FORMS if Site.ATTENTION in known(form).anatomy.sites]


def test_attention_is_a_site_wherever_it_is_fused() -> None:
    without = {FORMS[form].kind for form in FORMS.keys() - set(ATTENDING)}
    assert without == {"swinv2", "convnext"}


@pytest.mark.parametrize("form", ATTENDING)
def test_attention_is_handed_all_that_it_is_computed_from(form: str) -> None:
    images = images_of(form, 2)
    found = on(known(form), Attending()).features(images)
    assert difference(found, plain(form, images)) < TOLERANCE


@pytest.mark.parametrize("form", ["vit", "eva02 tiny", "beit", "beit shared bias"])
def test_attention_is_handed_the_bias_of_prompts_too(form: str) -> None:
    images = images_of(form, 2)
    network = on(known(form), PromptedAttending())
    prompts = {0: network.local(0)["prompt"]}
    expected = prompted_by_hand(network.body, images, prompts, 3)
    assert difference(network.features(images), expected) < TOLERANCE


@pytest.mark.parametrize("form", ["vit", "dinov3", "beit", "beit shared bias", "swin"])
def test_attention_of_two_tasks_stacks(form: str) -> None:
    networks = [on(known(form), Attending(), seed=seed, noise=0.5) for seed in (0, 1)]
    assert_together_as_alone(form, networks)


# Compilation

COMPILED = """
import sys
import torch
from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.network import build_network
from idat_zoo.recipe import AdapterChoice
from kinds import frozen_of, images_of

lora = build_adapter(AdapterChoice(name="lora"))
for form in sys.argv[2:]:
    backbone, images = frozen_of(form), images_of(form, 2)
    network = build_network(
        backbone, lora, num_classes=5, normalisation="imagenet", seed=0, role="student"
    ).double()
    for tensor in network.trainable().values():
        tensor.data.normal_(std=0.1)
    compiled = torch.compile(network, fullgraph=True, backend=sys.argv[1])
    expected = network(images)
    torch.testing.assert_close(compiled(images), expected, rtol=1e-12, atol=1e-12)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in network.trainable().values()]
    network.zero_grad()
    compiled(images).square().sum().backward()
    for p, gradient in zip(network.trainable().values(), gradients):
        assert gradient.any()
        torch.testing.assert_close(p.grad, gradient, rtol=1e-10, atol=1e-10)
    print(form)
"""


def compiled_with(backend: str, *forms: str) -> str:
    """The forms whose networks, compiled in one graph, compute and learn what they do in eager."""
    done = subprocess.run(  # apart: the annotations that are checked here are in dynamo's way
        [sys.executable, "-c", COMPILED, backend, *forms],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.system
def test_networks_compile_in_one_graph_each() -> None:
    assert compiled_with("eager", "vit", "beit", "swin").split() == ["vit", "beit", "swin"]


@pytest.mark.system
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_they_compile_with_inductor_too() -> None:
    assert compiled_with("inductor", "vit", "beit").split() == ["vit", "beit"]
