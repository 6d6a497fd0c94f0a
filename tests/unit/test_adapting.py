"""`adapt`: adapters on timm networks that somebody built, for training loops of their own."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from kinds import FORMS, built, images_of, randomise
from safetensors.torch import save_file
from torch import Tensor, nn

from conftest import TOY_PAIR, toy_recipe
from idat_zoo import adapt, load_plugin, outside, run
from idat_zoo.adapters import ADAPTERS
from idat_zoo.adapting import AdaptedModel
from idat_zoo.backbones import own
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.errors import (
    CheckpointError,
    InputError,
    RecipeError,
    UnknownNameError,
    UsageError,
    WalkError,
)

SOME = ("vit", "registers", "siglip", "eva02 base", "dinov3", "beit", "swin", "swinv2", "convnext")
"""Forms that differ in what adapters meet: every kind, heads and poolings of several sorts."""
TINY = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}


def tiny_vit(**changes: Any) -> Any:
    return timm.create_model("vit_tiny_patch16_224", **TINY | changes)


def model_of(form: str, *, num_classes: int = 5) -> Any:
    """With weights on which nothing is trivial, in float64, learning and in training mode."""
    return randomise(built(FORMS[form], num_classes=num_classes)).requires_grad_(True).train()


def adapted_of(form: str, family: str = "lora", **options: Any) -> AdaptedModel:
    return adapt(model_of(form), family, img_size=FORMS[form].img_size, **options)


def stirred(adapted: AdaptedModel) -> AdaptedModel:
    """Every tensor that learns with random numbers."""
    with torch.no_grad():
        for name, parameter in sorted(adapted.trainable().items()):
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return adapted


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def step(adapted: nn.Module, images: Tensor) -> None:
    """One of a loop of one's own."""
    learning = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    adapted(images).square().mean().backward()
    optimizer.step()


# What it computes


@pytest.mark.parametrize("form", SOME)
def test_lora_begins_as_the_network_itself_on_every_kind(form: str) -> None:
    model = model_of(form)
    adapted = adapt(model, "lora", img_size=FORMS[form].img_size).eval()
    images = images_of(form, 3)
    with torch.no_grad():
        assert largest(adapted(images) - model.eval()(images)) < 1e-12


@pytest.mark.parametrize("form", SOME)
@pytest.mark.parametrize("family", ["lora", "sequential"])
def test_a_loop_moves_what_learns_and_nothing_of_the_users(form: str, family: str) -> None:
    model, images = model_of(form), images_of(form, 4)
    before = copy.deepcopy(model.state_dict())
    adapted = adapt(model, family, img_size=FORMS[form].img_size)
    frozen = copy.deepcopy(adapted.network.body.state_dict())
    learnt = {name: tensor.detach().clone() for name, tensor in adapted.trainable().items()}
    for _ in range(2):
        step(adapted, images)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training
    assert all(t.equal(frozen[name]) for name, t in adapted.network.body.state_dict().items())
    still = [name for name, tensor in adapted.trainable().items() if tensor.equal(learnt[name])]
    assert not still


@pytest.mark.parametrize("family", [*ADAPTERS, "peft:lora", "peft:lokr"])
def test_every_family_learns_saves_and_loads(family: str, tmp_path: Path) -> None:
    model, images = model_of("vit"), images_of("vit", 4)
    adapted, other = (adapt(model, family, seed=seed) for seed in (0, 1))
    for _ in range(2):
        step(adapted, images)
    assert all(parameter.grad is not None for parameter in adapted.trainable().values())
    save_file(adapted.adapter_state(), tmp_path / "adapter.safetensors")
    other.load_adapter(tmp_path / "adapter.safetensors")
    with torch.no_grad():
        assert other.eval()(images).equal(adapted.eval()(images))


