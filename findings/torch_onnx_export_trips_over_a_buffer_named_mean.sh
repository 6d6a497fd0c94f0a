#!/usr/bin/env bash
# Library and version: torch 2.14.1 (onnx 1.23.2, onnxscript 0.7.2)
# Behaviour: a model that subtracts a buffer `mean` from its images and has a convolution with a centred
#   weight cannot be exported by torch.onnx.export(dynamo=True). The exporter names each value after its
#   operation, so the mean of the weight takes the buffer's name; folded to a constant, the two collide.
#   With optimize=False nothing is raised, and the graph holds two values of one name. The buffer called
#   `pixel_mean` exports both ways; torch.export.export takes all.
# What one would guess: names of buffers are the author's to choose, and the exporter makes its own unique.
# Seen:
#   pixel_mean: torch.export True; exported True; unoptimized: exported, names unique True
#   mean: torch.export True; exported False (PassError); unoptimized: exported, names unique False
# How to run: bash findings/torch_onnx_export_trips_over_a_buffer_named_mean.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2

cat > "$place/names.py" <<'PYTHON'
import torch


class Network(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.register_buffer(name, torch.full((1, 3, 1, 1), 0.5))
        self.weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2))

    def forward(self, x):
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return torch.nn.functional.conv2d(x - getattr(self, self.name), centred)


for name in ("pixel_mean", "mean"):
    model, images = Network(name).eval(), (torch.zeros(2, 3, 8, 8),)
    captured = isinstance(torch.export.export(model, images), torch.export.ExportedProgram)
    try:
        torch.onnx.export(model, images, dynamo=True, verbose=False)
        told = "True"
    except Exception as error:
        told = f"False ({type(error).__name__})"
    graph = torch.onnx.export(model, images, dynamo=True, optimize=False, verbose=False).model.graph
    names = [*graph.initializers, *(value.name for node in graph for value in node.outputs)]
    plain = f"exported, names unique {len(set(names)) == len(names)}"
    print(f"{name}: torch.export {captured}; exported {told}; unoptimized: {plain}")
PYTHON

expected="pixel_mean: torch.export True; exported True; unoptimized: exported, names unique True
mean: torch.export True; exported False (PassError); unoptimized: exported, names unique False"
seen=$("$place/venv/bin/python" "$place/names.py" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
