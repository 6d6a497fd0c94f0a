"""Checkpoints: what is written is what is read, and nothing else is ever taken for one."""

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from conftest import toy_pair, toy_recipe
from idat_zoo import files, load
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import Role
from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.opened import open_checkpoints
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.checkpoint.transform import Transform
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.errors import CheckpointError, UnknownNameError, ZooError
from idat_zoo.randomness import generator

IMAGES = torch.randint(256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()


def toy_checkpoint(folder: Path, *, role: Role = "student", **fields: Any) -> Network:
    """Write a checkpoint whose every number is random, and return its network."""
    recipe = toy_recipe(**fields)
    pair = toy_pair(recipe, seed=3)
    network = pair.student if role == "student" else pair.teacher
    assert network is not None
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in network.trainable().values():
            tensor.copy_(torch.randn(tensor.shape, generator=source))
    write_checkpoint(folder, network, recipe, role=role, recipe_hash="0" * 64, seed=3)
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / CONFIG_FILE
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    return str(caught.value)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("adapter", ["lora", "shared_parallel", "linear"])
def test_a_reload_gives_the_same_logits_to_the_bit(
    adapter: str, role: Role, tmp_path: Path
) -> None:
    written = toy_checkpoint(tmp_path, role=role, adapter=adapter)
    read = load_checkpoint(tmp_path)
    assert read.config.role == role
    with torch.inference_mode():
        assert read.network(IMAGES).equal(written(IMAGES))
    assert probe_logits(read.network).equal(probe_logits(written))
    assert not read.network.training


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        toy_checkpoint(tmp_path / name)
    for file in (TENSORS_FILE, CONFIG_FILE):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[1:3]\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_checkpoint import toy_checkpoint; toy_checkpoint(pathlib.Path(sys.argv[3]))"
    )
    here = Path(__file__).parent
    for seed in ("1", "2"):
        words = [sys.executable, "-c", code, str(here), str(here.parent), str(tmp_path / seed)]
        subprocess.run(words, env=os.environ | {"PYTHONHASHSEED": seed}, check=True)
        for file in (TENSORS_FILE, CONFIG_FILE):
            assert (tmp_path / seed / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "LA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (40, 23)])
def test_load_gives_a_module_and_a_transform_for_any_image(
    mode: str, size: tuple[int, int], folder: Path
) -> None:
    network, transform = load(folder)
    image = transform(Image.new(mode, size))
    assert (image.dtype, image.shape) == (torch.uint8, (3, 16, 16))
    assert network(image[None]).shape == (1, 10)


def test_the_transform_keeps_colours_apart_and_rows_upright(folder: Path) -> None:
    _, transform = load(folder)
    image = Image.new("RGB", (16, 16))
    image.putpixel((3, 1), (10, 20, 30))
    assert transform(image)[:, 1, 3].tolist() == [10, 20, 30]


def test_a_loaded_network_goes_to_float64(folder: Path) -> None:
    network, _ = load(folder)
    before = network(IMAGES)
    wide = network.to(torch.float64)(IMAGES)
    assert wide.dtype is torch.float64
    torch.testing.assert_close(wide.float(), before, rtol=1e-3, atol=1e-4)


# What is refused, each in a sentence.


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 1000, -1000, -1])
def test_a_truncated_file_is_damaged(length: int, folder: Path) -> None:
    path = folder / TENSORS_FILE
    path.write_bytes(path.read_bytes()[:length])
    assert "is damaged: not a whole safetensors file" in refusal(folder)


@pytest.mark.parametrize("content", [bytes(500), b"\xff" * 500, b"hello" * 9, b"\x02" + bytes(9)])
def test_what_is_no_safetensors_is_damaged(content: bytes, folder: Path) -> None:
    (folder / TENSORS_FILE).write_bytes(content)
    assert "is damaged" in refusal(folder)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["zip", "legacy", *map(str, range(6))])
