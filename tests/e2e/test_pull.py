"""Images and weights from the Hub, by the real client against a Hub on loopback."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import timm
import tomli_w
import torch
from hub_server import TOKEN, Fault, Hub, Repo, serving
from safetensors.torch import load_file
from test_hub import IDAT, Person, tells_one_error

from idat_zoo.registry import load_registry

SOURCE = "XiN0919/VTAB-1k"
ZIP = "vtab-1k.zip"
RANGES = f"GET /(datasets/{SOURCE}/resolve|_lfs)"
FILLING = 24 * 2**20
"""Bytes in the zip that belong to no task: three times what is fetched at once."""
TINY = {"patch_size": 8, "depth": 2}
WIDTHS = {"tiny_s": 24, "tiny_b": 36}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of VTAB-1K, and the shelf that tells their counts and a tiny pair."""
    root = tmp_path_factory.mktemp("vtab")
    registry = load_registry()
    for name in ("dtd", "svhn"):
        fakes.write_vtab1k_task(root, registry.find_task(name))
    return root


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shelf")
    fakes.write_shelf(place, dict.fromkeys(("dtd", "svhn"), fakes.COUNT_FIELDS))
    backbones = {
        name: {
            "timm": "vit_tiny_patch16_224",
            "weights": name,
            "img_size": 32,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "args": TINY | {"embed_dim": width, "num_heads": 3},
            "licence": "Apache-2.0",
        }
        for name, width in WIDTHS.items()
    }
    (place / "backbones.toml").write_text(tomli_w.dumps(backbones))
    pair = {"vit_s_to_vit_b": {"teacher": "tiny_s", "student": "tiny_b"}}
    (place / "pairs.toml").write_text(tomli_w.dumps(pair))
    return place


