"""Runs to the Hub and back, by the real client against a Hub on loopback."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import TOKEN, Fault, Hub, Repo, ask_from_here
from huggingface_hub import ModelCard
from result_documents import write_document
from safetensors.torch import load_file, save_file
from test_hub import Person, tells_one_error

from idat_zoo.adapters.linear import Linear
from idat_zoo.checkpoint.opened import open_checkpoints
from idat_zoo.errors import CheckpointError, HubError, RunFolderError, UnknownNameError, UsageError
from idat_zoo.formats import peft_export
from idat_zoo.hub.card_file import write_card
from idat_zoo.hub.head import Head, read_head
from idat_zoo.intervals import wilson_interval
from idat_zoo.publishing.plan import plan, publish
from idat_zoo.registry import get_recipe
from idat_zoo.report.card import as_plain, card_fields, card_scores
from idat_zoo.results import load_result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run
from idat_zoo.runs.progress import Progress

REPO = "zoo/tiny-lora"

pytestmark = pytest.mark.slow


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


def new_repository(folders: list[Path], **options: bool) -> dict[str, bytes]:
    """The files that a repository would be made of."""
    return dict(plan(folders, Head(repo=REPO), **options).contents)


# What goes there


def test_one_run_lies_at_the_root_with_a_card_that_the_hub_reads_back(runs: list[Path]) -> None:
    contents = new_repository([runs[0]])
    assert contents.keys() == {
        "README.md",
        "adapter_model.safetensors",
        "config.json",
        "peft/adapter_config.json",
        "peft/adapter_model.safetensors",
        "probe.safetensors",
        "recipe.toml",
        "result.json",
    }
    result = load_result(runs[0] / "result.json")
    assert contents["result.json"] == (runs[0] / "result.json").read_bytes()
    card = ModelCard(contents["README.md"].decode())
    assert card.data.library_name == "idat-zoo"
    assert card.data.pipeline_tag == "image-classification"
    (score,) = card.data.eval_results
    assert score.metric_value == result.top1
    assert score.metric_args["seed"] == 0
    assert score.metric_args["images"] == 797
    assert score.metric_args["interval"] == list(result.top1_interval)
    assert f" {100 * result.top1:.2f} |" in card.text
    assert f"idat eval hub:{REPO}" in card.text
    assert str(runs[0].parents[4]) not in card.content


def test_a_lora_that_peft_has_no_form_of_is_published_without_one_and_the_card_says_so(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "With PEFT: `peft/`" in new_repository([runs[0]])["README.md"].decode()
    monkeypatch.setattr(peft_export, "read_past", lambda *_: "it reads past its module")
    contents = new_repository([runs[0]])
    assert not [name for name in contents if name.startswith("peft/")]
    card = contents["README.md"].decode()
    assert "PEFT has no form of it" in card
    assert "With PEFT" not in card


def test_the_card_says_how_to_merge_what_the_family_says_can_be_merged(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = new_repository([runs[2]])["README.md"].decode()
    assert f"idat merge hub:{REPO} -o merged" in card
    assert "PEFT" not in card
    monkeypatch.setattr(Linear, "mergeable", False)
    assert "idat merge" not in new_repository([runs[2]])["README.md"].decode()


def test_several_runs_lie_in_folders_of_their_own(runs: list[Path]) -> None:
    contents = new_repository(runs[:2], with_teacher=True)
    index = json.loads(contents["config.json"])["checkpoints"]
    assert {folder.partition("/")[0] for folder in index} == {"digits"}
    assert [folder[-5:] for folder in index] == ["seed0", "seed1"]
    assert [entry["seed"] for entry in index.values()] == [0, 1]
    assert all(f"{folder}/config.json" in contents for folder in index)
    assert sum(name.endswith("teacher/adapter_model.safetensors") for name in contents) == 2
    assert len(ModelCard(contents["README.md"].decode()).data.eval_results) == 2


# What is refused, before anything is uploaded


def test_runs_of_unlike_families_do_not_share_a_repository(runs: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"do not belong in one repository: .*linear.*lora"):
        new_repository(runs)


def test_an_unfinished_run_is_refused(own: Path) -> None:
    (own / "result.json").unlink()
    with pytest.raises(RunFolderError, match="holds an unfinished run") as caught:
        new_repository([own])
    assert "--resume` goes on with it" in caught.value.hint


def test_what_is_no_run_is_told_what_it_is(runs: list[Path], own: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no folder"):
        new_repository([tmp_path / "absent"])
    with pytest.raises(RunFolderError, match="not a finished run") as caught:
        new_repository([runs[0].parent / ".."])
    assert "--resume" not in caught.value.hint
    for name in ("result.json", "recipe.toml"):
        (own / name).unlink()
    with pytest.raises(RunFolderError, match="not a finished run"):
        new_repository([own])
    config = json.loads((own / "config.json").read_text())
    config["recipe"] |= {"protocol": "imported", "distillation": "none"}
    for teacher in (config["recipe"]["pair"], config["recipe"]):
        teacher.pop("teacher", None)
        teacher.pop("teacher_adapter", None)
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match="holds an imported adapter") as caught:
        new_repository([own])
    assert "--resume" not in caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "adapter_model.safetensors", "recipe.toml"])
def test_a_file_that_is_not_the_runs_own_is_named(name: str, own: Path) -> None:
    (own / name).write_bytes((own / name).read_bytes() + b" ")
    with pytest.raises(RunFolderError, match=f"{name} is not what the run wrote"):
        new_repository([own])


def test_a_file_that_is_missing_is_named(own: Path) -> None:
    (own / "probe.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"probe\.safetensors is missing"):
        new_repository([own])


def test_a_checkpoint_that_does_not_reproduce_its_probe_is_refused(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = load_file(own / "probe.safetensors")
    save_file({"logits": probe["logits"] + 0.1}, own / "probe.safetensors")
    document = json.loads((own / "result.json").read_text())
    del document["files"]["probe.safetensors"]
    write_document(own / "result.json", document)
    with pytest.raises(CheckpointError, match="does not reproduce its own probe"):
        new_repository([own])


def test_a_card_with_a_path_of_this_machine_is_refused(own: Path) -> None:
    document = json.loads((own / "result.json").read_text())
    own_place = "/".join(["", "home", "someone", "photos"])
    document["recipe"]["task"]["source"] = own_place
    write_document(own / "result.json", document)
    with pytest.raises(UsageError, match=f"path of this machine: {own_place}"):
        new_repository([own])


def test_a_web_address_is_no_path_of_this_machine(own: Path) -> None:
    document = json.loads((own / "result.json").read_text())
    document["recipe"]["task"]["source"] = "https://example.org/tmp/data"
    write_document(own / "result.json", document)
    assert b"https://example.org/tmp/data" in new_repository([own])["README.md"]


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


@pytest.mark.system
def test_a_run_goes_to_the_hub_in_one_private_commit_and_not_twice(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path / "author", HF_TOKEN=TOKEN)
    done = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v1", "--json")
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)
    assert hub.repos[REPO].private
    assert hub.repos[REPO].names["v1"] == hub.repos[REPO].names["main"] == published["commit"]
    assert commits_of(hub) == 2  # the empty repository, and all files at once
    again = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v1")
    assert again.returncode == 0, again.stderr
    assert commits_of(hub) == 2
    written = [path for path in author.home.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    uploaded = b"".join(b"".join(c.values()) for c in hub.repos[REPO].commits.values())
    assert TOKEN.encode() not in uploaded
    assert TOKEN not in done.stdout + done.stderr + again.stdout + again.stderr


@pytest.mark.system
def test_a_tag_that_is_taken_is_named_and_left_where_it_is(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO] = Repo()
    old = hub.repos[REPO].commit({"photo.png": b"mine"})
    hub.repos[REPO].names["v1"] = old
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    done = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v1")
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert f"tag 'v1' of '{REPO}' is on {old}" in done.stderr
    assert hub.repos[REPO].names["v1"] == old
    assert hub.repos[REPO].names["main"] != old


@pytest.mark.system
def test_a_dry_run_lists_files_and_changes_nothing(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    done = Person(hub, tmp_path).idat("publish", str(runs[0]), "--repo", REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "adapter_model.safetensors" in done.stdout
    assert "README.md" in done.stdout
    assert "a new repository" in done.stdout
    assert all(line.startswith("GET") for line in hub.requests)
    elsewhere = Person(hub, tmp_path, HF_HUB_OFFLINE="1")
    alone = elsewhere.idat("publish", str(runs[0]), "--repo", REPO, "--dry-run")
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout == done.stdout
    assert "offline" in alone.stderr


@pytest.mark.system
def test_a_pull_request_leaves_the_main_branch(runs: list[Path], hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO] = Repo()
    before = hub.repos[REPO].commit({"photo.png": b"mine"})
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
    hub.repos[REPO].commit({"photo.png": b"mine"})
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
    assert "hint: `hf auth login`, or HF_TOKEN." in done.stderr
    assert REPO not in hub.repos


# Several runs below one index


@pytest.mark.system
def test_runs_that_come_later_join_the_index_and_the_card(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path / "author", HF_TOKEN=TOKEN)
    first = author.idat(
        "publish", str(runs[0]), str(runs[1]), "--repo", REPO, "--with-teacher", "--json"
    )
    assert first.returncode == 0, first.stderr
    before = hub.repos[REPO].commits[hub.repos[REPO].names["main"]]
    # The second again, without its teacher; the first stays as it was.
    later = author.idat("publish", str(runs[1]), "--repo", REPO, "--json")
    assert later.returncode == 0, later.stderr
    after = hub.repos[REPO].commits[hub.repos[REPO].names["main"]]
    index = json.loads(after["config.json"])["checkpoints"]
    places = sorted(index)
    assert [place[-5:] for place in places] == ["seed0", "seed1"]
    gone = {name for name in before if name not in after}
    assert gone == {
        f"{places[1]}/teacher/{name}" for name in ("config.json", "adapter_model.safetensors")
    }
    assert after["README.md"] == before["README.md"]
    asked = len(hub.requests)
    reader = Person(hub, tmp_path / "reader", HF_TOKEN=TOKEN)
    done = reader.idat("eval", "--checkpoint", f"hub:{REPO}", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [result["checkpoint"]["subfolder"] for result in results] == places
    assert not [line for line in hub.requests[asked:] if "HEAD" in line and "teacher" in line]
    other = author.idat("publish", str(runs[2]), "--repo", REPO)
    assert other.returncode == 2
    assert "do not belong in one repository" in other.stderr


@pytest.mark.system
def test_a_repository_with_one_run_at_its_root_takes_no_others_beside_it(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    assert author.idat("publish", str(runs[0]), "--repo", REPO).returncode == 0
    done = author.idat("publish", str(runs[0]), str(runs[1]), "--repo", REPO)
    assert done.returncode == 2, done.stderr
    assert "holds one run at its root" in done.stderr
    other = author.idat("publish", str(runs[1]), "--repo", REPO)
    assert other.returncode == 2, other.stderr
    assert "holds another run at its root: digits/" in other.stderr
    assert commits_of(hub) == 2


@pytest.mark.system
def test_what_a_lost_answer_took_out_is_not_taken_for_someone_elses_doing(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    first = author.idat("publish", str(runs[0]), "--repo", REPO, "--with-teacher")
    assert first.returncode == 0, first.stderr
    hub.faults.append(Fault("POST .*/commit/", times=1, status=503, after=True))
    done = author.idat("publish", str(runs[0]), "--repo", REPO, "--tag", "v2")
    assert done.returncode == 0, done.stderr
    head = hub.repos[REPO].names["main"]
    assert hub.repos[REPO].names["v2"] == head
    assert head in done.stdout
    assert not [name for name in hub.repos[REPO].commits[head] if "teacher" in name]
    assert commits_of(hub) == 3


@pytest.mark.system
def test_a_repository_of_something_else_is_left_alone(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO] = Repo()
    hub.repos[REPO].commit({"config.json": b'{"architectures": ["ViT"]}'})
    done = Person(hub, tmp_path, HF_TOKEN=TOKEN).idat("publish", str(runs[0]), "--repo", REPO)
    assert done.returncode == 1, done.stderr
    assert "holds what idat-zoo did not write: config.json." in done.stderr
    assert commits_of(hub) == 1


# What others put there

CARD = b"---\nlicense: mit\nlanguage: en\n---\n\n# My own LoRA\n\nWritten by hand.\n"
THEIRS = {
    "README.md": CARD,
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": b"of somebody else",
    "teacher/config.json": b'{"a": "teacher"}',
    "photo.png": b"an image",
}


def head_with(hub: Hub, files: dict[str, bytes]) -> Head:
    """The head of the repository once it holds these files and no others."""
    hub.repos.setdefault(REPO, Repo()).commit(files)
    return read_head(REPO)


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub on loopback for this very process."""
    ask_from_here(hub, tmp_path / "cache", monkeypatch)
    return hub


