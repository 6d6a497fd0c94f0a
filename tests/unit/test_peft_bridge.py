"""`peft:NAME`: PEFT's tuners trained, saved and loaded as any adapter, beside the real PEFT."""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import frozen_of, peft_logits, tiny
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from typer.testing import CliRunner

from conftest import DIGITS, learner_of, toy_pair, toy_recipe
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.peft import adapted
from idat_zoo.adapters.peft_options import UNFIT, UNMERGED, require_peft, tuners
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import describe_anatomy, hash_network
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.peft_network import PeftNetwork
from idat_zoo.checkpoint.loading import Checkpoint, load_checkpoint
from idat_zoo.checkpoint.probe import probe_images
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.cli import app
from idat_zoo.data.load import load_task
from idat_zoo.data.task_data import TaskData
from idat_zoo.engine.state import load_state, state_of
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import UsageError
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.timm_model import largest_difference, merge
from idat_zoo.hub.head import Head
from idat_zoo.plugins import load_plugin
from idat_zoo.pool import AdapterPool
from idat_zoo.publishing.plan import plan
from idat_zoo.randomness import generator
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.registry import get_recipe
from idat_zoo.runs.folder import run_folder
from idat_zoo.specs import AdapterSpec

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of frod

TUNERS: dict[str, dict[str, Any]] = {
    "beft": {},
    "boft": {},
    "c3a": {"block_size": 8},
    "deft": {"r": 2},
    "delora": {"r": 2},
    "fourierft": {"n_frequency": 20},
    "frod": {},
    "glora": {"r": 2, "config_D_E": "none"},  # D is a factor of biases, which are zero here
    "gralora": {"r": 4},
    "hira": {"r": 2},
    "hra": {"r": 4},
    "ia3": {},
    "lily": {"r": 2},
    "ln_tuning": {},
    "loha": {"r": 2},
    "lokr": {"r": 2},
    "lora": {"r": 2},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 4},
    "osf": {},
    "peanut": {"r": 2},
    "psoft": {"r": 4},
    "pvera": {"r": 8},
    "randlora": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "supertuning": {},
    "tinylora": {"u": 8},
    "unilora": {"theta_d_length": 64},
    "vblora": {"vector_length": 4, "num_vectors": 16},
    "vera": {"r": 8},
    "waveft": {"n_frequency": 20},
}
"""Every tuner that fits, with options for a width of 24."""

FEW_AT_ONCE = [
    pytest.param(t, marks=() if t in ("boft", "lora", "vera") else pytest.mark.system)
    for t in TUNERS
]
"""Three, and the others in the long tests."""


def recipe_of(tuner: str, **options: Any) -> Recipe:
    """A recipe of the toy student alone."""
    options = {"tuner": tuner, **TUNERS[tuner], **options}
    return toy_recipe("peft", options=options, teacher=False)


def network_of(tuner: str, *, seed: int = 0, **options: Any) -> Network:
    """A network as it begins."""
    return toy_pair(recipe_of(tuner, **options), seed=seed).student


def shaken(tuner: str, **options: Any) -> Network:
    """A network with every trained tensor away from its start."""
    network = network_of(tuner, **options)
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(2, "t", name)))
    return network


def logits_of(network: Network) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network.eval()(probe_images(network))
    return logits


def test_each_tuner_that_the_installed_peft_has_is_tried_here_or_refused_by_name() -> None:
    assert list(tuners()) == list(TUNERS)
    assert len(TUNERS) >= 15
    assert not UNFIT.keys() & TUNERS.keys()


def test_the_docs_name_each_of_them_and_each_that_is_refused() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "peft.md").read_text()
    listed = docs[docs.index("by the tests:") : docs.index("| not these |")]
    assert re.findall(r"[a-z_0-9]+", listed.removeprefix("by the tests:")) == list(TUNERS)
    refused = docs[docs.index("| not these |") : docs.index("## How")]
    names = re.findall(r"`(\w+)`", refused)
    assert sorted(names) == sorted(UNFIT)


@pytest.mark.parametrize("tuner", FEW_AT_ONCE)
def test_a_loaded_network_gives_the_logits_of_the_one_that_was_saved(
    tuner: str, tmp_path: Path
) -> None:
    network = shaken(tuner)
    write_checkpoint(
        tmp_path, network, recipe_of(tuner), role="student", recipe_hash="0" * 64, seed=0
    )
    assert torch.equal(logits_of(load_checkpoint(tmp_path).network), logits_of(network))


