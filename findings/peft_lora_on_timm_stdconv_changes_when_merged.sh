#!/usr/bin/env bash
# Library and version: peft 0.21.2 (timm 1.0.31, torch 2.14.1)
# Behaviour: merge_adapter() changes the output of a LoRA on timm's StdConv2d, the convolution of its BiT
#   ResNets, which standardises its weight on every call. Unmerged, the LoRA is added to the output; merged,
#   it is standardised together with the weight. On plain Conv2d in the same network both agree. No warning
#   either way; safe_merge=True changes nothing about it.
# What one would guess: merging leaves the output as it was but for rounding; or the layer is refused, as
#   peft refuses to merge a convolution in groups.
# Seen:
#   Conv2d: merging changes nothing True, with safe_merge True, 0 warnings
#   StdConv2d: merging changes nothing False, with safe_merge False, 0 warnings
# How to run: bash findings/peft_lora_on_timm_stdconv_changes_when_merged.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 timm==1.0.31 torch==2.14.1

cat > "$place/merge.py" <<'PYTHON'
import warnings

import timm
import torch
from peft import LoraConfig, get_peft_model
from timm.layers import StdConv2d

torch.manual_seed(0)
images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
shape = {"layers": (1, 1), "channels": (16, 32), "stem_chs": 8, "num_classes": 5}
for choice in ({}, {"conv_layer": StdConv2d}):
    network = timm.create_model("resnetv2_50", pretrained=False, **shape, **choice)
    layer = type(network.stages[0].blocks[0].conv2).__name__
    config = LoraConfig(target_modules=["conv2"], r=2, init_lora_weights=False)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = get_peft_model(network, config).double().eval()
        adapted = model(images)
        same = []
        for safe in (False, True):
            model.merge_adapter(safe_merge=safe)
            same.append(torch.allclose(adapted, model(images), rtol=1e-6))
            model.unmerge_adapter()
    told = f"merging changes nothing {same[0]}, with safe_merge {same[1]}, {len(caught)} warnings"
    print(f"{layer}: {told}")
PYTHON

expected="Conv2d: merging changes nothing True, with safe_merge True, 0 warnings
StdConv2d: merging changes nothing False, with safe_merge False, 0 warnings"
seen=$("$place/venv/bin/python" "$place/merge.py" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
