"""What is installed, what the command line takes, and what may not stand in the repository."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import typer
from pydantic import Field

from idat_zoo.adapters import ADAPTERS
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.lora import LoRA, LoRAOptions
from idat_zoo.backbones import frozen
from idat_zoo.backbones.frozen import describe_anatomy
from idat_zoo.cli import app
from idat_zoo.recipe import Backbone
from idat_zoo.registry import load_registry
from idat_zoo.registry.pretrained import TABLE, read_table
from idat_zoo.registry.write_adapters import numbers_on, render_adapters, render_parameters
from idat_zoo.registry.write_pretrained import render_pretrained

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]

HELP = {"--help", "-h"}
FLAGS = {
    "train": {
        "--task", "--adapter", "--pair", "--teacher", "--recipe", "--seed", "--seeds", "--device",
        "--data-dir", "--out", "--shelf", "--resume", "--wait", "--keep-diverged", "--dry-run",
        "--skip-corrupt", "--stream-test", "--max-megapixels", "--yes", "-y", "--json", "--stack",
        "--prefix-cache", "--compile", "--fused", "--keep-memory", "--deterministic", "--plugin",
        "--jobs", "--control", "--weights", "--teacher-from", "--tracker",
    },
    "eval": {
        "--checkpoint", "--require-pinned", "--task", "--fail-under", "--device", "--data-dir",
        "--skip-corrupt", "--stream-test", "--max-megapixels", "--out", "--shelf", "--weights",
        "--yes", "-y", "--json", "--plugin",
    },
    "predict": {
        "--checkpoint", "--require-pinned", "--top-k", "--device", "--max-megapixels", "--yes",
        "-y", "--json", "--csv", "--plugin", "--weights",
    },
    "merge": {"--checkpoint", "--out", "-o", "--plugin", "--weights", "--yes", "-y", "--json"},
    "publish": {
        "--repo", "--tag", "--public", "--with-teacher", "--create-pr", "--overwrite", "--dry-run",
        "--eval-results", "--json", "--plugin", "--weights",
    },
    "export": {
        "--checkpoint", "--to", "--out", "-o", "--plugin", "--rank", "--yes", "-y", "--json",
        "--weights",
    },
    "import": {
        "--backbone", "--task", "--data-dir", "--out", "-o", "--shelf", "--yes", "-y", "--json",
        "--plugin",
    },
    "report": {
        "--against", "--format", "--html", "--out", "--plugin", "--png", "--reference",
        "--shelf", "--json",
    },
    "compare": {"--data-dir", "--format", "--html", "--plugin", "--shelf", "--json"},
    "list": {"--task", "--adapter", "--pair", "--plugin", "--shelf", "--data-dir", "--json"},
    "show": {"--plugin", "--shelf", "--json"},
    "cp": {"--plugin", "--shelf", "--force", "--json"},
    "validate": {"--plugin", "--shelf", "--json"},
    "env": {"--json"},
    "study run": {
        "--out", "--dry-run", "--measure", "--retry", "--replan", "--device", "--data-dir",
        "--shelf", "--plugin", "--yes", "-y", "--json", "--stack", "--jobs", "--prefix-cache",
        "--compile", "--fused", "--keep-memory", "--deterministic", "--executor",
        "--executor-option", "--pass", "--tracker",
    },
    "study status": {"--out", "--shelf", "--json"},
    "study report": {"--out", "--format", "--shelf", "--json"},
    "data verify": {"--data-dir", "--plugin", "--shelf", "--max-megapixels", "--json"},
    "data info": {"--data-dir", "--plugin", "--shelf", "--json"},
    "data pull": {"--source", "--data-dir", "--plugin", "--shelf", "--yes", "-y", "--json"},
    "data cache": {"--clean", "--plugin", "--shelf", "--json"},
}  # fmt: skip


def tracked(*options: str) -> list[Path]:
    """The files git knows; with `--others --exclude-standard`, those it would take too."""
    command = ["git", "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def folder_of(package: str) -> Path:
    """Where a package lies in the repository, by pyproject's package-dir."""
    places = SETUPTOOLS["package-dir"]
    named = max((p for p in places if f"{package}.".startswith(f"{p}.")), key=len)
    rest = package.removeprefix(named).replace(".", "/")
    return ROOT / f"{places[named]}{rest}"


