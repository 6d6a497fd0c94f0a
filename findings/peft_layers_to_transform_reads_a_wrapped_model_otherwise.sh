#!/usr/bin/env bash
# Library and version: peft 0.21.2 (timm 1.0.31, torch 2.14.1)
# Behaviour: without a layers_pattern, layers_to_transform looks for the first number in a module's name that
#   has at least two parts before it. timm's names begin with `blocks.` or `layers.`, so the number right
#   after is passed over: a ViT is refused, and on a Swin the number is that of the block in its stage. Once
#   the network is part of another module, the ViT is taken, and on the Swin the number is that of the stage:
#   other blocks get the LoRA, without a warning.
# What one would guess: the number means the same layers whether the network stands alone or is part of
#   another.
# Seen: (layers_to_transform=[1], target_modules=["qkv"])
#   ViT alone: NoMatchingPeftModuleError
#   ViT as vit: vit.blocks.1
#   Swin alone: layers.0.blocks.1, layers.1.blocks.1
#   Swin as swin: swin.layers.1.blocks.0, swin.layers.1.blocks.1
#   warnings: 0
# How to run: bash findings/peft_layers_to_transform_reads_a_wrapped_model_otherwise.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 timm==1.0.31 torch==2.14.1

cat > "$place/layers.py" <<'PYTHON'
import warnings

import timm
import torch
from peft import LoraConfig, get_peft_model

vit = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
swin = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 2, "img_size": 32}


def told(network):
    config = LoraConfig(target_modules=["qkv"], r=2, layers_to_transform=[1])
    try:
        names = get_peft_model(network, config).targeted_module_names
    except ValueError as error:
        return type(error).__name__
    return ", ".join(name.removesuffix(".attn.qkv") for name in names)


networks = {"ViT": ("vit_tiny_patch16_224", vit), "Swin": ("swin_tiny_patch4_window7_224", swin)}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for label, (name, shape) in networks.items():
        print(f"{label} alone:", told(timm.create_model(name, pretrained=False, **shape)))
        part = torch.nn.Module()
        part.add_module(label.lower(), timm.create_model(name, pretrained=False, **shape))
        print(f"{label} as {label.lower()}:", told(part))
print("warnings:", len(caught))
PYTHON

expected="ViT alone: NoMatchingPeftModuleError
ViT as vit: vit.blocks.1
Swin alone: layers.0.blocks.1, layers.1.blocks.1
Swin as swin: swin.layers.1.blocks.0, swin.layers.1.blocks.1
warnings: 0"
seen=$("$place/venv/bin/python" "$place/layers.py" 2> "$place/errors") || { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
