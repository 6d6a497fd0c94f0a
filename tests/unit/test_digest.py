"""The digest of a result.json: every edit by hand is refused, and older results are read."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from made_results import TAUGHT
from result_documents import as_written, write_document
from typer.testing import CliRunner

from idat_zoo import files
from idat_zoo.cli import app
from idat_zoo.errors import ZooError
from idat_zoo.evaluation import evaluate
from idat_zoo.results import load_result
from idat_zoo.runs.many import run

Document = dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result.json of a run with a teacher."""
    out = tmp_path_factory.mktemp("runs")
    run(TAUGHT, out=out, device="cpu")
    (path,) = out.rglob("result.json")
    return path


@pytest.fixture
def document(finished: Path) -> Document:
    return json.loads(finished.read_bytes())


def ordered(key: Callable[[str], object]) -> Callable[[Document], object]:
    def order(document: Document) -> None:
        names = sorted(document, key=key)  # type: ignore[arg-type]
        rows = [(name, document.pop(name)) for name in names]
        document.update(rows)

    return order


def changed(name: str, value: object) -> Callable[[Document], object]:
    return lambda document: document.update({name: value})


EDITS: dict[str, Callable[[Document], object]] = {
    "a time": changed("seconds", 1.5),
    "when": changed("finished", "2020-01-01T00:00:00+00:00"),
    "the seed": changed("seed", 7),
    "a version": lambda d: d["versions"].update(torch="1.0"),
    "a baseline": lambda d: d["baselines"].update(majority_class=0.01),
    "a metric": lambda d: d["student"].update(calibration_error=0.0),
    "a table": lambda d: d["teacher"]["per_class"][0].update(precision=0.5),
    "a recipe": lambda d: d["recipe"].update(epochs=99),
    "a digit of a count": lambda d: d["parameters"].update(backbone=d["parameters"]["head"]),
    "a removed key": lambda d: d.pop("teacher"),
    "an added key": lambda d: d.update(diverged=True, digest=d.pop("digest")),
    "an added key at the end": changed("processes", 2),
    "a key within": lambda d: d["parameters"].pop("teacher_head"),
    "keys in another order": ordered(str),
    "the digest in front": ordered(lambda name: name != "digest"),
    "the digest itself": changed("digest", "0" * 64),
    "an empty digest": changed("digest", ""),
    "no text as digest": changed("digest", 5),
}


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_refused(name: str, by_class: bool, document: Document, tmp_path: Path) -> None:
    EDITS[name](document)
    file = tmp_path / "result.json"
    file.write_bytes(files.dump_json(document))
    with pytest.raises(ZooError) as caught:
        load_result(file, by_class=by_class)
    assert caught.value.message == f"'{file}' was edited: its digest is not that of its content."
    assert "not as it was written" in caught.value.hint


def test_a_report_names_the_edited_file_in_one_line(document: Document, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(document | {"seconds": 1.5}, indent=2))
    outcome = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    first, hint = outcome.stderr.splitlines()
    assert first.startswith(f"error: '{tmp_path / 'result.json'}' was edited: ")
    assert hint.startswith("hint: ")


def test_confusions_are_covered_where_they_are_not_read(document: Document, tmp_path: Path) -> None:
    document["student"]["confusion"][0][1] += 1
    (tmp_path / "result.json").write_bytes(files.dump_json(document))
    with pytest.raises(ZooError, match="was edited"):
        load_result(tmp_path / "result.json", by_class=False)
    write_document(tmp_path / "result.json", document)
    load_result(tmp_path / "result.json", by_class=False)


def test_what_no_result_can_hold_is_named_with_the_hint(document: Document, tmp_path: Path) -> None:
    for number, seed in enumerate(("seven", "eight")):
        file = tmp_path / f"{number}.json"
        changed_alone = files.dump_json(document | {"seed": seed})
        file.write_bytes(changed_alone if number else as_written(document | {"seed": seed}))
        with pytest.raises(ZooError, match="seed") as caught:
            load_result(file)
        assert bool(caught.value.hint) == bool(number)


