#!/usr/bin/env bash
# Library and version: trackio 0.43.0 (pillow 13.0.0)
# Behaviour: trackio requires pillow<13, so installing it beside pillow 13 downgrades pillow, and an environment
#   that pins pillow 13 has no solution.
# What one would guess: a tracker of numbers needs no image library, or has no upper bound on it.
# Seen:
#   requires pillow below 13: True
#   beside pillow==13.0.0: ResolutionImpossible
# How to run: bash findings/trackio_refuses_the_current_pillow.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip=("$place/venv/bin/pip" --disable-pip-version-check)
"${pip[@]}" install --quiet --no-deps trackio==0.43.0

cat > "$place/needs.py" <<'PYTHON'
from importlib.metadata import requires

needs = [one for one in requires("trackio") or () if one.lower().startswith("pillow")]
print("requires pillow below 13:", any("<13" in one.replace(" ", "") for one in needs))
PYTHON

expected="requires pillow below 13: True
beside pillow==13.0.0: ResolutionImpossible"
answer=$("${pip[@]}" install --dry-run trackio==0.43.0 pillow==13.0.0 2>&1 || true)
seen="$("$place/venv/bin/python" "$place/needs.py")
beside pillow==13.0.0: $(grep -q ResolutionImpossible <<< "$answer" && echo ResolutionImpossible || echo a solution)"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