@pytest.mark.parametrize("tuner", TUNERS)
def test_equal_seeds_give_equal_tensors_and_the_global_generator_rests(tuner: str) -> None:
    before = torch.get_rng_state()
    first, again = (network_of(tuner).published() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


# Training


@cache
def digits() -> TaskData:
    return load_task(DIGITS, img_size=16)


def trainer_of(recipe: Recipe) -> Trainer:
    """A trainer of one run on the 200 images of digits' val: three steps an epoch."""
    return Trainer([learner_of(recipe, digits().val)])


def values_of(trainer: Trainer) -> dict[str, Tensor]:
    (learner,) = trainer.learners
    return {name: own.detach().clone() for name, own in learner.trainable().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


@pytest.mark.parametrize("tuner", TUNERS)
def test_every_trained_tensor_is_alive_and_frozen_weights_stay(tuner: str) -> None:
    trainer = trainer_of(recipe_of(tuner))
    (learner,) = trainer.learners
    network = learner.pair.student
    assert isinstance(network, PeftNetwork)
    original = hash_network(network.body)
    frozen = {n: p.clone() for n, p in network.model.named_parameters() if not p.requires_grad}
    start = values_of(trainer)
    trainer.train_epoch(0)
    assert learner.fault is None
    assert not any(start[name].equal(now) for name, now in values_of(trainer).items())
    assert hash_network(network.body) == original == network.backbone.sha256
    assert all(p.equal(frozen[n]) for n, p in network.model.named_parameters() if n in frozen)


DROPPED = {
    "lora": {"lora_dropout": 0.3},
    "lokr": {"rank_dropout": 0.3},
    "oft": {"module_dropout": 0.3},
    "boft": {"boft_dropout": 0.3},
    "pvera": {},
}
"""Tuners that draw at every step."""


@pytest.mark.parametrize("tuner", DROPPED)
def test_what_is_dropped_has_a_key_so_runs_repeat_and_resume_to_the_bit(tuner: str) -> None:
    recipe = recipe_of(tuner, **DROPPED[tuner])
    whole, again = trainer_of(recipe), trainer_of(recipe)
    before = torch.get_rng_state()
    whole.train_epoch(0)
    assert torch.equal(torch.get_rng_state(), before)
    saved = {n: own.clone() for n, own in state_of(whole, whole.learners[0]).items()}
    whole.train_epoch(1)
    torch.randn(3)  # whatever others draw
    load_state(again, again.learners[0], saved)
    again.learners[0].done = 1
    again.train_epoch(1)
    assert same(values_of(whole), values_of(again))


def test_a_module_that_is_dropped_whole_is_not_called_dead() -> None:
    trainer = trainer_of(recipe_of("lokr", module_dropout=0.5))
    trainer.train_epoch(0)
    assert trainer.learners[0].fault is None


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    network = shaken("lora", lora_dropout=0.5)
    images = probe_images(network)
    masks = [{"peft": torch.tensor(seed)} for seed in (1, 1, 2)]
    with torch.no_grad():
        first, equal, other = (network(images, own) for own in masks)
        assert torch.equal(first, equal)
        assert not torch.equal(first, other)
        assert torch.equal(network(images), network.train()(images))
        assert not torch.equal(network(images), first)


def test_each_run_has_a_pass_of_its_own_and_no_prefix_is_cached() -> None:
    learner = learner_of(recipe_of("lora"), digits().val)
    assert not learner.has_prefix
    assert not build_adapter(recipe_of("lora").adapter).stackable


# Where it stands


def test_targets_are_the_linear_layers_of_blocks_and_neither_patches_nor_pools() -> None:
    adapter = build_adapter(AdapterSpec(name="peft", options={"tuner": "lora"}))
    names = adapted(adapter.try_out(describe_anatomy(tiny("siglip"))))
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert names == [f"blocks.{i}.{layer}" for i in range(2) for layer in layers]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["proj"], ["blocks.0.attn.proj", "blocks.1.attn.proj"]),
        (["blocks.1.mlp.fc1"], ["blocks.1.mlp.fc1"]),
        (["patch_embed.proj"], ["patch_embed.proj"]),
        (r"blocks\.0\..*fc\d", ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]),
    ],
)
def test_names_and_ends_of_names_and_expressions_choose_modules(
    asked: Any, found: list[str]
) -> None:
    network = network_of("lora", target_modules=asked)
    assert isinstance(network, PeftNetwork)
    assert adapted(network.model) == found


