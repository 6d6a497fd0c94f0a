"""The two micro backbones that ship: `micro_teacher` and `micro_student`, and how they were made.

`formulas` draws images and labels from formulas (glyphs, contours, scenes and textures, a module
each), `pretrain` trains both networks on them and writes the two safetensors files, and
`micro.json` records the training. No image of any task is used.

The shipped pair was resumed with a new `--images` at blocks 400 and 1,600, and its first 400
blocks ran under a cosine (from 2e-3 to 1.92e-3) where `pretrain` now holds the rate constant: a
fresh run of 614,400 images is the same recipe up to that, not the same bits.
"""