@pytest.mark.parametrize("form", SOME)
def test_the_frozen_numbers_take_no_memory(form: str) -> None:
    model = model_of(form)
    adapted = adapt(model, "lora", img_size=FORMS[form].img_size)
    held = {parameter.data_ptr() for parameter in model.parameters()}
    assert all(p.data_ptr() in held for p in adapted.network.body.parameters())
    assert not any(p.data_ptr() in held for p in adapted.trainable().values())
    adapted.to(torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


def test_only_the_blocks_that_are_asked_for_are_adapted() -> None:
    names = adapt(tiny_vit(depth=4), "lora", blocks="last2").adapter_state()
    assert {name.split(".")[2] for name in names if name.startswith("adapter.")} == {"2", "3"}


def test_tuners_of_peft_draw_and_merge_as_families_do() -> None:
    model, images = tiny_vit(num_classes=3), torch.randn(4, 3, 32, 32)
    before = copy.deepcopy(model.state_dict())
    options = {"r": 2, "lora_dropout": 0.5}
    adapted, again = (stirred(adapt(model, "peft:lora", **options)) for _ in range(2))
    torch.manual_seed(1)
    first, second = adapted(images), adapted(images)
    torch.manual_seed(2)
    assert (again(images).equal(first), again(images).equal(second)) == (True, True)
    assert not first.equal(second)
    assert largest(adapted.eval()(images) - adapted.merge()(images)) < 1e-5
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert [type(module).__name__ for module in model.modules()].count("Linear") == 9


def test_moving_the_network_leaves_the_adapted_one_as_it_is() -> None:
    model = tiny_vit(num_classes=3)
    adapted, images = adapt(model, "lora").eval(), torch.randn(2, 3, 32, 32)
    expected = adapted(images)
    model.double()
    assert adapted(images).equal(expected)


# Classifiers


@pytest.mark.parametrize("form", SOME)
def test_another_number_of_classes_gives_a_fresh_classifier(form: str) -> None:
    adapted = adapted_of(form, num_classes=7)
    assert adapted(images_of(form, 2)).shape == (2, 7)
    assert adapted.adapter_state()["head.weight"].shape[0] == 7
    assert largest(adapted.adapter_state()["head.bias"]) == 0


def test_without_a_classifier_there_are_features_and_only_the_adapter_learns() -> None:
    adapted = adapt(tiny_vit(num_classes=0), "lora")
    assert adapted(torch.randn(2, 3, 32, 32)).shape == (2, 32)
    assert all(name.startswith("adapter.") for name in adapted.trainable())
    assert type(adapted.merge().head) is nn.Identity


def test_a_classifier_that_the_user_put_there_stays() -> None:
    model = tiny_vit()
    model.head = nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8), nn.Linear(8, 3, bias=False))
    adapted, images = adapt(model, "lora").eval(), torch.randn(4, 3, 32, 32)
    assert largest(adapted(images) - model.eval()(images)) < 1e-6
    assert "head.1.running_mean" in adapted.adapter_state()
    merged = stirred(adapted).merge()
    assert largest(adapted(images) - merged(images)) < 1e-5
    assert type(merged.head) is nn.Sequential


def test_two_classifiers_are_refused_and_one_takes_their_place() -> None:
    with pytest.raises(UsageError, match="two classifiers of two tokens"):
        adapted_of("distilled")
    adapted = stirred(adapted_of("distilled", num_classes=4))
    images = images_of("distilled", 2)
    with torch.no_grad():
        assert largest(adapted.eval()(images) - adapted.merge()(images)) < 1e-12


def test_nothing_that_learns_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing would learn"):
        adapt(tiny_vit(num_classes=0), "linear")


# Numbers of every type


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_adapter_is_of_the_networks_type(dtype: torch.dtype) -> None:
    adapted = adapt(tiny_vit(num_classes=3).to(dtype), "lora", scale=0.3)
    images = torch.randn(2, 3, 32, 32).to(dtype)
    assert adapted(images).dtype == dtype
    assert {tensor.dtype for tensor in adapted.adapter_state().values()} == {dtype}
    assert adapted.network.constants.tensors()["scale"].equal(torch.tensor(0.3, dtype=dtype))
    stirred(adapted).merge()


def test_grey_images_go_through_as_timm_takes_them() -> None:
    model, images = tiny_vit(num_classes=3, in_chans=1), torch.randn(2, 1, 32, 32)
    adapted = adapt(model, "lora").eval()
    assert largest(adapted(images) - model.eval()(images)) < 1e-6
    stirred(adapted).merge()


