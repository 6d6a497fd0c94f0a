"""Adapters from the Hub for other libraries, and back: real clients, a Hub on loopback.

Tolerances: in float32 other libraries sum in another order (W x + s B A x, or (W + s B A) x).
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, Repo, serving
from safetensors.torch import load_file, save_file
from test_hub import NAME, Person, checkpoint_files

from idat_zoo.checkpoint import Checkpoint, load_checkpoint, probe_images
from idat_zoo.formats.peft_lora import peft_files
from idat_zoo.formats.timm_model import write_merged

pytestmark = pytest.mark.slow

AS_TIMM = """
import timm
vit = timm.create_model("hf_hub:zoo/digits-vit", pretrained=True)
"""
AS_PEFT = """
import json, pathlib, timm
from peft import PeftModel
vit = timm.create_model(**json.loads(pathlib.Path("backbone.json").read_text()))
missing, unexpected = vit.load_state_dict(load_file("backbone.safetensors"), strict=False)
assert set(missing) == {"head.weight", "head.bias"} and not unexpected
vit = PeftModel.from_pretrained(vit, "zoo/digits-lora", subfolder="peft")
"""
FRAME = """
import torch
from safetensors.torch import load_file, save_file
{}
with torch.inference_mode():
    logits = vit.eval()(load_file("images.safetensors")["images"])
save_file({{"logits": logits}}, "logits.safetensors")
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """One public repository with the adapter that ships."""
    repo = Repo()
    repo.commit(checkpoint_files())
    with serving(Hub(repos={NAME: repo})) as running:
        yield running


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load_checkpoint("builtin:digits-lora")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_logits(person: Person, shipped: Checkpoint, how: str) -> None:
    """In a process of its own, another library gives the adapter's logits of the probe images."""
    network = shipped.network
    images = network.normalise(probe_images(network))
    save_file({"images": images}, person.home / "images.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", FRAME.format(how)],
        cwd=person.home,
        env=person.surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(person.home / "logits.safetensors")["logits"]
    with torch.inference_mode():
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)


def test_merge_takes_a_place_on_the_hub(hub: Hub, shipped: Checkpoint, tmp_path: Path) -> None:
    person = Person(hub, tmp_path / "person")
    done = person.idat("merge", f"hub:{NAME}", "-o", "vit")
    assert done.returncode == 0, done.stderr
    assert any("adapter_model.safetensors" in line for line in hub.requests)
    write_merged(shipped, tmp_path / "vit")
    assert contents(person.home / "vit") == contents(tmp_path / "vit")


def test_timm_loads_a_merged_student_from_the_hub(
    hub: Hub, shipped: Checkpoint, tmp_path: Path
) -> None:
    write_merged(shipped, tmp_path / "vit")
    hub.repos["zoo/digits-vit"] = Repo()
    hub.repos["zoo/digits-vit"].commit(contents(tmp_path / "vit"))
    check_logits(Person(hub, tmp_path / "person"), shipped, AS_TIMM)
    assert any("zoo/digits-vit" in line and "model.safetensors" in line for line in hub.requests)


def test_peft_loads_an_adapter_from_a_subfolder_on_the_hub(
    hub: Hub, shipped: Checkpoint, tmp_path: Path
) -> None:
    files = {f"peft/{name}": content for name, content in peft_files(shipped).items()}
    hub.repos[NAME].commit(checkpoint_files() | files)
    person, spec = Person(hub, tmp_path), shipped.config.backbone
    shape = {"img_size": spec.img_size, "num_classes": 10, **spec.args}
    (tmp_path / "backbone.json").write_text(json.dumps({"model_name": spec.timm, **shape}))
    save_file(shipped.network.vit.state_dict(), tmp_path / "backbone.safetensors")
    check_logits(person, shipped, AS_PEFT)
    assert any("peft/adapter_model.safetensors" in line for line in hub.requests)
