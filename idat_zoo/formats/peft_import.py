"""The import of an adapter that PEFT trained on one of timm's networks, as a checkpoint of ours.

A plain LoRA of q, k and v becomes our family `lora` (`peft_as_lora.py`); any other tuner becomes
our family `peft` (`peft_tuners.py`). If timm reads `qkv.weight` past its module, what PEFT trained
there had no effect but would be merged all the same: such an adapter is refused.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from idat_zoo import files
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.peft import Peft
from idat_zoo.adapters.peft_targets import Noted
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import describe_anatomy, load_backbone
from idat_zoo.backbones.kinds import load_kind
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.errors import CheckpointError, RecipeError
from idat_zoo.formats.peft_as_lora import Taken, as_lora, becomes_ours
from idat_zoo.formats.peft_faults import head_names, heads_amiss, networks_amiss, tensors_amiss
from idat_zoo.formats.peft_folder import CONFIG_FILE, read_config, read_tensors
from idat_zoo.formats.peft_modules import classifier, two_classifiers
from idat_zoo.formats.peft_tuners import as_floats, choice_of
from idat_zoo.recipe import Backbone, Recipe, Task, check_recipe, describe_faults
from idat_zoo.recipe_hash import recipe_hash

SEED = 0  # nothing of an imported adapter is drawn


def import_peft(
    source: Path, folder: Path, *, backbone: Backbone, task: Task, normalisation: str = "model"
) -> Recipe:
    """Write a PEFT folder's adapter as a checkpoint, and return the recipe made for it.

    The recipe has `protocol = "imported"`, because how the adapter was trained is not known.

    Raises: CheckpointError with every reason why it is not the same function here; UsageError where
    it needs PEFT, which is not installed; RecipeError for an unknown normalisation; what
    `load_backbone` and `whole_folder` raise.
    """
    document, tensors = read_config(source), read_tensors(source)
    anatomy = describe_anatomy(backbone)
    kind = load_kind(anatomy.kind)(anatomy.body)
    reason = two_classifiers(kind.body)
    if reason:
        raise _cannot_stand(source, backbone, reason)
    if becomes_ours(document, kind, backbone.img_size):
        choice, ours, faults = as_lora(document, tensors, kind, backbone, task)
    else:
        choice, ours, faults = _as_tuner(document, tensors, anatomy, backbone, task)
        reason = "" if choice is None else build_adapter(choice).misfit(anatomy)
        if reason:
            raise _cannot_stand(source, backbone, reason)
    if faults or choice is None:
        raise CheckpointError(
            f"'{source}' cannot be imported:\n  " + "\n  ".join(faults),
            hint="What can be: any tuner of PEFT that fits timm's network, with the head saved "
            f'beside it (modules_to_save=["{classifier(kind.body)}"]).',
        )
    recipe = check_recipe(
        {
            "pair": {"name": backbone.name, "student": backbone},
            "task": task,
            "adapter": choice,
            "distillation": "none",
            "protocol": "imported",
            "normalisation": normalisation,
        },
        where="idat import",
    )
    network = build_network(
        load_backbone(backbone),
        build_adapter(recipe.adapter),
        num_classes=task.num_classes,
        normalisation=normalisation,
        seed=SEED,
        role="student",
    )
    network.fill(ours)
    # Two adapters trained elsewhere may share all that is known of them, and are not one recipe.
    known = recipe_hash(recipe).encode() + files.dump_tensors(network.published())
    with files.whole_folder(folder) as place:
        write_checkpoint(
            place,
            network,
            recipe,
            role="student",
            recipe_hash=hashlib.sha256(known).hexdigest(),
            seed=SEED,
        )
    return recipe


def _cannot_stand(source: Path, backbone: Backbone, reason: str) -> CheckpointError:
    return CheckpointError(
        f"'{source}' cannot be imported on backbone '{backbone.name}': {reason}.",
        hint="What can be adapted there is trained with `idat train`.",
    )


def _as_tuner(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    anatomy: Anatomy,
    backbone: Backbone,
    task: Task,
) -> Taken:
    head = head_names(classifier(anatomy.body))
    faults: list[str] = []
    try:
        faults += networks_amiss(Noted.model_validate(document), anatomy.body, backbone)
        choice = choice_of(document, anatomy, where=CONFIG_FILE)
    except ValidationError as error:
        faults += describe_faults(error, where=CONFIG_FILE)
    except RecipeError as error:
        faults += error.faults
    else:
        adapter = build_adapter(choice)
        assert isinstance(adapter, Peft)
        if not faults and adapter.misfit(anatomy):
            return choice, {}, []
        faults += tensors_amiss(adapter, anatomy, tensors, head, task)
        if not faults:
            ours = {f"adapter.{name}": as_floats(own) for name, own in tensors.items()}
            ours |= {f"head.{name.rpartition('.')[2]}": tensors[name].float() for name in head}
            return choice, ours, []
    return None, {}, [*faults, *heads_amiss(tensors, head)]
