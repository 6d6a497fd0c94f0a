"""A new folder is written whole or not at all, by every command that writes one."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command import idat

from idat_zoo.errors import RunFolderError
from idat_zoo.files import check_place, whole_folder, write_whole

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "digits"


def test_a_folder_that_is_filled_in_part_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "new") as place:
            (place / "first").write_text("there")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        fill()
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "merge": ("merge", "builtin:digits-lora"),
    "peft": ("export", "builtin:digits-lora", "--to", "peft"),
    "onnx": ("export", "builtin:digits-lora", "--to", "onnx"),
}
"""What writes a new folder."""
SMALL_FILES = """
import resource, sys
from idat_zoo.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
sys.argv = ["idat", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_a_file_that_cannot_be_written_whole_is_told_and_leaves_nothing(
    what: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SMALL_FILES, *COMMANDS[what], "-o", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error == f"error: cannot write '{tmp_path / 'new'}': File too large"
    assert hint.endswith("choose another --out.")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_all_files_are_for_those_whom_the_umask_lets_read(what: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert idat(*COMMANDS[what], "-o", str(tmp_path / "new")).exit_code == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert len(modes) > 1 or what == "onnx"
    assert set(modes.values()) == {0o640}, modes


@pytest.mark.parametrize("place", [".", "", ".."])
@pytest.mark.parametrize(
    "words",
    [
        ("merge", "builtin:digits-lora", "--out"),
        ("export", "builtin:digits-lora", "--to", "peft", "--out"),
        ("report", str(RESULTS), "--out"),
        ("cp", "--force", "tiny_random/lora/digits"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_one_stands_in_is_no_place_for_a_new_one(
    words: tuple[str, ...], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = idat(*words, place)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    told = Path(place)
    known = (f"error: cannot write '{told}': ", f"error: '{told}' is there already.")
    assert result.stderr.startswith(known)
    assert "choose another" in result.stderr.lower()
    assert not list(here.iterdir())
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_told_by_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(RunFolderError, match=r"new': No space left on device\nFree space"),
        whole_folder(tmp_path / "new") as place,
    ):
        write_whole(place / "file", b"there")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled_and_one_with_files_is_left(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as place:
        (place / "first").write_text("there")
    assert (tmp_path / "empty" / "first").read_text() == "there"
    with pytest.raises(RunFolderError, match="is there already"), whole_folder(tmp_path / "empty"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is there already"), whole_folder(tmp_path / "file"):
        pass


def test_a_file_takes_no_place_of_a_pipe_and_follows_a_link(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    for refusing in (lambda: check_place(pipe), lambda: write_whole(pipe, b"new")):
        with pytest.raises(RunFolderError, match="it is a device or a pipe, and no file"):
            refusing()
    assert pipe.is_fifo()
    link.symlink_to(tmp_path / "there")
    write_whole(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "there").read_bytes() == b"new"