def test_half_precision_by_autocast() -> None:
    adapted = adapt(tiny_vit(num_classes=3), "lora")
    with torch.autocast("cpu", torch.bfloat16):
        assert adapted(torch.randn(2, 3, 32, 32)).dtype == torch.bfloat16


# Randomness


def random_one(**changes: Any) -> AdaptedModel:
    return stirred(
        adapt(tiny_vit(num_classes=3), "lora", **{"dropout": 0.5, "drop_path": 0.3} | changes)
    )


@pytest.mark.parametrize("rates", [{"drop_path": 0.0}, {"dropout": 0.0}, {}])
def test_masks_are_counted_from_the_seed(rates: dict[str, float]) -> None:
    images, adapted = torch.randn(8, 3, 32, 32), random_one(**rates)
    again = copy.deepcopy(adapted)
    torch.manual_seed(1)
    first, second = adapted(images), adapted(images)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert again(images).equal(first)
    assert again(images).equal(second)
    assert torch.get_rng_state().equal(state)
    assert not first.equal(second)
    other = copy.deepcopy(again)
    other.seed, other.calls = 1, 0
    assert not other(images).equal(first)


def test_in_evaluation_nothing_is_drawn_or_counted() -> None:
    images, adapted = torch.randn(2, 3, 32, 32), random_one().eval()
    assert adapted(images).equal(adapted(images))
    assert adapted.calls == 0


def test_a_state_dict_goes_on_with_the_same_masks() -> None:
    images, adapted = torch.randn(2, 3, 32, 32), random_one()
    adapted(images)
    later = adapt(tiny_vit(num_classes=3), "lora", dropout=0.5, drop_path=0.3)
    later.load_state_dict(adapted.state_dict())
    assert later(images).equal(adapted(images))


def test_one_seed_is_one_beginning() -> None:
    model = tiny_vit(num_classes=3)
    first, again, other = (
        adapt(model, "lora", num_classes=3, seed=seed).adapter_state() for seed in (0, 0, 1)
    )
    assert all(tensor.equal(again[name]) for name, tensor in first.items())
    assert not all(tensor.equal(other[name]) for name, tensor in first.items())


def test_the_users_dropout_is_of_the_frozen_network_and_off() -> None:
    images = torch.randn(2, 3, 32, 32)
    adapted = adapt(tiny_vit(num_classes=3, drop_rate=0.5, drop_path_rate=0.5), "lora").train()
    assert adapted(images).equal(adapted(images))


# Compiled, copied, in parallel


COMPILED = """
import copy
import torch
from torch._dynamo.utils import counters
from idat_zoo import adapt
from kinds import FORMS, built

images = torch.randn(4, 3, 32, 32)
for options in ({"dropout": 0.5}, {"drop_path": 0.3}, {}):
    adapted = adapt(built(FORMS["vit"], num_classes=5), "lora", **options)
    for parameter in adapted.trainable().values():
        parameter.data.normal_(std=0.1)
    compiled = torch.compile(copy.deepcopy(adapted), backend="aot_eager", fullgraph=not options)
    counters.clear()
    equal = [compiled(images).equal(adapted(images)) for _ in range(10)]
    print(all(equal), counters["stats"]["unique_graphs"])
    print(compiled.eval()(images).equal(adapted.eval()(images)))
"""


