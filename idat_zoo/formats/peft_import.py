"""A LoRA that PEFT trained on a timm ViT, as a checkpoint of ours.

PEFT's A and B of the fused qkv are our LoRA with the same A for q, k and v, and the rows of B that
belong to each. What a column of B adds to none of them is left out, so that an adapter of ours that
was exported comes back with its own tensors; unlike ranks are padded with zeros to the largest.

Shape letters: D width, R rank, K classes.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from idat_zoo import files
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.base import Anatomy
from idat_zoo.adapters.lora import ROWS
from idat_zoo.backbones.frozen import describe_anatomy, load_backbone
from idat_zoo.backbones.network import build_network
from idat_zoo.checkpoint import write_checkpoint
from idat_zoo.errors import CheckpointError
from idat_zoo.formats.peft_lora import CONFIG_FILE, PREFIX, TENSORS_FILE
from idat_zoo.recipe import Backbone, Recipe, Scalar, Task, check_recipe, describe_faults
from idat_zoo.run_folder import recipe_hash

PICKLE_FILE = "adapter_model.bin"
SEED = 0  # nothing of an imported adapter is drawn
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
QKV = re.compile(re.escape(PREFIX) + r"blocks\.(\d{1,4})\.attn\.qkv\.lora_[AB]\.weight")
UPDATED = re.compile(re.escape(PREFIX) + r"(?:blocks\.\d{1,4}\.)?(.+)\.lora_[AB]\.weight")
HEAD = tuple(f"{PREFIX}head.{name}" for name in ("weight", "bias"))

STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the frozen weights as they are."""

OTHER_FORMS = {
    "fan_in_fan_out": "frozen weights lie transposed, as in no timm ViT",
    "use_dora": "DoRA also learns a magnitude of each row",
    "lora_bias": "B has a bias of its own",
    "alora_invocation_tokens": "only some tokens are updated",
    "layer_replication": "blocks are repeated",
    "target_parameters": "bare parameters are updated",
    "trainable_token_indices": "tokens are trained",
}
"""Keys of the configuration that, when set, make something else of LoRA."""

OF_NO_MATTER = {
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "runtime_config",
    "use_rslora",
    "alpha_pattern",
    "rank_pattern",
}
"""Keys that may hold `true` or a table without making something else of it, or are looked at."""


Rank = Annotated[int, Field(ge=1, le=16_384)]
Place = Annotated[str, Field(pattern=r"^\^?[\w.\\]*(?:\.\*)?[\w.\\]*\$?$")]
"""Names of modules as a regular expression, with one repetition at most: it cannot run for long."""


