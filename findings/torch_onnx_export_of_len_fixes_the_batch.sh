#!/usr/bin/env bash
# Library and version: torch 2.14.1 (onnx 1.23.2, onnxscript 0.7.2)
# Behaviour: a class token that is put before the patches of len(x) images makes the batch of the graph that
#   torch.onnx.export(dynamo=True) gives a fixed number, although dynamic_shapes names it; nothing is raised or
#   warned. torch.export.export raises for the same model and shapes. With x.shape[0] both keep the batch open.
# What one would guess: len(x) and x.shape[0] are the same, and the exporter raises wherever torch.export.export
#   does, which it calls.
# Seen:
#   len(x): torch.export raises UserError; the ONNX graph takes [8, 4, 16]
#   x.shape[0]: torch.export keeps it open; the ONNX graph takes [batch, 4, 16]
# How to run: bash findings/torch_onnx_export_of_len_fixes_the_batch.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2

cat > "$place/batch.py" <<'PYTHON'
import warnings

import torch

warnings.simplefilter("error", UserWarning)


class Tokens(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.count = count
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, x):
        return torch.cat([self.cls_token.expand(self.count(x), -1, -1), x], dim=1)


counts = {"len(x)": len, "x.shape[0]": lambda x: x.shape[0]}
shapes = ({0: torch.export.Dim("batch", min=1)},)
for name, count in counts.items():
    model, images = Tokens(count).eval(), (torch.zeros(8, 4, 16),)
    try:
        torch.export.export(model, images, dynamic_shapes=shapes)
        told = "keeps it open"
    except torch._dynamo.exc.UserError as error:
        told = f"raises {type(error).__name__}"
    program = torch.onnx.export(model, images, dynamo=True, dynamic_shapes=shapes, verbose=False)
    taken = ", ".join(str(size) for size in program.model.graph.inputs[0].shape)
    print(f"{name}: torch.export {told}; the ONNX graph takes [{taken}]")
PYTHON

expected="len(x): torch.export raises UserError; the ONNX graph takes [8, 4, 16]
x.shape[0]: torch.export keeps it open; the ONNX graph takes [batch, 4, 16]"
seen=$("$place/venv/bin/python" "$place/batch.py" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
