"""`idat import`: an adapter that PEFT trained gives PEFT's logits here, or is refused."""

import copy
import json
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from kinds import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from idat_zoo.adapters import peft_targets
from idat_zoo.adapters.layers import ROWS
from idat_zoo.adapters.peft_targets import PeftConfig, Update, find_updates
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.checkpoint import load_checkpoint, probe_images, read_config
from idat_zoo.cli import app
from idat_zoo.errors import CheckpointError, RecipeError, UsageError
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.peft_import import import_peft
from idat_zoo.formats.timm_model import largest_difference, merge
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone, Recipe
from idat_zoo.registry import get_recipe, load_registry
from idat_zoo.runs.many import run

BACKBONE = "tiny_random_student"  # depth 2, width 24
BASE = load_registry().find_backbone(BACKBONE)
DIGITS = load_registry().find_task("digits")
QKV = "base_model.model.blocks.{}.attn.qkv.lora_{}.weight"
HEAD = "base_model.model.head."


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def noise(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=generator(0, "test", name))


def peft_folder(
    folder: Path, *, rank: int = 3, key: bool = True, depth: int = 2, **config: Any
) -> Path:
    """What PEFT would have written, by hand; a tensor's name maps to another, or to None."""
    changes = config.pop("tensors", {})
    tensors = {f"{HEAD}weight": noise(10, 24, name="head"), f"{HEAD}bias": noise(10, name="bias")}
    for block in range(depth):
        tensors[QKV.format(block, "A")] = noise(rank, 24, name=f"A{block}")
        up = noise(72, rank, name=f"B{block}")
        up[24:48] *= key
        tensors[QKV.format(block, "B")] = up
    kept = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    folder.mkdir()
    save_file(kept, folder / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "target_modules": ["qkv"]}
    (folder / "adapter_config.json").write_text(json.dumps(written | config))
    return folder


def imported(source: Path, folder: Path) -> Recipe:
    return import_peft(source, folder, backbone=BASE, task=DIGITS)


# The same logits


