"""What the README shows is what works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fakes
import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
IDAT = Path(sys.executable).with_name("idat")


def run_python_example(text: str, folder: Path, *, last: str = "") -> str:
    """What the one Python example of a text prints, with a line added at its end."""
    (code,) = python_examples(text)
    return run_python(code + last, folder)


def python_examples(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    assert len(run_python_example(README, tmp_path).splitlines()) == 2
    assert list(tmp_path.rglob("result.json"))


@pytest.mark.slow
def test_the_example_of_an_adapter_pool_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    shown = run_python_example(
        text, tmp_path, last="print(first.shape, second.shape, pool.names())\n"
    )
    assert shown == "torch.Size([10]) torch.Size([8]) ['textures']\n"


FROM_PYTHON = python_examples((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
SHOWN = [
    r"accuracy (?:0\.[89]\d*|1\.0)\nloaded True\nmerged True\n",
    r"(arrays-[0-9a-f]{8})\nmicro/lora/\1 with micro_teacher[^\0]*\n0\.[89]\d*\n",
    r"(?:[\w' ]+: \d+ parameters learn, accuracy (?:0\.[89]\d|1\.00)\n){3}",
    r"(?:mse, lr 0\.01?0?1?: [+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]\n){2}",
]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "shown"), list(zip(FROM_PYTHON, SHOWN, strict=True)))
def test_the_examples_from_python_run(code: str, shown: str, tmp_path: Path) -> None:
    printed = run_python("import torch\ntorch.manual_seed(0)\n" + code, tmp_path)
    assert re.fullmatch(shown, printed), printed


def commands() -> list[str]:
    """Every idat command of the README's blocks, without the words behind two spaces."""
    blocks = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [re.split(r" {2,}", line)[0] for line in lines]
    return [
        line.removeprefix(".venv/bin/") for line in found if re.match(r"(\.venv/bin/)?idat ", line)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if " train " in c])
def test_every_train_command_is_understood(command: str, tmp_path: Path) -> None:
    """`--dry-run` resolves the recipe and says what is missing; nothing is downloaded."""
    fakes.write_class_folders(tmp_path / "photos", {"cat": 9, "dog": 9})
    words = [str(IDAT), *command.split()[1:], "--dry-run"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, env=offline
    )
    assert done.returncode == 0, done.stderr
    here = "--task folder" in command or "--task digits" in command
    assert ("missing: images of task" in done.stdout) != here


def test_the_commands_were_found() -> None:
    assert len(commands()) == 24


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


@pytest.mark.slow
def test_the_output_that_is_shown_is_what_the_command_prints() -> None:
    (shown,) = re.findall(r"<!-- output -->\n```\n(.*?)\n```", README, flags=re.DOTALL)
    command = [str(IDAT), "eval", "builtin:digits-lora", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(shown)


def test_the_map_names_what_is_there_and_every_package() -> None:
    (drawn,) = re.findall(r"## Map of the house\n\n```\n(.*?)```", README, flags=re.DOTALL)
    folders = set(re.findall(r"[\w/]+/(?=[\s;,])", drawn))
    places = [ROOT, ROOT / "idat_zoo"]
    for name in folders:
        assert any((place / name).is_dir() for place in places), name
    modules = re.findall(r"\b\w+\.py\b", drawn)
    assert len(modules) > 10
    for name in modules:
        assert list((ROOT / "idat_zoo").rglob(name)), name
    packages = {f"{path.parent.name}/" for path in (ROOT / "idat_zoo").glob("*/__init__.py")}
    assert packages - {"builtin/"} <= folders
