"""Decoded once: what is kept, for which files, and what happens where it cannot be kept."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TOY_PAIR, Notes, toy_recipe
from idat_zoo.data import decode as decoding
from idat_zoo.data.cache import Cache, free_bytes
from idat_zoo.data.decode import StreamedImages, decode_files
from idat_zoo.data.folder import describe_folder
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError
from idat_zoo.evaluation import evaluate
from idat_zoo.recipe import Task
from idat_zoo.runs.many import run

TOYS = Task(
    id="toys",
    suite="vtab1k",
    num_classes=3,
    num_train=(24,),
    num_val=(8,),
    num_test=(16,),
    folder="toys_dir",
)
ALL = sum(fakes.COUNTS.values())
NO_DISK = 10**18


class Decodes:
    """Counts how often an image is decoded."""

    def __init__(self) -> None:
        self.count = 0

    def take(self) -> int:
        """The count since it was last taken."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    counter, decode_image = Decodes(), decoding.decode_image

    def counted(*arguments: Any, **options: Any) -> Any:
        counter.count += 1
        return decode_image(*arguments, **options)

    monkeypatch.setattr(decoding, "decode_image", counted)
    return counter


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    fakes.write_vtab1k_task(tmp_path / "data", TOYS)
    return tmp_path / "data"


@pytest.fixture
def load(toys: Path, tmp_path: Path) -> Callable[..., TaskData]:
    """The toys through a cache of the test's own: `load(root, size=16, stream_test=True)`."""

    def load_toys(
        root: Path = toys, *, size: int = 8, listener: Listener | None = None, **options: Any
    ) -> TaskData:
        reading = Reading(**{"cache": tmp_path / "cache", "workers": 1} | options)
        return load_task(TOYS, img_size=size, data_dir=root, reading=reading, listener=listener)

    return load_toys


def bits(data: TaskData) -> list[torch.Tensor]:
    return [split.held for split in (data.train, data.val, data.test)]


def equal(first: TaskData, second: TaskData) -> bool:
    same = all(a.equal(b) for a, b in zip(bits(first), bits(second), strict=True))
    return same and first.fingerprint == second.fingerprint


def entries(root: Path) -> list[Path]:
    return sorted(path for path in (root / "cache/pixels").iterdir() if path.is_dir())


# Decoded once


def test_a_second_load_decodes_nothing_and_has_equal_bits(
    load: Callable[..., TaskData], decodes: Decodes
) -> None:
    notes = Notes()
    first = load(listener=notes)
    assert decodes.take() == ALL
    assert notes.heard == {
        f"toys {split}": list(range(1, count + 1)) for split, count in fakes.COUNTS.items()
    }
    second = load(listener=notes)
    assert decodes.take() == 0
    assert equal(first, second)
    assert notes.notes == []


def test_any_number_of_workers_makes_the_same_bits(
    load: Callable[..., TaskData], tmp_path: Path
) -> None:
    first = load()
    for workers in (2, 5):
        cache = tmp_path / f"cache{workers}"
        assert equal(load(workers=workers, cache=cache), first)


def test_the_same_files_elsewhere_are_not_decoded_again(
    load: Callable[..., TaskData], decodes: Decodes, toys: Path, tmp_path: Path
) -> None:
    first = load()
    decodes.take()
    shutil.copytree(toys, tmp_path / "elsewhere")
    shutil.rmtree(toys)
    assert equal(load(tmp_path / "elsewhere"), first)
    assert decodes.take() == 0


def test_one_changed_byte_decodes_its_list_again(
    load: Callable[..., TaskData], decodes: Decodes, toys: Path
) -> None:
    first = load()
    decodes.take()
    path = toys / TOYS.folder / "images/val200/000002.jpg"
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    os.utime(path, (0, 0))
    second = load()
    assert decodes.take() == fakes.COUNTS["val"]
    assert second.fingerprint != first.fingerprint
    content[-30] ^= 1
    path.write_bytes(content)
    assert equal(load(), first)
    assert decodes.take() == 0


