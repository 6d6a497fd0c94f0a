#!/usr/bin/env bash
# Library and version: timm 1.0.31, torchvision 0.29.1, torch 2.14.1
# Behaviour: `import timm` imports torch._dynamo, 95 modules, in a process that compiles
#   nothing. torchvision alone does so, too: its ops.roi_align takes a function from torch._dynamo.utils
#   at the top of the file. `import torch` does not.
# What one would guess: the compiler is imported by the first torch.compile.
# Seen:
#   torch: False
#   torchvision: True
#   timm: True
# How to run: bash findings/timm_import_loads_the_compiler.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6

expected="torch: False
torchvision: True
timm: True"
seen=$(for name in torch torchvision timm; do
  "$place/venv/bin/python" -c "import sys, $name; print('$name:', 'torch._dynamo' in sys.modules)"
done)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