@pytest.mark.parametrize("large", ["", "lfs"])
def test_files_of_others_are_refused_by_name(runs: list[Path], here: Hub, large: str) -> None:
    here.large = "lfs" if large else ""
    ready = plan([runs[0]], head_with(here, THEIRS))
    assert ready.foreign == THEIRS.keys() - {"photo.png"}
    with pytest.raises(HubError) as refused:
        publish(ready)
    told = str(refused.value)
    assert "--overwrite README.md,adapter_config.json,adapter_model.safetensors" in told
    assert "teacher/config.json" in told
    assert "photo.png" not in told
    assert commits_of(here) == 1


def test_what_is_named_is_overwritten_or_removed(runs: list[Path], here: Hub) -> None:
    named = THEIRS.keys() - {"photo.png"}
    ready = plan([runs[0]], head_with(here, THEIRS), overwrite=named)
    ready.require_allowed()
    states = ready.states()
    assert states["README.md"] == states["adapter_model.safetensors"] == "overwritten"
    assert states["adapter_config.json"] == states["teacher/config.json"] == "removed"
    assert states["result.json"] == "new"
    assert "photo.png" not in states


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "result.json", "recipe.toml"])
def test_a_published_file_that_someone_changed_is_refused(
    name: str, runs: list[Path], here: Hub
) -> None:
    ours = new_repository([runs[0]])
    ready = plan([runs[0]], head_with(here, ours | {name: ours[name] + b"\n"}))
    assert ready.refused.keys() == {name}
    assert ready.states()[name] == "overwritten"


