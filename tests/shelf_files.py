"""Shelves written by hand, for the tests of the registry."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Recipe
from idat_zoo.registry import load_registry

RELEASED = {  # task: lr, weight decay, drop path; facts/vtab_and_peers.md 3.1
    "cifar100": (5e-3, 5e-5, 0.0),
    "caltech101": (1e-3, 5e-2, 0.1),
    "dtd": (5e-3, 5e-5, 0.0),
    "flowers102": (5e-3, 5e-5, 0.0),
    "pets": (5e-3, 5e-5, 0.0),
    "svhn": (1e-2, 5e-5, 0.0),
    "sun397": (5e-3, 5e-5, 0.0),
    "patch_camelyon": (5e-3, 5e-5, 0.0),
    "eurosat": (3e-3, 5e-2, 0.2),
    "resisc45": (2e-3, 5e-5, 0.1),
    "diabetic_retinopathy": (5e-3, 5e-5, 0.2),
    "clevr_count": (2e-3, 5e-2, 0.1),
    "clevr_dist": (5e-2, 5e-2, 0.1),
    "dmlab": (5e-3, 5e-5, 0.1),
    "kitti": (1e-2, 5e-5, 0.0),
    "dsprites_loc": (1e-2, 5e-5, 0.0),
    "dsprites_ori": (5e-3, 5e-5, 0.2),
    "smallnorb_azi": (2e-2, 5e-5, 0.1),
    "smallnorb_ele": (5e-3, 5e-2, 0.2),
}


def write_shelf(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def faults_of(folder: Path, files: Mapping[str, str]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_registry(write_shelf(folder, files))
    return caught.value.faults


def rows(recipe: Recipe) -> tuple[float, float, float]:
    return recipe.lr, recipe.weight_decay, recipe.drop_path


OWN = {
    "backbones.toml": '[mine]\ntimm = "vit_tiny_patch16_224"\nweights = "random"\n',
    "pairs.toml": '[mine]\nteacher = "vit_ti"\nstudent = "mine"\n',
    "tasks.toml": (
        '[pet]\nsuite = "vtab1k"\ngroup = "natural"\nnum_classes = 3\nnum_test = [9]\n'
        'pair = "mine"\nfolder = "pet"\n'
    ),
    "recipes/mine.toml": (
        'extends = "vit_s_to_vit_b"\n[defaults]\nepochs = 20\n'
        "[adapter.lora]\noptions = { rank = 2 }\nlr = 2e-3\n"
        "[task.pet]\nlr = 3e-3\nbatch_size = 32\n"
        '[override.both]\nadapters = ["lora"]\ntasks = ["pet"]\nlr = 4e-3\n'
    ),
}