class PeftConfig(BaseModel):
    """What of adapter_config.json says how large the updates are."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    r: Rank = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    rank_pattern: dict[Place, Rank] | None = None
    alpha_pattern: dict[Place, float] | None = None

    def rank(self, block: int) -> int:
        """R of a block's update."""
        patterns = self.rank_pattern or {}
        return patterns.get(_pattern(patterns, block), self.r)

    def scale(self, block: int) -> float:
        """The factor on B A, as PEFT computes it."""
        rank, patterns = self.rank(block), self.alpha_pattern or {}
        alpha = patterns.get(_pattern(patterns, block), self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _pattern(patterns: Iterable[str], block: int) -> str:
    """The first pattern that is the name of a block's qkv, or ends it; '' if none is."""
    name = f"blocks.{block}.attn.qkv"
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", name)), "")


def import_peft(
    source: Path, folder: Path, *, backbone: Backbone, task: Task, normalisation: str = "model"
) -> Recipe:
    """Write a PEFT folder's adapter as a checkpoint, and return the recipe it is given.

    That says `protocol = "imported"`: how the adapter was trained is not known.

    Raises: CheckpointError with every reason why it is not the same function in our form;
    RecipeError for an unknown normalisation; what `load_backbone` and `whole_folder` raise.
    """
    document, tensors = _read_config(source), _read_tensors(source)
    anatomy = describe_anatomy(backbone)
    faults = [*_other_forms(document), *_names_amiss(tensors, anatomy, backbone)]
    try:
        config = PeftConfig.model_validate(document)
    except ValidationError as error:
        faults += describe_faults(error, where=CONFIG_FILE)
    else:
        faults += _first(_values_amiss(tensors, config, anatomy, task))
    if faults:
        raise CheckpointError(
            f"'{source}' cannot be imported:\n  " + "\n  ".join(faults),
            hint="What can be: plain LoRA on attn.qkv of every block, with the head saved beside "
            'it (modules_to_save=["head"]).',
        )
    options, ours = _as_ours(config, tensors, anatomy.depth)
    recipe = check_recipe(
        {
            "pair": {"name": backbone.name, "student": backbone},
            "task": task,
            "adapter": {"name": "lora", "options": options},
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
    with torch.no_grad():
        for name, tensor in network.published().items():
            tensor.copy_(ours[name])
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


def _read_config(source: Path) -> dict[str, Any]:
    path = source / CONFIG_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"'{source}' holds no {CONFIG_FILE}: not a folder that PEFT wrote."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"'{path}' is not a configuration of PEFT: expected an object.")
    return document


def _read_tensors(source: Path) -> dict[str, Tensor]:
    path = source / TENSORS_FILE
    if not path.is_file() and (source / PICKLE_FILE).is_file():
        raise CheckpointError(
            f"'{source}' holds {PICKLE_FILE}, a pickle, which is not opened; {TENSORS_FILE} was "
            "expected.",
            hint="Whoever trusts it can save it anew: PeftModel's save_pretrained(DIR) writes "
            "safetensors.",
        )
    try:
        return files.parse_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(
            f"'{path}' is damaged or a pickle: {error}.", hint="Ask for a safetensors file."
        ) from None


def _other_forms(document: Mapping[str, Any]) -> Iterator[str]:
    """What makes something else of it than plain LoRA, one sentence each."""
    kind, bias = document.get("peft_type"), document.get("bias", "none")
    if kind != "LORA":
        yield f"{CONFIG_FILE}: peft_type is {kind!r}; 'LORA' was expected"
    if bias != "none":
        yield f"{CONFIG_FILE}: bias is {bias!r}: biases of the backbone are trained as well"
    start = document.get("init_lora_weights", True)
    if start not in STARTS:
        yield (
            f"{CONFIG_FILE}: init_lora_weights is {start!r}, which may change the frozen weights; "
            "PEFT can save it as a plain LoRA (path_initial_model_for_weight_conversion)"
        )
    for key, value in document.items():
        if key in OTHER_FORMS:
            if value:
                yield f"{CONFIG_FILE}: {key} is set: {OTHER_FORMS[key]}"
        elif key not in OF_NO_MATTER and (value is True or (isinstance(value, dict) and value)):
            # PEFT switches its variants of LoRA on by `use_… = true` or a table
            yield f"{CONFIG_FILE}: {key} is set, which may be another form of LoRA"


def _names_amiss(
    tensors: Mapping[str, Tensor], anatomy: Anatomy, backbone: Backbone
) -> Iterator[str]:
    """Tensors that are missing, or that we have no place for."""
    adapted = {int(found[1]) for name in tensors if (found := QKV.fullmatch(name))}
    others = sorted(name for name in tensors if not QKV.fullmatch(name) and name not in HEAD)
    targets = {found[1]: None for name in others if (found := UPDATED.fullmatch(name))}
    strange = [name for name in others if not UPDATED.fullmatch(name)]
    if targets:
        yield f"it updates {', '.join(targets)}; only attn.qkv has a place here"
    if strange:
        yield f"no place for the tensors {', '.join(_first(strange))}"
    missing = sorted(set(range(anatomy.depth)) - adapted)
    beyond = sorted(adapted - set(range(anatomy.depth)))
    if missing:
        yield f"no LoRA on attn.qkv of {_blocks(missing)}; every block was expected to have one"
    if beyond:
        yield f"it updates {_blocks(beyond)}; backbone '{backbone.name}' has {anatomy.depth} blocks"
    for block in sorted(adapted):
        yield from (f"no {name}" for name in _names(block) if name not in tensors)
    for name in HEAD:
        if name not in tensors:
            yield f"no {name}: train with modules_to_save=['head']"


def _first(told: Iterable[str]) -> list[str]:
    """Four of them, and how many more there are: those of a wrong backbone are very many."""
    told = list(told)
    return told[:4] + ([f"and {len(told) - 4} more"] if len(told) > 4 else [])


def _blocks(numbers: list[int]) -> str:
    return ("block " if len(numbers) == 1 else "blocks ") + ", ".join(map(str, numbers))


def _values_amiss(
    tensors: Mapping[str, Tensor], config: PeftConfig, anatomy: Anatomy, task: Task
) -> Iterator[str]:
    """Tensors of another type or shape than the backbone, the task and the ranks ask for."""
    width = anatomy.embed_dim
    try:
        ranks = [config.rank(block) for block in range(anatomy.depth)]
        _ = [config.scale(block) for block in range(anatomy.depth)]
    except re.error as error:
        yield f"{CONFIG_FILE}: rank_pattern or alpha_pattern is no regular expression: {error}"
        return
    expected = dict(zip(HEAD, ((task.num_classes, width), (task.num_classes,)), strict=True))
    for block, rank in enumerate(ranks):
        expected |= dict(zip(_names(block), ((rank, width), (3 * width, rank)), strict=True))
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            yield f"{name} is {list(tensor.shape)}; expected {list(shape)}"
        elif tensor.dtype not in FLOATS:
            yield f"{name} is {str(tensor.dtype).removeprefix('torch.')}; expected floats"
        elif not tensor.isfinite().all():
            yield f"{name} holds values that are not finite"


def _names(block: int) -> tuple[str, str]:
    place = f"{PREFIX}blocks.{block}.attn.qkv"
    return f"{place}.lora_A.weight", f"{place}.lora_B.weight"


def _as_ours(
    config: PeftConfig, tensors: Mapping[str, Tensor], depth: int
) -> tuple[dict[str, Scalar], dict[str, Tensor]]:
    """Options of our LoRA, and its tensors and the head's by the names of a checkpoint."""
    scales = [config.scale(block) for block in range(depth)]
    scale = scales[0] if len(set(scales)) == 1 and scales[0] > 0 else 1.0
    updates: dict[str, tuple[Tensor, Tensor]] = {}
    for block, own in enumerate(scales):
        down, up = (tensors[name].float() for name in _names(block))
        if own != scale:
            up = own * up
        for rows, part in zip(ROWS, up.chunk(3), strict=True):
            acting = part.any(dim=0)
            updates[f"blocks.{block}.{rows}"] = down[acting], part[:, acting]
    rank = max(1, *(len(down) for down, _ in updates.values()))
    key = any(len(down) for name, (down, _) in updates.items() if name.endswith("key"))
    ours = {f"head.{name.rpartition('.')[2]}": tensors[name].float() for name in HEAD}
    for name, (down, part) in updates.items():
        if key or not name.endswith("key"):
            missing = rank - len(down)
            ours[f"adapter.{name}.down.weight"] = F.pad(down, (0, 0, 0, missing))
            ours[f"adapter.{name}.up.weight"] = F.pad(part, (0, missing))
    return {"rank": rank, "scale": scale, **({"key": True} if key else {})}, ours
