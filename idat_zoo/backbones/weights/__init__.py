"""The two micro backbones that ship: `micro_teacher` and `micro_student`, and how they were made.

`formulas` draws images and labels from formulas, `pretrain` trains both networks on them and
writes the two safetensors files, and `micro.json` says how it went. No image of any task is used.
"""