def test_another_order_of_the_same_files_is_decoded_again(
    load: Callable[..., TaskData], decodes: Decodes, toys: Path
) -> None:
    first = load()
    decodes.take()
    path = toys / TOYS.folder / "test.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    second = load()
    assert decodes.take() == fakes.COUNTS["test"]
    assert second.test.held.equal(first.test.held.flip(0))


def test_each_size_is_decoded_once(load: Callable[..., TaskData], decodes: Decodes) -> None:
    for _ in range(2):
        for size in (8, 9):
            assert load(size=size).test.held.shape == (16, 3, size, size)
    assert decodes.take() == 2 * ALL


def test_other_libraries_or_another_procedure_decode_again(
    load: Callable[..., TaskData], decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setattr(decoding, "decoder", lambda: "another Pillow")
    load()
    assert decodes.take() == 2 * ALL


def test_labels_are_no_part_of_the_cache_so_tasks_with_equal_images_share_it(
    tmp_path: Path, decodes: Decodes
) -> None:
    counts = {f"num_{split}": (count,) for split, count in fakes.COUNTS.items()}
    loaded = []
    for name in ("dsprites_loc", "dsprites_ori"):
        fields = {"id": name, "folder": name, "num_classes": 16}
        task = TOYS.model_copy(update=fields | counts)
        fakes.write_vtab1k_task(tmp_path, task)
        reading = Reading(cache=tmp_path / "cache")
        loaded.append(load_task(task, img_size=8, data_dir=tmp_path, reading=reading))
    assert decodes.take() == ALL
    assert len(entries(tmp_path)) == 3
    assert all(a.equal(b) for a, b in zip(*map(bits, loaded), strict=True))
    assert loaded[0].fingerprint != loaded[1].fingerprint


def test_writing_into_loaded_images_changes_no_file(load: Callable[..., TaskData]) -> None:
    first = load()
    expected = first.train.held.clone()
    first.train.held.zero_()
    assert load().train.held.equal(expected)


# Entries that are not whole


def cut_pixels(entry: Path) -> None:
    content = (entry / "pixels.u8").read_bytes()
    (entry / "pixels.u8").write_bytes(content[:-1])


def lengthen_pixels(entry: Path) -> None:
    with (entry / "pixels.u8").open("ab") as file:
        file.write(b"x")


def remove_pixels(entry: Path) -> None:
    (entry / "pixels.u8").unlink()


def break_json(entry: Path) -> None:
    content = (entry / "entry.json").read_bytes()
    (entry / "entry.json").write_bytes(content[: len(content) // 2])


def of_a_newer_version(entry: Path) -> None:
    document = json.loads((entry / "entry.json").read_bytes())
    (entry / "entry.json").write_text(json.dumps(document | {"new": 1}))


def remove_json(entry: Path) -> None:
    (entry / "entry.json").unlink()


def empty(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        cut_pixels,
        lengthen_pixels,
        remove_pixels,
        break_json,
        of_a_newer_version,
        remove_json,
        empty,
        shutil.rmtree,
    ],
)
def test_an_entry_that_is_not_whole_is_made_anew(
    damage: Callable[[Path], None],
    load: Callable[..., TaskData],
    decodes: Decodes,
    tmp_path: Path,
) -> None:
    expected = [part.clone() for part in bits(load())]
    decodes.take()
    for entry in entries(tmp_path):
        damage(entry)
    found = bits(load())
    assert decodes.take() == ALL
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
    load()
    assert decodes.take() == 0


def test_what_a_killed_process_left_is_swept_and_whole_entries_stay(
    load: Callable[..., TaskData], decodes: Decodes, tmp_path: Path
) -> None:
    load()
    decodes.take()
    cache = Cache(tmp_path / "cache")
    assert cache.sweep() == 0
    part = cache.folder / ("0" * 32 + ".part")
    part.mkdir()
    (part / "pixels.u8").write_bytes(bytes(1000))
    broken = entries(tmp_path)[1]
    remove_json(broken)
    lost = (broken / "pixels.u8").stat().st_size
    assert cache.sweep() == 1000 + lost
    assert len(entries(tmp_path)) == 2
    load()
    assert 0 < decodes.take() < ALL


def test_what_was_killed_just_before_its_rename_is_no_entry_and_is_swept(
    load: Callable[..., TaskData], tmp_path: Path
) -> None:
    load()
    cache = Cache(tmp_path / "cache")
    first = entries(tmp_path)[0]
    first.rename(first.with_name(first.name + ".part"))
    assert len(cache.entries()) == 2
    assert cache.sweep() > 0
    assert len(entries(tmp_path)) == 2


def test_entries_are_listed_and_removed_and_open_pixels_stay(
    load: Callable[..., TaskData], decodes: Decodes, tmp_path: Path
) -> None:
    data = load()
    expected = [part.clone() for part in bits(data)]
    decodes.take()
    cache = Cache(tmp_path / "cache")
    found = cache.entries()
    assert {entry.what for entry in found.values()} == {"toys train", "toys val", "toys test"}
    assert sum(entry.num_bytes for entry in found.values()) == ALL * 3 * 8 * 8
    for key in found:
        cache.remove(key)
    assert cache.entries() == {}
    assert all(a.equal(b) for a, b in zip(bits(data), expected, strict=True))
    load()
    assert decodes.take() == ALL


def test_an_entry_that_is_being_made_is_neither_swept_nor_seen(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = "f" * 32
    with cache.making(key, Listener()) as part:
        (part / "pixels.u8").write_bytes(b"half")
        assert cache.sweep() == 0
        assert cache.entries() == {}
        assert part.exists()
    assert not part.exists()


# Images that cannot be read


def test_what_cannot_be_read_is_remembered_too(tmp_path: Path, decodes: Decodes) -> None:
    place = fakes.write_class_folders(tmp_path / "own", {"a": 20, "b": 20})
    (place / "a/000.jpg").write_bytes(b"")
    (place / "b/001.png").write_bytes(b"hello")
    reading = Reading(cache=tmp_path / "cache", skip_corrupt=True)
    task = describe_folder(place, reading)

    def load() -> TaskData:
        return load_task(task, img_size=8, data_dir=place, reading=reading)

    first = load()
    assert decodes.take() > 0
    second = load()
    assert decodes.take() == 0
    assert equal(first, second)
    assert second.unreadable == 2
    strict = Reading(cache=tmp_path / "cache")
    with pytest.raises(DataError, match="2 faults"):
        load_task(task, img_size=8, data_dir=place, reading=strict)
    assert decodes.take() == 0


def test_a_repaired_image_is_decoded(toys: Path, load: Callable[..., TaskData]) -> None:
    path = toys / TOYS.folder / "images/test/000004.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"test/000004\.jpg is damaged"):
        load()
    path.write_bytes(whole)
    assert len(load().test) == 16


def change_file(path: Path) -> None:
    Image.new("RGB", (9, 9)).save(path)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [change_file, empty_file, Path.unlink])
def test_a_file_that_changes_while_it_is_decoded_spoils_no_entry(
    change: Callable[[Path], None],
    toys: Path,
    load: Callable[..., TaskData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = toys / TOYS.folder / "images/test/000000.jpg"
    whole, hash_files = path.read_bytes(), decoding.hash_files

    def hash_then_change(paths: Any, reading: Reading) -> Any:
        found = hash_files(paths, reading)
        if path in paths:
            change(path)
        return found

    monkeypatch.setattr(decoding, "hash_files", hash_then_change)
    with pytest.raises(DataError, match=r"test/000000\.jpg.* changed while it was in use"):
        load()
    monkeypatch.undo()
    path.write_bytes(whole)
    data = load()
    with Image.open(path) as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(data.test.held[0].permute(1, 2, 0).numpy(), expected)


# Streams


def test_a_test_split_that_is_kept_already_is_not_streamed(
    load: Callable[..., TaskData], decodes: Decodes
) -> None:
    load()
    decodes.take()
    assert not isinstance(load(stream_test=True).test.images, StreamedImages)
    assert decodes.take() == 0


@pytest.mark.parametrize("options", [{"stream_test": True}, {"spare_bytes": NO_DISK}])
def test_streaming_decodes_test_whenever_it_is_asked_for(
    options: dict[str, Any],
    load: Callable[..., TaskData],
    decodes: Decodes,
    tmp_path: Path,
) -> None:
    notes = Notes()
    streamed = load(**options, listener=notes)
    assert decodes.take() == ALL
    assert isinstance(streamed.test.images, StreamedImages)
    assert len(streamed.test.images) == 16
    assert streamed.test.images[3:5].shape == (2, 3, 8, 8)
    assert decodes.take() == 2
    kept = [(entry / "pixels.u8").exists() for entry in entries(tmp_path)]
    assert sorted(kept) == [False, True, True]
    told = "; they are decoded whenever they are needed"
    assert [note for note in notes.notes if told in note] == (
        [] if "stream_test" in options else notes.notes
    )
    assert len(notes.notes) == (0 if "stream_test" in options else 1)
    again = load(**options)
    assert decodes.take() == 0
    assert again.fingerprint == streamed.fingerprint
    assert equal(load(), streamed)


def test_a_streamed_file_that_changed_is_named(load: Callable[..., TaskData], toys: Path) -> None:
    streamed = load(stream_test=True)
    path = toys / TOYS.folder / "images/test/000003.png"
    for change in (change_file, empty_file, Path.unlink):
        change(path)
        with pytest.raises(DataError, match=r"test/000003\.png.* changed while it was in use"):
            streamed.test.images[:]


def test_streamed_and_kept_images_give_the_same_predictions(toys: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("lora", epochs=1, warmup_epochs=0).model_copy(update={"task": TOYS})
    found = []
    for name, options in (("kept", {}), ("streamed", {"spare_bytes": NO_DISK})):
        notes = Notes()
        reading = Reading(cache=tmp_path / f"cache_{name}", **options)
        out = tmp_path / name
        result = run(recipe, device="cpu", data_dir=toys, reading=reading, out=out, progress=notes)
        (path,) = out.rglob("predictions.safetensors")
        found.append((path.read_bytes(), result.data_fingerprint, result.student))
        assert any("would leave" in note for note in notes.notes) == (name == "streamed")
        again = evaluate(path.parent, device="cpu", data_dir=toys, reading=reading)
        assert again.student == result.student
    assert found[0] == found[1]


# Teacher and student of unlike sizes


def test_teacher_and_student_of_unlike_sizes_train_and_evaluate(
    toys: Path, tmp_path: Path, decodes: Decodes
) -> None:
    assert TOY_PAIR.teacher is not None
    teacher = TOY_PAIR.teacher.model_copy(update={"img_size": 24, "name": "toy_teacher_24"})
    pair = TOY_PAIR.model_copy(update={"teacher": teacher})
    recipe = toy_recipe("lora").model_copy(update={"task": TOYS, "pair": pair})
    reading = Reading(cache=tmp_path / "cache")
    result = run(recipe, device="cpu", data_dir=toys, reading=reading, out=tmp_path / "runs")
    assert decodes.take() == 2 * ALL
    assert result.teacher is not None
    sizes = [entry.size for entry in Cache(tmp_path / "cache").entries().values()]
    assert sorted(sizes) == [16, 16, 16, 24, 24, 24]
    (teacher_folder,) = (tmp_path / "runs").rglob("teacher")
    for folder, expected in (
        (teacher_folder.parent, result.student),
        (teacher_folder, result.teacher),
    ):
        again = evaluate(folder, device="cpu", data_dir=toys, reading=reading)
        assert again.student == expected
    assert decodes.take() == 0


# A cache that cannot be written, or that others fill


def test_a_cache_that_is_a_file_ends_in_a_note_and_right_bits(
    load: Callable[..., TaskData], tmp_path: Path
) -> None:
    expected = load()
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        notes = Notes()
        assert equal(load(cache=place, listener=notes), expected)
        assert len(notes.notes) == 3
        assert all("cannot keep decoded images in" in note for note in notes.notes)
        assert equal(load(cache=place, stream_test=True), expected)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_ends_in_a_note_and_leaves_nothing_half_made(
    load: Callable[..., TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load()
    pwrite = os.pwrite

    def full(target: int, content: Any, offset: int) -> int:
        if "cache_full" in str(Path(f"/proc/self/fd/{target}").readlink()):
            return pwrite(target, bytes(content)[:5], offset)
        return pwrite(target, content, offset)

    monkeypatch.setattr(os, "pwrite", full)
    notes = Notes()
    assert equal(load(cache=tmp_path / "cache_full", listener=notes), expected)
    assert all("(No space left on device)" in note for note in notes.notes)
    assert len(notes.notes) == 3
    left = (tmp_path / "cache_full/pixels").iterdir()
    assert not [path for path in left if path.suffix != ".lock"]


def test_no_space_at_all_is_one_error(
    load: Callable[..., TaskData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(DataError, match="no place for the decoded images: No space left") as caught:
        load()
    assert "IDAT_CACHE_DIR" in caught.value.hint


def test_free_space_is_known_of_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b" / "c") > 0
    (tmp_path / "file").touch()
    assert free_bytes(tmp_path / "file" / "below") > 0


def fill(root: Path, cache: Path, start: Any, found: Any) -> None:
    """In another process: decode when told, and say how many were decoded and what came out."""
    torch.set_num_threads(1)
    decode_image, count = decoding.decode_image, 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return decode_image(*arguments, **options)

    decoding.decode_image = counted
    start.wait()
    data = load_task(TOYS, img_size=8, data_dir=root, reading=Reading(cache=cache))
    found.put((count, data.fingerprint, decoding.digest_pixels(data.trainval.held)))


def test_processes_that_fill_one_cache_at_once_share_the_work(
    load: Callable[..., TaskData], toys: Path, tmp_path: Path
) -> None:
    expected = load()
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    cache = tmp_path / "cache_shared"
    children = [context.Process(target=fill, args=(toys, cache, start, found)) for _ in range(3)]
    for child in children:
        child.start()
    start.set()
    results = [found.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    digest = decoding.digest_pixels(expected.trainval.held)
    assert {result[1:] for result in results} == {(expected.fingerprint, digest)}
    assert sum(count for count, *_ in results) == ALL
    assert len(Cache(cache).entries()) == 3
    assert not list(cache.rglob("*.part"))


def test_a_process_that_waits_says_so(tmp_path: Path, toys: Path) -> None:
    paths = sorted((toys / TOYS.folder / "images/val200").iterdir())
    reading, notes = Reading(cache=tmp_path / "cache"), Notes()

    class Impatient(Listener):
        """Lets another process in while this one decodes."""

        def decoding(self, what: str, done: int, total: int) -> None:
            if done == 1:
                context = multiprocessing.get_context("fork")
                child = context.Process(target=second, args=(paths, reading, told))
                child.start()
                waiting.append(child)
                assert "waiting for it" in told.get(timeout=60)

    waiting: list[Any] = []
    told = multiprocessing.get_context("fork").Queue()
    decode_files(paths, size=8, what="toys val", reading=reading, listener=Impatient())
    waiting[0].join()
    assert waiting[0].exitcode == 0
    assert notes.notes == []


def second(paths: list[Path], reading: Reading, told: Any) -> None:
    class Teller(Listener):
        def note(self, text: str) -> None:
            told.put(text)

    decoding.decode_image = None  # type: ignore[assignment]
    decode_files(paths, size=8, what="toys val", reading=reading, listener=Teller())