def test_the_digest_is_the_sha256_of_the_rest_without_white_space(finished: Path) -> None:
    document = json.loads(finished.read_bytes())
    digest = document.pop("digest")
    rest = "".join(files.dump_json(document).decode().split())
    assert digest == sha256(rest.encode()).hexdigest()


@pytest.mark.parametrize(
    "as_text",
    [
        lambda document: json.dumps(document, ensure_ascii=False),
        lambda document: json.dumps(document, indent="\t", ensure_ascii=False),
        lambda document: json.dumps(document, separators=(",", ":"), ensure_ascii=False),
        lambda document: json.dumps(document, indent=4, ensure_ascii=False).replace("\n", "\r\n"),
    ],
)
def test_another_indentation_is_no_edit(
    as_text: Callable[[Document], str], finished: Path, tmp_path: Path
) -> None:
    document = json.loads(finished.read_bytes())
    document["recipe"]["task"]["class_names"] = [f'{k} \\ "naïve", }}' for k in range(10)]
    write_document(tmp_path / "result.json", document)
    before = load_result(tmp_path / "result.json")
    parsed = json.loads((tmp_path / "result.json").read_bytes())
    (tmp_path / "result.json").write_text(as_text(parsed), encoding="utf-8", newline="")
    assert load_result(tmp_path / "result.json") == before


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    result = run(TAUGHT, out=tmp_path / "runs", device="cpu")
    (path,) = (tmp_path / "runs").rglob("result.json")
    assert load_result(path) == result
    later = evaluate(path.parent, device="cpu", out=tmp_path / "later")
    assert load_result(tmp_path / "later" / "result.json") == later
    for file in (path, tmp_path / "later" / "result.json"):
        assert list(json.loads(file.read_bytes()))[-1] == "digest"


def test_a_result_without_digest_is_read_as_before(document: Document, tmp_path: Path) -> None:
    del document["digest"]
    (tmp_path / "result.json").write_bytes(files.dump_json(document | {"seconds": 1.5}))
    assert load_result(tmp_path / "result.json").seconds == 1.5


def test_documents_that_are_printed_have_no_digest(finished: Path) -> None:
    outcome = CliRunner().invoke(app, ["report", str(finished), "--json"])
    assert outcome.exit_code == 0
    assert "digest" not in json.loads(outcome.stdout)
    assert "digest" not in load_result(finished).as_document()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content.replace(b'"seconds": ', b'"seconds": 1'), "was edited"),
        (lambda content: content[:-40], "is damaged"),
        (lambda content: b"", "is damaged"),
    ],
)
def test_a_run_whose_result_cannot_be_used_is_listed_as_such(
    damage: Callable[[bytes], bytes], said: str, finished: Path, tmp_path: Path
) -> None:
    copy = tmp_path.joinpath(*finished.parts[-6:])
    shutil.copytree(finished.parent, copy.parent)
    copy.write_bytes(damage(finished.read_bytes()))
    listed = CliRunner().invoke(app, ["list", "runs", str(tmp_path), "--json"])
    assert listed.exit_code == 0
    (run,) = json.loads(listed.stdout)["runs"]
    assert run["state"] == "unusable"
    assert said in run["fault"]
    assert "top1" not in run
    with pytest.raises(ZooError) as refused:
        load_result(copy)
    assert "train it anew" in refused.value.hint


@pytest.mark.parametrize("name", ["seconds", "images_per_second", "peak_memory"])
def test_a_cost_below_nothing_is_refused(name: str, document: Document, tmp_path: Path) -> None:
    del document["digest"]
    (tmp_path / "result.json").write_text(json.dumps(document | {name: -1}))
    with pytest.raises(ZooError, match=f"{name}: must be greater than or equal to 0"):
        load_result(tmp_path / "result.json")