def trained_by_peft(
    folder: Path,
    *,
    backbone: Backbone = BASE,
    halves: bool = False,
    made_by: Any = None,
    **config: Any,
) -> tuple[Any, Tensor]:
    """Two steps of AdamW in the real PEFT, saved in a folder: its float64 logits of the probe."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that PEFT imports
        from peft import LoraConfig, get_peft_model

        vit = load_backbone(backbone).body
        vit.reset_classifier(10)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # PEFT draws from the global generator
            torch.nn.init.normal_(vit.get_classifier().weight)
            asked = {"target_modules": ["qkv"], "modules_to_save": ["head"], **config}
            model = get_peft_model(vit, (made_by or LoraConfig)(**asked))
        images = noise(8, 3, backbone.img_size, backbone.img_size, name="images")
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(learning, lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            targets = torch.arange(8)
            torch.nn.functional.cross_entropy(model(images), targets).backward()
            optimiser.step()
        if halves:
            with torch.no_grad():
                for parameter in learning:
                    parameter.copy_(parameter.bfloat16())
        model.save_pretrained(str(folder))
        if halves:
            path = folder / "adapter_model.safetensors"
            save_file({n: t.bfloat16() for n, t in load_file(path).items()}, path)
        with torch.inference_mode():
            logits: Tensor = model.double().eval()(images.double())
    return images.double(), logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "tolerance"),
    [
        # Both are computed in float64 from the same float32 numbers, in another order.
        ({"r": 4, "lora_alpha": 4}, 1e-12),
        ({"r": 4, "lora_alpha": 10, "lora_dropout": 0.3}, 1e-12),
        ({"r": 8, "lora_alpha": 3, "use_rslora": True}, 1e-12),
        ({"r": 2, "init_lora_weights": "gaussian", "halves": True}, 1e-12),
        # Unlike scales are multiplied into B, which is kept in float32.
        ({"r": 4, "rank_pattern": {"blocks.1.attn.qkv": 7}}, 1e-6),
        ({"r": 4, "alpha_pattern": {r"blocks\.0\..*": 5}, "use_rslora": True}, 1e-6),
        ({"target_modules": r"blocks\.(0|1)\.attn\.(q|k|v|qkv)"}, 1e-12),
        ({"target_modules": "blocks.[12].attn.qkv", "r": 3}, 1e-12),
        ({"layers_to_transform": [0], "layers_pattern": "blocks"}, 1e-12),
        ({"rank_pattern": {"blocks.[1-9].attn.(qkv|proj)": 7}}, 1e-6),
    ],
    ids=[
        "plain",
        "alpha",
        "rslora",
        "bf16",
        "ranks",
        "alphas",
        "alternation",
        "class",
        "layers",
        "rank-class",
    ],
)
def test_an_adapter_that_peft_trained_gives_the_same_logits(
    config: dict[str, Any], tolerance: float, tmp_path: Path
) -> None:
    images, expected = trained_by_peft(tmp_path / "peft", **config)
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(tmp_path / "ours"))
    result = idat("import", str(tmp_path / "peft"), *words)
    assert result.exit_code == 0, result.output
    network = load_checkpoint(tmp_path / "ours").network.double()
    assert network.adapter.options.model_dump()["key"]
    with torch.inference_mode():
        found = network(images)
    largest = expected.abs().max()
    assert (found - expected).abs().max() < tolerance * largest
    frozen = merge(load_checkpoint(tmp_path / "ours").network.double())
    assert largest_difference(network, frozen) < 1e-12
    with torch.no_grad():
        for tensor in network.adapter_tensors.tensors().values():
            tensor.zero_()
        assert (network(images) - expected).abs().max() > 0.01 * largest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "config"),
    [
        ("dinov3", {"target_modules": ["qkv"]}),
        ("siglip", {"target_modules": r"blocks\.\d\.attn\.qkv"}),
        ("swin padded", {"target_modules": ["qkv"]}),
        ("swin padded", {"target_modules": ["0.attn.qkv"], "modules_to_save": ["head.fc"]}),
        ("eva02 base", {"target_modules": ["q_proj", "v_proj"]}),
        ("eva02 base", {"target_modules": ["q_proj", "k_proj"], "lora_alpha": 3}),
    ],
)
def test_so_it_does_on_other_kinds(form: str, config: dict[str, Any], tmp_path: Path) -> None:
    images, expected = trained_by_peft(tmp_path / "peft", backbone=tiny(form), r=4, **config)
    import_peft(tmp_path / "peft", tmp_path / "ours", backbone=tiny(form), task=DIGITS)
    network = load_checkpoint(tmp_path / "ours").network.double()
    with torch.inference_mode():
        found = network(images)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    write_peft(load_checkpoint(tmp_path / "ours"), tmp_path / "exported")
    import_peft(tmp_path / "exported", tmp_path / "again", backbone=tiny(form), task=DIGITS)
    first, second = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("ours", "again")
    )
    assert first == second


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("beit", "Beit reads the weight of blocks.0.attn.qkv past its module"),
        ("eva02 tiny", "Eva reads the weight of blocks.0.attn.qkv past its module"),
        ("dinov3 qkvb", "Eva reads the weight of blocks.0.attn.qkv past its module"),
        ("swinv2", "SwinTransformerV2 reads the weight of layers.0.blocks.0.attn.qkv past its"),
    ],
)
def test_no_adapter_is_imported_where_peft_trains_another_function_than_it_merges(
    form: str, told: str, tmp_path: Path
) -> None:
    source = peft_folder(tmp_path / "peft")
    with pytest.raises(CheckpointError) as caught:
        import_peft(source, tmp_path / "ours", backbone=tiny(form), task=DIGITS)
    assert f"cannot be imported on backbone '{tiny(form).name}': " in caught.value.message
    assert told in caught.value.message
    assert not (tmp_path / "ours").exists()


def test_layers_of_other_kinds_are_told_by_their_own_names(tmp_path: Path) -> None:
    swin = peft_folder(
        tmp_path / "swin",
        tensors={
            f"base_model.model.layers.{at}.attn.qkv.lora_A.weight": torch.zeros(3, 16)
            for at in ("0.blocks.1", "0.blocks.2", "5.blocks.0")
        },
        target_modules=["layers.0.blocks.0.attn.qkv"],
    )
    with pytest.raises(CheckpointError) as caught:
        import_peft(swin, tmp_path / "ours", backbone=tiny("swin padded"), task=DIGITS)
    assert "it updates attn.qkv of block 0.1, which target_modules=" in caught.value.message
    assert "attn.qkv of blocks 0.2, 5.0; backbone 'swin_padded' has 4 blocks" in (
        caught.value.message
    )
    assert "no LoRA on attn.qkv of block 0.0, which target_modules=" in caught.value.message
    assert "train with modules_to_save=['head.fc']" in caught.value.message


TWELVE = BASE.model_copy(update={"name": "twelve", "args": BASE.args | {"depth": 12}})


def adapted_by_peft(vit: Any, adapt: Callable[[Any], Any]) -> dict[str, Update]:
    """The modules that `adapt` gave a LoRA, with rank and scale."""
    model = adapt(vit)
    return {
        name.removeprefix("base_model.model."): Update(
            rank=module.r["default"], scale=module.scaling["default"]
        )
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["qkv"]},
        {"target_modules": ["blocks.1.attn.qkv", "kv"]},
        {"target_modules": ["1.attn.qkv", "mlp.fc1"]},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(qkv|proj)"},
        {"target_modules": r"blocks\.1\.attn\.qkv"},
        {"target_modules": "blocks.[12].attn.qkv"},
        {"target_modules": r"(?!.*\.1\d?\.).*(?:qkv|fc[12])"},
        {"target_modules": r"(?i)BLOCKS\.(1|11)\.ATTN\.QKV"},
        {"target_modules": ["qkv"], "exclude_modules": ["1.attn.qkv"]},
        {"target_modules": ["qkv", "fc1"], "exclude_modules": r".*1\.attn.*|.*fc1"},
        {"target_modules": ["qkv"], "layers_to_transform": 1, "layers_pattern": "blocks"},
        {
            "target_modules": ["qkv", "blocks.5.mlp.fc1"],
            "layers_to_transform": [1, 11],
            "layers_pattern": ["layers", "bl[ao]cks"],
        },
        {
            "target_modules": ["qkv"],
            "rank_pattern": {"1.attn.qkv": 2, r"blocks\.1\d.*": 3, "blocks.(1|2).attn.qkv": 5},
            "alpha_pattern": {"^blocks.0.attn.qkv": 7, "qkv": 9, ".*": 11},
            "use_rslora": True,
        },
    ],
)
def test_modules_ranks_and_scales_are_those_that_peft_chooses(config: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model

        vit = load_backbone(TWELVE).body
        modules = {n: isinstance(m, torch.nn.Linear) for n, m in vit.named_modules() if n}
        found = find_updates(PeftConfig.model_validate(config), modules)
        assert found == adapted_by_peft(vit, lambda vit: get_peft_model(vit, LoraConfig(**config)))


@pytest.mark.slow
def test_peft_adapts_the_exported_modules_and_no_other(tmp_path: Path) -> None:
    source = peft_folder(tmp_path / "peft", depth=12, target_modules=r"blocks\.\d+\.attn\.qkv")
    import_peft(source, tmp_path / "ours", backbone=TWELVE, task=DIGITS)
    write_peft(load_checkpoint(tmp_path / "ours"), tmp_path / "exported")
    vit = load_backbone(TWELVE).body
    vit.reset_classifier(10)
    vit.x = torch.nn.ModuleDict({"blocks": copy.deepcopy(vit.blocks)})
    vit.qkv = torch.nn.Linear(24, 72)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import PeftModel

        adapted = adapted_by_peft(
            vit, lambda vit: PeftModel.from_pretrained(vit, str(tmp_path / "exported"))
        )
    assert adapted.keys() == {f"blocks.{block}.attn.qkv" for block in range(12)}


def test_blocks_without_an_update_stay_as_they_are_and_come_back(tmp_path: Path) -> None:
    source = peft_folder(
        tmp_path / "peft",
        target_modules="blocks.[1].attn.qkv",
        tensors={QKV.format(0, "A"): None, QKV.format(0, "B"): None},
    )
    imported(source, tmp_path / "first")
    network = load_checkpoint(tmp_path / "first").network
    assert not any(network.local(0)[f"{rows}.up.weight"].any() for rows in ROWS)
    assert all(network.local(1)[f"{rows}.up.weight"].any() for rows in ROWS)
    write_peft(load_checkpoint(tmp_path / "first"), tmp_path / "exported")
    imported(tmp_path / "exported", tmp_path / "second")
    first, second = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize("key", [False, True])
def test_an_adapter_that_was_exported_comes_back_with_its_own_tensors(
    key: bool, tmp_path: Path
) -> None:
    imported(peft_folder(tmp_path / "peft", key=key), tmp_path / "first")
    write_peft(load_checkpoint(tmp_path / "first"), tmp_path / "exported")
    recipe = imported(tmp_path / "exported", tmp_path / "second")
    assert recipe.adapter.options == {"rank": 3, "scale": 2.0} | ({"key": True} if key else {})
    names = ("adapter_model.safetensors", "config.json")
    for name in names:
        first, second = ((tmp_path / place / name).read_bytes() for place in ("first", "second"))
        assert first == second


def test_an_adapter_that_ships_is_the_same_by_way_of_peft(tmp_path: Path) -> None:
    before = load_checkpoint("builtin:digits-lora")
    write_peft(before, tmp_path / "peft")
    import_peft(tmp_path / "peft", tmp_path / "ours", backbone=before.config.backbone, task=DIGITS)
    after = load_checkpoint(tmp_path / "ours").network
    images = probe_images(after)
    with torch.inference_mode():
        assert after(images).equal(before.network(images))


def test_an_update_of_zeros_is_the_frozen_network(tmp_path: Path) -> None:
    nothing = {QKV.format(block, "B"): torch.zeros(72, 3) for block in range(2)}
    recipe = imported(peft_folder(tmp_path / "peft", tensors=nothing), tmp_path / "ours")
    assert recipe.adapter.options == {"rank": 1, "scale": 2.0}


@pytest.mark.parametrize("alpha", [-6, 0])
def test_a_scale_that_is_not_positive_goes_into_the_tensors(alpha: int, tmp_path: Path) -> None:
    imported(peft_folder(tmp_path / "plus"), tmp_path / "a")
    imported(peft_folder(tmp_path / "other", lora_alpha=alpha), tmp_path / "b")
    plus, other = (load_checkpoint(tmp_path / name).network.local(1) for name in ("a", "b"))
    if alpha:
        assert (plus["scale"] * plus["key.up.weight"]).equal(-other["key.up.weight"])
    else:
        assert not any(up.any() for name, up in other.items() if "up" in name)


# What becomes of it


@pytest.mark.slow
def test_eval_predict_and_report_say_that_it_was_trained_elsewhere(tmp_path: Path) -> None:
    source, folder = peft_folder(tmp_path / "peft"), tmp_path / "ours"
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(folder))
    made = idat("import", str(source), *words)
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines() == [
        f"{folder}: lora on {BACKBONE} for digits (rank 3, scale 2.0, key True)",
        f"  idat eval {folder}",
    ]
    evaluated = idat("eval", "--checkpoint", str(folder), "--out", str(tmp_path / "e"))
    assert evaluated.exit_code == 0, evaluated.output
    assert "trained elsewhere (protocol = imported)" in evaluated.stdout
    report = idat("report", str(tmp_path / "e"))
    assert "protocol imported: trained elsewhere" in report.stdout
    (tmp_path / "x.png").write_bytes(PIXEL)
    told = idat("predict", "--checkpoint", str(folder), str(tmp_path / "x.png"))
    assert told.exit_code == 0, told.output


@pytest.mark.slow
def test_an_adapter_for_ones_own_images_is_imported_and_evaluated_as_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = str(peft_folder(tmp_path / "peft"))
    words = ("--backbone", BACKBONE, "--task", "folder", "-o", "ours")
    refused = idat("import", source, *words)
    assert refused.exit_code == 2
    assert "--task folder is the images of --data-dir, which is not given." in refused.stderr
    fakes.write_class_folders(Path("my photos"), dict.fromkeys("abcdefghij", 6))
    made = idat("import", source, *words, "--data-dir", "my photos")
    assert made.exit_code == 0, made.output
    assert "outputs stand for, in order: a, b, c, d, e, f, g, h, i, j" in made.stderr
    printed = made.stdout.splitlines()[1]
    assert printed == "  idat eval ours --data-dir 'my photos'"
    evaluated = idat(*shlex.split(printed)[1:])
    assert evaluated.exit_code == 0, evaluated.output
    lost = idat("eval", "--checkpoint", "ours")
    assert (lost.exit_code, "data pull" in lost.stderr) == (1, False)
    assert "hint: --data-dir DIR names the folder that they lie in" in lost.stderr
    fakes.write_class_folders(Path("three"), dict.fromkeys("abc", 6))
    fewer = idat("import", source, *words[:-1], "other", "--data-dir", "three")
    assert fewer.exit_code == 1
    assert "3" in fewer.stderr


def test_two_imported_adapters_are_two_recipes(tmp_path: Path) -> None:
    other = {f"{HEAD}bias": torch.zeros(10)}
    for name, tensors in (("a", {}), ("b", other), ("again", {})):
        imported(peft_folder(tmp_path / f"peft-{name}", tensors=tensors), tmp_path / name)
    first, second, again = (read_config(tmp_path / name) for name in ("a", "b", "again"))
    assert first.recipe == second.recipe
    assert first.recipe_hash == again.recipe_hash != second.recipe_hash


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_imported_recipe_is_not_trained(dry: tuple[str, ...], tmp_path: Path) -> None:
    words = ("--pair", "tiny_random", "--teacher", "none", "protocol=imported")
    done = idat("train", "--task", "digits", "--adapter", "lora", *words, *dry)
    assert done.exit_code == 2
    assert "trained elsewhere, with settings that are not known" in done.stderr
    recipe = imported(peft_folder(tmp_path / "peft"), tmp_path / "ours")
    with pytest.raises(UsageError, match="it cannot be trained"):
        run(recipe, device="cpu", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RecipeError, match=r"'imported'.*has no teacher and no selection"):
        get_recipe("digits", "lora", overrides=["protocol=imported"])


def test_a_normalisation_is_all_that_can_be_said(tmp_path: Path) -> None:
    words = ("import", str(peft_folder(tmp_path / "peft")), "--backbone", BACKBONE)
    words = (*words, "--task", "digits", "-o", str(tmp_path / "ours"))
    refused = idat(*words, "lr=1e-3")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: 'lr' cannot be set")
    unknown = idat(*words, "normalisation=mine")
    assert unknown.exit_code == 2
    assert "normalisation" in unknown.stderr
    assert not (tmp_path / "ours").exists()
    done = idat(*words, "normalisation=imagenet", "--json")
    assert json.loads(done.stdout) == {
        "schema_version": 1,
        "folder": str(tmp_path / "ours"),
        "backbone": BACKBONE,
        "task": "digits",
        "adapter": {"rank": 3, "scale": 2.0, "key": True},
        "unchecked": [
            "whether it was trained on these weights of the backbone: PEFT notes none",
            "whether it was trained on this class of network: PEFT noted none",
            "how its images were normalised (taken: normalisation=imagenet)",
            "the order of its classes (taken: the task's)",
        ],
    }
    assert read_config(tmp_path / "ours").mean == (0.485, 0.456, 0.406)


# What is refused


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "POLY"}, "'peft:poly' does not fit a vision network"),
        ({"peft_type": "LOKRA"}, "unknown tuner of PEFT 'lokra'. Did you mean 'lora'"),
        ({"peft_type": "IA3"}, "no base_model.model.blocks.0.attn.qkv.ia3_l"),
        (
            {"peft_type": "IA3"},
            "no place for the tensors base_model.model.blocks.0.attn.qkv.lora_A",
        ),
        ({"bias": "lora_only"}, "no base_model.model.blocks.0.attn.qkv.base_layer.bias"),
        ({"use_dora": True}, "no base_model.model.blocks.0.attn.qkv.lora_magnitude_vector"),
        ({"lora_bias": True}, "no base_model.model.blocks.0.attn.qkv.lora_B.bias"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config is set, which is not taken over"),
        ({"use_of_tomorrow": True}, "use_of_tomorrow is set, which is not taken over"),
        *(
            ({"init_lora_weights": start}, f"init_lora_weights = '{start}' may change the frozen")
            for start in ("pissa", "olora", "corda", "loftq", "mica")
        ),
        ({"init_lora_weights": "pissa_niter_4"}, "(got 'pissa_niter_4')"),
        ({"r": 0}, "adapter_config.json: r: "),
        ({"r": "3"}, "adapter_config.json: r: "),
        ({"lora_alpha": None}, "adapter_config.json: lora_alpha: "),
        ({"rank_pattern": {"\\": 3}}, r"adapter_config.json: '\\' is no regular expression: "),
        (
            {"alpha_pattern": {"a{99999999999999999999}": 2}},
            "is no regular expression: the repetit",
        ),
        ({"rank_pattern": {"(" * 2000: 2}}, "((((((' is no regular expression: "),
        ({"target_modules": "[qkv"}, "'[qkv' is no regular expression: unterminated character set"),
        ({"exclude_modules": "qkv)"}, "'qkv)' is no regular expression: unbalanced parenthesis"),
        (
            {"layers_to_transform": 0, "layers_pattern": ["blocks", "("]},
            "'(' is no regular expression: missing )",
        ),
        ({"r": 10**400}, "adapter_config.json: r: "),
        ({"target_modules": None}, "adapter_config.json: target_modules"),
        ({"auto_mapping": {"base_model_class": 3}}, "adapter_config.json: auto_mapping.base_mod"),
        (
            {"target_modules": "blocks.0.(attn.(qkv|proj)|mlp.fc1)|blocks.1.attn.qkv"},
            "no base_model.model.blocks.0.attn.proj.lora_A.weight",
        ),
        (
            {"target_modules": "all-linear"},
            "no base_model.model.blocks.0.mlp.fc1.lora_A.weight",
        ),
        (
            {"layers_to_transform": [0]},
            "target_modules=['qkv'], layers_to_transform=[0] means no module of",
        ),
        (
            {"target_modules": "blocks.[1].attn.qkv"},
            "it updates attn.qkv of block 0, which target_modules='blocks.[1].attn.qkv' does not",
        ),
        ({"rank_pattern": {"qkv": 0}}, "adapter_config.json: rank_pattern.qkv: "),
        ({"rank_pattern": {"qkv": 4}}, "lora_A.weight is [3, 24]; expected [4, 24]"),
    ],
)
def test_a_configuration_that_is_not_plain_lora_is_refused(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        imported(peft_folder(tmp_path / "peft", **config), tmp_path / "ours")
    assert told in caught.value.message
    assert not (tmp_path / "ours").exists()


OTHERS: dict[str, dict[str, Any]] = {
    "dora": {"r": 4, "lora_alpha": 6, "use_dora": True, "target_modules": ["qkv", "proj"]},
    "lora": {"r": 3, "target_modules": ["qkv", "fc1", "fc2"], "rank_pattern": {"fc1": 5}},
    "lora of all": {"r": 2, "target_modules": "all-linear"},
    "lora of patches": {"r": 2, "target_modules": ["qkv", "proj"]},
    "lora with biases": {"r": 2, "target_modules": ["qkv"], "bias": "lora_only"},
    "pvera": {"r": 8, "target_modules": ["qkv"]},
    "vera": {"r": 8, "target_modules": ["qkv", "fc1"], "d_initial": 0.2},
    "ia3": {"target_modules": ["qkv", "fc2"], "feedforward_modules": ["fc2"]},
    "oft": {"oft_block_size": 4, "target_modules": ["qkv", "fc1"]},
    "lokr": {"r": 4, "target_modules": r"blocks\.1\..*(qkv|fc1)"},
    "loha": {
        "r": 2,
        "target_modules": ["qkv"],
        "layers_to_transform": [1],
        "layers_pattern": "blocks",
    },
    "randlora": {"r": 4, "target_modules": ["qkv", "fc1"]},
    "road": {"group_size": 8, "target_modules": ["attn.proj", "fc1"], "variant": "road_4"},
    "fourierft": {"n_frequency": 20, "target_modules": ["attn.proj"]},
}
"""What PEFT trains, which is not a LoRA of ours."""


def trained_with(tuner: str, folder: Path, **config: Any) -> tuple[Any, Tensor]:
    """A step of the real PEFT, saved in a folder, on which nothing is at its start."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = {"dora": "LORA"}.get(tuner, tuner.partition(" ")[0].upper())
    return trained_by_peft(folder, made_by=PEFT_TYPE_TO_CONFIG_MAPPING[kind], **config)


@pytest.mark.parametrize("tuner", OTHERS)
def test_so_does_any_other_tuner_by_way_of_the_bridge(tuner: str, tmp_path: Path) -> None:
    images, expected = trained_with(tuner, tmp_path / "peft", **OTHERS[tuner])
    recipe = imported(tmp_path / "peft", tmp_path / "ours")
    assert recipe.adapter.name == "peft"
    network = load_checkpoint(tmp_path / "ours").network.double()
    with torch.inference_mode():
        found = network(images)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_what_could_not_be_checked_is_told(tmp_path: Path) -> None:
    trained_with("vera", tmp_path / "peft", **OTHERS["vera"])
    config = tmp_path / "peft" / "adapter_config.json"
    document = json.loads(config.read_bytes())
    config.write_text(json.dumps(document | {"peft_version": "0.18.0"}))
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(tmp_path / "ours"))
    done = idat("import", str(tmp_path / "peft"), *words)
    assert done.exit_code == 0, done.output
    assert f"ours: peft:vera on {BACKBONE} for digits (r 8, " in done.stdout
    notes = [line for line in done.stderr.splitlines() if line.startswith("not checked: ")]
    assert len(notes) == 4  # PEFT notes the class of network, not its weights
    assert "whether PEFT 0.18.0 computed what" in notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["target_modules", "rank_pattern", "layers_pattern"])
def test_patterns_that_take_too_long_are_stopped(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_targets, "PATIENCE", 0.5)
    monkeypatch.setattr(peft_targets, "MATCHER", "import time; time.sleep(60)")
    config: dict[str, Any] = {pattern: {"qkv": 2} if pattern == "rank_pattern" else "qkv"}
    source = peft_folder(tmp_path / "peft", **{"layers_to_transform": 0} | config)
    with pytest.raises(CheckpointError, match=r"matching .* takes longer than 0\.5 seconds"):
        imported(source, tmp_path / "ours")


NOTED = {
    "base_model_class": "VisionTransformer",
    "parent_library": "timm.models.vision_transformer",
}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"auto_mapping": {"base_model_class": "Beit", "parent_library": "timm.models.beit"}},
            f"it was trained on a Beit of timm.models.beit; backbone '{BACKBONE}' is a "
            "VisionTransformer of timm.models.vision_transformer",
        ),
        (
            {"auto_mapping": NOTED | {"parent_library": "torchvision.models.vision_transformer"}},
            "a VisionTransformer of torchvision.models.vision_transformer; backbone",
        ),
        (
            {"auto_mapping": NOTED | {"base_model_class": "VisionTransformerDistilled"}},
            "it was trained on a VisionTransformerDistilled of timm.models.vision_transformer; ",
        ),
        (
            {"base_model_name_or_path": "timm/vit_tiny_patch16_224.augreg_in21k"},
            "it was trained on the weights of timm/vit_tiny_patch16_224.augreg_in21k; those of "
            f"backbone '{BACKBONE}' are random",
        ),
        ({"auto_mapping": NOTED, "base_model_name_or_path": "/my/vit"}, ""),
        ({"auto_mapping": None, "base_model_name_or_path": None}, ""),
    ],
)
def test_an_adapter_of_another_network_is_refused(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    source = peft_folder(tmp_path / "peft", **config)
    if not told:
        imported(source, tmp_path / "ours")
        return
    with pytest.raises(CheckpointError) as caught:
        imported(source, tmp_path / "ours")
    assert told in caught.value.message


@pytest.mark.slow
def test_what_peft_writes_of_other_networks_is_refused_by_their_names(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
        import transformers
        from peft import LoraConfig, get_peft_model

        shape = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8}
        small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
        networks = {
            "Beit of timm.models.beit": timm.create_model(
                "beit_base_patch16_224", img_size=32, num_classes=10, **shape
            ),
            "VisionTransformerDistilled of timm.models.deit": timm.create_model(
                "deit_tiny_distilled_patch16_224", img_size=32, num_classes=10, **shape
            ),
            "ViTForImageClassification of transformers.models.vit.modeling_vit": (
                transformers.ViTForImageClassification(transformers.ViTConfig(**small))
            ),
        }
        for number, (name, network) in enumerate(networks.items()):
            head = "head" if hasattr(network, "head") else "classifier"
            config = LoraConfig(target_modules=["qkv", "q_proj", "query"], modules_to_save=[head])
            get_peft_model(network, config).save_pretrained(str(tmp_path / str(number)))
            with pytest.raises(CheckpointError, match=f"it was trained on a {name}; backbone"):
                imported(tmp_path / str(number), tmp_path / "ours")


def test_an_adapter_fits_its_own_depth_alone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"block 2; backbone '{BACKBONE}' has 2 b"):
        imported(peft_folder(tmp_path / "three", depth=3), tmp_path / "ours")
    imported(peft_folder(tmp_path / "two"), tmp_path / "ours")
    write_peft(load_checkpoint(tmp_path / "ours"), tmp_path / "exported")
    for name in ("two", "exported"):
        with pytest.raises(CheckpointError, match=r"no LoRA on attn\.qkv of blocks 2, 3, 4, "):
            import_peft(tmp_path / name, tmp_path / "more", backbone=TWELVE, task=DIGITS)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({f"{HEAD}bias": None}, "no base_model.model.head.bias: train with modules_to_save"),
        (
            {
                "base_model.model.blocks.0.attn.proj.lora_A.weight": torch.zeros(3, 24),
                "base_model.model.blocks.1.mlp.fc1.lora_B.weight": torch.zeros(96, 3),
            },
            "it updates attn.proj, mlp.fc1; only attn.qkv has a place here",
        ),
        (
            {"base_model.model.norm.weight": torch.zeros(24)},
            "no place for the tensors base_model.model.norm.weight",
        ),
        (
            {QKV.format(1, "A"): None, QKV.format(1, "B"): None},
            "no LoRA on attn.qkv of block 1, which target_modules=['qkv'] means",
        ),
        ({QKV.format(1, "A"): None}, f"no {QKV.format(1, 'A')}"),
        (
            {QKV.format(7, "A"): torch.zeros(3, 24)},
            f"attn.qkv of block 7; backbone '{BACKBONE}'",
        ),
        ({QKV.format(0, "A"): torch.zeros(3, 16)}, "is [3, 16]; expected [3, 24]"),
        ({f"{HEAD}weight": torch.zeros(7, 24)}, "is [7, 24]; expected [10, 24]"),
        ({f"{HEAD}bias": torch.zeros(10, dtype=torch.int8)}, "is int8; expected floats"),
        ({f"{HEAD}bias": torch.full((10,), torch.nan)}, "holds values that are not finite"),
    ],
)
def test_tensors_without_a_place_and_places_without_a_tensor_are_named(
    tensors: dict[str, Tensor | None], told: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        imported(peft_folder(tmp_path / "peft", tensors=tensors), tmp_path / "ours")
    assert told in caught.value.message


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    source = peft_folder(
        tmp_path / "peft", use_dora=True, alpha_pattern=3, tensors={f"{HEAD}weight": None}, r="3"
    )
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(tmp_path / "ours"))
    done = idat("import", str(source), *words)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: '{source}' cannot be imported:"
    assert [line.split()[3] for line in lines[1:3]] == ["r:", "alpha_pattern:"]
    assert lines[3].strip().startswith("no base_model.model.head.weight")
    assert lines[4].startswith("hint: What can be: any tuner of PEFT")