@pytest.fixture(scope="module")
def zipped(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("zip")
    noise = np.random.default_rng(0).bytes(FILLING)
    whole = place / "all"
    for source in folders.iterdir():
        fakes.link_tree(source, whole / source.name)
    (whole / "kitti").mkdir()
    (whole / "kitti" / "noise.jpg").write_bytes(noise)
    return fakes.zip_folders(whole, place / ZIP).read_bytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Two backbones as timm writes them for the Hub, by their repositories."""
    repos = {}
    for name, width in WIDTHS.items():
        with torch.random.fork_rng():
            torch.manual_seed(width)
            vit: Any = timm.create_model(
                "vit_tiny_patch16_224", img_size=32, embed_dim=width, num_heads=3, **TINY
            )
        place = tmp_path_factory.mktemp(name)
        timm.models.save_for_hf(vit, str(place), safe_serialization=True)
        repos[f"timm/vit_tiny_patch16_224.{name}"] = {
            path.name: path.read_bytes() for path in place.iterdir()
        }
    return repos


@pytest.fixture
def hub(zipped: bytes, weights: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """Everything that a machine with nothing needs, large files in LFS."""
    hub = Hub(large="lfs")
    hub.datasets[SOURCE] = Repo()
    hub.datasets[SOURCE].commit({ZIP: zipped})
    for name, contents in weights.items():
        hub.repos[name] = Repo()
        hub.repos[name].commit(contents)
    with serving(hub) as running:
        yield running


def person(hub: Hub, home: Path, shelf: Path, **variables: str) -> Person:
    return Person(hub, home, IDAT_SHELF=str(shelf), **variables)


def data_of(who: Person) -> Path:
    return who.home / "share" / "idat-zoo" / "data"


def bytes_of_zip(hub: Hub) -> int:
    """How many were sent of the data set."""
    return sum(one.sent for one in hub.exchanges if "/_lfs/" in one.line)


# From nothing to a number, a card and a class


@pytest.mark.system
def test_a_machine_with_nothing_trains_publishes_evaluates_and_predicts(
    hub: Hub, folders: Path, shelf: Path, tmp_path: Path
) -> None:
    trainer = person(hub, tmp_path / "trainer", shelf, HF_TOKEN=TOKEN)
    words = ("train", "--task", "dtd", "--adapter", "lora")
    refused = trainer.idat(*words, "epochs=1")
    assert refused.returncode == 1
    assert tells_one_error(refused) or "--yes" in refused.stderr
    assert not data_of(trainer).exists()
    done = trainer.idat(*words, "--yes", "epochs=1", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert f"datasets/{SOURCE}/{ZIP}" in done.stderr
    assert "licence: not stated" in done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["images"]["test"] == fakes.COUNTS["test"]
    assert sorted(p.name for p in data_of(trainer).iterdir()) == [".pull", "dtd"]
    place = data_of(trainer) / "dtd"
    assert (
        json.loads((place / "source.json").read_text())["commit"]
        == (hub.datasets[SOURCE].names["main"])
    )
    for path in (folders / "dtd").rglob("*.*"):
        assert (place / path.relative_to(folders / "dtd")).read_bytes() == path.read_bytes()

    asked = len(hub.requests)
    nowhere = ("--data-dir", "elsewhere")
    again = trainer.idat(*words, "--yes", "epochs=1", "--device", "cpu", *nowhere)
    assert again.returncode == 0, again.stderr
    assert len(hub.requests) == asked  # a finished run needs nothing

    published = trainer.idat("publish", result["folder"], "--repo", "zoo/dtd-lora", "--json")
    assert published.returncode == 0, published.stderr
    commit = json.loads(published.stdout)["commit"]

    other = person(hub, tmp_path / "other", shelf, HF_TOKEN=TOKEN)
    reference = f"hub:zoo/dtd-lora@{commit}"
    refused = other.idat("eval", "--checkpoint", reference)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--yes" in refused.stderr
    evaluated = other.evaluate(reference, "--yes")
    assert evaluated["top1"] == result["top1"]
    theirs = load_file(Path(other.home / "eval" / "predictions.safetensors"))["student"]
    ours = load_file(trainer.home / result["folder"] / "predictions.safetensors")["student"]
    assert theirs.equal(ours)

    third = person(hub, tmp_path / "third", shelf, HF_TOKEN=TOKEN)
    image = str(folders / "dtd" / "images" / "test" / "000000.jpg")
    refused = third.idat("predict", "--checkpoint", reference, image)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "weights that are not here: timm/vit_tiny_patch16_224.tiny_b" in refused.stderr
    predicted = third.idat("predict", "--checkpoint", reference, image, "--yes", "--json")
    assert predicted.returncode == 0, predicted.stderr
    (only,) = json.loads(predicted.stdout)["predictions"]
    assert only["ranked"][0]["number"] == int(ours[0].argmax())
    assert not any(exchange.leaks for exchange in hub.exchanges)


# One task out of many


@pytest.mark.system
def test_only_the_task_that_is_asked_for_is_read_and_never_twice(
    hub: Hub, folders: Path, shelf: Path, zipped: bytes, tmp_path: Path
) -> None:
    someone = person(hub, tmp_path, shelf)
    done = someone.idat("data", "pull", "dtd", "--data-dir", "vtab", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    (pulled,) = json.loads(done.stdout)["tasks"]
    assert (pulled["task"], pulled["folder"]) == ("dtd", "vtab/dtd")
    assert pulled["fetched_files"] == sum(p.is_file() for p in (folders / "dtd").rglob("*"))
    assert bytes_of_zip(hub) < len(zipped) - FILLING // 4
    asked = len(hub.requests)
    again = someone.idat("data", "pull", "dtd", "--data-dir", "vtab")
    assert (again.returncode, len(hub.requests)) == (0, asked)
    assert "was here before" in again.stdout
    verified = someone.idat("data", "verify", "--data-dir", "vtab")
    assert verified.returncode == 0, verified.stdout


def test_without_consent_nothing_is_fetched(hub: Hub, shelf: Path, tmp_path: Path) -> None:
    done = person(hub, tmp_path, shelf).idat("data", "pull", "dtd,svhn")
    assert done.returncode == 1
    assert tells_one_error(done)
    assert "--yes" in done.stderr
    assert "licence: not stated" in done.stderr
    assert not hub.requests


@pytest.mark.system
def test_a_source_of_ones_own_goes_before_the_built_in_one(
    hub: Hub, folders: Path, shelf: Path, tmp_path: Path
) -> None:
    own = fakes.link_tree(shelf, tmp_path / "shelf")
    table = {
        "mine": {
            "title": "My copy",
            "suite": "vtab1k",
            "repo": "me/copy",
            "file": "a.zip",
            "gigabytes": 0.1,
            "licence": "CC0",
        }
    }
    (own / "sources.toml").write_text(tomli_w.dumps(table))
    hub.datasets["me/copy"] = Repo()
    content = fakes.zip_folders(folders, tmp_path / "a.zip", below="").read_bytes()
    hub.datasets["me/copy"].commit({"a.zip": content})
    someone = person(hub, tmp_path, own)
    done = someone.idat("data", "pull", "dtd", "--yes")
    assert done.returncode == 0, done.stderr
    assert "My copy: datasets/me/copy/a.zip" in done.stderr
    assert "licence: CC0" in done.stderr
    assert not [line for line in hub.requests if SOURCE in line]


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /api/datasets", times=2, status=503),
        Fault(RANGES, times=2, status=500),
        Fault(RANGES, times=1, status=429, headers={"Retry-After": "1"}),
        Fault("GET /_lfs", times=2, cut_after=1000),
    ],
    ids=["503", "500", "429", "cut"],
)
@pytest.mark.system
def test_a_passing_fault_ends_in_success(
    fault: Fault, hub: Hub, shelf: Path, tmp_path: Path
) -> None:
    hub.faults.append(replace(fault))
    done = person(hub, tmp_path, shelf).idat("data", "pull", "dtd", "--yes")
    assert done.returncode == 0, done.stderr
    assert hub.faults[0].times == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("GET /api/datasets", times=99, status=401), "401"),
        (Fault("GET /api/datasets", times=99, status=403), "403"),
        (Fault("GET /_lfs", times=99, wrong_bytes=True), "zip"),
    ],
    ids=["401", "403", "wrong bytes"],
)
@pytest.mark.system
def test_a_lasting_fault_is_one_sentence_and_another_try_succeeds(
    fault: Fault, told: str, hub: Hub, shelf: Path, tmp_path: Path
) -> None:
    hub.faults.append(replace(fault))
    someone = person(hub, tmp_path, shelf)
    done = someone.idat("data", "pull", "dtd", "--yes")
    assert done.returncode == 1
    assert told in last_error(done)
    assert not (data_of(someone) / "dtd").exists()
    hub.faults.clear()
    assert someone.idat("data", "pull", "dtd", "--yes").returncode == 0


def last_error(done: "subprocess.CompletedProcess[str]") -> str:
    """The one error, below what was told of the source."""
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return error


@pytest.mark.system
def test_a_copy_that_is_not_what_the_task_declares_is_refused(hub: Hub, tmp_path: Path) -> None:
    """Without the shelf, 1,880 test images are expected."""
    someone = Person(hub, tmp_path)
    done = someone.idat("data", "pull", "dtd,svhn", "--yes")
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 2
    assert "dtd': 3 faults in its data" in done.stderr
    assert "1,880" in done.stderr
    assert not (data_of(someone) / "dtd").exists()


@pytest.mark.system
def test_a_killed_pull_goes_on_with_what_arrived(
    hub: Hub, folders: Path, shelf: Path, tmp_path: Path
) -> None:
    """Killed while svhn is fetched; dtd, before it, is complete by then."""
    someone = person(hub, tmp_path, shelf)
    hub.faults.append(Fault("GET /_lfs", times=1))  # the directory of the zip
    hub.faults.append(Fault("GET /_lfs", times=99, delay=60))
    process = subprocess.Popen(
        [str(IDAT), "data", "pull", "dtd,svhn", "--yes"],
        cwd=someone.home,
        env=someone.surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    hub.wait_for("GET /_lfs", times=2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (data_of(someone) / "dtd").exists()
    hub.faults.clear()
    done = someone.idat("data", "pull", "dtd,svhn", "--yes")
    assert done.returncode == 0, done.stderr
    for task in ("dtd", "svhn"):
        for path in (folders / task).rglob("*.*"):
            place = data_of(someone) / task / path.relative_to(folders / task)
            assert place.read_bytes() == path.read_bytes()


# Several tasks in one repository


@pytest.mark.system
def test_tasks_whose_images_are_here_are_evaluated_and_the_others_are_named(
    hub: Hub, folders: Path, shelf: Path, tmp_path: Path
) -> None:
    author = person(hub, tmp_path / "author", shelf, HF_TOKEN=TOKEN)
    words = ("--adapter", "lora", "--pair", "tiny_random", "epochs=1", "--device", "cpu", "--json")
    done = author.idat("train", "--task", "dtd,svhn", *words, "--data-dir", str(folders))
    assert done.returncode == 0, done.stderr
    runs = [result["folder"] for result in json.loads(done.stdout)["results"]]
    published = author.idat("publish", *runs, "--repo", "zoo/two")
    assert published.returncode == 0, published.stderr
    fakes.link_tree(folders / "dtd", tmp_path / "some" / "dtd")
    reader = person(hub, tmp_path / "reader", shelf, HF_TOKEN=TOKEN)
    words = ("eval", "--checkpoint", "hub:zoo/two", "--data-dir", str(tmp_path / "some"), "--json")
    half = reader.idat(*words)
    assert half.returncode == 3, half.stderr
    assert [r["recipe"]["task"]["id"] for r in json.loads(half.stdout)["results"]] == ["dtd"]
    assert "images of task 'svhn'" in half.stderr
    asked = [line for line in hub.requests if "zoo/two" in line and "svhn" in line]
    assert not [line for line in asked if "adapter_model" in line]
    images = hub.datasets.pop(SOURCE)
    still = reader.idat(*words, "--yes")  # the images cannot be had, and those that are here count
    assert still.returncode == 3, still.stderr
    assert len(json.loads(still.stdout)["results"]) == 1
    assert "the Hub has no repository" in still.stderr
    hub.datasets[SOURCE] = images
    both = reader.idat(*words, "--yes")
    assert both.returncode == 0, both.stderr
    assert len(json.loads(both.stdout)["results"]) == 2