def test_a_pickle_in_disguise_is_never_opened(kind: str, folder: Path, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", folder / TENSORS_FILE
    if kind in ("zip", "legacy"):
        torch.save(Trap(sprung), path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=int(kind)))
    message = refusal(folder)
    assert "is a pickle" in message or "is damaged" in message
    assert not sprung.exists()
    if kind not in ("0", "1"):  # these two are plain text, as any text could be
        assert "is a pickle" in message
    if kind not in ("zip", "legacy"):
        pickle.loads(path.read_bytes())
        assert sprung.exists(), "the trap does not work"


@pytest.mark.parametrize("size", [0x0280, 0x0480, 0x0580, 0x4B50])
def test_a_header_whose_size_looks_like_a_pickle_is_none(size: int, folder: Path) -> None:
    path = folder / TENSORS_FILE
    name = "x" * (size - len(files.dump_tensors({"": torch.zeros(1)})) + 12)
    path.write_bytes(files.dump_tensors({name: torch.zeros(1)}))
    assert path.read_bytes()[:8] == size.to_bytes(8, "little")
    assert "does not hold the tensors its config names" in refusal(folder)


def test_a_file_that_is_larger_than_its_tensors_is_not_read(folder: Path) -> None:
    path = folder / TENSORS_FILE
    with path.open("r+b") as file:
        file.truncate(2**33)  # nothing but a hole: it takes no room on the disk
    assert "has 8,589,934,592 bytes; the tensors its config names take" in refusal(folder)


@pytest.mark.parametrize("size", [2**20, 2**27, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_says_it_is_huge_is_refused(size: int, folder: Path) -> None:
    path = folder / TENSORS_FILE
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    assert "is damaged: not a whole safetensors file" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float8_e4m3fn, torch.complex64])
def test_tensors_of_a_type_that_is_never_written_are_refused(
    dtype: torch.dtype, folder: Path
) -> None:
    path = folder / TENSORS_FILE
    tensors = files.parse_tensors(path.read_bytes())
    tensors["head.bias"] = torch.zeros(10).to(dtype)
    path.write_bytes(files.dump_tensors(tensors))
    assert "does not hold the tensors its config names: head.bias" in refusal(folder)


def test_another_backbone_is_refused_with_both_hashes(folder: Path) -> None:
    edit_config(folder, lambda c: c["recipe"]["pair"]["student"].update(name="other"))
    message = refusal(folder)
    assert "was trained on other weights of backbone 'other'" in message
    assert message.count("…") == 2


