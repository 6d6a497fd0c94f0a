#!/usr/bin/env bash
# Library and version: peft 0.21.2 (timm 1.0.31, torch 2.14.1)
# Behaviour: a LoRA on `qkv` of timm's BEiT does not act: its attention reads `qkv.weight` and never calls
#   the module, so the LoRA has no effect on the logits. merge_adapter() adds it to that weight, and the
#   logits change. The same configuration acts on timm's ViT, where both agree. No warning either way.
# What one would guess: merging leaves the logits as they were but for rounding, as on the ViT; or the
#   module is refused.
# Seen:
#   vit_tiny_patch16_224: LoRA acts True, merging changes nothing True, 0 warnings
#   beit_base_patch16_224: LoRA acts False, merging changes nothing False, 0 warnings
# How to run: bash findings/peft_lora_on_beit_qkv_acts_only_once_merged.sh (exit 1: the behaviour changed)
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

torch.manual_seed(0)
images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
shape = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
for name in ("vit_tiny_patch16_224", "beit_base_patch16_224"):
    vit = timm.create_model(name, pretrained=False, num_classes=5, **shape).double().eval()
    for tensor in vit.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = vit(images)
        config = LoraConfig(target_modules=["qkv"], r=2, init_lora_weights=False)
        model = get_peft_model(vit, config).double().eval()
        adapted = model(images)
        model.merge_adapter()
        merged = model(images)
    acts = not torch.allclose(plain, adapted, rtol=1e-9)
    same = torch.allclose(adapted, merged, rtol=1e-9)
    print(f"{name}: LoRA acts {acts}, merging changes nothing {same}, {len(caught)} warnings")
PYTHON

expected="vit_tiny_patch16_224: LoRA acts True, merging changes nothing True, 0 warnings
beit_base_patch16_224: LoRA acts False, merging changes nothing False, 0 warnings"
seen=$("$place/venv/bin/python" "$place/merge.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
