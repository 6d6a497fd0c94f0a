"""The writing of a checkpoint: the same network and recipe give the same bytes."""

from pathlib import Path

from idat_zoo import files
from idat_zoo.backbones.build import input_range
from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import Role
from idat_zoo.candidates import combinations
from idat_zoo.checkpoint.config import CONFIG_FILE, Config
from idat_zoo.checkpoint.tensors import TENSORS_FILE, spec_of
from idat_zoo.recipe import Recipe
from idat_zoo.versions import versions


def write_checkpoint(
    folder: Path,
    network: Network | Ensemble,
    recipe: Recipe,
    *,
    role: Role,
    recipe_hash: str,
    seed: int,
    diverged: bool = False,
) -> None:
    """Write the tensor file and config.json. The same network and recipe give the same bytes.

    The members of an ensemble are those of the recipe's candidates, in their order.
    """
    tensors = network.published()
    files.write_whole(folder / TENSORS_FILE, files.dump_tensors(tensors))
    mean, std = input_range(network.backbone, recipe.normalisation)
    config = Config(
        library_version=versions()["idat-zoo"],
        role=role,
        recipe=recipe,
        recipe_hash=recipe_hash,
        seed=seed,
        backbone_sha256=network.backbone.sha256,
        mean=mean,
        std=std,
        tensors={name: spec_of(tensors[name]) for name in sorted(tensors)},
        tensors_sha256=files.sha256(folder / TENSORS_FILE),
        members=tuple(combinations(recipe)) if isinstance(network, Ensemble) else (),
        diverged=diverged,
    )
    fields = config.model_dump(mode="json", exclude_none=True)
    usual = {"diverged": diverged, "members": config.members}
    for name in (name for name, value in usual.items() if not value):
        del fields[name]  # so that older checkpoints of the same run have the same bytes
    files.write_whole(folder / CONFIG_FILE, files.dump_json(fields))