def test_the_packages_listed_are_the_folders_that_exist() -> None:
    top = ROOT / "idat_zoo"
    links = [top / "cli", top / "registry"]
    assert [link.readlink() for link in links] == [Path("../cli"), Path("../registry")]
    found = {"idat_zoo"}
    for place in (top, *links):
        inits = [path.parent.relative_to(ROOT) for path in place.rglob("__init__.py")]
        found |= {".".join(path.parts) for path in inits}
    assert found == set(SETUPTOOLS["packages"])
    assert all((folder_of(package) / "__init__.py").is_file() for package in found)


def test_no_module_lies_outside_the_packages_listed() -> None:
    homes = {folder_of(package) for package in SETUPTOOLS["packages"]}
    stray = {
        path.relative_to(ROOT)
        for top in ("idat_zoo", "cli", "registry")
        for path in (ROOT / top).rglob("*.py")
        if path.parent not in homes and not (top == "idat_zoo" and path.parent.is_symlink())
    }
    assert stray == set()


@pytest.mark.parametrize(
    ("package", "pattern"),
    [(p, pattern) for p, patterns in SETUPTOOLS["package-data"].items() for pattern in patterns],
)
def test_every_pattern_of_package_data_matches_a_file(package: str, pattern: str) -> None:
    assert package in SETUPTOOLS["packages"]
    assert list(folder_of(package).glob(pattern))


def test_every_data_file_of_a_package_is_package_data() -> None:
    for top in ("idat_zoo", "cli", "registry"):
        known = {
            path
            for package, patterns in SETUPTOOLS["package-data"].items()
            for pattern in patterns
            for path in folder_of(package).glob(pattern)
        }
        data = {
            path
            for path in tracked()
            if path.is_relative_to(ROOT / top) and path.is_file() and path.suffix != ".py"
        }
        assert data - known == set()


def test_the_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in citation


