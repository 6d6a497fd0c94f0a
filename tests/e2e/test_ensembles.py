"""An ensemble from the command line, and to the Hub and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import TOKEN, Hub, ask_from_here
from huggingface_hub import ModelCard
from PIL import Image
from test_hub import Person

from idat_zoo import evaluate, files
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_images, probe_logits
from idat_zoo.hub.head import read_head
from idat_zoo.pool import AdapterPool
from idat_zoo.publishing.plan import plan, publish
from idat_zoo.registry import get_recipe
from idat_zoo.results import load_result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run

REPO = "zoo/tiny-ensemble"
WORDS = [*("epochs=1", "precision=float32", "selection=ensemble"), "candidates.lr=[1e-3,1e-2]"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An ensemble of two, and a run of a single network."""
    out = tmp_path_factory.mktemp("finished")
    folders = []
    for words in (WORDS, WORDS[:2]):
        recipe = get_recipe("digits", "lora", pair="tiny_random", overrides=words)
        run(recipe, device="cpu", out=out)
        folders.append(run_folder(out, recipe, 0))
    return folders


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub on loopback for this very process."""
    ask_from_here(hub, tmp_path / "cache", monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def test_from_the_hub_it_has_the_same_bits(runs: list[Path], here: Hub, tmp_path: Path) -> None:
    folder = runs[0]
    publish(plan([folder], read_head(REPO)))
    network, probe = load_checkpoint(f"hub:{REPO}").network, folder / "probe.safetensors"
    assert torch.equal(probe_logits(network), files.parse_tensors(probe.read_bytes())["logits"])
    evaluate(f"hub:{REPO}", device="cpu", out=tmp_path / "eval")
    names = ("predictions.safetensors",) * 2
    ours, theirs = (
        files.parse_tensors((place / name).read_bytes())["student"]
        for place, name in zip((folder, tmp_path / "eval"), names, strict=True)
    )
    assert torch.equal(ours, theirs)
    images = probe_images(network)
    answers = []
    for reference in (str(folder), f"hub:{REPO}"):
        pool = AdapterPool(device="cpu")
        pool.add("single", runs[1])
        pool.add("all", reference)
        answers.append(torch.stack(pool.predict(images, ["all", "single"] * 4)))
    assert torch.equal(*answers)


def test_the_card_says_what_it_is(runs: list[Path], here: Hub) -> None:
    contents = plan([runs[0]], read_head(REPO)).contents
    assert not [name for name in contents if name.startswith(("peft/", "ensemble/", "teacher/"))]
    card = ModelCard(contents["README.md"].decode())
    (score,) = card.data.eval_results
    assert score.metric_name == "top-1, last epoch, ensemble of 2"
    assert score.metric_value == load_result(runs[0] / "result.json").top1
    assert "ensemble of 2: lr 0.001; lr 0.01" in card.text
    assert "**selection = ensemble**" in card.text
    assert "An ensemble has no form without idat-zoo." in card.text
    assert "idat merge" not in card.text
    assert "idat export" not in card.text
    both = plan(runs, read_head(REPO)).contents
    names = {entry.metric_name for entry in ModelCard(both["README.md"].decode()).data.eval_results}
    assert names == {"top-1, last epoch", "top-1, last epoch, ensemble of 2"}


@pytest.mark.system
def test_the_command_line_takes_it_wherever_it_can(hub: Hub, tmp_path: Path) -> None:
    person = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    asked = ["--task", "digits", "--adapter", "lora", "--pair", "tiny_random", "--device", "cpu"]
    done = person.idat("train", *asked, "--stack", "2", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "ensemble of 2: lr = 0.001; lr = 0.01" in done.stdout
    (result,) = (person.home / "runs").rglob("result.json")
    folder = str(result.parent)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(person.home / "one.png")
    told = person.idat("predict", folder, "one.png", "--json")
    assert told.returncode == 0, told.stderr
    evaluated = person.idat("eval", folder, "--json")
    (found,) = json.loads(evaluated.stdout)["results"]
    assert found["top1"] == load_result(result).top1
    for words in (["merge"], ["export", "--to", "onnx"], ["export", "--to", "peft"]):
        refused = person.idat(*words, folder, "-o", "new")
        assert refused.returncode == 2, refused.stderr
        assert "this checkpoint is an ensemble of 2 adapters, and" in refused.stderr
        assert "Traceback" not in refused.stderr
    published = person.idat("publish", folder, "--repo", REPO, "--json")
    assert published.returncode == 0, published.stderr
    again = person.idat("eval", f"hub:{REPO}", "--device", "cpu", "--json")
    (found,) = json.loads(again.stdout)["results"]
    assert found["top1"] == load_result(result).top1
