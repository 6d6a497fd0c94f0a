"""`idat data verify`, `info` and `cache`: everything that is wrong is told, and nothing is lost."""

import json
import os
from pathlib import Path
from typing import Any

import fakes
import pytest
from typer.testing import CliRunner, Result

from idat_zoo.cli import app
from idat_zoo.data.cache import Cache
from idat_zoo.data.folder import describe_folder
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.registry import load_registry

TASKS = ("dtd", "svhn", "kitti")
COUNT = sum(fakes.COUNTS.values())


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own and none of a user's variables."""
    monkeypatch.setenv("IDAT_CACHE_DIR", str(tmp_path / "cache"))
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG", "IDAT_MAX_MEGAPIXELS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three fake tasks of VTAB-1K, which IDAT_DATA_DIR and IDAT_SHELF name."""
    root, shelf = tmp_path / "data", tmp_path / "shelf"
    for name in TASKS:
        fakes.write_vtab1k_task(root, load_registry().tasks[name])
    fakes.write_shelf(shelf, dict.fromkeys(TASKS, fakes.COUNT_FIELDS))
    monkeypatch.setenv("IDAT_DATA_DIR", str(root))
    monkeypatch.setenv("IDAT_SHELF", str(shelf))
    return root


def idat(*words: str | Path) -> Result:
    environment = {"COLUMNS": "80", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["data", *map(str, words)], env=environment)


def document(*words: str | Path, code: int = 0) -> dict[str, Any]:
    result = idat(*words, "--json")
    assert result.exit_code == code, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    assert parsed.pop("schema_version") == 1
    return parsed


def finding(*words: str | Path, code: int = 0) -> dict[str, Any]:
    (found,) = document("verify", *words, code=code)["tasks"]
    assert isinstance(found, dict)
    return found


# verify


def test_sound_tasks_are_ok_and_their_lists_counted(root: Path) -> None:
    result = idat("verify")
    assert (result.exit_code, result.stderr) == (0, "")
    verdicts = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert verdicts == [f"ok        {name}: {COUNT} images in 3 lists" for name in TASKS]
    found = finding("dtd")
    assert found["lists"] == {"train800.txt": 24, "val200.txt": 8, "test.txt": 16}
    assert (found["faults"], found["place"]) == ([], str(root / "dtd"))
    assert found["notes"] == ["43 of 47 classes have no training image"]


def test_no_fault_is_cut_off_and_other_tasks_are_still_checked(root: Path) -> None:
    images = root / "dtd" / "images" / "test"
    for path in images.iterdir():
        path.write_bytes(b"")
    (root / "dtd" / "train800.txt").write_text("images/train800/000000.jpg 99\n")
    result = idat("verify")
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[0] == "19 faults  dtd: 24 images in 2 lists"
    assert "  train800.txt: 1 images, expected 24" in lines
    assert (
        "  train800.txt line 1: expected a class below 47, got 'images/train800/000000.jpg 99'"
        in lines
    )
    assert "  train800val200.txt: its classes are not those of train800.txt and val200.txt" in lines
    empty = [line for line in lines if line.endswith(" is empty (0 bytes)")]
    assert len(empty) == fakes.COUNTS["test"]
    assert [line for line in lines if line.startswith("ok")] == [
        f"ok        {name}: {COUNT} images in 3 lists" for name in TASKS[1:]
    ]
    assert result.stderr == "1 of 3 tasks have faults\n"
    assert idat("verify", "dtd").exit_code == 1
    assert len(finding("dtd", code=1)["faults"]) == 19


def test_what_is_no_image_is_named_with_its_reason(root: Path) -> None:
    images = root / "svhn" / "images" / "test"
    (images / "000000.jpg").write_bytes((images / "000000.jpg").read_bytes()[:300])
    (images / "000001.png").write_text("a page that says 404")
    (images / "000002.jpg").unlink()
    (images / "000003.png").unlink()
    os.mkfifo(images / "000003.png")  # reading it would never end
    (images / "000004.jpg").unlink()
    (images / "000004.jpg").symlink_to("/dev/zero")
    (images / "000005.png").chmod(0o000)
    faults = finding("svhn", code=1)["faults"]
    starts = [
        "test.txt: images/test/000002.jpg: cannot be read: No such file or directory",
        "test.txt: images/test/000003.png: is not a file",
        "test.txt: images/test/000004.jpg: leaves the task's folder by a link",
        "test.txt: images/test/000000.jpg is damaged: ",
        "test.txt: images/test/000001.png is not an image of a known format",
    ]
    if os.geteuid():
        starts.append("test.txt: images/test/000005.png cannot be read: Permission denied")
    assert len(faults) == len(starts)
    assert all(fault.startswith(start) for fault, start in zip(faults, starts, strict=True))


def test_large_images_are_refused_at_the_given_limit(root: Path) -> None:
    assert finding("kitti")["faults"] == []
    faults = finding("kitti", "--max-megapixels", "0.001")["faults"]
    assert faults == []
    fakes.Image.new("RGB", (40, 30)).save(root / "kitti/images/test/000000.jpg")
    (fault,) = finding("kitti", "--max-megapixels", "0.001", code=1)["faults"]
    assert fault.endswith("000000.jpg 40 x 30 pixels are more than 0.001 megapixels")


def test_a_list_that_is_missing_is_a_fault_and_the_task_is_not_left_out(root: Path) -> None:
    (root / "dtd" / "test.txt").unlink()
    first = document("verify", code=3)["tasks"][0]
    assert first["task"] == "dtd"
    assert first["faults"] == [f"missing: images of task 'dtd': no {root / 'dtd' / 'test.txt'}"]


def test_a_test_image_that_is_learnt_from_is_noted_and_no_fault(root: Path) -> None:
    images = root / "dtd" / "images"
    for place in (0, 2, 4, 6):
        copy = images / "test" / f"{place:06d}.jpg"
        copy.write_bytes((images / "train800" / "000000.jpg").read_bytes())
    assert finding("dtd")["test_in_training"] == [
        f"images/test/{place:06d}.jpg" for place in (0, 2, 4, 6)
    ]
    (line,) = (line for line in idat("verify", "dtd").stdout.splitlines() if "bytes" in line)
    assert line.startswith("  note: 4 test images have the same bytes as an image that is learnt")
    assert line.endswith("000004.jpg; --json names all")


def test_the_hash_over_the_files_tells_copies_apart(root: Path) -> None:
    before = finding("dtd")["files_sha256"]
    assert finding("dtd")["files_sha256"] == before
    image = root / "dtd" / "images" / "train800" / "000000.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert finding("dtd")["files_sha256"] != before


def test_few_shot_lists_of_every_seed_are_checked(tmp_path: Path) -> None:
    task = load_registry().tasks["fewshot_pets_2"]
    folder = fakes.write_fewshot(tmp_path / "few", task, seeds=[0, 7])
    (found,) = document("verify", "--data-dir", tmp_path / "few")["tasks"]  # not pets_1, pets_4, …
    assert (found["task"], found["faults"]) == ("fewshot_pets_2", [])
    assert found["lists"] == {
        "train_meta.list.num_shot_2.seed_0": 74,
        "train_meta.list.num_shot_2.seed_7": 74,
        "test_meta.list": 37,
    }
    name = "train_meta.list.num_shot_2.seed_7"
    (folder / "annotations" / name).write_text("class_0/0.jpg 0\nclass_0/9.jpg 0\n")
    found = finding("fewshot_pets_2", "--data-dir", tmp_path / "few", code=1)
    assert found["faults"] == [
        f"{name}: images/class_0/9.jpg: cannot be read: No such file or directory"
    ]
    assert f"{name}: not every class has 2 images" in found["notes"]


def test_fine_grained_tasks_are_checked_too(tmp_path: Path) -> None:
    task = load_registry().tasks["fgvc_cub"]
    fakes.write_fgvc(tmp_path / "fine", task, range(1, 5))
    found = finding("cub", "--data-dir", tmp_path / "fine", code=1)
    assert found["images"] == COUNT
    assert found["faults"] == [
        "4 classes in all, expected 200",
        "test.json: 16 images, expected 5,794",
    ]


def test_ones_own_images_are_checked_under_the_id_they_are_trained_as(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"cat": 9, "dog": 9})
    found = finding("folder", "--data-dir", own)
    assert found["task"] == describe_folder(own, Reading()).id
    assert found["lists"] == {"train": 12, "val": 2, "test": 4}
    (own / "cat" / "000.jpg").write_bytes(b"")
    (own / "dog" / "link.jpg").symlink_to("/etc/hostname")
    found = finding("folder", "--data-dir", own, code=1)
    assert found["task"] == "folder"
    assert len(found["faults"]) == 2


def test_a_class_that_is_lost_or_doubled_is_never_ok(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"Cat": 9, "cat": 9, "dog": 9, "eel": 4})
    (own / "fox").mkdir()
    for path in (own / "eel").iterdir():
        path.write_bytes(b"no image")
    found = finding("folder", "--data-dir", own, code=1)
    faults = "\n".join(found["faults"])
    assert "likely one class under 2 names: 'Cat' (9 images, as 'Cat/000.jpg'), 'cat'" in faults
    assert "class 'fox': no images in 'fox' (it is empty)" in faults
    assert "class 'eel': none of its 3 training images can be read" in faults
    assert found["classes"]["dog"] == {"train": 6, "val": 1, "test": 2}
    facts = document("info", "folder", "--data-dir", own)["tasks"][0]
    assert facts["classes"] == found["classes"]
    assert len(facts["faults"]) == 2
    assert not idat("verify", "folder", "--data-dir", own).stdout.startswith("ok")


def test_splits_are_told_and_doubtful_ones_are_never_ok(tmp_path: Path) -> None:
    own = fakes.write_split_folders(
        tmp_path / "own", {name: {"cat": 9, "dog": 9} for name in ("Training", "Testing")}
    )
    found = finding("folder", "--data-dir", own)
    assert list(found["classes"]) == ["cat", "dog"]
    assert {"'Training' is train", "'Testing' is test"} <= set(found["notes"])
    (own / "Testing").rename(own / "Prueba")
    (fault,) = finding("folder", "--data-dir", own, code=1)["faults"]
    assert fault.startswith("'Training' is named for splits, 'Prueba' beside is not")


def test_many_faults_of_a_folder_are_all_told(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"cat": 9, "dog": 9})
    for number in range(20):
        (own / "dog" / f"link{number}.jpg").symlink_to("/etc/hostname")
    assert len(finding("folder", "--data-dir", own, code=1)["faults"]) == 20


def test_names_cannot_steer_the_terminal_or_forge_a_line(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"cat": 9, "\x1b[31mdog\nok  all": 9})
    (own / "\x1b[31mdog\nok  all" / "000.jpg").write_bytes(b"")
    result = idat("verify", "folder", "--data-dir", own)
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout
    assert not [line for line in result.stdout.splitlines() if line.startswith("ok")]
    assert "\\x1b[31mdog\\nok  all/000.jpg is empty" in result.stdout


def test_names_that_are_no_text_leave_the_json_whole(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"cat": 9, "dog": 9})
    (own / os.fsdecode(b"cat/\xff.jpg")).write_bytes((own / "cat" / "000.jpg").read_bytes())
    found = finding("folder", "--data-dir", own, code=1)
    assert any("\udcff" in fault for fault in found["faults"])
    assert idat("verify", "folder", "--data-dir", own).exit_code == 1


def test_a_mini_task_has_nothing_to_check() -> None:
    assert idat("verify", "digits").stdout == "ok        digits: built in\n"
    assert [found["task"] for found in document("verify", "mini")["tasks"]][:2] == [
        "digits",
        "textures",
    ]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["verify"], 2, "error: TASK or --data-dir says what to check."),
        (["verify", "folder"], 2, "error: folder is the images of --data-dir, which is not given."),
        (["verify", "dttd"], 2, "error: unknown task 'dttd'. Did you mean 'dtd'?"),
        (["info", "dtd,,svhn"], 2, "error: task 'dtd,,svhn': expected names with commas"),
        (["cache", "dttd"], 2, "error: unknown task 'dttd'. Did you mean 'dtd'?"),
        (["verify", "--data-dir", "nowhere"], 1, "error: no list of a task lies below 'nowhere'."),
    ],
)
def test_wrong_words_are_one_line(words: list[str], code: int, line: str) -> None:
    result = idat(*words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(line)


# info


def test_info_tells_every_task_on_one_line_each(root: Path) -> None:
    lines = idat("info").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + len(load_registry().tasks)
    cells = {line.split()[0]: line.split()[1:] for line in lines}
    assert cells["digits"] == ["mini", "10", "800", "200", "797", "built", "in"]
    assert cells["caltech101"] == ["vtab1k", "102", "800", "200", "6,084", "or", "6,085", "no"]
    assert cells["dtd"] == ["vtab1k", "47", "24", "8", "16", "yes"]
    assert cells["fewshot_pets_4"] == ["fewshot", "37", "4/class", "0", "any", "no"]
    (root / "dtd" / "test.txt").unlink()
    assert "some" in next(x for x in idat("info").stdout.splitlines() if x.startswith("dtd"))


def test_info_of_a_task_says_where_it_is_looked_for_and_what_is_there(root: Path) -> None:
    (root / "dtd" / "test.txt").unlink()
    text = idat("info", "dtd,cub").stdout
    assert all(len(line) <= 80 for line in text.splitlines() if str(root) not in line)
    words = " ".join(text.split())
    for part in (
        "dtd DTD suite vtab1k, natural classes 47 images train 24, val 8, test 16",
        'layout DIR/dtd/<list>, lines "images/train800/000000.jpg 7"',
        "there train800.txt, val200.txt missing test.txt",
        "source TFDS dtd:3.*.* (fold 1)",
        "fgvc_cub CUB-200-2011",
        "missing train.json, val.json, test.json",
    ):
        assert part in words
    facts = document("info", "dtd")["tasks"][0]
    assert facts["place"] == str(root / "dtd")
    assert facts["lists"] == {"train800.txt": True, "val200.txt": True, "test.txt": False}


def test_info_of_ones_own_folder_says_what_it_holds(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"cat": 9, "dog": 9})
    facts = document("info", "folder", "--data-dir", own)["tasks"][0]
    assert (facts["num_classes"], facts["num_train"], facts["faults"]) == (2, [12], [])
    assert "FILE.csv" in idat("info", "folder").stdout


# cache


def fill(root: Path, name: str) -> list[str]:
    """Load a task so that its lists are cached; their keys."""
    task = load_registry(Path(os.environ["IDAT_SHELF"])).tasks[name]
    load_task(task, img_size=16, data_dir=root, reading=Reading(workers=1))
    entries = Cache(Reading().cache).entries()
    return [key for key, entry in entries.items() if entry.task == name]


def test_an_empty_cache_is_no_fault(tmp_path: Path) -> None:
    assert document("cache")["entries"] == []
    assert idat("cache", "--clean").exit_code == 0
    assert idat("cache").stdout.startswith(f"0 lists, 0.0 kB in {tmp_path / 'cache' / 'pixels'}; ")


def test_the_cache_is_listed_and_cleaned_by_task(root: Path) -> None:
    for name in ("dtd", "svhn"):
        assert len(fill(root, name)) == 3
    listed = document("cache")
    assert sorted(entry["what"] for entry in listed["entries"]) == [
        f"{name} {split}" for name in ("dtd", "svhn") for split in ("test", "train", "val")
    ]
    assert listed["bytes"] == 2 * COUNT * 3 * 16 * 16
    assert listed["freed_bytes"] == 0
    assert all(len(line) <= 80 for line in idat("cache").stdout.splitlines()[:-1])

    cleaned = document("cache", "dtd", "--clean")
    assert {entry["task"] for entry in cleaned["entries"]} == {"dtd"}
    assert cleaned["freed_bytes"] > COUNT * 3 * 16 * 16
    left = document("cache")["entries"]
    assert {entry["task"] for entry in left} == {"svhn"}
    assert idat("cache", "--clean").exit_code == 0
    assert document("cache")["entries"] == []


def test_cleaning_takes_leftovers_and_leaves_what_is_not_the_caches(root: Path) -> None:
    folder = Cache(Reading().cache).folder
    dead, foreign = folder / f"{'0' * 32}.part", folder / "holidays"
    for place in (dead, foreign):
        place.mkdir(parents=True)
        (place / "pixels.u8").write_bytes(bytes(1000))
    assert document("cache", "--clean")["freed_bytes"] == 1000
    assert not dead.exists()
    assert (foreign / "pixels.u8").exists()


def test_cleaning_spares_what_another_process_is_making(root: Path) -> None:
    key = fill(root, "dtd")[0]
    cache = Cache(Reading().cache)
    with cache.making(key, Listener()) as part:
        (part / "pixels.u8").write_bytes(b"half of it")
        result = idat("cache", "--clean")
        assert result.exit_code == 0
        assert "left, as another process is at it: dtd " in result.stderr
        assert (part / "pixels.u8").read_bytes() == b"half of it"
    assert list(cache.entries()) == [key]


def test_pixels_in_use_survive_their_removal(root: Path) -> None:
    task = load_registry(Path(os.environ["IDAT_SHELF"])).tasks["dtd"]
    reading = Reading(workers=1)
    data = load_task(task, img_size=16, data_dir=root, reading=reading)
    idat("cache", "--clean")
    again = load_task(task, img_size=16, data_dir=root, reading=reading)
    assert data.train.held.equal(again.train.held)
    assert data.fingerprint == again.fingerprint


def test_cached_pixels_that_changed_are_a_fault_and_cleaning_mends_it(root: Path) -> None:
    key = fill(root, "dtd")[0]
    assert finding("dtd")["cached"] == 3
    pixels = Cache(Reading().cache).folder / key / "pixels.u8"
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 1
    pixels.write_bytes(content)
    (fault,) = finding("dtd", code=1)["faults"]
    assert fault.startswith("cache: the pixels of dtd ")
    assert "at 16 x 16 are not those that were decoded" in fault
    assert fault.endswith("`idat data cache --clean dtd` removes them")
    assert idat("cache", "--clean", "dtd").exit_code == 0
    assert finding("dtd")["faults"] == []


def test_a_folders_pixels_are_cleaned_by_its_id_or_with_all_folders(tmp_path: Path) -> None:
    own = fakes.write_class_folders(tmp_path / "own", {"cat": 9, "dog": 9})
    task = describe_folder(own, Reading())
    for name in (task.id, "folder"):
        load_task(task, img_size=16, data_dir=own, reading=Reading(workers=1))
        assert len(document("cache", name, "--clean")["entries"]) == 3
    assert document("cache")["entries"] == []
