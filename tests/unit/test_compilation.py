"""Compilation of networks on every kind of backbone."""

import os
import shutil
import subprocess
import sys

import pytest

COMPILED = """
import sys
import torch
from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.build import build_network
from idat_zoo.specs import AdapterSpec
from kinds import frozen_of, images_of

lora = build_adapter(AdapterSpec(name="lora"))
for form in sys.argv[2:]:
    backbone, images = frozen_of(form), images_of(form, 2)
    network = build_network(
        backbone, lora, num_classes=5, normalisation="imagenet", seed=0, role="student"
    ).double()
    for tensor in network.trainable().values():
        tensor.data.normal_(std=0.1)
    compiled = torch.compile(network, fullgraph=True, backend=sys.argv[1])
    expected = network(images)
    torch.testing.assert_close(compiled(images), expected, rtol=1e-12, atol=1e-12)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in network.trainable().values()]
    network.zero_grad()
    compiled(images).square().sum().backward()
    for p, gradient in zip(network.trainable().values(), gradients):
        assert gradient.any()
        torch.testing.assert_close(p.grad, gradient, rtol=1e-10, atol=1e-10)
    print(form)
"""


def compiled_with(backend: str, *forms: str) -> str:
    """The forms whose networks, compiled in one graph, compute and learn what they do in eager."""
    done = subprocess.run(  # apart: the annotations that are checked here are in dynamo's way
        [sys.executable, "-c", COMPILED, backend, *forms],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.system
def test_networks_compile_in_one_graph_each() -> None:
    assert compiled_with("eager", "vit", "beit", "swin").split() == ["vit", "beit", "swin"]


@pytest.mark.system
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_they_compile_with_inductor_too() -> None:
    assert compiled_with("inductor", "vit", "beit").split() == ["vit", "beit"]
