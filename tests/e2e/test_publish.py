"""Runs to the Hub and back, by the real client against a Hub on loopback."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Fault, Hub, Repo, serving
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from test_hub import Person, tells_one_error

from idat_zoo.errors import CheckpointError, RunFolderError, UsageError
from idat_zoo.fit import Progress
from idat_zoo.publishing import prepare
from idat_zoo.registry import get_recipe
from idat_zoo.results import Result
from idat_zoo.run_folder import run_folder
from idat_zoo.runs import run

REPO = "zoo/tiny-lora"

pytestmark = pytest.mark.slow


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as running:
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of one recipe, by seed, and one of another family."""
    out = tmp_path_factory.mktemp("finished")
    folders = []
    for adapter, seed in (("lora", 0), ("lora", 1), ("linear", 0)):
        recipe = get_recipe(
            "digits", adapter, pair="tiny_random", overrides=["epochs=1", "precision=float32"]
        )
        run(recipe, seed=seed, device="cpu", out=out, progress=Progress())
        folders.append(run_folder(out, recipe, seed))
    return folders


@pytest.fixture
def own(runs: list[Path], tmp_path: Path) -> Path:
    """A copy of the first that a test may spoil."""
    return Path(shutil.copytree(runs[0], tmp_path / "own"))


# What goes there


def test_one_run_lies_at_the_root_with_a_card_that_the_hub_reads_back(runs: list[Path]) -> None:
    contents = prepare([runs[0]], REPO)
    assert contents.keys() == {
        "README.md",
        "adapter_model.safetensors",
        "config.json",
        "probe.safetensors",
        "recipe.toml",
        "result.json",
    }
    result = Result.model_validate_json(contents["result.json"])
    card = ModelCard(contents["README.md"].decode())
    assert card.data.library_name == "idat-zoo"
    assert card.data.pipeline_tag == "image-classification"
    (score,) = card.data.eval_results
    assert score.metric_value == result.top1
    assert score.metric_args["seed"] == 0
    assert score.metric_args["images"] == 797
    assert score.metric_args["interval"] == list(result.top1_interval)
    assert f"| {100 * result.top1:.1f} |" in card.text
    assert f"idat eval --checkpoint hub:{REPO}" in card.text
    assert str(runs[0].parents[4]) not in card.content


def test_several_runs_lie_in_folders_of_their_own(runs: list[Path]) -> None:
    contents = prepare(runs[:2], REPO, with_teacher=True)
    folders = {name.rpartition("/")[0].removesuffix("/teacher") for name in contents} - {""}
    assert {folder.partition("/")[0] for folder in folders} == {"digits"}
    assert {folder[-5:] for folder in folders} == {"seed0", "seed1"}
    assert sum(name.endswith("teacher/adapter_model.safetensors") for name in contents) == 2
    assert len(ModelCard(contents["README.md"].decode()).data.eval_results) == 2


# What is refused, before anything is uploaded


def test_runs_of_unlike_families_do_not_share_a_repository(runs: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"do not belong into one repository: .*linear.*lora"):
        prepare(runs, REPO)


def test_an_unfinished_run_is_refused(own: Path) -> None:
    (own / "result.json").unlink()
    with pytest.raises(RunFolderError, match="not a finished run"):
        prepare([own], REPO)


@pytest.mark.parametrize("name", ["config.json", "adapter_model.safetensors", "recipe.toml"])
def test_a_file_that_is_not_the_runs_own_is_named(name: str, own: Path) -> None:
    (own / name).write_bytes((own / name).read_bytes() + b" ")
    with pytest.raises(RunFolderError, match=f"{name} is not what the run wrote"):
        prepare([own], REPO)


