"""Wrong data at the command line: every fault by name, a documented exit code, no traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from idat_zoo.cli import app

TINY = ("--adapter", "lora", "--pair", "tiny_random", "--device", "cpu", "epochs=1")
TASKS = ("dtd", "svhn")


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder, an empty cache and none of a user's own variables."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("IDAT_CACHE_DIR", str(tmp_path / "cache"))
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG", "IDAT_MAX_MEGAPIXELS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def own(vtab: Path, tmp_path: Path) -> Path:
    """Two tasks' folders to damage, beside their shelf."""
    for name in TASKS:
        fakes.link_tree(vtab / "data" / name, tmp_path / "own/data" / name)
    shutil.copytree(vtab / "shelf", tmp_path / "own/shelf")
    return tmp_path / "own"


def place(root: Path) -> tuple[str | Path, ...]:
    return ("--data-dir", root / "data", "--shelf", root / "shelf")


def idat(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def refusal(*words: str | Path, code: int = 1) -> str:
    """What a command that writes nothing here says when it is refused."""
    result = idat(*words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    assert not list(Path().iterdir())
    return result.stderr


def test_every_fault_of_a_task_is_told_at_once_and_nothing_is_written(own: Path) -> None:
    folder = own / "data/dtd"
    lines = (folder / "test.txt").read_text().splitlines()
    lines[:5] = ["../x.png 1", "absent.png 1", "images/test/000002.jpg 47", "x", lines[6]]
    (folder / "test.txt").write_text("\r\n".join(lines) + "\r\n")
    (folder / "val200.txt").write_text("")
    (folder / "train800val200.txt").unlink()
    told = refusal("train", "--task", "dtd", *place(own), *TINY)
    for words in (
        "error: task 'dtd': 6 faults in its data:",
        "val200.txt: 0 images, expected 8",
        "test.txt: ../x.png: is not a path inside the task's folder",
        "test.txt: absent.png: cannot be read: No such file or directory",
        "test.txt line 3: expected a class below 47, got 'images/test/000002.jpg 47'",
        "test.txt line 4: expected 'path class', got 'x'",
        "test.txt: images/test/000006.jpg: is listed twice, there and in test.txt",
    ):
        assert words in told


def test_images_that_cannot_be_read_are_told_at_once(own: Path) -> None:
    images = own / "data/dtd/images"
    for name, content in (
        ("train800/000000.jpg", b""),
        ("val200/000001.png", b"hello"),
        ("test/000003.png", (images / "test/000003.png").read_bytes()[:60]),
    ):
        (images / name).unlink()
        (images / name).write_bytes(content)
    told = refusal("train", "--task", "dtd", *place(own), *TINY)
    assert "error: task 'dtd': 3 faults in its data:" in told
    assert "train800.txt: images/train800/000000.jpg is empty (0 bytes)" in told
    assert "val200.txt: images/val200/000001.png is not an image of a known format" in told
    assert "test.txt: images/test/000003.png is damaged: " in told
    assert "--skip-corrupt" not in told
    assert refusal("train", "--task", "dtd", *place(own), *TINY, "--skip-corrupt") == told


def test_one_broken_task_of_two_is_told_and_the_other_is_trained(own: Path) -> None:
    (own / "data/dtd/test.txt").write_text("")
    done = idat("train", "--task", "dtd,svhn", *place(own), *TINY, "--json")
    assert done.exit_code == 3
    assert "error: task 'dtd': 1 fault in its data:" in done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["recipe"]["task"]["id"] == "svhn"


def test_names_that_would_steer_a_terminal_are_shown_as_escapes(own: Path) -> None:
    path = own / "data/dtd/test.txt"
    lines = path.read_text().splitlines()
    lines[0], lines[1] = "\033[2J\033[31mgone.png 1", "a\rb.png 1"
    path.write_bytes("\n".join(lines).encode())
    told = refusal("train", "--task", "dtd", *place(own), *TINY)
    assert "\033" not in told
    assert "\r" not in told
    assert r"test.txt: \x1b[2J\x1b[31mgone.png: cannot be read" in told


def test_the_limit_of_megapixels_is_an_option_and_a_variable(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "--task", "svhn", *place(own), *TINY)
    path = own / "data/svhn/images/test/000001.png"
    path.unlink()
    Image.new("RGB", (41, 50)).save(path)
    large = "test.txt: images/test/000001.png 41 x 50 pixels are more than 0.002 megapixels"
    assert large in refusal(*words, "--max-megapixels", "0.002")
    monkeypatch.setenv("IDAT_MAX_MEGAPIXELS", "0.002")
    assert large in refusal(*words)
    for limit in ("0", "-1", "179", "inf", "nan", "many"):
        done = idat(*words, "--max-megapixels", limit)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "Invalid value for '--max-megapixels'" in done.stderr
    monkeypatch.setenv("IDAT_MAX_MEGAPIXELS", "179")
    assert idat(*words).exit_code == 2
    assert not list(Path().iterdir())


def test_data_that_is_not_there_is_told(own: Path) -> None:
    words = ("train", "--task", "dtd", *TINY)
    assert "no --data-dir was given, IDAT_DATA_DIR is not set" in refusal(*words)
    told = refusal(*words, "--data-dir", own)
    assert f"no {own}/dtd/train800.txt, {own}/dtd/val200.txt, {own}/dtd/test.txt" in told
    told = refusal("train", "--task", "fewshot_pets_1", *TINY, "--data-dir", own, "--seed", "7")
    assert "train_meta.list.num_shot_1.seed_7" in told
    words = ("train", "--task", "folder", *TINY)
    assert "--task folder trains on the images of --data-dir" in refusal(*words, code=2)
    assert "is not a folder and not a .csv file" in refusal(*words, "--data-dir", own / "absent")


def test_a_folder_of_hostile_images_is_refused_by_name(tmp_path: Path) -> None:
    folder = fakes.write_class_folders(tmp_path / "pets", {"cat": 8, "dog": 8})
    (tmp_path / "outside.png").write_bytes((folder / "cat/001.png").read_bytes())
    (folder / "cat/link.png").symlink_to(tmp_path / "outside.png")
    (folder / "eel").symlink_to(folder / "cat")
    os.mkfifo(folder / "dog/pipe.png")
    told = refusal("train", "--task", "folder", *TINY, "--data-dir", folder)
    assert "cat/link.png: leaves the task's folder by a link" in told
    assert "eel: is a link to a folder; links are not followed" in told
    assert "dog/pipe.png: is not a file" in told


def test_folders_that_may_be_read_in_two_ways_are_refused_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    train = ("train", "--task", "folder", *TINY, "--data-dir")
    flat = tmp_path / "flat"
    fakes.write_class_folders(tmp_path, {"flat": 6})
    assert "holds 6 images itself, as 000.jpg, and none in a folder" in refusal(*train, flat)
    (flat / "own.csv").write_text("path,label\n")
    told = refusal(*train, flat / "own.csv")
    assert "it has a first line alone; expected a line 'path,label' for each image" in told
    apart = fakes.write_split_folders(
        tmp_path / "apart", {"A": {"cat": 4, "dog": 4}, "B": {"cat": 4, "dog": 4}}
    )
    assert "'A', 'B' hold the same folders ('cat', 'dog')" in refusal(*train, apart)
    doubled = fakes.write_class_folders(tmp_path / "doubled", {"01": 4, "1": 4, "2": 4})
    (doubled / "3").mkdir()
    told = refusal(*train, doubled)
    assert "likely one class under 2 names: '01' (4 images, as '01/000.jpg'), '1' (4" in told
    assert "class '3': no images in '3' (it is empty)" in told
    emptied = fakes.write_class_folders(tmp_path / "emptied", {"cat": 4, "dog": 4, "eel": 4})
    for path in (emptied / "eel").iterdir():
        path.write_bytes(b"")
    told = refusal(*train, emptied, "--skip-corrupt")
    assert "class 'eel': none of its 3 training images can be read" in told


# What the machine refuses

# Runs a first command while it may read all modules, then gives up root for the others.
AS_NOBODY = """
import json, os, sys
from typer.testing import CliRunner
from idat_zoo.cli import app
def idat(words, cache):
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200", "IDAT_CACHE_DIR": cache})
    return [done.exit_code, done.stdout, done.stderr]
steps = json.loads(sys.argv[1])
said = [idat(*steps[0])]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps(said + [idat(*step) for step in steps[1:]]))
"""


@pytest.mark.slow
def test_without_permission_to_the_cache_or_to_images(public: Path) -> None:
    fakes.write_vtab1k(public / "data", public / "shelf")
    own = fakes.write_class_folders(public / "pets", {"cat": 8, "dog": 8})
    (public / "out").mkdir()
    (public / "out").chmod(0o777)
    for name, mode in (("read_only", 0o555), ("closed", 0o000)):
        (public / name).mkdir()
        (public / name).chmod(mode)
    closed = [
        public / "data/kitti/images/test/000003.png",
        public / "data/dmlab/val200.txt",
        public / "data/resisc45",
        own / "dog",
    ]
    for path in closed:
        path.chmod(0)
    dtd = ["train", "--task", "dtd", *place(public), *TINY, "--json"]

    def step(words: list[str | Path], out: str, cache: str) -> tuple[list[str], str]:
        return [*map(str, words), "--out", str(public / "out" / out)], str(public / cache)

    steps = [
        step(dtd, "as_root", "filled"),
        step(dtd, "read_only", "read_only"),
        step(dtd, "closed", "closed/deeper"),
        step(dtd, "filled", "filled"),
        *(
            step(["train", "--task", task, *place(public), *TINY], task, "filled")
            for task in ("kitti", "dmlab", "resisc45")
        ),
        step(["train", "--task", "folder", "--data-dir", own, *TINY], "own", "filled"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, json.dumps(steps)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    results = []
    for code, stdout, stderr in said[:4]:
        assert code == 0, stderr
        (result,) = json.loads(stdout)["results"]
        results.append(result)
    assert len({result["data_fingerprint"] for result in results}) == 1
    assert len({(Path(r["folder"]) / "predictions.safetensors").read_bytes() for r in results}) == 1
    notes = [stderr.count("cannot keep decoded images in") for _, _, stderr in said[:4]]
    assert notes == [0, 3, 3, 0]
    assert said[1][2].count("(Permission denied)") == 3
    told = [
        "test.txt: images/test/000003.png cannot be read: Permission denied",
        "val200.txt: cannot be read: ",
        "Permission denied",
        "dog: cannot be read: Permission denied",
    ]
    for (code, stdout, stderr), words in zip(said[4:], told, strict=True):
        assert (code, stdout) == (1, ""), stderr
        assert stderr.count("error: ") == 1
        assert "Traceback" not in stderr
        assert words in stderr