@pytest.mark.parametrize("form", ["beit", "eva02 tiny", "dinov3 qkvb", "swinv2"])
def test_where_qkv_is_read_past_its_module_nothing_would_learn_and_that_is_refused(
    form: str,
) -> None:
    anatomy = describe_anatomy(tiny(form))
    dead, alive = (
        build_adapter(AdapterSpec(name="peft", options={"tuner": "lora", **own}))
        for own in ({}, {"target_modules": ["fc1", "fc2"]})
    )
    assert "attn.qkv past its module" in dead.misfit(anatomy)
    assert not alive.misfit(anatomy)


@pytest.mark.parametrize("form", ["swin", "convnext 1x1", "eva02 base", "dinov3", "registers"])
def test_it_stands_on_other_kinds(form: str) -> None:
    network = build_network(
        frozen_of(form),
        build_adapter(AdapterSpec(name="peft", options={"tuner": "lokr", "r": 2})),
        num_classes=3,
        normalisation="model",
        seed=0,
        role="student",
    ).double()
    with torch.no_grad():
        assert network(probe_images(network)).isfinite().all()


# Options and names


def test_a_recipe_names_the_tuner_its_rank_and_what_differs_from_pefts_defaults() -> None:
    plain = get_recipe("digits", "peft:lokr", teacher="none")
    assert plain.adapter.options == {"tuner": "lokr", "r": 8}
    words = ["adapter.r=8", "adapter.alpha=8"]
    assert get_recipe("digits", "peft:lokr", teacher="none", overrides=words) == plain
    words = [
        "adapter.r=4",
        'adapter.target_modules=["qkv","proj"]',
        "adapter.rank_pattern={proj = 2}",
    ]
    recipe = get_recipe("digits", "peft:lokr", teacher="none", overrides=words)
    assert recipe.adapter.options == {
        "tuner": "lokr",
        "r": 4,
        "target_modules": ("qkv", "proj"),
        "rank_pattern": {"proj": 2},
    }
    assert parse_recipe(dump_recipe(recipe), where="test") == recipe
    assert run_folder(Path(), recipe, 0).parts[1] == "peft-lokr"
    assert recipe_hash(recipe) != recipe_hash(plain)


def test_teacher_and_student_may_have_tuners_of_their_own() -> None:
    words = ["adapter.r=4", "teacher_adapter=peft:oft", "teacher_adapter.oft_block_size=4"]
    recipe = get_recipe("digits", "peft:lokr", overrides=words)
    assert recipe.adapter.options == {"tuner": "lokr", "r": 4}
    assert recipe.teacher_adapter is not None
    assert recipe.teacher_adapter.options == {"tuner": "oft", "r": 0, "oft_block_size": 4}
    both = get_recipe("digits", "peft:lokr", overrides=["adapter.r=4"])
    assert both.teacher_adapter == both.adapter


WRONG = [
    ("peft:lokrr", [], "unknown tuner of PEFT 'lokrr'. Did you mean 'lokr'"),
    ("peft", [], "'peft' is any tuner of PEFT: say which, e.g. peft:lokr"),
    ("peft:poly", [], "'peft:poly' does not fit a vision network"),
    ("peft:lokr", ["adapter.rank=8"], "unknown key 'adapter.rank'"),
    ("peft:lokr", ["adapter.modules_to_save=['head']"], "unknown key 'adapter.modules_to_save'"),
    ("peft:lokr", ["adapter.r=eight"], "r: must be a whole number (got 'eight')"),
    ("peft:lora", ["adapter.init_lora_weights=pissa"], "may change the frozen weights"),
    ("peft:oft", ["adapter.r=8"], "You can only specify either r"),
]


@pytest.mark.parametrize(("adapter", "words", "told"), WRONG)
def test_what_peft_does_not_know_is_refused_by_name(
    adapter: str, words: list[str], told: str
) -> None:
    with pytest.raises(UsageError) as error:
        get_recipe("digits", adapter, overrides=words)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"r": -1}, "`r` should be a positive integer"),
        ({"target_modules": "nothing"}, "means no module of the network"),
        ({"target_modules": "(a+)+("}, "no regular expression"),
        ({"r": 8, "rank_pattern": {"(": 2}}, "no regular expression"),
    ],
)
def test_what_does_not_fit_a_network_is_told_without_its_weights(
    options: dict[str, Any], told: str
) -> None:
    adapter = build_adapter(AdapterSpec(name="peft", options={"tuner": "lokr", **options}))
    assert told in adapter.misfit(describe_anatomy(tiny("vit")))


def test_no_plugin_takes_its_name(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("from idat_zoo.adapters.lora import LoRA\nADAPTERS = {'peft': LoRA}\n")
    with pytest.raises(UsageError, match=r"adapter 'peft' of plugin 'mine\.py'"):
        load_plugin(plugin)


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"peft, which is not installed[\s\S]*idat-zoo\[peft\]"):
        require_peft()


