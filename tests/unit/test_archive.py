"""A task out of a zip: all of its folder and nothing else, and nothing hostile."""

import io
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import fakes
import pytest
from test_vtab1k import TOYS

from idat_zoo.data.archive import find_members, open_archive, unpack
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener
from idat_zoo.errors import DataError

OTHER = TOYS.model_copy(update={"id": "others", "folder": "other_dir"})
ROOT = f"vtab-1k/{TOYS.folder}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vtab")
    for task in (TOYS, OTHER):
        fakes.write_vtab1k_task(root, task)
    return root


@pytest.fixture(scope="module")
def whole(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("zip") / "vtab-1k.zip"
    return fakes.zip_folders(folders, place).read_bytes()


def unpacked(content: bytes, folder: Path, *, listener: Listener | None = None) -> Path:
    archive = open_archive(io.BytesIO(content), "the.zip")
    members = find_members(archive, TOYS, "the.zip")
    unpack(archive, members, folder, what=TOYS.id, listener=listener or Listener())
    return folder


def refusal(content: bytes, folder: Path) -> str:
    """What is said of a zip that is refused; nothing may have been unpacked of it."""
    with pytest.raises(DataError) as caught:
        unpacked(content, folder)
    assert not folder.exists()
    return str(caught.value)


def changed(content: bytes, change: Callable[[zipfile.ZipFile], object]) -> bytes:
    """A zip again, with more in it."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        change(archive)
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What is right


@pytest.mark.parametrize("below", ["vtab-1k", "", "a/b"])
def test_a_task_comes_out_byte_for_byte_wherever_it_lies(
    below: str, folders: Path, tmp_path: Path
) -> None:
    content = fakes.zip_folders(folders, tmp_path / "a.zip", below=below).read_bytes()
    folder = unpacked(content, tmp_path / "out" / TOYS.folder)
    assert contents(folder) == contents(folders / TOYS.folder)
    assert len(load_task(TOYS, img_size=8, data_dir=tmp_path / "out").train) == 24


def test_copies_that_a_mac_adds_are_passed_over(whole: bytes, tmp_path: Path) -> None:
    content = changed(whole, lambda a: a.writestr(f"__MACOSX/{ROOT}/test.txt", b"resource"))
    assert (unpacked(content, tmp_path / "out") / "test.txt").is_file()


def test_what_arrived_is_not_read_again_and_what_is_damaged_is(
    whole: bytes, folders: Path, tmp_path: Path
) -> None:
    folder = unpacked(whole, tmp_path / "out")
    cut, spoilt = folder / "images/test/000000.jpg", folder / "images/test/000001.png"
    cut.write_bytes(cut.read_bytes()[:-1])
    spoilt.write_bytes(b"x" * spoilt.stat().st_size)
    (folder / "images/test/stray.jpg").write_bytes(b"of another copy")
    kept = (folder / "images/test/000002.jpg").stat().st_mtime_ns
    heard: list[tuple[int, int]] = []

    class Counting(Listener):
        def fetching(self, what: str, done: int, total: int) -> None:
            heard.append((done, total))

    unpacked(whole, folder, listener=Counting())
    assert contents(folder) == contents(folders / TOYS.folder)
    assert (folder / "images/test/000002.jpg").stat().st_mtime_ns == kept
    assert len(heard) == 3
    assert heard[-1][0] == heard[-1][1]


# What is refused


def entry(name: str, kind: int = 0, **fields: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = kind << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"{ROOT}/../../evil.txt", "leads out of its folder"),
        (f"{ROOT}/images/../../evil.txt", "leads out of its folder"),
        (f"{ROOT}//evil.txt", "leads out of its folder"),
        (f"{ROOT}/./evil.txt", "leads out of its folder"),
        (f"{ROOT}/C:evil.txt", "leads out of its folder"),
        (f"{ROOT}/images\\..\\evil.txt", "leads out of its folder"),
        (f"{ROOT}/\x1b[2Jevil.txt", "characters that do not belong"),
        (f"{ROOT}/evil\n.txt", "characters that do not belong"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(
    name: str, told: str, whole: bytes, tmp_path: Path
) -> None:
    content = changed(whole, lambda a: a.writestr(entry(name), b"evil"))
    message = refusal(content, tmp_path / "a" / "b" / "out")
    assert told in message
    assert "\x1b" not in message
    assert not list(tmp_path.rglob("*evil*"))


def test_a_name_with_a_zero_byte_is_refused(whole: bytes, tmp_path: Path) -> None:
    content = changed(whole, lambda a: a.writestr(f"{ROOT}/evilX.txt", b"evil"))
    content = content.replace(b"evilX.txt", b"evil\0.txt")
    assert "characters that do not belong" in refusal(content, tmp_path / "out")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(kind: int, whole: bytes, tmp_path: Path) -> None:
    link = entry(f"{ROOT}/images/link.jpg", kind | 0o777)
    content = changed(whole, lambda a: a.writestr(link, b"/etc/passwd"))
    assert "is no plain file" in refusal(content, tmp_path / "out")


def test_a_bomb_is_refused_by_what_it_says_of_itself(whole: bytes, tmp_path: Path) -> None:
    zeros = bytes(2**22)
    bomb = changed(
        whole, lambda a: a.writestr(f"{ROOT}/bomb.jpg", zeros, compress_type=zipfile.ZIP_DEFLATED)
    )
    assert "would unpack" in refusal(bomb, tmp_path / "out")

    def lie(archive: zipfile.ZipFile) -> None:
        archive.writestr(f"{ROOT}/huge.jpg", b"small")
        archive.filelist[-1].file_size = 2**40

    assert "bytes large" in refusal(changed(whole, lie), tmp_path / "out")


def test_a_bomb_that_lies_about_its_size_is_cut_off(whole: bytes, tmp_path: Path) -> None:
    def lie(archive: zipfile.ZipFile) -> None:
        name = f"{ROOT}/images/lie.jpg"
        archive.writestr(name, bytes(2**22), compress_type=zipfile.ZIP_DEFLATED)
        archive.filelist[-1].file_size = 1000

    with pytest.raises(DataError, match=r"lie\.jpg' did not arrive as the zip says"):
        unpacked(changed(whole, lie), tmp_path / "out")
    assert (tmp_path / "out" / "images" / "lie.jpg").stat().st_size <= 1000


def test_entries_over_each_other_are_refused(whole: bytes, tmp_path: Path) -> None:
    def overlap(archive: zipfile.ZipFile) -> None:
        archive.writestr(f"{ROOT}/over.jpg", b"x" * 100)
        archive.filelist[-1].header_offset = archive.filelist[-2].header_offset

    assert "overlaps" in refusal(changed(whole, overlap), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_or_is_a_folder_too_is_refused(
    whole: bytes, tmp_path: Path
) -> None:
    twice = changed(whole, lambda a: a.writestr(f"{ROOT}/test.txt", b"other"))
    assert "should hold one" in refusal(twice, tmp_path / "out")
    image = changed(whole, lambda a: a.writestr(f"{ROOT}/images/test/000000.jpg", b"other"))
    assert "is there 2 times" in refusal(image, tmp_path / "out")
    both = changed(whole, lambda a: a.writestr(f"{ROOT}/images", b"other"))
    assert "is a file and a folder" in refusal(both, tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"flag_bits": 1}, "is encrypted"), ({"compress_type": 12}, "compressed by method 12")],
)
def test_what_cannot_be_read_is_refused(
    fields: dict[str, int], told: str, whole: bytes, tmp_path: Path
) -> None:
    def change(archive: zipfile.ZipFile) -> None:
        archive.writestr(f"{ROOT}/more.jpg", b"x")
        for field, value in fields.items():
            setattr(archive.filelist[-1], field, value)

    assert told in refusal(changed(whole, change), tmp_path / "out")


def test_a_name_that_is_broken_where_the_file_lies_is_told(whole: bytes, tmp_path: Path) -> None:
    name = f"{ROOT}/images/f\u00fcr.jpg"
    content = bytearray(changed(whole, lambda a: a.writestr(name, b"x")))
    place = content.index("f\u00fcr.jpg".encode())  # the first is beside the bytes
    content[place + 1] = 0xFF
    with pytest.raises(DataError, match="did not arrive as the zip says"):
        unpacked(bytes(content), tmp_path / "out")


def test_links_that_lie_there_already_are_not_followed(whole: bytes, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(DataError, match="is a link, which is not followed"):
        unpacked(whole, tmp_path / "link")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.txt").symlink_to(outside / "precious.txt")
    (tmp_path / "out" / "images").symlink_to(outside)
    unpacked(whole, tmp_path / "out")
    assert contents(outside) == {"precious.txt": b"mine"}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]


def test_all_faults_are_named_at_once(whole: bytes, tmp_path: Path) -> None:
    def change(archive: zipfile.ZipFile) -> None:
        archive.writestr(f"{ROOT}/../a", b"")
        archive.writestr(entry(f"{ROOT}/b", stat.S_IFLNK), b"a")

    assert "2 faults" in refusal(changed(whole, change), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_zip_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    assert "is no zip that can be read" in refusal(content, tmp_path / "out")


def test_a_zip_without_the_task_is_named(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / OTHER.folder, tmp_path / "root" / OTHER.folder)
    content = fakes.zip_folders(tmp_path / "root", tmp_path / "a.zip").read_bytes()
    assert f"should hold one {TOYS.folder}/test.txt; found: none" in refusal(
        content, tmp_path / "out"
    )


def test_damaged_bytes_are_told_and_do_not_stay_for_good(
    whole: bytes, folders: Path, tmp_path: Path
) -> None:
    image = (folders / TOYS.folder / "images/test/000003.png").read_bytes()
    damaged = whole.replace(image, image[:-1] + bytes([image[-1] ^ 255]))
    assert damaged != whole
    with pytest.raises(DataError, match="did not arrive as the zip says it is: Bad CRC-32"):
        unpacked(damaged, tmp_path / "out")
    assert contents(unpacked(whole, tmp_path / "out")) == contents(folders / TOYS.folder)


def test_a_full_disk_is_told_before_anything_is_written(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.data.archive.free_bytes", lambda _: 1000)
    assert "where 1,000 are free" in refusal(whole, tmp_path / "out")
