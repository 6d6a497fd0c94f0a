"""The values of a backbone that its pretrained weights determine."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from shelf_files import faults_of, write_shelf

from idat_zoo.recipe import Backbone
from idat_zoo.registry import Registry, differences, load_registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def backbone_of(folder: Path, **fields: Any) -> Backbone:
    shelf = write_shelf(folder, {"backbones.toml": tomli_w.dumps({"mine": fields})})
    return load_registry(shelf).find_backbone("mine")


@pytest.mark.parametrize(
    ("timm", "weights", "values"),
    [
        ("deit_base_patch16_224", "fb_in1k", (224, *IMAGENET)),
        ("vit_small_patch14_dinov2", "lvd142m", (518, *IMAGENET)),
        ("vit_base_patch16_clip_224", "openai", (224, *OPENAI)),
        ("vit_base_patch16_384", "augreg_in21k_ft_in1k", (384, *HALF)),
        ("vit_base_patch16_224", "random", (224, *HALF)),
    ],
)
def test_what_a_backbone_leaves_out_is_what_its_weights_were_trained_with(
    tmp_path: Path, timm: str, weights: str, values: tuple[Any, ...]
) -> None:
    found = backbone_of(tmp_path, timm=timm, weights=weights)
    assert (found.img_size, found.mean, found.std) == values
    assert differences(found) == []
    if weights != "random":
        asked = backbone_of(tmp_path, timm=timm, weights=weights, img_size="native")
        assert asked == found


def test_what_a_backbone_says_is_kept_and_differences_are_told(tmp_path: Path) -> None:
    dino = {"timm": "vit_small_patch14_dinov2", "weights": "lvd142m"}
    own = backbone_of(tmp_path, **dino, img_size=224, mean=[0.5, 0.5, 0.5])
    assert (own.img_size, own.mean, own.std) == (224, HALF[0], IMAGENET[1])
    assert differences(own) == [
        "backbone 'mine': img_size is 224; vit_small_patch14_dinov2.lvd142m was trained with 518",
        "backbone 'mine': mean is 0.5, 0.5, 0.5; vit_small_patch14_dinov2.lvd142m was trained with "
        "0.485, 0.456, 0.406",
    ]


def test_backbones_that_ship_are_given_what_timm_says_and_stay_as_they_were(
    registry: Registry,
) -> None:
    told = {name for name, backbone in registry.backbones.items() if differences(backbone)}
    assert told == {"dinov2_s", "dinov2_b", "dinov2_reg_s", "dinov2_reg_b"}  # 224, not 518
    for name in ("vit_ti", "vit_s", "vit_b", "vit_b_orig", "vit_l"):
        backbone = registry.backbones[name]
        assert (backbone.img_size, backbone.mean, backbone.std) == (224, *HALF)
    dino = registry.backbones["dinov2_b"]
    assert (dino.img_size, dino.mean) == (224, (0.485, 0.456, 0.406))
    assert registry.backbones["dinov3_s"].img_size == 256


@pytest.mark.parametrize(
    ("timm", "weights", "told"),
    [
        ("vit_small_patch14_dinov2", "lvd142", "'lvd142'. Did you mean 'lvd142m'?"),
        ("vit_smal_patch16_224", "augreg_in21k", "Did you mean 'vit_small_patch16_224'"),
    ],
)
def test_weights_that_timm_has_not_need_every_value(
    tmp_path: Path, timm: str, weights: str, told: str
) -> None:
    table = {"timm": timm, "weights": weights, "img_size": 64}
    (fault,) = faults_of(tmp_path, {"backbones.toml": tomli_w.dumps({"mine": table})})
    assert told in fault
    assert "has to say img_size, mean and std itself" in fault
    assert backbone_of(tmp_path, **table, mean=[0, 0, 0], std=[1, 1, 1]).img_size == 64


def test_a_size_of_another_type_is_refused(tmp_path: Path) -> None:
    for size, weights in (("large", "lvd142m"), ("native", "random"), (22.4, "lvd142m")):
        table = {"timm": "vit_small_patch14_dinov2", "weights": weights, "img_size": size}
        (fault,) = faults_of(tmp_path, {"backbones.toml": tomli_w.dumps({"mine": table})})
        assert "[mine]: img_size: must be a whole number" in fault