# Other forms


def checkpoint_of(network: Network, recipe: Recipe, folder: Path) -> Checkpoint:
    write_checkpoint(folder, network, recipe, role="student", recipe_hash="0" * 64, seed=0)
    return load_checkpoint(folder)


@pytest.mark.parametrize("tuner", FEW_AT_ONCE)
def test_peft_itself_loads_the_export_and_gives_the_same_logits(tuner: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(shaken(tuner), recipe_of(tuner), tmp_path / "a")
    network, images = checkpoint.network, probe_images(checkpoint.network)
    expected = logits_of(network)
    write_peft(checkpoint, tmp_path / "peft")
    found = peft_logits(tmp_path / "peft", network, images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    start = logits_of(network_of(tuner))
    assert (found - start).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_merged_network_gives_the_same_logits_and_the_adapted_one_stays(
    tuner: str, tmp_path: Path
) -> None:
    network = shaken(tuner)
    before, original = logits_of(network), hash_network(network.body)
    if tuner in UNMERGED:
        with pytest.raises(UsageError, match="cannot be merged by PEFT"):
            merge(network)
        return
    vit = merge(network)
    assert largest_difference(network, vit) < 1e-5
    assert not any(isinstance(module, BaseTunerLayer) for module in vit.modules())
    assert torch.equal(logits_of(network), before)
    assert hash_network(network.body) == original


def test_a_pool_gives_each_of_them_a_pass_of_its_own(tmp_path: Path) -> None:
    recipes = {name: recipe_of(name) for name in ("lokr", "vera")}
    recipes["ours"] = toy_recipe("lora", teacher=False)
    pool, alone, images = AdapterPool(), {}, None
    for name, recipe in recipes.items():
        network = toy_pair(recipe).student
        with torch.no_grad():
            for key, parameter in network.trainable().items():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(2, "t", key)))
        checkpoint_of(network, recipe, tmp_path / name)
        pool.add(name, tmp_path / name)
        images, alone[name] = probe_images(network), logits_of(network)
    assert images is not None
    names = ["lokr", "ours", "vera", "ours", "lokr", "vera", "lokr", "ours"]
    for row, (name, logits) in enumerate(zip(names, pool.predict(images, names), strict=True)):
        torch.testing.assert_close(logits, alone[name][row], rtol=1e-5, atol=1e-6)


def idat(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_one_is_shown_with_its_options_and_its_recipes() -> None:
    shown = idat("show", "peft:lokr")
    assert shown.startswith("# adapter peft:lokr, from peft")
    assert "[options.decompose_factor]" in shown
    assert 'tuner = "lokr"' in idat("show", "micro/peft:lokr/digits")
    assert "micro/peft:lokr/digits" in idat("list", "recipes", "--adapter", "peft:lokr")
    assert "peft:NAME" in idat("list", "adapters")


@pytest.mark.slow
def test_by_the_command_line_one_is_trained_evaluated_merged_exported_and_published(
    tmp_path: Path,
) -> None:
    words = ["adapter.r=2", 'adapter.target_modules=["qkv","fc1"]', "epochs=1", "batch_size=200"]
    flags = ["--task", "digits", "--pair", "tiny_random", "--adapter", "peft:lokr"]
    told = idat("train", *flags, "--out", str(tmp_path / "runs"), *words)
    assert "tiny_random/peft-lokr/digits" in told
    (folder,) = (tmp_path / "runs" / "tiny_random" / "peft-lokr" / "digits").glob("*/seed0")
    assert "peft-lokr/digits" in idat("eval", str(folder))
    assert "peft-lokr" in idat("report", str(tmp_path / "runs"))
    assert "finished" in idat("list", "runs", str(tmp_path / "runs"))
    assert "within" in idat("merge", str(folder), "-o", str(tmp_path / "merged"))
    idat("export", str(folder), "--to", "peft", "-o", str(tmp_path / "peft"))
    network = load_checkpoint(folder).network
    found = peft_logits(tmp_path / "peft", network, probe_images(network))
    torch.testing.assert_close(found, logits_of(network), rtol=1e-4, atol=1e-5)
    contents = dict(plan([folder], Head(repo="zoo/tiny-lokr")).contents)
    assert contents["peft/adapter_config.json"] == (
        (tmp_path / "peft" / "adapter_config.json").read_bytes()
    )
    card = contents["README.md"].decode()
    assert "peft:lokr on tiny_random_student" in card
    assert "With PEFT: `peft/`" in card