@pytest.mark.system
def test_compiled_it_is_what_it_is_plain() -> None:
    """In one graph for all calls, though each draws other masks."""
    done = subprocess.run(  # apart: the annotations that are checked here are in dynamo's way
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == ["True", "1", "True"] * 3, done.stderr


def test_data_parallel_is_refused() -> None:
    with pytest.raises(UsageError, match="DataParallel would draw one dropout"):
        random_one()._replicate_for_data_parallel()  # what torch calls for each device


def test_a_copy_is_one_of_its_own() -> None:
    images, adapted = torch.randn(2, 3, 32, 32), stirred(adapt(tiny_vit(num_classes=3), "lora"))
    other = copy.deepcopy(adapted)
    expected = adapted(images)
    step(other, images)
    assert adapted(images).equal(expected)
    assert not other(images).equal(expected)


# Merging and loading


@pytest.mark.parametrize("form", SOME)
def test_merged_it_is_a_plain_network_of_timms(form: str) -> None:
    adapted = stirred(adapted_of(form, rank=2))
    merged, images = adapted.merge(), images_of(form, 2)
    with torch.no_grad():
        assert largest(adapted.eval()(images) - merged(images)) < 1e-9
    assert type(merged) is type(built(FORMS[form]))
    assert merged.num_classes == 5
    assert merged.state_dict().keys() == model_of(form).state_dict().keys()


def test_what_cannot_be_merged_says_so_and_stays_as_it_is() -> None:
    adapted = adapt(tiny_vit(num_classes=3), "sequential")
    with pytest.raises(UsageError, match="adapter 'sequential' cannot be merged"):
        adapted.merge()
    assert adapted.training
    assert adapted.network.training


def test_a_merge_that_is_not_equal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = stirred(adapt(tiny_vit(num_classes=3), "lora"))
    monkeypatch.setattr(type(adapted.network.adapter), "merge", lambda s, site, t, frozen: frozen)
    with pytest.raises(CheckpointError, match="outputs differ by"):
        adapted.merge()


def test_a_runs_tensors_fit_the_network_that_they_were_trained_on(tmp_path: Path) -> None:
    run(toy_recipe("lora", epochs=1, warmup_epochs=0), device="cpu", out=tmp_path)
    (folder,) = tmp_path.glob("*/*/*/*/seed0")
    network = load_checkpoint(folder).network
    spec = TOY_PAIR.student
    model = timm.create_model(spec.timm, num_classes=0, img_size=spec.img_size, **dict(spec.args))
    model.load_state_dict(network.body.state_dict())
    adapted = adapt(model, "lora", num_classes=10).eval()
    adapted.load_adapter(folder)
    images = torch.randn(2, 3, 16, 16)
    assert adapted(images).equal(network(images))


def test_tensors_of_another_adapter_are_refused_with_every_fault() -> None:
    model = tiny_vit(num_classes=3)
    adapted = adapt(model, "lora")
    before = {name: tensor.clone() for name, tensor in adapted.adapter_state().items()}
    classes = adapt(model, "lora", num_classes=4).adapter_state()
    del classes["head.bias"]
    for source, told in (
        (classes, r"head.bias is missing; head.weight is \[4, 32\], expected \[3, 32\]\."),
        (adapt(model, "lora", rank=4).adapter_state(), r"is \[4, 32\], expected \[8, 32\].*4 more"),
        (adapt(model, "sequential").adapter_state(), "has no place here.*12 more"),
    ):
        with pytest.raises(CheckpointError, match=told):
            adapted.load_adapter(source)
    assert all(tensor.equal(before[name]) for name, tensor in adapted.adapter_state().items())


def test_files_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    adapted = adapt(tiny_vit(num_classes=3), "lora")
    torch.save(adapted.adapter_state(), tmp_path / "adapter.pt")
    (tmp_path / "text").write_text("nothing of the sort")
    for name, told in (
        ("adapter.pt", "is a pickle"),
        ("text", "is damaged"),
        ("nowhere", "No such file"),
        ("", "No such file"),
    ):
        with pytest.raises(CheckpointError, match=told):
            adapted.load_adapter(tmp_path / name)


# What is refused


def peft_within() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    network: Any = get_peft_model(tiny_vit(num_classes=3), LoraConfig(target_modules=["qkv"]))
    within: nn.Module = network.base_model.model
    return within


def partly_cast() -> nn.Module:
    model: nn.Module = tiny_vit()
    model.get_submodule("blocks.0").to(torch.bfloat16)
    return model


def other_residual() -> nn.Module:
    model: nn.Module = tiny_vit(num_classes=3)
    block: Any = model.get_submodule("blocks.0")
    block.register_forward_hook(lambda module, args, output: 2 * output)
    return model


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: timm.create_model("resnet18"), "it is a ResNet"),
        (lambda: nn.Linear(3, 3), "it is a Linear"),
        (lambda: nn.DataParallel(tiny_vit()), "it is a DataParallel"),
        (lambda: torch.compile(tiny_vit()), "it is a OptimizedModule"),
        (peft_within, "its qkv of block 0 is a Linear without a weight of its own"),
        (lambda: tiny_vit(global_pool=""), "without pooling"),
        (lambda: tiny_vit(img_size=(32, 48)), "square images"),
        (partly_cast, "weights are of several types: torch.bfloat16, torch.float32"),
    ],
)
def test_networks_that_are_not_walked_are_refused(make: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        adapt(make(), "lora")


def test_a_network_that_computes_otherwise_is_refused() -> None:
    with pytest.raises(WalkError, match="computes something else than the walk"):
        adapt(other_residual(), "lora")


@pytest.mark.parametrize(
    ("family", "options", "error", "told"),
    [
        ("lorra", {}, UnknownNameError, "Did you mean 'lora'"),
        ("lora", {"rank": 0, "foo": 1}, RecipeError, "2 faults"),
        ("lora", {"blocks": "last99"}, UsageError, "last99"),
        ("peft:lokr", {"rank": 4}, RecipeError, "rank"),
        ("peft:lorra", {}, UsageError, "Did you mean 'lora'"),
        ("lora:lokr", {}, UnknownNameError, "unknown adapter 'lora:lokr'"),
        ("lora", {"num_classes": 0}, UsageError, "num_classes is an int from 1; got 0"),
        ("lora", {"num_classes": True}, UsageError, "num_classes is an int from 1; got True"),
        ("lora", {"seed": -1}, UsageError, "seed is an int from 0; got -1"),
        ("lora", {"drop_path": 1.0}, UsageError, "drop_path is a rate"),
        ("peft:frodd", {}, UnknownNameError, "unknown tuner of PEFT 'frodd'"),
        ("peft:", {}, UsageError, "is any tuner of PEFT: say which"),
        ("peft", {}, UsageError, "is any tuner of PEFT: say which"),
        ("lora", {"img_size": 64}, UsageError, "cannot take an image"),
        ("lora", {"img_size": 0}, UsageError, "square images"),
    ],
)
def test_wrong_words_are_refused(
    family: str, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        adapt(tiny_vit(num_classes=3), family, **options)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(2, 3, 32, 32).double(), "got torch.float64"),
        (torch.zeros(3, 32, 32), r"got the shape \[3, 32, 32\]"),
        (torch.zeros(2, 3, 48, 48), r"got the shape \[2, 3, 48, 48\]"),
        ([torch.zeros(3, 32, 32)], "got list"),
    ],
)
def test_what_are_no_normalised_images_is_refused(images: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        adapt(tiny_vit(num_classes=3), "lora")(images)


# Plugins, and the check


def test_a_kind_from_a_plugin_is_walked(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    _, _, mixer = text.partition('```python\n"""timm\'s MLP-Mixer')
    (tmp_path / "mixer.py").write_text('"""timm\'s MLP-Mixer' + mixer.partition("```")[0])
    load_plugin(tmp_path / "mixer.py")
    try:
        model = timm.create_model("mixer_tiny", img_size=32, num_classes=3)
        adapted = adapt(model, "lora", img_size=32).eval()
        images = torch.randn(2, 3, 32, 32)
        assert largest(adapted(images) - model.eval()(images)) < 1e-6
        stirred(adapted).merge()
    finally:
        outside.forget()


def test_the_walk_is_compared_before_anything_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "relative_difference", lambda kind, spec, head: 1e-3)
    with pytest.raises(WalkError, match=r"differ by 1\.0e-03"):
        adapt(tiny_vit(num_classes=3), "lora")


@pytest.mark.parametrize("family", ["fact_tt", "fact_tk"])
def test_an_mlp_narrower_than_the_stream_is_refused_where_factors_serve_both(family: str) -> None:
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    vit = timm.create_model("vit_tiny_patch16_224", mlp_ratio=0.5, **shape)
    with pytest.raises(UsageError, match="a side of 24, less than 48"):
        adapt(vit, family, num_classes=3)
    adapt(vit, "krona", num_classes=3)
