"""Every law of `tests/laws.py`, for every family."""

import importlib
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import left_out
import pytest
from families import UNUSED, all_facts, facts_of
from kinds import body_of
from laws import EXEMPT, LAWS, Cell, backbone_of, walks_on_from_its_prefix
from torch import nn
from zoo import FOLDER, cases_in

from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.adapting import adapt
from idat_zoo.backbones.build import check_carries
from idat_zoo.errors import UsageError

CASES = [(law, family) for law in LAWS for family in ADAPTERS if (law, family) not in EXEMPT]
FILES = [path for path in FOLDER.glob("*.safetensors") if not path.stem.startswith("backbone")]
COMPILED = ("sequential", "lora", "linear")
"""Compiled with inductor in the long tests, where all are with `aot_eager`."""


def test_facts_are_known_of_every_family_and_of_no_other() -> None:
    assert set(all_facts()) == set(ADAPTERS), "each has `Facts` in a module of tests/families"


def test_every_golden_case_holds_a_family_or_it_is_said_why_not() -> None:
    held = {case.id for family in ADAPTERS for case in facts_of(family).golden}
    there = {name for path in FILES for name in cases_in(path.stem)}
    assert held | UNUSED.keys() == there, f"say why not: {sorted(there - held - UNUSED.keys())}"
    assert not held & UNUSED.keys()
    assert (len(FILES), len(there), len(held)) == (39, 72, 66)


def test_no_file_of_a_family_is_long() -> None:
    for place in {place.partition(":")[0] for place in ADAPTERS.values()}:
        path = Path(inspect.getfile(importlib.import_module(place)))
        assert len(path.read_text().splitlines()) <= 120, path.name


def test_no_law_is_left_out_but_for_a_reason() -> None:
    assert len(CASES) + len(EXEMPT) == len(LAWS) * len(ADAPTERS)
    assert (len(LAWS), len(ADAPTERS), len(EXEMPT)) == (22, 38, 0)
    assert all(law in LAWS and family in ADAPTERS for law, family in EXEMPT)


def test_what_the_laws_leave_out_is_the_table_that_was_agreed_on() -> None:
    assert left_out.table() == Path(left_out.__file__).with_suffix(".md").read_text(), (
        "python tests/left_out.py > tests/left_out.md"
    )


@pytest.mark.parametrize(("law", "family"), CASES)
def test_a_family(law: str, family: str) -> None:
    LAWS[law](family)


# One family's own


@pytest.mark.parametrize(
    ("form", "blocks"), [("swin", "last2"), ("convnext", "last4"), ("convnext", "last2")]
)
def test_full_fine_tuning_trains_what_leads_to_the_first_of_its_blocks(
    form: str, blocks: str
) -> None:
    cell = Cell("full", form, {"blocks": blocks})
    learn = [name for name in cell.network().trainable() if "downsample" in name]
    assert learn
    walks_on_from_its_prefix(cell, drop_path=0.3)


@pytest.mark.parametrize(
    ("family", "options", "form", "why"),
    [
        ("vpt_deep", {"num_prompts": 21}, "vit", "an image has 5 tokens, and num_prompts is 21"),
        ("vpt_shallow", {}, "swin", "its blocks take no prompts"),
        ("vpt_shallow", {"num_prompts": 1001}, "vit", "num_prompts"),
        ("vpt_deep", {"num_prompts": 0}, "vit", "num_prompts"),
        ("fact_tt", {}, "swin", "U and V serve all its blocks, whose widths are 16, 32"),
        ("fact_tk", {}, "eva02 tiny", "its fc1 has a side of 170, no multiple of 32"),
        ("fact_tk", {"blocks": "last1", "parts": "fc2"}, "swin", ""),
        ("dtl", {}, "swin", "the tokens of its blocks are of unlike number and width"),
        ("dtl", {"add_after": "0"}, "vit", "what is read before block 1 comes back nowhere"),
        ("dtl", {"add_after": "0-5"}, "vit", "add_after: its blocks are 0 to 1"),
        ("dtl", {"blocks": "2-3", "fusion": 3}, "swin", ""),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    family: str, options: dict[str, object], form: str, why: str
) -> None:
    cell = Cell(family, form)
    choice = cell.choice().model_copy(update={"options": options})
    if why:
        with pytest.raises(UsageError, match=why):
            check_carries(backbone_of(form).anatomy, build_adapter(choice), form)
    else:
        check_carries(backbone_of(form).anatomy, build_adapter(choice), form)


@pytest.mark.parametrize("form", ["vit", "dinov3", "swin"])
def test_full_fine_tuning_leaves_out_what_no_pass_reads(form: str) -> None:
    model = body_of(form)
    read = set(adapt(model, "full", num_classes=5).trainable())
    model.mask_token = nn.Parameter(model.norm.weight[None].clone())
    assert set(adapt(model, "full", num_classes=5).trainable()) == read


COMPILE = """
import sys

import laws

for family in sys.argv[2:]:
    laws.compiles(laws.Cell(family), sys.argv[1])
    print(family, flush=True)
"""


def compile_apart(backend: str, families: Sequence[str]) -> None:
    """In a process of its own: the annotations that are checked here are in dynamo's way."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, backend, *families],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not done.returncode, f"after {done.stdout.split()}: {done.stderr}"
    assert done.stdout.split() == list(families)


@pytest.mark.slow
def test_lora_compiles() -> None:
    compile_apart("aot_eager", ["lora"])


@pytest.mark.system
@pytest.mark.parametrize("part", range(4))
def test_they_compile(part: int) -> None:
    """Several in a process: importing torch takes it longer than compiling one."""
    compile_apart("aot_eager", list(ADAPTERS)[part::4])


@pytest.mark.system
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_they_compile_with_inductor() -> None:
    compile_apart("inductor", COMPILED)