def test_another_file_of_the_same_shapes_is_refused(folder: Path, tmp_path: Path) -> None:
    toy_checkpoint(tmp_path / "other", lr=1e-3)
    path = folder / TENSORS_FILE
    tensors = files.parse_tensors(path.read_bytes())
    tensors["head.bias"] += 1
    path.write_bytes(files.dump_tensors(tensors))
    assert "is not the file its config was written for (SHA-256)" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("head.bias"), "head.bias"),
        (lambda t: t.update({"head.scale": torch.ones(1)}), "head.scale"),
        (lambda t: t.update({"head.bias": torch.zeros(11)}), "head.bias"),
        (lambda t: t.update({"head.bias": torch.zeros(10).half()}), "head.bias"),
        (lambda t: t.update({"head.bias": torch.zeros(1, 10)}), "head.bias"),
    ],
)
@pytest.mark.parametrize("config_agrees", [False, True])
def test_missing_extra_and_misshapen_tensors_are_named(
    change: Callable[[dict[str, torch.Tensor]], Any],
    named: str,
    config_agrees: bool,
    folder: Path,
) -> None:
    path = folder / TENSORS_FILE
    tensors = files.parse_tensors(path.read_bytes())
    change(tensors)
    path.write_bytes(files.dump_tensors(tensors))
    if config_agrees:
        specs = {
            n: {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape)}
            for n, t in tensors.items()
        }
        edit_config(folder, lambda c: c.update(tensors=specs, tensors_sha256=files.sha256(path)))
    message = refusal(folder)
    assert message.endswith(f": {named}.")
    assert ("do not fit its adapter" if config_agrees else "its config names") in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot read"),
        (b"{", "cannot read"),
        (b"\xff\xfe", "cannot read"),
        (b"[" * 200_000, "cannot read"),
        (b"[]", "it has no schema_version"),
        (b"null", "it has no schema_version"),
        (b"{}", "it has no schema_version"),
        (b'{"schema_version": "1"}', "it has no schema_version"),
        (b'{"schema_version": 0}', "it has no schema_version"),
        (b'{"schema_version": 2}', "has schema 2; this idat-zoo reads up to 1"),
        (b'{"schema_version": 1}', "recipe: is missing"),
        (b'{"schema_version": true}', "recipe: is missing"),
    ],
)
def test_a_config_that_is_none_is_refused(content: bytes, words: str, folder: Path) -> None:
    (folder / CONFIG_FILE).write_bytes(content)
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("seed"), "seed: is missing"),
        (lambda c: c.update(sed=1), "sed: unknown key (got 1)"),
        (lambda c: c.update(seed="0"), "seed: must be a whole number (got '0')"),
        (lambda c: c.update(role="pupil"), "role: must be 'student' or 'teacher'"),
        (lambda c: c.update(library="peft"), "library: must be 'idat-zoo'"),
        (lambda c: c["recipe"].pop("task"), "recipe.task: is missing"),
        (lambda c: c["recipe"].update(lr=-1.0), "recipe.lr: must be greater than 0"),
        (lambda c: c["recipe"].update(lr=float("nan")), "recipe.lr: must be a finite"),
        (lambda c: c.update(mean=[0.5, 0.5]), "mean.2: is missing"),
        (lambda c: c["tensors"]["head.bias"].update(shape="10"), "tensors.head.bias.shape"),
    ],
)
def test_each_fault_of_a_config_is_named(
    change: Callable[[dict[str, Any]], Any], words: str, folder: Path
) -> None:
    edit_config(folder, change)
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["adapter"].update(name="lorra"), "unknown adapter 'lorra'. Did you mean"),
        (lambda r: r["adapter"].update(options={"rnk": 2}), "adapter 'lora': rnk"),
        (lambda r: r["adapter"].update(options={"rank": 0}), "adapter 'lora': rank"),
        (lambda r: r["adapter"].update(options={"rank": 4}), "do not fit its adapter"),
        (lambda r: r["adapter"].update(name="linear"), "do not fit its adapter"),
        (lambda r: r["task"].update(num_classes=9), "do not fit its adapter"),
        (lambda r: r["pair"]["student"].update(timm="vit_nowhere"), "unknown network"),
        (lambda r: r["pair"]["student"].update(timm="resnet18"), "toy_student"),
        (lambda r: r["pair"]["student"].update(weights="builtin:x"), "ship with idat-zoo"),
        (lambda r: r["pair"]["student"].update(weights="builtin:../x"), "weights"),
        (lambda r: r["pair"]["student"].update(weights="a b"), "weights"),
        (lambda r: r["pair"]["student"].update(timm="hf-hub:evil/x"), "timm"),
        (lambda r: r["pair"]["student"].update(timm="../x"), "timm"),
        (lambda r: r["pair"]["student"]["args"].update(checkpoint_path="/x"), "checkpoint_path"),
        (lambda r: r["pair"]["student"]["args"].update(pretrained=True), "pretrained"),
        (lambda r: r["pair"]["student"]["args"].update(num_heads=0), "timm cannot build"),
        (lambda r: r["pair"]["student"]["args"].update(patch_size=0), "timm cannot build"),
        (lambda r: r["pair"]["student"]["args"].update(depth=0), "it has no blocks"),
        (lambda r: r["pair"]["student"]["args"].update(act_layer="nope"), "timm cannot build"),
        (lambda r: r["pair"]["student"]["args"].update(mlp_ratio=1e30), "timm cannot build"),
        (lambda r: r["task"].update(folder="../other"), "folder"),
        (lambda r: r["task"].update(folder="/etc"), "folder"),
        (lambda r: r["task"].update(images="a/../.."), "images"),
        (lambda r: r["task"].update(class_names=["one"]), "1 names for 10 classes"),
        (lambda r: r["pair"]["student"].update(img_size=3), "toy_student"),
        (lambda r: r["pair"]["student"].update(img_size=10**9), "img_size"),
        (lambda r: r["pair"]["student"]["args"].update(embed_dim=10**9), "at most 16,384"),
        (lambda r: r["pair"]["student"]["args"].update(depth=10**4), "would have 10,000 blocks"),
        (
            lambda r: r["pair"]["student"]["args"].update(depth=8, embed_dim=16_383),
            "parameters",
        ),
        (lambda r: r["adapter"].update(options={"rank": 10**4}), "do not fit its adapter"),
        (lambda r: r["adapter"].update(options={"rank": 2**62}), "at most 16,384"),
        (lambda r: r["task"].update(num_classes=10**6), "do not fit its adapter"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(
    change: Callable[[dict[str, Any]], Any], words: str, folder: Path
) -> None:
    edit_config(folder, lambda c: change(c["recipe"]))
    with pytest.raises(ZooError) as caught:
        load_checkpoint(folder)
    assert words in str(caught.value)


def test_a_teachers_config_whose_recipe_has_no_teacher_is_refused(folder: Path) -> None:
    def alone(config: dict[str, Any]) -> None:
        config["role"] = "teacher"
        config["recipe"]["distillation"] = "none"
        del config["recipe"]["teacher_adapter"], config["recipe"]["pair"]["teacher"]

    edit_config(folder, alone)
    assert "its recipe has none" in refusal(folder)


def test_folders_without_the_two_files_say_which_is_missing(folder: Path, tmp_path: Path) -> None:
    (folder / TENSORS_FILE).unlink()
    assert f"cannot read '{folder / TENSORS_FILE}': No such file" in refusal(folder)
    (folder / CONFIG_FILE).unlink()
    assert f"'{folder}' holds no config.json: not a checkpoint" in refusal(folder)
    assert "there is no checkpoint folder" in refusal(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        open_checkpoints(tmp_path)


def test_files_that_are_folders_are_refused(folder: Path) -> None:
    for file in (TENSORS_FILE, CONFIG_FILE):
        (folder / file).unlink()
        (folder / file).mkdir()
        assert "cannot read" in refusal(folder)


@pytest.mark.parametrize("name", ["digits-lra", "../digits-lora", ""])
def test_an_unknown_built_in_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idat_zoo.checkpoint.builtin.builtin_names", lambda: ["digits-lora"])
    with pytest.raises(UnknownNameError, match=f"unknown built-in checkpoint '{name}'") as caught:
        load_checkpoint(f"builtin:{name}")
    assert "digits-lora" in str(caught.value)
    if name == "digits-lra":
        assert "Did you mean 'digits-lora'?" in str(caught.value)


def test_checkpoints_below_a_folder_are_students_only(tmp_path: Path) -> None:
    toy_checkpoint(tmp_path / "a")
    toy_checkpoint(tmp_path / "a" / "teacher", role="teacher")
    toy_checkpoint(tmp_path / "b" / "c")
    found = {below: one.folder for below, one in open_checkpoints(tmp_path).items()}
    assert found == {"a": tmp_path / "a", "b/c": tmp_path / "b" / "c"}
    (itself,) = open_checkpoints(tmp_path / "a").items()
    assert (itself[0], itself[1].folder) == (".", tmp_path / "a")


# What a loaded network is called with


@pytest.fixture(scope="module")
def digits() -> tuple[Network, Transform]:
    return load("builtin:digits-lora")


def noise(*shape: int) -> torch.Tensor:
    source = generator(0, "test", "noise")
    return torch.randint(256, shape, dtype=torch.uint8, generator=source)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("photo.png", "got str."),
        (Path("photo.png"), "Path."),
        (Image.new("RGB", (48, 48)), "got PIL.Image.Image."),
        (np.zeros((1, 3, 48, 48), dtype=np.uint8), "got numpy.ndarray."),
        ([torch.zeros(3, 48, 48)], "got list."),
        (noise(2, 3, 48, 48).float(), "got torch.float32 from 0 to 255."),
        (noise(2, 3, 48, 48).double(), "got torch.float64 from 0 to 255."),
        (noise(2, 3, 48, 48).half(), "got torch.float16 from 0 to 255."),
        (noise(2, 3, 48, 48).long(), "got torch.int64."),
        (torch.full((1, 3, 48, 48), torch.nan), "from nan to nan."),
        (noise(3, 48, 48), "got the shape [3, 48, 48]."),
        (noise(2, 48, 48, 3), "got the shape [2, 48, 48, 3]."),
        (noise(2, 3, 224, 224), "got the shape [2, 3, 224, 224]."),
        (noise(0, 3, 48, 48), "got no image."),
        (torch.zeros(1, 3, 48, 48).double(), "got torch.float64."),
        (torch.zeros(1, 3, 48, 48).half(), "got torch.float16."),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # others have no lasting name
)
def test_a_loaded_network_refuses_what_it_would_misread(
    wrong: object, told: str, digits: tuple[Network, Transform]
) -> None:
    network, _ = digits
    with pytest.raises(TypeError) as caught:
        network(wrong)
    error = caught.value
    assert isinstance(error, ZooError)
    assert "takes uint8 images [B, 3, 48, 48], or floats normalised to -1.00 … 1.00" in str(error)
    assert error.message.endswith(told)
    assert error.hint
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    with pytest.raises(TypeError):
        network(start=wrong)


def test_a_loaded_network_takes_pixels_and_normalised_floats_as_before(
    digits: tuple[Network, Transform],
) -> None:
    network, transform = digits
    bare = load_checkpoint("builtin:digits-lora").network
    images = torch.stack([transform(Image.new("RGB", (9, 9), colour)) for colour in ("red", "tan")])
    normalised = network.normalise(images)
    with torch.inference_mode():
        expected = bare(images)
        assert network(images).equal(expected)
        assert network(normalised).equal(expected)
        assert network(start=1.2 * normalised).equal(bare(1.2 * normalised))  # as filters overshoot
    assert copy.deepcopy(network)(images).equal(network(images))
    assert network.num_classes == 10
    assert network.class_names == ()


def test_under_autocast_a_network_takes_narrow_floats(digits: tuple[Network, Transform]) -> None:
    network, _ = digits
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.zeros(1, 3, 48, 48).bfloat16()).isfinite().all()