def test_another_backbone_is_seen_by_its_width_and_depth(tmp_path: Path) -> None:
    words = ("--backbone", "micro_student", "--task", "digits", "-o", str(tmp_path / "ours"))
    done = idat("import", str(peft_folder(tmp_path / "peft")), *words)
    assert done.exit_code == 1
    told = [line.strip() for line in done.stderr.splitlines()]
    assert told[1:-1] == [
        "no LoRA on attn.qkv of blocks 2, 3, which target_modules=['qkv'] means",
        "base_model.model.head.weight is [10, 24]; expected [10, 128]",
        f"{QKV.format(0, 'A')} is [3, 24]; expected [3, 128]",
        f"{QKV.format(0, 'B')} is [72, 3]; expected [384, 3]",
        f"{QKV.format(1, 'A')} is [3, 24]; expected [3, 128]",
        "and 1 more",
    ]


def test_keys_that_change_nothing_are_ignored(tmp_path: Path) -> None:
    beside = {
        "peft_version": "9.9",
        "inference_mode": True,
        "eva_config": {"rho": 2.0},
        "rank_pattern": None,
        "runtime_config": {"ephemeral_gpu_offload": False},
        "use_of_tomorrow": False,
        "note": "mine",
        "loftq_config": {},
    }
    imported(peft_folder(tmp_path / "peft", **beside), tmp_path / "ours")
    imported(peft_folder(tmp_path / "plain"), tmp_path / "same")
    first, second = (tmp_path / name / "config.json" for name in ("ours", "same"))
    assert first.read_bytes() == second.read_bytes()


def damaged(folder: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Name of a file, what is told of it, and what stands in it instead (None: nothing)."""
    tensors, config = "adapter_model.safetensors", "adapter_config.json"
    yield tensors, "cannot read", None
    yield tensors, "is damaged or a pickle", b"\x80\x04K."
    yield tensors, "is damaged or a pickle", (folder / tensors).read_bytes()[:-4]
    yield config, "holds no adapter_config.json", None
    yield config, "cannot read", b"{"
    yield config, "expected an object", b"[]"


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    whole = peft_folder(tmp_path / "whole")
    for number, (name, told, content) in enumerate(damaged(whole)):
        source = peft_folder(tmp_path / str(number))
        (source / name).unlink()
        if content is not None:
            (source / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=told):
            imported(source, tmp_path / "ours")


def test_a_pickle_is_not_opened_and_the_way_out_is_told(tmp_path: Path) -> None:
    source = peft_folder(tmp_path / "peft")
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")
    with pytest.raises(
        CheckpointError, match=r"adapter_model\.bin, a pickle.*not opened"
    ) as caught:
        imported(source, tmp_path / "ours")
    assert "save_pretrained(DIR) writes safetensors" in caught.value.hint


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d7"
    "63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
