#!/usr/bin/env bash
# Library and version: torch 2.14.1
# Behaviour: an autograd.Function with setup_context (whose forward takes no context) and a forward of
#   (x, *factors) runs eagerly with and without gradients, and compiled where gradients are needed. Compiled
#   without them, as an adapter is for inference, forward gets a context as its first argument, and x as the
#   first factor. A forward that names its arguments is given what was passed.
# What one would guess: what compiles for training compiles for inference, which needs less.
# Seen:
#   named: eager Tensor, training Tensor, inference Tensor
#   star: eager Tensor, training Tensor, inference not a Tensor
# How to run: bash findings/torch_compile_gives_a_context_to_a_forward_of_star_args.sh (exit 1: it changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1

cat > "$place/low_rank.py" <<'PYTHON'
import torch

first = ""


class Named(torch.autograd.Function):
    @staticmethod
    def forward(x, up, down):
        note(x)
        return torch.zeros(3, 4)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return None, torch.zeros(4, 2), torch.zeros(2, 4)


class Star(Named):
    @staticmethod
    def forward(x, *factors):
        note(x)
        return torch.zeros(3, 4)


def note(x):
    global first
    first = "Tensor" if isinstance(x, torch.Tensor) else "not a Tensor"


up, down = torch.randn(4, 2, requires_grad=True), torch.randn(2, 4, requires_grad=True)
for function in (Named, Star):
    forward = lambda x: function.apply(x, up, down)
    seen = []
    forward(torch.randn(3, 4))
    seen.append(f"eager {first}")
    for name, needed in (("training", True), ("inference", False)):
        torch.compiler.reset()
        with torch.set_grad_enabled(needed):
            torch.compile(forward, backend="eager")(torch.randn(3, 4))
        seen.append(f"{name} {first}")
    print(f"{function.__name__.lower()}: {', '.join(seen)}")
PYTHON

expected="named: eager Tensor, training Tensor, inference Tensor
star: eager Tensor, training Tensor, inference not a Tensor"
seen=$("$place/venv/bin/python" "$place/low_rank.py" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