def test_a_run_that_is_published_anew_changes_what_was_published(
    runs: list[Path], own: Path, here: Hub
) -> None:
    head = head_with(here, new_repository([runs[0]], with_teacher=True))
    document = json.loads((own / "result.json").read_text())
    write_document(own / "result.json", document | {"seconds": 12.5})
    ready = plan([own], head)
    assert not ready.foreign
    states = ready.states()
    assert states["result.json"] == states["README.md"] == "changed"
    assert states["config.json"] == "unchanged"
    assert states["teacher/config.json"] == "removed"


def test_a_published_run_without_a_card_is_known_by_its_result(runs: list[Path], here: Hub) -> None:
    ours = new_repository(runs[:1])
    del ours["README.md"]
    head = head_with(here, ours | {"probe.safetensors": b"other"})
    assert plan([runs[0]], head).refused.keys() == {"probe.safetensors"}


def test_a_name_that_is_not_concerned_is_no_permission(runs: list[Path], here: Hub) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'README\.md'"):
        plan([runs[0]], head_with(here, THEIRS), overwrite=["README"])


def test_a_run_that_diverged_is_said_to_have(
    runs: list[Path], own: Path, hub: Hub, tmp_path: Path
) -> None:
    config = json.dumps(json.loads((own / "config.json").read_bytes()) | {"diverged": True})
    (own / "config.json").write_text(config)
    result = json.loads((own / "result.json").read_bytes()) | {"diverged": True}
    result["files"]["config.json"] = hashlib.sha256(config.encode()).hexdigest()
    write_document(own / "result.json", result)
    done = Person(hub, tmp_path).idat(
        "publish", str(own), str(runs[1]), "--repo", REPO, "--dry-run"
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [str(own)]
    assert "the training diverged" in done.stderr


def edited(content: bytes, *changes: tuple[str, str]) -> bytes:
    """A card after someone has written in it."""
    text = content.decode()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.encode()


def test_a_card_keeps_what_a_person_wrote_beside_the_section(
    runs: list[Path], own: Path, here: Hub
) -> None:
    ours = new_repository([runs[0]])
    card = edited(
        ours["README.md"],
        ("\n<!-- idat-zoo: begin", '\n# Mine\n\nBefore: it "works".\n\n<!-- idat-zoo: begin'),
        ("<!-- idat-zoo: end -->\n", "<!-- idat-zoo: end -->\n\n## After\n\n---\n"),
        ("tags:\n", "language: de\nthumbnail: 'a: b'\ntags:\n- beautiful\n"),
    )
    repeated = plan([runs[0]], head_with(here, ours | {"README.md": card}))
    assert set(repeated.states().values()) == {"unchanged"}
    document = json.loads((own / "result.json").read_text())
    count = document["student"]["count"]
    correct = round(0.123 * count)
    lower = {"top1": correct / count, "top1_interval": wilson_interval(correct, count)}
    student = document["student"] | lower | {"per_class": [], "confusion": []}
    changed = {**lower, "student": student}
    write_document(own / "result.json", document | changed)
    ready = plan([own], repeated.head)
    assert not ready.foreign
    assert ready.states()["README.md"] == "changed"
    elsewhere = ModelCard(ready.contents["README.md"].decode())
    assert f" {100 * correct / count:.2f} |" in elsewhere.text
    assert elsewhere.data.eval_results[0].metric_value == correct / count
    assert elsewhere.text.startswith('# Mine\n\nBefore: it "works".\n\n<!-- idat-zoo: begin ')
    assert elsewhere.text.endswith("<!-- idat-zoo: end -->\n\n## After\n\n---\n")
    assert (elsewhere.data.language, elsewhere.data.thumbnail) == ("de", "a: b")
    assert "beautiful" in elsewhere.data.tags
    assert "lora" in elsewhere.data.tags


@pytest.mark.parametrize(
    "change", [("## Limits", "## Limits of mine"), ("license: other", "license: mit")]
)
def test_a_section_that_was_edited_by_hand_is_refused(
    change: tuple[str, str], runs: list[Path], here: Hub
) -> None:
    ours = new_repository([runs[0]])
    card = edited(ours["README.md"], change, ("end -->\n", "end -->\n\nBelow.\n"))
    ready = plan([runs[0]], head_with(here, ours | {"README.md": card}))
    with pytest.raises(HubError, match=r"README\.md \(its section, or one of .* by hand\)"):
        ready.require_allowed()
    allowed = plan([runs[0]], ready.head, overwrite=["README.md"])
    allowed.require_allowed()
    assert allowed.contents["README.md"] == ours["README.md"] + b"\nBelow.\n"


def test_two_marks_in_a_card_are_an_invitation(runs: list[Path], here: Hub) -> None:
    card = b"# By hand\n\n<!-- idat-zoo: begin -->\n<!-- idat-zoo: end -->\n\nMore.\n"
    ready = plan([runs[0]], head_with(here, {"README.md": card}))
    assert not ready.foreign
    text = ModelCard(ready.contents["README.md"].decode()).text
    assert text.startswith("# By hand\n\n<!-- idat-zoo: begin ")
    assert text.endswith("<!-- idat-zoo: end -->\n\nMore.\n")
    assert "## Results" in text


@pytest.mark.parametrize("card", [CARD, b"---\na: [\n---\n", b"\xff\xfe", b""])
def test_a_card_without_a_section_is_refused(card: bytes, runs: list[Path], here: Hub) -> None:
    ready = plan([runs[0]], head_with(here, {"README.md": card}))
    assert ready.refused.keys() == {"README.md"}


def test_a_dry_run_names_every_file_and_what_becomes_of_it(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO] = Repo()
    hub.repos[REPO].commit(
        THEIRS | {"probe.safetensors": new_repository(runs[:1])["probe.safetensors"]}
    )
    words = ("publish", str(runs[0]), "--repo", REPO, "--dry-run")
    done = Person(hub, tmp_path).idat(*words, "--json")
    assert done.returncode == 1, done.stderr
    assert "--overwrite README.md,adapter_config.json" in done.stderr
    document = json.loads(done.stdout)
    states = {file["path"]: file["state"] for file in document["files"]}
    assert states["README.md"] == "overwritten"
    assert states["recipe.toml"] == "new"
    assert states["probe.safetensors"] == "unchanged"
    assert document["removed"] == ["adapter_config.json", "teacher/config.json"]
    assert document["refused"] == sorted(THEIRS.keys() - {"photo.png"})
    named = ("--overwrite", ",".join(document["refused"]))
    allowed = Person(hub, tmp_path).idat(*words, *named)
    assert allowed.returncode == 0, allowed.stderr
    assert "teacher/config.json" in allowed.stdout
    assert "2 removed" in allowed.stdout
    assert all(line.startswith("GET") or "HEAD" in line for line in hub.requests)


# Read back


def scored(**fields: object) -> dict[str, object]:
    """A score of one data set, with fields of its own."""
    about = {"dataset_type": "digits", "dataset_name": "Digits", "metric_type": "accuracy"}
    return {"task_type": "image-classification", **about, "metric_value": 0.5, **fields}


def test_two_seeds_of_one_data_set_keep_their_own_arguments(runs: list[Path]) -> None:
    card = ModelCard(new_repository(runs[:2])["README.md"].decode())
    written = [score.metric_args["seed"] for score in card.data.eval_results]
    assert written == [0, 1]
    assert len({score.dataset_config for score in card.data.eval_results}) == 2


@pytest.mark.parametrize("field", ["source_url", "dataset_args", "dataset_name", "task_name"])
def test_scores_that_would_share_the_first_ones_are_refused(field: str) -> None:
    values = [{"seed": 0}, {"seed": 1}] if field == "dataset_args" else ["one", "two"]
    scores = [scored(**{field: value}) for value in values]
    with pytest.raises(HubError, match=f"{field} of score 2: .* becomes"):
        write_card("tiny", {}, scores, "")
    apart = [one | {"dataset_config": str(place)} for place, one in enumerate(scores)]
    assert write_card("tiny", {}, apart, "")


def test_a_number_of_numpy_is_refused_where_a_card_is_written() -> None:
    with pytest.raises(HubError, match="cannot be read"):
        write_card("tiny", {}, [scored(metric_value=np.float64(0.5))], "")


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), torch.tensor(0.5)])
def test_numbers_and_paths_of_any_type_are_plain_in_a_card(
    value: object, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = load_result(runs[0] / "result.json")
    student = result.student.model_copy(update={"count": np.int64(797)})
    odd = result.model_copy(
        update={"top1": value, "top1_interval": (value, value), "student": student}
    )
    (score,) = card_scores({"": odd})
    card = ModelCard(write_card("tiny", card_fields({"": odd}), [score], ""))
    (back,) = card.data.eval_results
    assert type(back.metric_value) is float
    assert back.metric_value == 0.5
    assert back.metric_args["interval"] == [0.5, 0.5]
    assert back.metric_args["images"] == 797
    assert as_plain({"at": Path("a/b")}) == {"at": "a/b"}


@pytest.mark.parametrize(
    "title",
    [
        'She said: "no"',
        "it's: {a} [b] # c",
        "one\n---\nlicense: mit\n---\ntwo",
        " - yes",
        "1e3",
        "\u2028\u0085 end",
        "null",
        "---",
    ],
)
def test_a_title_of_any_signs_comes_back(title: str, runs: list[Path]) -> None:
    result = load_result(runs[0] / "result.json")
    task = result.recipe.task.model_copy(update={"title": title})
    odd = {
        "": result.model_copy(update={"recipe": result.recipe.model_copy(update={"task": task})})
    }
    content = write_card("tiny", card_fields(odd), card_scores(odd), "Text.\n")
    card = ModelCard(content)
    assert card.data.eval_results[0].dataset_name == title
    assert card.text == "Text.\n"
    assert card.data.license == "other"


def test_a_field_that_comes_back_as_another_is_named() -> None:
    with pytest.raises(HubError, match=r"tags: .* becomes"):
        write_card("tiny", {"tags": ["a", "a"]}, [scored()], "")


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    entry = {"task": "digits", "seed": 0, "recipe_hash": "0" * 64}
    for place in ("../other", "/etc", "a/../../b", "", ".hidden", "a//b"):
        document = {"schema_version": 1, "library": "idat-zoo", "checkpoints": {place: entry}}
        (tmp_path / "config.json").write_text(json.dumps(document))
        with pytest.raises(CheckpointError, match=r"config\.json"):
            open_checkpoints(tmp_path)


# Labels


def test_a_number_of_protocol_paper_is_labelled_wherever_it_stands(tmp_path: Path) -> None:
    overrides = ["epochs=1", "precision=float32", "protocol=paper"]
    recipe = get_recipe("digits", "lora", pair="tiny_random", overrides=overrides)
    assert run(recipe, device="cpu", out=tmp_path).top1_best_on_test is not None
    folder = run_folder(tmp_path, recipe, 0)
    card = ModelCard(new_repository([folder])["README.md"].decode())
    (score,) = card.data.eval_results
    assert "protocol = paper" in score.metric_name
    assert score.metric_args["protocol"] == "paper"
    assert "**protocol = paper**" in card.text
    assert "top1_best_on_test" in card.text


def test_a_number_of_protocol_paper_that_is_not_labelled_is_refused(own: Path) -> None:
    document = json.loads((own / "result.json").read_text())
    write_document(own / "result.json", document | {"top1_best_on_test": 0.9})
    with pytest.raises(RunFolderError, match="is not labelled protocol = paper"):
        new_repository([own])
    document["recipe"]["protocol"] = "paper"
    write_document(own / "result.json", document | {"top1_best_on_test": 0.9})
    with pytest.raises(RunFolderError, match="another recipe than the run's"):
        new_repository([own])


def test_names_of_tasks_cannot_bring_markup_into_the_card(own: Path) -> None:
    document = json.loads((own / "result.json").read_text())
    markup = "<script>alert(1)</script> | **x**\n---\nlicense: mit"
    for field in ("title", "source", "licence"):
        document["recipe"]["task"][field] = markup
    document["recipe"]["task"]["class_names"] = [f"<img src=x>{k}\n" for k in range(10)]
    write_document(own / "result.json", document)
    card = ModelCard(new_repository([own])["README.md"].decode())
    assert card.data.license == "other"
    assert card.data.eval_results[0].dataset_name == markup
    assert "<script>" not in card.text
    assert "<img" not in card.text
    assert "\nlicense: mit" not in card.text
