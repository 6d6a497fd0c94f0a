#!/usr/bin/env bash
# The GPU tests and benchmarks, on a machine with a CUDA device and without a network.
#
#   benchmarks/on_device.sh wheels     on a connected machine: collect what that machine lacks
#   benchmarks/on_device.sh run [OUT]  on the device: install, test, time; figures go to OUT
#
# The device's own torch, timm, typer, rich, scikit-learn and pytest are used as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
PACKAGES="pydantic pydantic-core annotated-types typing-inspection beartype tomli-w"
WHEELS=.whl

collect() {
  local versions=() platforms=() name
  for name in $PACKAGES; do
    versions+=("$name==$(.venv/bin/python -c "import importlib.metadata as m; print(m.version('$name'))")")
  done
  for name in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${name}_x86_64"); done
  platforms+=(--platform manylinux2014_x86_64)
  rm -rf "$WHEELS"
  .venv/bin/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" --dest "$WHEELS" "${versions[@]}"
  ls "$WHEELS"
}

run() {
  local out=${1:-benchmarks/results} site
  site=$(mktemp -d)
  python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH=$site
  python3 -m pip install --quiet --no-deps --no-build-isolation --no-index --target "$site" .
  python3 -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'"
  mkdir -p "$out"
  python3 -m pytest -q -m cuda tests 2>&1 | tee "$out/cuda_tests.txt"
  local paper="--pair vit_s_to_vit_b_random --device cuda"
  python3 benchmarks/joint_step.py --device cuda --batch 64 --repeats 7 \
    --pair micro vit_ti_to_vit_s_random vit_s_to_vit_b_random
  python3 benchmarks/joint_step.py $paper --batch 64 --repeats 7 --steps 20 --compile
  python3 benchmarks/cotrain.py $paper --adapter sequential --runs 1 2 4 8 19 --steps 3
  python3 benchmarks/cotrain.py $paper --adapter sequential --runs 1 8 19 --steps 3 --compile
  python3 benchmarks/whole_run.py $paper --stack 19
  python3 benchmarks/toggle.py $paper --adapter sequential --repeats 5
  python3 benchmarks/mixed.py --device cuda --student vit_b_random
  cp benchmarks/results/*.cuda.json "$out/" 2>/dev/null || true
}

case "${1:-}" in
  wheels) collect ;;
  run) run "${2:-}" ;;
  *) sed -n 2,7p "$0"; exit 2 ;;
esac
