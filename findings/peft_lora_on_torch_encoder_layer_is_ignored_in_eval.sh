#!/usr/bin/env bash
# Library and version: peft 0.21.2 (torch 2.14.1)
# Behaviour: a LoRA on the MLP of torch.nn.TransformerEncoderLayer acts in train() and not in eval(), with or
#   without no_grad(): in eval() the layer passes `linear1.weight` and `linear2.weight` to a fused kernel and
#   never calls the modules. The frozen base makes torch take that path although the LoRA asks for gradients.
#   merge_adapter() brings the LoRA back. No warning, neither from peft nor from torch.
# What one would guess: without dropout, train() and eval() give the same output; or the module is refused.
# Seen: (dropout is 0; does the output differ from the plain encoder's?)
#   train(): True
#   eval(): False
#   eval() and no_grad(): False
#   eval(), merged: True, as in train() True
#   warnings: 0
# How to run: bash findings/peft_lora_on_torch_encoder_layer_is_ignored_in_eval.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 torch==2.14.1

cat > "$place/encoder.py" <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
tokens = torch.randn(2, 5, 16)


def near(one, other):
    return torch.allclose(one, other, atol=1e-4)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    layer = torch.nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, dropout=0.0, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, num_layers=2)
    plain = encoder.eval()(tokens)
    config = LoraConfig(target_modules=["linear1", "linear2"], r=4, init_lora_weights=False)
    model = get_peft_model(encoder, config)
    trained = model.train()(tokens)
    print("train():", not near(trained, plain))
    print("eval():", not near(model.eval()(tokens), plain))
    with torch.no_grad():
        print("eval() and no_grad():", not near(model(tokens), plain))
    model.merge_adapter()
    merged = model(tokens)
    print(f"eval(), merged: {not near(merged, plain)}, as in train() {near(merged, trained)}")
print("warnings:", len(caught))
PYTHON

expected="train(): True
eval(): False
eval() and no_grad(): False
eval(), merged: True, as in train() True
warnings: 0"
seen=$("$place/venv/bin/python" "$place/encoder.py" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