def test_a_loaded_network_knows_its_classes(tmp_path: Path) -> None:
    names = tuple(f"kind {k}" for k in range(10))
    recipe = toy_recipe()
    task = recipe.task.model_copy(update={"class_names": names})
    recipe = recipe.model_copy(update={"task": task})
    student = toy_pair(recipe).student
    write_checkpoint(tmp_path, student, recipe, role="student", recipe_hash="0" * 64, seed=0)
    network, _ = load(tmp_path)
    assert (network.class_names, network.num_classes) == (names, 10)


@pytest.mark.slow
def test_checking_what_comes_in_is_in_no_ones_way(digits: tuple[Network, Transform]) -> None:
    network, _ = digits
    images = noise(2, 3, 48, 48)
    floats = network.normalise(images)
    with torch.no_grad():
        expected = network(images)
        for given in (images, floats):
            exported = torch.export.export(network, (given,)).module()
            torch.testing.assert_close(exported(given), expected)
            with sdpa_kernel(SDPBackend.MATH):  # the others say that vmap makes them slow
                mapped = torch.vmap(lambda one: network(one[None])[0])(given)
            torch.testing.assert_close(mapped, expected, rtol=1e-4, atol=1e-4)
    leaf = floats.clone().requires_grad_()
    network(leaf).sum().backward()
    assert leaf.grad is not None


COMPILED = """
import torch
from idat_zoo import load
network, _ = load("builtin:digits-lora")
images = torch.arange(256).repeat(54).view(2, 3, 48, 48).byte()
with torch.no_grad():
    for given in (images, network.normalise(images)):
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(given), network(given))
print("equal")
"""


@pytest.mark.system
def test_a_loaded_network_compiles_in_one_graph() -> None:
    done = subprocess.run(  # apart: the annotations that are checked here are in dynamo's way
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr
