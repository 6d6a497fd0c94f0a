#!/usr/bin/env bash
# The GPU tests and benchmarks, on a machine with a CUDA device and without a network.
#
#   benchmarks/on_device.sh wheels                           on a connected machine: collect packages
#   benchmarks/on_device.sh run [--again] [OUT] [STEP…]      on the device: install, test, time
#   benchmarks/on_device.sh try [--again] [OUT] [STEP…]      on a CPU: the same with tiny sizes
#   benchmarks/on_device.sh steps                            each step, its limit in seconds, figures
#   benchmarks/on_device.sh commands                         each step's commands
#
# Without steps, all. Tables go to OUT (benchmarks/results; of `try`: build/on_device), with a log
# beside them. A table that is there or among benchmarks/results is not made again unless --again.
# A command that fails, or that its step's limit ends, is named at the end; the others go on.
#
# The limits add up to 23 minutes, and each is below 10, since a machine may be lent for 30 minutes
# and end each command after 10. docs/benchmarks.md has the three commands for such a machine.
#
# The device's own torch, torchvision, timm, peft, rich, scikit-learn and pytest are used as they
# are, and so is huggingface-hub, which transformers, and so peft, demands in an older version.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
PACKAGES="pydantic pydantic-core annotated-types typing-inspection typing-extensions beartype
  tomli-w typer filelock"
BUILDER="setuptools>=77,<81" # pyproject.toml's licence needs 77; 82 has no pkg_resources
WHEELS=.whl
CUDA_TESTS="tests/e2e/test_cuda.py tests/unit/test_augment.py"

# Step and seconds.
LIMITS='
tests 200
step 150
many-adapters 140
start 100
pool 80
many-runs 100
whole-runs 90
saturation 220
compiled 190
switches 90
'

# Step, table (made as TABLE.cuda.json), command. Each script writes one table.
COMMANDS='
tests          -                   pytest
step           joint_step          joint_step --device cuda --batch 64 --repeats 7 --pair micro vit_ti_to_vit_s_random vit_s_to_vit_b_random
step           peft_step           peft_step --device cuda --pair micro vit_ti_to_vit_s_random vit_s_to_vit_b_random --batch 64 --steps 10
step           peft_step_plain     peft_step --device cuda --pair micro vit_ti_to_vit_s_random vit_s_to_vit_b_random --batch 64 --steps 10 --plain
step           last_blocks         last_blocks --device cuda --batch 64 --steps 10
many-adapters  mixed               mixed --device cuda
many-adapters  mixed_vit_b         mixed --device cuda --student vit_b_random --rows 0 1 3 4
start          startup             startup --repeats 2
pool           pool_stream         pool_stream --device cuda --requests 2048
many-runs      cotrain             cotrain --device cuda --pair vit_s_to_vit_b_random --adapter sequential --runs 1 2 4 8 19 --steps 3
whole-runs     whole_run           whole_run --device cuda --pair vit_s_to_vit_b_random --stack 19
saturation     saturation          saturation --device cuda --pair vit_s_to_vit_b_random --limit 120
saturation     saturation_micro    saturation --device cuda --limit 60
compiled       joint_step.compiled joint_step --device cuda --pair vit_s_to_vit_b_random --batch 64 --repeats 7 --steps 20 --compile
compiled       cotrain.compiled    cotrain --device cuda --pair vit_s_to_vit_b_random --adapter sequential --runs 1 8 19 --steps 3 --compile
switches       toggle              toggle --device cuda --pair vit_s_to_vit_b_random --adapter sequential --repeats 5
'

# What `try` adds to a script's options; the last of an option counts.
tiny() {
  case $1 in
    joint_step) echo --device cpu --pair micro --adapter lora --batch 4 --repeats 1 --steps 1 ;;
    peft_step) echo --device cpu --pair micro --batch 4 --repeats 1 --steps 1 ;;
    last_blocks) echo --device cpu --pair micro --batch 4 --blocks last2 --repeats 1 --steps 1 ;;
    mixed) echo --device cpu --student micro_student --rows 3 --repeats 1 ;;
    pool_stream) echo --device cpu --adapters 6 --capacity 4 --requests 128 --theirs 4 ;;
    cotrain) echo --device cpu --pair micro --runs 2 --batch 4 --repeats 1 --steps 1 ;;
    saturation)
      echo --device cpu --pair micro --runs 1 2 --batch 2 4 --largest 8 --repeats 1 --steps 1 ;;
    whole_run) echo --device cpu --pair micro --batch 16 --stack 2 --repeats 1 ;;
    toggle) echo --device cpu --pair micro --batch 4 --repeats 1 --steps 1 ;;
    startup) echo --repeats 1 ;;
  esac
}

collect() {
  local versions=() platforms=() name
  for name in $PACKAGES; do
    versions+=("$name==$(.venv/bin/python -c "import importlib.metadata as m; print(m.version('$name'))")")
  done
  for name in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${name}_x86_64"); done
  platforms+=(--platform manylinux2014_x86_64)
  rm -rf "$WHEELS"
  .venv/bin/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" --dest "$WHEELS" "${versions[@]}" "$BUILDER"
  ls "$WHEELS"
}

# An environment over that of the machine, so that its child processes see it too.
install() {
  python3 -m venv --without-pip "$1"
  python3 -c "import sys; print(*(p for p in sys.path if p.endswith('-packages')), sep='\n')" \
    >"$("$1/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/machine.pth"
  local pip=(python3 -m pip --python "$1/bin/python" install --quiet --no-index --no-deps)
  "${pip[@]}" --ignore-installed "$WHEELS"/*.whl
  "${pip[@]}" --ignore-installed --no-build-isolation .
  "$1/bin/python" - <<'END'
from importlib.metadata import requires, version

from packaging.requirements import Requirement

for requirement in map(Requirement, requires("idat-zoo") or []):
    if requirement.marker is None and version(requirement.name) not in requirement.specifier:
        print(f"not as pyproject.toml demands: {requirement}; found {version(requirement.name)}")
END
}

# One command, until the time on the clock at which its step's limit is over; its table goes to OUT.
execute() {
  local table=$1 end=$2 script=$3 made
  shift 3
  local command=("$python" "benchmarks/$script.py" "$@")
  if [[ $script == pytest ]]; then
    command=("$python" -m pytest -q -p no:cacheprovider -m cuda $CUDA_TESTS)
    if [[ $mode == try ]]; then command+=(--collect-only); fi
    cd "$ROOT"
  else
    if [[ $mode == try ]]; then command+=($(tiny "$script")); fi
    cd "$work"
    rm -rf benchmarks/results
  fi
  echo "+ ${command[*]}"
  timeout --kill-after=5 $((end > SECONDS ? end - SECONDS : 1)) "${command[@]}" &
  child=$!
  wait "$child" || return
  if [[ $script != pytest ]]; then
    made=(benchmarks/results/*.json)
    cp "${made[0]}" "$out/$table.$device.json"
  fi
}

run_step() {
  local step=$1 began=$SECONDS limit name table script options
  limit=$(awk -v step="$step" '$1 == step { print $2 }' <<<"$LIMITS")
  if [[ $mode == try ]]; then limit=$((4 * limit)); fi # a small machine, and every first call
  echo "== $step, at most $limit s"
  while read -r name table script options <&3; do
    if [[ $name != "$step" ]]; then continue; fi
    if [[ $again == no && $table != - ]] && {
      [[ -e $out/$table.$device.json ]] || [[ -e $ROOT/benchmarks/results/$table.cuda.json && $mode == run ]]
    }; then
      echo "$table.$device.json is there already"
      continue
    fi
    execute "$table" $((began + limit)) "$script" $options || failed+=("$step: $script (exit $?)")
  done 3<<<"$COMMANDS"
  echo "== $step took $((SECONDS - began)) s"
}

run() {
  mode=$1 again=no out='' failed=() child=
  shift
  if [[ ${1:-} == --again ]]; then again=yes && shift; fi
  local known steps step log tee
  known=$(awk 'NF { print $1 }' <<<"$LIMITS")
  if (($#)) && ! grep -qxF -- "$1" <<<"$known"; then out=$1 && shift; fi
  steps=("$@")
  if ((!$#)); then mapfile -t steps <<<"$known"; fi
  for step in "${steps[@]}"; do
    if ! grep -qxF -- "$step" <<<"$known"; then
      echo "unknown step '$step'. Known: ${known//$'\n'/ }" >&2
      exit 2
    fi
  done
  if [[ $mode == run ]]; then device=cuda; else device=cpu; fi
  if [[ -z $out ]]; then
    if [[ $mode == run ]]; then out=benchmarks/results; else out=build/on_device; fi
  fi
  mkdir -p "$out"
  out=$(cd "$out" && pwd) log=$out/on_device.log
  if [[ $out == "$ROOT/benchmarks/results" ]]; then log=/dev/null; fi
  exec > >(tee -a "$log") 2>&1
  tee=$!
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap '[[ -z $child ]] || kill "$child"; exit 130' INT TERM
  mkdir "$work/benchmarks"
  cp benchmarks/*.py "$work/benchmarks"
  export PYTHONUNBUFFERED=1
  if [[ $mode == run ]]; then
    python3 -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'"
    install "$work/environment"
    python=$work/environment/bin/python
  else
    python=$ROOT/.venv/bin/python
  fi
  for step in "${steps[@]}"; do run_step "$step"; done
  echo "== all took $SECONDS s"
  if ((${#failed[@]})); then
    echo "failed: $(printf '%s; ' "${failed[@]}")"
  fi
  exec >&- 2>&-
  wait "$tee"
  ((!${#failed[@]}))
}

list_steps() {
  local step limit
  while read -r step limit; do
    if [[ -z $step ]]; then continue; fi
    echo "$step $limit" $(awk -v step="$step" '$1 == step && $2 != "-" { print $2 }' <<<"$COMMANDS")
  done <<<"$LIMITS"
}

case "${1:-}" in
  wheels) collect ;;
  run | try) run "$@"; exit ;;
  steps) list_steps ;;
  commands) grep . <<<"$COMMANDS" ;;
  *) sed -n 2,10p "$0"; exit 2 ;;
esac
