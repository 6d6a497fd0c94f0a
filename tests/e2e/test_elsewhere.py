"""Adapters from the Hub for other libraries, and back: real clients, a Hub on loopback.

Tolerances: in float32 other libraries sum in another order (W x + s B A x, or (W + s B A) x).
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fakes
import pytest
import timm
import tomli_w
import torch
from hub_server import TOKEN, Hub, Repo, serving
from safetensors.torch import load_file, save_file
from test_hub import NAME, Person, checkpoint_files

from idat_zoo.checkpoint.loading import Checkpoint, load_checkpoint
from idat_zoo.checkpoint.probe import probe_images
from idat_zoo.formats.peft_export import as_peft, peft_files
from idat_zoo.formats.timm_model import write_merged
from idat_zoo.registry import load_registry

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
    done = person.run(sys.executable, "-c", FRAME.format(how))
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


@pytest.mark.system
def test_peft_loads_an_adapter_from_a_subfolder_on_the_hub(
    hub: Hub, shipped: Checkpoint, tmp_path: Path
) -> None:
    files = {f"peft/{name}": content for name, content in peft_files(as_peft(shipped)).items()}
    hub.repos[NAME].commit(checkpoint_files() | files)
    person, spec = Person(hub, tmp_path), shipped.config.backbone
    shape = {"img_size": spec.img_size, "num_classes": 10, **spec.args}
    (tmp_path / "backbone.json").write_text(json.dumps({"model_name": spec.timm, **shape}))
    save_file(shipped.network.body.state_dict(), tmp_path / "backbone.safetensors")
    check_logits(person, shipped, AS_PEFT)
    assert any("peft/adapter_model.safetensors" in line for line in hub.requests)


AFTER_THE_CARD = """
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
image = Image.open("photo.jpg").convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
with torch.inference_mode():
    logits = network.eval()((pixels - 0.5) / 0.5)
save_file({"logits": logits}, "logits.safetensors")
"""


@pytest.mark.system
def test_what_a_card_says_of_peft_runs_as_it_stands(tmp_path: Path) -> None:
    """A whole ViT-Ti under a name that timm knows, its weights random and on loopback."""
    timm_name = "vit_tiny_patch16_224"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = timm.create_model(timm_name)
    timm.models.save_for_hf(vit, str(tmp_path / "weights"), safe_serialization=True)
    task = load_registry().find_task("dtd")
    fakes.write_vtab1k_task(tmp_path / "data", task)
    fakes.write_shelf(tmp_path / "shelf", {"dtd": fakes.COUNT_FIELDS})
    pair = {"alone": {"teacher": "vit_ti", "student": "vit_ti"}}
    (tmp_path / "shelf" / "pairs.toml").write_text(tomli_w.dumps(pair))
    weights = Repo()
    weights.commit(contents(tmp_path / "weights"))
    with serving(Hub(repos={f"timm/{timm_name}.augreg_in21k": weights})) as hub:
        shelf = str(tmp_path / "shelf")
        person = Person(hub, tmp_path / "person", HF_TOKEN=TOKEN, IDAT_SHELF=shelf)
        words = "--task dtd --adapter lora --pair alone --teacher none --yes --json epochs=1 lr=0.1"
        place = str(tmp_path / "data")
        trained = person.idat("train", *words.split(), "--data-dir", place, "--device", "cpu")
        assert trained.returncode == 0, trained.stderr
        (result,) = json.loads(trained.stdout)["results"]
        published = person.idat("publish", result["folder"], "--repo", "zoo/dtd")
        assert published.returncode == 0, published.stderr
        repo = hub.repos["zoo/dtd"]
        card = repo.commits[repo.names["main"]]["README.md"].decode()
        _, code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        assert "PeftModel" in code
        shutil.copy(tmp_path / "data/dtd/images/test/000000.jpg", person.home / "photo.jpg")
        done = person.run(sys.executable, "-c", code + AFTER_THE_CARD)
    assert done.returncode == 0, done.stderr
    found = load_file(person.home / "logits.safetensors")["logits"][0]
    ours = load_file(person.home / result["folder"] / "predictions.safetensors")["student"][0]
    assert ours.abs().max() > 0.01
    torch.testing.assert_close(found, ours, rtol=1e-4, atol=1e-4)
