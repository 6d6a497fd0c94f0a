#!/usr/bin/env bash
# Library and version: torch 2.14.1
# Behaviour: torch.use_deterministic_algorithms(False) imports torch._inductor and with it
#   torch._dynamo, in a process that compiles nothing and in which determinism was never turned on.
# What one would guess: turning off what is off sets a flag, and costs nothing. Here, as part of a
#   context manager that restores the former setting, it took two seconds of every short command.
# Seen:
#   on: False
#   compiler before: False
#   compiler after: True
# How to run: bash findings/torch_turning_determinism_off_imports_the_compiler.sh (exit 1: changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6

cat > "$place/off.py" <<'PYTHON'
import sys

import torch

print("on:", torch.are_deterministic_algorithms_enabled())
print("compiler before:", "torch._inductor" in sys.modules or "torch._dynamo" in sys.modules)
torch.use_deterministic_algorithms(False)
print("compiler after:", "torch._inductor" in sys.modules and "torch._dynamo" in sys.modules)
PYTHON

expected="on: False
compiler before: False
compiler after: True"
seen=$("$place/venv/bin/python" "$place/off.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
