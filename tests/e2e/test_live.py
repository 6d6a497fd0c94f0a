"""Against the live Hub, for a maintainer with a token:

    make test-live REPO=ORG/NAME        a repository to try in; private, made if it is not there

Publishes a small run and evaluates it from an empty cache, loads a backbone's weights, pulls the
smallest task of VTAB-1K. Without REPO nothing here runs but the last test, which runs all of it
against the Hub on loopback, so that the command is known to work when it is needed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
import timm
import torch
from hub_server import TOKEN, Hub, Repo, serving
from safetensors.torch import load_file

from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.registry import load_registry

IDAT = Path(sys.executable).with_name("idat")
REPO = os.environ.get("IDAT_LIVE_REPO", "")
BACKBONE, TASK = "vit_ti", "kitti"
ROOT = Path(__file__).parents[2]

live = pytest.mark.skipif(not REPO, reason="make test-live REPO=ORG/NAME runs it")


def idat(home: Path, *words: str) -> str:
    """What a command prints, run with a cache of its own and the user's token."""
    from huggingface_hub import constants

    own = {"HF_HOME": str(home / "hf"), "HF_TOKEN_PATH": constants.HF_TOKEN_PATH}
    done = subprocess.run(
        [str(IDAT), *words],
        cwd=home,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@live
def test_a_run_goes_to_the_hub_and_comes_back_to_the_bit(tmp_path: Path) -> None:
    author, reader = tmp_path / "author", tmp_path / "reader"
    author.mkdir()
    reader.mkdir()
    words = ("--task", "digits", "--adapter", "lora", "epochs=1", "--device", "cpu", "--json")
    (result,) = json.loads(idat(author, "train", *words))["results"]
    published = json.loads(idat(author, "publish", result["folder"], "--repo", REPO, "--json"))
    reference = f"hub:{REPO}@{published['commit']}"
    words = ("--checkpoint", reference, "--device", "cpu", "--out", "eval", "--json")
    (evaluated,) = json.loads(idat(reader, "eval", *words))["results"]
    assert evaluated["top1"] == result["top1"]
    ours = load_file(author / result["folder"] / "predictions.safetensors")["student"]
    assert load_file(reader / "eval" / "predictions.safetensors")["student"].equal(ours)


@live
def test_a_backbone_is_the_one_that_timm_loads() -> None:
    spec = load_registry().find_backbone(BACKBONE)
    ours = load_backbone(spec).body.state_dict()
    vit = timm.create_model(f"{spec.timm}.{spec.weights}", pretrained=True, num_classes=0)
    theirs = vit.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@live
def test_a_task_of_vtab1k_is_pulled_and_every_image_of_it_opens(tmp_path: Path) -> None:
    idat(tmp_path, "data", "pull", TASK, "--data-dir", "vtab-1k", "--yes")
    told = idat(tmp_path, "data", "verify", TASK, "--data-dir", "vtab-1k")
    assert told.startswith("ok")


@pytest.mark.system
@pytest.mark.skipif(bool(REPO), reason="the live Hub is tried")
def test_the_command_for_the_live_hub_works_against_the_one_on_loopback(tmp_path: Path) -> None:
    registry = load_registry()
    spec, task = registry.find_backbone(BACKBONE), registry.find_task(TASK)
    source = registry.source_of(task)
    assert source is not None
    counts = {"train": task.num_train[0], "val": task.num_val[0], "test": task.num_test[0]}
    fakes.write_vtab1k_task(tmp_path / "data", task, counts)
    zipped = fakes.zip_folders(tmp_path / "data", tmp_path / source.file).read_bytes()
    with torch.random.fork_rng():
        vit = timm.create_model(spec.timm)
    timm.models.save_for_hf(vit, str(tmp_path / "weights"), safe_serialization=True)
    weights = {path.name: path.read_bytes() for path in (tmp_path / "weights").iterdir()}
    hub = Hub(large="lfs")
    hub.datasets[source.repo], hub.repos[f"timm/{spec.timm}.{spec.weights}"] = Repo(), Repo()
    hub.datasets[source.repo].commit({source.file: zipped})
    hub.repos[f"timm/{spec.timm}.{spec.weights}"].commit(weights)
    with serving(hub):
        own = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
            "IDAT_LIVE_REPO": "zoo/trial",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        words = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", __file__]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=ROOT,
            env=os.environ | own,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "3 passed, 1 skipped" in done.stdout
    assert hub.repos["zoo/trial"].private
