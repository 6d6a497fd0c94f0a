#!/usr/bin/env bash
# Library and version: timm 1.0.31, wandb 0.31.0, torch 2.14.1
# Behaviour: `import timm` imports wandb where it is installed, with hundreds of modules, in a process
#   that logs nothing: timm/utils/summary.py imports it at the top of the file.
# What one would guess: wandb is imported when a script asks for `log_wandb`. So every process
#   with timm, data loaders' workers and command-line tools among them, is slower to start once
#   somebody has installed wandb into its environment.
# Seen (modules of wandb; more or fewer than 100):
#   after import timm: more than 100
#   after import torch: 0
# How to run: bash findings/timm_imports_wandb_wherever_it_is_installed.sh (exit 1: it changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6 wandb==0.31.0

expected="after import timm: more than 100
after import torch: 0"
seen=$(for name in timm torch; do
  "$place/venv/bin/python" -c "
import sys, $name
count = sum(own.split('.')[0] == 'wandb' for own in sys.modules)
print('after import $name:', 'more than 100' if count > 100 else count)"
done)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
