"""The stand-ins for torch's compiler and for wandb: nothing is left of them, or differs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each case is a process that imports torch

LOADED = "[name for name in sys.modules if name.startswith(('torch._dynamo', 'sympy'))]"
ROI_ALIGN = """
import sys, torch, torchvision
align = sys.modules["torchvision.ops.roi_align"]
x = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
box = torch.tensor([[0.0, 1, 1, 9, 9]])
def pooled(x): return torchvision.ops.roi_align(x * 2, box.clone(), (3, 3)) + 1
def stats(compiled):
    torch._dynamo.reset(); torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(compiled(x), plain)
    return dict(torch._dynamo.utils.counters["stats"])
plain = pooled(x)
print(stats(torch.compile(pooled, backend="eager", fullgraph=True)))
align._has_ops = lambda: False  # the deterministic path, which asks `is_compile_supported`
align._roi_align = align._roi_align.__wrapped__
print(align.is_compile_supported("cpu"), align.is_compile_supported("meta"))
print(stats(torch.compile(pooled, backend="eager")))
try: torch.compile(pooled, backend="eager", fullgraph=True)(x)
except torch._dynamo.exc.Unsupported as error: print(str(error).splitlines()[0])
"""
NAFLEX = """
import torch, timm
model = timm.create_model("naflexvit_base_patch16_gap", embed_dim=32, depth=1, num_heads=2).eval()
batch = {
    "patches": torch.linspace(-1, 1, 2 * 16 * 768).reshape(2, 16, 768),
    "patch_coord": torch.cartesian_prod(torch.arange(4), torch.arange(4)).expand(2, 16, 2),
    "patch_valid": torch.ones(2, 16, dtype=torch.bool),
}
def outcome(call):
    torch._dynamo.reset(); torch._dynamo.utils.counters.clear()
    try: torch.testing.assert_close(call(), plain)
    except torch._dynamo.exc.Unsupported: print("refused")  # the two messages word it differently
    print(dict(torch._dynamo.utils.counters["stats"]))
with torch.no_grad():
    plain = model(batch)
    outcome(lambda: torch.compile(model, backend="eager")(batch))
    outcome(lambda: torch.compile(model, backend="eager", fullgraph=True)(batch))
    image = (torch.zeros(2, 3, 64, 64),)
    print(len(torch.export.export(model, image).graph.nodes))
"""


def run(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_timm_and_measuring_a_backbone_loads_no_compiler() -> None:
    code = f"""
import sys, torch
from idat_zoo.backbones.frozen import describe_anatomy, load_backbone
from idat_zoo.registry import load_registry
describe_anatomy(load_registry().backbones["micro_student"])
load_backbone(load_registry().backbones["micro_student"])
assert {LOADED} == [], {LOADED}
assert "_dynamo" not in vars(torch)
describe_anatomy(load_registry().backbones["vit_s_random"])  # too large to be measured in memory
assert "torch._dynamo" not in sys.modules
import torch._dynamo
assert torch._dynamo.__file__ and torch._dynamo.utils.__file__
kernels = [torch._refs.native_layer_norm, torch._refs.add]
while kernels:
    kernel = kernels.pop()
    assert "__dynamo_disable" not in vars(kernel)
    kernels += [kernel.__wrapped__] if hasattr(kernel, "__wrapped__") else []
"""
    run(code)


@pytest.mark.parametrize(
    ("before", "variables"),
    [("", {"IDAT_IMPORT_COMPILER": "1"}), ("import torch._dynamo", {}), ("import timm", {})],
)
def test_a_real_compiler_is_left_alone(before: str, variables: dict[str, str]) -> None:
    code = f"""
{before}
import sys
import idat_zoo.backbones.frozen, torchvision, torch._dynamo.utils
align = sys.modules["torchvision.ops.roi_align"]
assert align.is_compile_supported is torch._dynamo.utils.is_compile_supported
"""
    run(code, **variables)


@pytest.mark.parametrize("code", [ROI_ALIGN, NAFLEX])
def test_what_compiles_is_as_without_the_stand_in(code: str) -> None:
    started = "import idat_zoo.backbones.frozen, torch._dynamo\n"
    found = run(started + code)
    assert found == run(started + code, IDAT_IMPORT_COMPILER="1")
    assert found.count("{") == 2


def test_a_users_function_compiles_before_and_after() -> None:
    code = """
import torch
double = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
import idat_zoo.backbones.frozen
assert double(torch.ones(2)).tolist() == [2, 2]
triple = torch.compile(lambda x: x * 3, backend="eager", fullgraph=True)
assert triple(torch.ones(2)).tolist() == [3, 3]
"""
    run(code)


def test_what_else_is_asked_of_the_stand_in_is_the_real_compilers() -> None:
    code = """
import sys, torch
from idat_zoo.backbones.without_compiler import without_compiler
with without_compiler():
    import torch._dynamo.config
    assert sys.modules["torch._dynamo"].__file__
    from torch._dynamo.utils import counters
    assert torch.compile(lambda x: x * 2, backend="eager")(torch.ones(1)).item() == 2
assert counters["stats"]["unique_graphs"] == 1
"""
    run(code)
    run(code.replace("import torch._dynamo.config", "from torch._dynamo import config"))


@pytest.mark.parametrize("before", ["", "import wandb"])
def test_importing_timm_loads_wandb_only_when_it_is_used(before: str, tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("seen = []\nlog = seen.append\n")
    code = f"""
{before}
import sys
import idat_zoo.backbones.frozen, timm
assert ("wandb" in sys.modules) == {bool(before)}
from timm.utils import update_summary
update_summary(0, {{"loss": 0.5}}, {{}}, r"{tmp_path / "summary.csv"}", log_wandb=True)
import wandb
assert [dict(row) for row in wandb.seen] == [{{"epoch": 0, "train_loss": 0.5}}], wandb.seen
"""
    run(code, PYTHONPATH=str(tmp_path))
