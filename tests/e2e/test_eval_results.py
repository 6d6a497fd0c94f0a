"""`idat publish --eval-results`: the Hub's file of evaluation results, there and back again."""

import json
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml
from hub_server import TOKEN, Hub
from huggingface_hub import EvalResultEntry, parse_eval_result_entries
from made_results import made
from test_hub import Person, tells_one_error

from conftest import toy_recipe
from idat_zoo.errors import HubError, UsageError
from idat_zoo.hub.eval_results_file import EVAL_RESULTS_FILE, write_eval_results
from idat_zoo.registry import get_recipe
from idat_zoo.report.eval_results import eval_entries
from idat_zoo.report.rows import estimate
from idat_zoo.results import load_result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run
from idat_zoo.runs.progress import Progress

REPO, DATASET = "zoo/tiny-lora", "zoo/mini-suite"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one recipe."""
    out = tmp_path_factory.mktemp("finished")
    recipe = get_recipe(
        "digits", "lora", pair="tiny_random", overrides=["epochs=1", "precision=float32"]
    )
    for seed in (0, 1):
        run(recipe, seed=seed, device="cpu", out=out, progress=Progress())
    return [run_folder(out, recipe, seed) for seed in (0, 1)]


def files_of(hub: Hub) -> dict[str, bytes]:
    """The files on the main branch."""
    return hub.repos[REPO].commits[hub.repos[REPO].names["main"]]


def there(hub: Hub) -> list[EvalResultEntry]:
    """The published entries, as the Hub's library reads them."""
    return parse_eval_result_entries(yaml.safe_load(files_of(hub)[EVAL_RESULTS_FILE]))


def at(address: str | None) -> bytes:
    """What lies at an address of the Hub on loopback."""
    asked = Request(address or "", headers={"Authorization": f"Bearer {TOKEN}"})
    with urlopen(asked, timeout=60) as answer:
        return bytes(answer.read())


@pytest.mark.slow
@pytest.mark.system
def test_one_run_is_read_back_with_every_field_and_published_once(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    words = ("publish", str(runs[0]), "--repo", REPO)
    done = author.idat(*words, "--eval-results", DATASET)
    assert done.returncode == 0, done.stderr
    result = load_result(runs[0] / "result.json")
    low, high = result.top1_interval
    backbone = result.recipe.pair.student
    (entry,) = there(hub)
    assert entry == EvalResultEntry(
        dataset_id=DATASET,
        task_id="digits",
        value=result.top1,
        date=result.finished,
        source_url=f"{hub.url}/{REPO}/resolve/main/result.json",
        source_name="result.json of seed 0",
        notes=f"top-1, last epoch, as a fraction; 95 % interval {low:.4f} to {high:.4f}, which "
        f"covers other test images; 797 test images; weights {backbone.name} {backbone.weights}; "
        f"normalisation 0.5; data {result.data_fingerprint[:8]}; selection last epoch; "
        f"tried settings 1; seeds 0; schema {result.schema_version}",
    )
    assert at(entry.source_url) == (runs[0] / "result.json").read_bytes()
    commits = len(hub.repos[REPO].commits)
    again = author.idat(*words, "--eval-results", DATASET)
    assert again.returncode == 0, again.stderr
    assert len(hub.repos[REPO].commits) == commits
    without = author.idat(*words)
    assert without.returncode == 0, without.stderr
    assert EVAL_RESULTS_FILE not in files_of(hub)
    assert EVAL_RESULTS_FILE.encode() not in files_of(hub)["README.md"]


@pytest.mark.slow
@pytest.mark.system
def test_seeds_that_come_later_enter_the_mean(runs: list[Path], hub: Hub, tmp_path: Path) -> None:
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    first = author.idat("publish", *map(str, runs), "--repo", REPO)
    assert first.returncode == 0, first.stderr
    assert EVAL_RESULTS_FILE not in files_of(hub)
    done = author.idat("publish", str(runs[1]), "--repo", REPO, "--eval-results", DATASET)
    assert done.returncode == 0, done.stderr
    results = [load_result(folder / "result.json") for folder in runs]
    over_both = estimate([result.student for result in results])
    (entry,) = there(hub)
    assert entry.value == over_both.mean
    low, high = over_both.interval
    covered = {"images": "test images", "seeds": "seeds"}[over_both.over]
    assert entry.notes is not None
    assert f"mean of 2 seeds, as a fraction; 95 % interval {low:.4f} to {high:.4f}" in entry.notes
    assert f"which covers other {covered}; " in entry.notes
    assert "seeds 0, 1; " in entry.notes
    assert entry.date == max(result.finished for result in results)
    assert json.loads(at(entry.source_url))["seed"] == 0


@pytest.mark.slow
@pytest.mark.system
def test_a_file_of_somebody_else_is_refused_by_name(
    runs: list[Path], hub: Hub, tmp_path: Path
) -> None:
    author = Person(hub, tmp_path, HF_TOKEN=TOKEN)
    words = ("publish", str(runs[0]), "--repo", REPO)
    assert author.idat(*words).returncode == 0
    theirs = files_of(hub) | {EVAL_RESULTS_FILE: b"[]\n", ".eval_results/hle.yaml": b"[]\n"}
    hub.repos[REPO].commit(theirs)
    done = author.idat(*words, "--eval-results", DATASET)
    assert done.returncode == 1, done.stderr
    assert tells_one_error(done)
    assert f"--overwrite {EVAL_RESULTS_FILE}\n" in done.stderr
    assert files_of(hub) == theirs


@pytest.mark.parametrize(
    "dataset", ["", "digits", "org/name/more", "org/name@main", "datasets/org/name", "-/x y"]
)
def test_what_is_no_dataset_is_refused_without_a_request(
    dataset: str, hub: Hub, tmp_path: Path
) -> None:
    done = Person(hub, tmp_path, HF_TOKEN=TOKEN).idat(
        "publish", str(tmp_path), "--repo", REPO, "--eval-results", dataset
    )
    assert done.returncode == 2, done.stderr
    assert tells_one_error(done)
    assert f"'{dataset}' is no name of a dataset repository." in done.stderr
    assert not hub.requests


def test_several_recipes_of_one_task_are_not_one_value() -> None:
    _, one = made(90)
    _, other = made(95, toy_recipe(lr=0.5))
    assert one.recipe_hash != other.recipe_hash
    with pytest.raises(UsageError, match=f"several recipes .* of {one.recipe.task.id}"):
        eval_entries({"a": one, "b": other}, DATASET)


def test_what_else_is_to_be_known_of_a_number_is_in_the_notes() -> None:
    _, result = made(90, toy_recipe(watch="test"), diverged=True)
    (entry,) = eval_entries({"": result}, DATASET)
    assert entry["notes"].startswith("top-1, last epoch, watched on test, as a fraction; ")
    assert entry["notes"].endswith(f"; training diverged with seeds {result.seed}")


def test_an_entry_that_comes_back_as_another_is_refused() -> None:
    (entry,) = eval_entries({"": made(90)[1]}, DATASET)
    assert write_eval_results(REPO, [entry])
    with pytest.raises(HubError, match=f"not be read back as it is meant: {entry['task_id']}"):
        write_eval_results(REPO, [entry | {"value": float("nan")}])
