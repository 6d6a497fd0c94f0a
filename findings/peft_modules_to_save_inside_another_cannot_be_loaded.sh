#!/usr/bin/env bash
# Library and version: peft 0.21.2 (timm 1.0.31, torch 2.14.1)
# Behaviour: modules_to_save=["head", "norm"] takes every module whose name ends in `head` or `norm`. In timm's
#   ConvNeXt the head has a norm of its own, `head.norm`: its trainable copy is hung beside the head's copy of
#   it and never called, and the one that is called is frozen. save_pretrained() writes such a model without
#   a warning; PeftModel.from_pretrained() then raises a KeyError, for the very network it was made of. The
#   same list works on timm's ViT and Swin.
# What one would guess: what is marked as trainable is trained, and what save_pretrained() writes can be loaded;
#   or get_peft_model() refuses the list.
# Seen:
#   vit_tiny_patch16_224: no gradient for [], saved True, loaded True, 0 warnings
#   swin_tiny_patch4_window7_224: no gradient for [], saved True, loaded True, 0 warnings
#   convnext_tiny: no gradient for ['head.norm'], saved True, loaded False (KeyError), 0 warnings
# How to run: bash findings/peft_modules_to_save_inside_another_cannot_be_loaded.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 timm==1.0.31 torch==2.14.1

cat > "$place/nested.py" <<'PYTHON'
import sys
import warnings
from pathlib import Path

import timm
import torch
from peft import LoraConfig, PeftModel, get_peft_model

vit = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
swin = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2, "img_size": 32}
convnext = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
shapes = {"vit_tiny_patch16_224": vit, "swin_tiny_patch4_window7_224": swin, "convnext_tiny": convnext}


def base(name):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=5, **shapes[name])


images = torch.randn(2, 3, 32, 32)
for name in shapes:
    target = Path(sys.argv[1], name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = LoraConfig(target_modules=["fc1"], r=2, modules_to_save=["head", "norm"])
        model = get_peft_model(base(name), config).eval()
        model(images).square().sum().backward()
        asked = [key for key, tensor in model.named_parameters() if tensor.requires_grad and tensor.grad is None]
        idle = sorted({key.removeprefix("base_model.model.").split(".modules_to_save")[0] for key in asked})
        model.save_pretrained(target)
        saved = (target / "adapter_model.safetensors").is_file()
        try:
            again = PeftModel.from_pretrained(base(name), target).eval()
            loaded = str(torch.allclose(again(images), model(images), atol=1e-5))
        except KeyError as error:
            loaded = f"False ({type(error).__name__})"
    told = f"no gradient for {idle}, saved {saved}, loaded {loaded}, {len(caught)} warnings"
    print(f"{name}: {told}")
PYTHON

expected="vit_tiny_patch16_224: no gradient for [], saved True, loaded True, 0 warnings
swin_tiny_patch4_window7_224: no gradient for [], saved True, loaded True, 0 warnings
convnext_tiny: no gradient for ['head.norm'], saved True, loaded False (KeyError), 0 warnings"
seen=$("$place/venv/bin/python" "$place/nested.py" "$place" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