def flags_below(group: Any, before: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command with its flags, those of groups by both names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from flags_below(command, f"{before}{name} ")
        else:
            options = (p for p in command.params if p.param_type_name == "option")
            yield before + name, {flag for p in options for flag in p.opts}


def test_the_flags_of_the_command_line_are_these() -> None:
    assert {name: flags - HELP for name, flags in flags_below(typer.main.get_command(app))} == FLAGS


HOSTS = {
    "127.0.0.1", "example.org", "git-lfs.github.com", "hf.co", "huggingface.co",
    "keepachangelog.com", "tech.zalando.com", "www.apache.org", "www.w3.org",
}  # fmt: skip
"""The hosts that a file of the project may name: none of them is where packages come from."""
LOCK_FILES = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"}


def of_a_machine(text: str) -> list[str]:
    """What a text says of the machine it was written on, or of where its packages came from."""
    places = {str(place) for place in (ROOT, ROOT.parent, Path.home()) if place != place.parent}
    folders = "|".join(re.escape(place) for place in sorted(places, reverse=True))
    paths = re.findall(rf"(?<![\w./-])(?:{folders})/\w", text)
    hosts = set(re.findall(r"https?://([A-Za-z0-9][\w.-]*)", text)) - HOSTS
    return [*paths, *sorted(hosts), *re.findall("--(?:extra-)?index" + "-url", text)]


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    files = [path for path in tracked() if path.is_file()]
    told = {
        path.name: of_a_machine(path.read_bytes().decode("utf-8", errors="replace"))
        for path in files
    }
    assert {name: found for name, found in told.items() if found} == {}
    assert LOCK_FILES.isdisjoint(told)


@pytest.mark.parametrize(
    "text",
    [
        f"see {ROOT}/x",
        f"{Path.home() / 'x'}",
        "from http" + "s://packages.example.net/simple",
        "pip install --index" + "-url x",
    ],
)
def test_a_machine_or_registry_would_be_seen(text: str) -> None:
    assert of_a_machine(text)


@pytest.mark.parametrize("text", ["./cli/train.py", "https://huggingface.co/x", "runs/digits/x"])
def test_what_names_no_machine_is_let_be(text: str) -> None:
    assert not of_a_machine(text)


@pytest.fixture(scope="module")
def _anatomies_once() -> Iterator[None]:
    """Each backbone is built once in this file, however often the list is written."""
    anatomies = {}

    def describe_once(spec: Backbone) -> Anatomy:
        if spec.name not in anatomies:
            anatomies[spec.name] = describe_anatomy(spec)
        return anatomies[spec.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "describe_anatomy", describe_once)
        yield


def is_up_to_date() -> bool:
    return (ROOT / "registry" / "adapters.toml").read_text(encoding="utf-8") == render_adapters()


class OtherDefault(LoRAOptions):
    """LoRA's options, one default changed."""

    rank: int = Field(default=9, ge=1, description="rank R of each update")


@pytest.mark.usefixtures("_anatomies_once")
def test_the_numbers_of_parameters_are_what_the_classes_create_and_stale_ones_are_seen() -> None:
    kept = (ROOT / "registry" / "parameters.toml").read_text(encoding="utf-8")
    assert kept == render_parameters()
    micro, counts = load_registry().find_pair("micro"), tomllib.loads(kept)["lora"]["micro"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRA, "Options", OtherDefault)
        assert counts["student"] != numbers_on(micro.student)["lora"]
    assert counts["student"] == numbers_on(micro.student)["lora"]


def test_the_list_of_adapters_is_what_the_classes_say_and_a_stale_one_is_seen() -> None:
    assert is_up_to_date()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRA, "title", "Another")
        assert not is_up_to_date()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRA, "Options", OtherDefault)
        assert not is_up_to_date()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ADAPTERS, "another", ADAPTERS["lora"])
        assert not is_up_to_date()
    assert is_up_to_date()


def test_the_table_of_pretrained_weights_is_what_timm_says() -> None:
    if read_table()[0] != timm.__version__:
        pytest.skip(f"the table is of timm {read_table()[0]}")
    assert TABLE.read_text(encoding="utf-8") == render_pretrained()


FROM_ELSEWHERE = """
import sys
from pathlib import Path
import idat_zoo.cli
from idat_zoo.registry import get_recipe
from idat_zoo.registry.local import weights_here
assert Path(idat_zoo.cli.__file__).is_relative_to(sys.argv[1]), idat_zoo.cli.__file__
recipe = get_recipe("digits", "lora")
assert recipe.pair.name == "micro" and weights_here(recipe.pair.student)
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_the_wheel_holds_everything_and_works_from_another_folder(tmp_path: Path) -> None:
    wheels, installed, elsewhere = (tmp_path / name for name in ("wheels", "installed", "else"))
    source = tmp_path / "source"  # so that no build folder is left in the repository
    for path in tracked("--cached", "--others", "--exclude-standard"):
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_file():
            copy.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(installed)
    tops = {name.partition("/")[0] for name in names}
    version = PROJECT["project"]["version"]
    assert tops == {"idat_zoo", f"idat_zoo-{version}.dist-info"}
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in folder_of(package).glob(pattern)
        if pattern.count("/") == 0
    }
    assert expected <= names, expected - names
    assert "idat_zoo/backbones/weights/micro_student.safetensors" in names
    assert "idat_zoo/registry/recipes/micro.toml" in names
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FROM_ELSEWHERE, str(installed)],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