def test_a_file_that_is_missing_is_named(own: Path) -> None:
    (own / "probe.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"probe\.safetensors is missing"):
        prepare([own], REPO)


def test_a_checkpoint_that_does_not_reproduce_its_probe_is_refused(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = load_file(own / "probe.safetensors")
    save_file({"logits": probe["logits"] + 0.1}, own / "probe.safetensors")
    document = json.loads((own / "result.json").read_text())
    del document["files"]["probe.safetensors"]
    (own / "result.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="does not reproduce its own probe"):
        prepare([own], REPO)


def test_a_card_with_a_path_of_this_machine_is_refused(own: Path) -> None:
    document = json.loads((own / "result.json").read_text())
    own_place = "/".join(["", "home", "someone", "photos"])
    document["recipe"]["task"]["source"] = own_place
    (own / "result.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=f"path of this machine: {own_place}"):
        prepare([own], REPO)


def test_a_web_address_is_no_path_of_this_machine(own: Path) -> None:
    document = json.loads((own / "result.json").read_text())
    document["recipe"]["task"]["source"] = "https://example.org/tmp/data"
    (own / "result.json").write_text(json.dumps(document))
    assert b"https://example.org/tmp/data" in prepare([own], REPO)["README.md"]


@pytest.mark.parametrize("repo", ["name", "org/name/more", "org/name@main", "-/x y"])
def test_what_is_no_repository_is_refused_without_a_request(
    repo: str, runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    done = Person(hub, tmp_path).idat("publish", str(runs[0]), "--repo", repo)
    assert done.returncode == 2, done.stderr
    assert not hub.requests


# Uploading


def commits_of(hub: Hub) -> int:
    return len(hub.repos[REPO].commits)


def test_a_run_goes_to_the_hub_and_comes_back_to_the_bit(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path / "author", HF_TOKEN=TOKEN)
    done = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v1", "--json")
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)
    assert hub.repos[REPO].private
    assert hub.repos[REPO].names["v1"] == hub.repos[REPO].names["main"] == published["commit"]
    assert commits_of(hub) == 2  # the empty repository, and all files at once
    reader = Person(hub, tmp_path / "reader", HF_TOKEN=TOKEN)
    result = reader.evaluate(f"hub:{REPO}@{published['commit']}", "--require-pinned")
    assert result["top1"] == Result.model_validate_json((runs[0] / "result.json").read_bytes()).top1
    ours = load_file(runs[0] / "predictions.safetensors")["student"]
    theirs = load_file(reader.home / "eval" / "predictions.safetensors")["student"]
    assert ours.equal(theirs)
    again = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v1")
    assert again.returncode == 0, again.stderr
    assert commits_of(hub) == 2
    for person in (author, reader):
        written = [path for path in person.home.rglob("*") if path.is_file()]
        assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    uploaded = b"".join(b"".join(c.values()) for c in hub.repos[REPO].commits.values())
    assert TOKEN.encode() not in uploaded
    assert TOKEN not in done.stdout + done.stderr + again.stdout + again.stderr


def test_a_tag_that_is_taken_is_named_and_left_where_it_is(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO] = Repo()
    old = hub.repos[REPO].commit({"README.md": b"mine"})
    hub.repos[REPO].names["v1"] = old
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    done = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v1")
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert f"tag 'v1' of '{REPO}' is on {old}" in done.stderr
    assert hub.repos[REPO].names["v1"] == old
    assert hub.repos[REPO].names["main"] != old


def test_a_dry_run_lists_files_and_asks_nothing(runs: list[Path], hub: Hub, tmp_path: Path) -> None:
    done = Person(hub, tmp_path).idat("publish", str(runs[0]), "--repo", REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "adapter_model.safetensors" in done.stdout
    assert "README.md" in done.stdout
    assert not hub.requests


@pytest.mark.system
def test_a_pull_request_leaves_the_main_branch(runs: list[Path], hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO] = Repo()
    before = hub.repos[REPO].commit({"README.md": b"mine"})
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    done = author.idat("publish", str(runs[0]), "--repo", REPO, "--create-pr")
    assert done.returncode == 0, done.stderr
    assert "/discussions/1" in done.stdout
    assert hub.repos[REPO].names["main"] == before


@pytest.mark.system
@pytest.mark.parametrize("after", [False, True], ids=["refused", "done-but-lost"])
def test_a_burst_of_errors_ends_in_one_commit(
    after: bool, runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    hub.faults.append(Fault("POST .*/commit/", times=1 if after else 2, status=503, after=after))
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    done = author.idat("publish", str(runs[0]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    assert commits_of(hub) == 2


@pytest.mark.system
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("POST .*/commit/", times=9, status=412), "was changed by someone else"),
        (Fault("POST .*/commit/", times=9, status=403), "the Hub refused"),
        (Fault("POST .*/commit/", times=99, status=500), "the Hub refused"),
        (Fault("POST .*/preupload/", times=99, status=403), "the Hub refused"),
    ],
    ids=["412", "403", "500", "preupload"],
)
def test_a_lasting_fault_is_one_sentence_and_changes_nothing(
    fault: Fault, told: str, runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO] = Repo()
    hub.repos[REPO].commit({"README.md": b"mine"})
    hub.faults.append(fault)
    done = Person(hub, tmp_path, HF_TOKEN=TOKEN).idat("publish", str(runs[0]), "--repo", REPO)
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert told in done.stderr
    assert commits_of(hub) == 1


@pytest.mark.system
def test_without_a_token_it_is_one_sentence(runs: list[Path], hub: Hub, tmp_path: Path) -> None:
    done = Person(hub, tmp_path).idat("publish", str(runs[0]), "--repo", REPO)
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert REPO not in hub.repos
