#!/usr/bin/env bash
# Library and version: timm 1.0.31 (torch 2.14.1)
# Behaviour: timm's image folder sorts class names by a natural, case-blind key. Names with equal keys
#   (`01` and `1`, `Cat` and `cat`) keep the order in which Python walked a set of strings, which
#   follows the process's hash seed: the same folder gives one class another index in another process.
# What one would guess: class_to_idx of an unchanged folder is the same in every process, so that a
#   checkpoint trained in one can be evaluated in the next.
# Seen: (one line for each of PYTHONHASHSEED 0 to 5)
#   {'01': 0, '1': 1}
#   {'01': 0, '1': 1}
#   {'01': 0, '1': 1}
#   {'1': 0, '01': 1}
#   {'01': 0, '1': 1}
#   {'1': 0, '01': 1}
# How to run: bash findings/timm_folder_order_of_equal_keys_changes.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torch==2.14.1

cat > "$place/folder.py" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image
from timm.data import create_dataset

root = Path(sys.argv[1])
for name in ("01", "1"):
    (root / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / name / "a.png")
print(create_dataset("", root=str(root)).reader.class_to_idx)
PYTHON

for seed in 0 1 2 3 4 5; do
    PYTHONHASHSEED=$seed "$place/venv/bin/python" "$place/folder.py" "$place/images"
done > "$place/seen"
cat "$place/seen"
[ "$(sort -u "$place/seen" | wc -l)" = 2 ] || { echo "changed; expected: two orders"; exit 1; }
