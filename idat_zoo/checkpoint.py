"""A published adapter: adapter_model.safetensors and config.json, written and read with checks."""

import json
import math
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from pydantic import NonNegativeInt, Strict, ValidationError
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.frozen import FrozenBackbone, describe_anatomy, load_backbone
from idat_zoo.backbones.inputs import check_inputs
from idat_zoo.backbones.network import (
    Network,
    build_network,
    check_carries,
    input_range,
    published_names,
)
from idat_zoo.backbones.pair import Role
from idat_zoo.data.image_file import prepare
from idat_zoo.errors import CheckpointError, InputError, UnknownNameError
from idat_zoo.hub import HubReference, fetch, parse_reference, resolve
from idat_zoo.outside import ADAPTERS_GROUP, warn_if_changed
from idat_zoo.randomness import generator
from idat_zoo.recipe import AdapterChoice, Backbone, Below, Frozen, Recipe, Rgb, describe_faults
from idat_zoo.results import versions

Reference = str | Path | HubReference
Model = TypeVar("Model", bound=Frozen)

SCHEMA_VERSION = 1
TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "config.json"
BUILTIN = "builtin:"
PROBE_IMAGES = 8
MOST_HEADER = 2**20
"""Bytes of a tensor file beside its tensors' own; names and shapes of the deepest ViT take less."""
MOST_ITEM = 16
"""Bytes of one number of any type."""
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # first bytes


class TensorSpec(Frozen):
    """What a tensor must look like."""

    dtype: str
    shape: Annotated[tuple[NonNegativeInt, ...], Strict(False)]

    @property
    def num_bytes(self) -> int:
        """What it takes in a file, at most."""
        return math.prod(self.shape) * (4 if self.dtype == "float32" else MOST_ITEM)


class Config(Frozen):
    """What is needed to load an adapter, and the recipe and seed that made it.

    `mean` and `std` normalise pixels scaled to [0, 1]; they follow from the recipe and stand here
    for readers without idat-zoo. `diverged` is there where the training did.
    """

    schema_version: int = SCHEMA_VERSION
    library: Literal["idat-zoo"] = "idat-zoo"
    library_version: str
    role: Role
    recipe: Recipe
    recipe_hash: str
    seed: int
    backbone_sha256: str
    mean: Rgb
    std: Rgb
    tensors: dict[str, TensorSpec]
    tensors_sha256: str
    diverged: bool = False

    @property
    def backbone(self) -> Backbone:
        """The backbone this network stands on."""
        pair = self.recipe.pair
        if self.role == "student":
            return pair.student
        if pair.teacher is None:
            raise CheckpointError("this config is of a teacher, but its recipe has none.")
        return pair.teacher

    @property
    def adapter(self) -> AdapterChoice:
        """The adapter of this network."""
        if self.role == "student" or self.recipe.teacher_adapter is None:
            return self.recipe.adapter
        return self.recipe.teacher_adapter


class Entry(Frozen):
    """One of several checkpoints of a repository."""

    task: str
    seed: int
    recipe_hash: str


class Index(Frozen):
    """The config.json above several checkpoints, each by its folder's path from there."""

    schema_version: int = SCHEMA_VERSION
    library: Literal["idat-zoo"] = "idat-zoo"
    checkpoints: dict[Below, Entry]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An adapter on its backbone, and what its config says of it."""

    network: Network
    config: Config


@dataclass(frozen=True)
class Transform:
    """PIL image to uint8 `[3, img_size, img_size]`, just as the images of tasks are prepared."""

    img_size: int

    def __call__(self, image: Image.Image) -> UInt8[Tensor, "3 S S"]:
        """The network normalises by itself.

        Raises: UnreadableImageError for floating-point pixels, whose range is not known; InputError
        for what is no PIL image.
        """
        if not isinstance(image, Image.Image):
            raise InputError(
                f"a transform takes a PIL image; got {type(image).__name__}.",
                hint="Of a path: Image.open(path); of a uint8 array: Image.fromarray(array)",
            )
        return torch.from_numpy(prepare(image, self.img_size).transpose(2, 0, 1).copy())


def write_checkpoint(
    folder: Path,
    network: Network,
    recipe: Recipe,
    *,
    role: Role,
    recipe_hash: str,
    seed: int,
    diverged: bool = False,
) -> None:
    """Write both files. The same network and recipe give the same bytes."""
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
        tensors={name: _spec(tensors[name]) for name in sorted(tensors)},
        tensors_sha256=files.sha256(folder / TENSORS_FILE),
        diverged=diverged,
    )
    fields = config.model_dump(mode="json", exclude_none=True)
    if not diverged:
        del fields["diverged"]  # the same bytes as before there was such a field
    files.write_whole(folder / CONFIG_FILE, files.dump_json(fields))


def load_checkpoint(reference: Reference, *, backbone: FrozenBackbone | None = None) -> Checkpoint:
    """Load an adapter onto its backbone, on CPU in float32.

    `reference` is a folder that holds both files, `builtin:NAME`, or
    `hub:ORG/NAME[@REVISION][/SUBFOLDER]`. Only safetensors are read. With a `backbone` that is
    loaded already, the adapter stands on that one.

    Raises: CheckpointError where a file is missing, damaged, of a newer schema, or does not fit
    its config; UnknownNameError for a built-in that does not exist; HubError; and what loading the
    backbone raises.
    """
    folder = find_folder(reference)
    config = read_config(folder)
    _check_fit(config, folder)
    adapter = config.adapter
    warn_if_changed("adapter", adapter.name, adapter.plugin, group=ADAPTERS_GROUP)
    tensors = _read_tensors(folder / TENSORS_FILE, config)
    backbone = backbone or load_backbone(config.backbone)
    if backbone.sha256 != config.backbone_sha256:
        raise CheckpointError(
            f"'{folder}' was trained on other weights of backbone '{config.backbone.name}': "
            f"expected {config.backbone_sha256[:12]}…, these are {backbone.sha256[:12]}….",
            hint="An adapter works on the very weights it was trained on.",
        )
    network = build_network(
        backbone,
        build_adapter(adapter),
        num_classes=config.recipe.task.num_classes,
        normalisation=config.recipe.normalisation,
        seed=config.seed,
        role=config.role,
    )
    network.fill(tensors)
    network.class_names = config.recipe.task.class_names
    return Checkpoint(network=network.eval(), config=config)


def load(reference: Reference) -> tuple[Network, Transform]:
    """A trained network as `nn.Module`, and the transform that prepares a PIL image for it.

    Logits `[B, K]` of uint8 images `[B, 3, S, S]`, as the transform gives them, or of floats that
    are normalised already (`network.normalise`). Anything else raises InputError, a TypeError:
    paths, PIL images, arrays, floats of 0 to 255. Floats of 0 to 1 look like normalised ones where
    mean and std are 0.5; make them uint8. `network.class_names` are `()` where they are not known;
    `network.num_classes` is K.

    Raises: what `load_checkpoint` raises.
    """
    checkpoint = load_checkpoint(reference)
    check_inputs(checkpoint.network)
    return checkpoint.network, Transform(checkpoint.config.backbone.img_size)


def builtin_names() -> list[str]:
    """The checkpoints that ship, as `builtin:NAME` names them."""
    shipped = resources.files("idat_zoo.builtin")
    return sorted(entry.name for entry in shipped.iterdir() if (entry / CONFIG_FILE).is_file())


def pin(reference: Reference) -> Reference:
    """A place on the Hub at the commit that it is now; other references as they are.

    Raises: UsageError for what begins like a place on the Hub and is none; HubError.
    """
    if isinstance(reference, str):
        reference = parse_reference(reference) or reference
    return resolve(reference) if isinstance(reference, HubReference) else reference


def find_folder(reference: Reference, *names: str) -> Path:
    """The folder a reference names; of a place on the Hub, files of these names are fetched.

    Without names, both files of a checkpoint. Raises: UnknownNameError, CheckpointError; what `pin`
    raises.
    """
    reference = pin(reference)
    if isinstance(reference, HubReference):
        folder = fetch(reference, names or (CONFIG_FILE, TENSORS_FILE))
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"'{reference}' holds no {CONFIG_FILE}: not a checkpoint.")
        return folder
    text = str(reference)
    if text.startswith(BUILTIN):
        name = text.removeprefix(BUILTIN)
        if name not in builtin_names():
            raise UnknownNameError("built-in checkpoint", name, builtin_names())
        return Path(str(resources.files("idat_zoo.builtin") / name))
    folder = Path(reference)
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no checkpoint folder '{folder}'.",
            hint="Give a run's folder, hub:ORG/NAME, or one that ships: "
            + ", ".join(BUILTIN + name for name in builtin_names()),
        )
    return folder


def find_config(reference: Reference) -> Config:
    """What a checkpoint says of itself; of one on the Hub, only that is fetched.

    Raises: what `find_folder` and `read_config` raise.
    """
    return read_config(find_folder(reference, CONFIG_FILE))


def find_checkpoints(reference: Reference) -> dict[str, Path | HubReference]:
    """Every student's checkpoint at or below a reference, by its path from there ('.': itself).

    An index says where they are; without one, folders are searched.

    Raises: what `find_folder` raises; CheckpointError where there is none.
    """
    reference = pin(reference)
    root = _root_of(reference)

    def place(below: str) -> Path | HubReference:
        if isinstance(reference, HubReference):
            return replace(reference, subfolder=f"{reference.subfolder}/{below}".strip("/."))
        return root / below

    if (root / CONFIG_FILE).is_file():
        index = read_index(root)
        return {below: place(below) for below in index.checkpoints} if index else {".": place("")}
    students = [
        path.parent.relative_to(root).as_posix()
        for path in sorted(root.rglob(CONFIG_FILE))
        if read_config(path.parent).role == "student"
    ]
    if not students:
        raise CheckpointError(f"'{reference}' holds no {CONFIG_FILE}: not a checkpoint.")
    return {below: place(below) for below in students}


def _root_of(reference: Reference) -> Path:
    """The folder to look for checkpoints in, with the configs that it has."""
    if not isinstance(reference, HubReference):
        return find_folder(reference)
    folder = fetch(reference, (CONFIG_FILE,))
    if not (folder / CONFIG_FILE).is_file():
        folder = fetch(reference, (CONFIG_FILE,), below=True)
    return folder


def read_config(folder: Path) -> Config:
    """The checked config.json of a folder. Raises: CheckpointError."""
    path = folder / CONFIG_FILE
    document = _read_document(path)
    if "checkpoints" in document:
        raise CheckpointError(f"'{folder}' holds several checkpoints; name one of its folders.")
    return _checked(Config, document, path)


def read_index(folder: Path) -> Index | None:
    """The index in a folder's config.json; None where that is a checkpoint's own.

    Raises: CheckpointError.
    """
    path = folder / CONFIG_FILE
    document = _read_document(path)
    return _checked(Index, document, path) if "checkpoints" in document else None


def _read_document(path: Path) -> dict[str, Any]:
    """A JSON document of a schema that is known. Raises: CheckpointError."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"'{path.parent}' holds no {path.name}: not a checkpoint.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"'{path}' is not a config of idat-zoo: it has no schema_version.")
    if version > SCHEMA_VERSION:
        raise CheckpointError(
            f"'{path}' has schema {version}; this idat-zoo reads up to {SCHEMA_VERSION}.",
            hint="Upgrade idat-zoo.",
        )
    return dict(document)


def _checked(model: type[Model], document: dict[str, Any], path: Path) -> Model:
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise CheckpointError("\n  ".join(describe_faults(error, where=str(path)))) from None


def probe_logits(network: Network) -> Float32[Tensor, "8 K"]:
    """Float32 CPU logits of the probe images: what every reload must reproduce."""
    with torch.inference_mode():
        logits: Tensor = network.eval()(probe_images(network))
    return logits


def probe_images(network: Network) -> UInt8[Tensor, "8 3 S S"]:
    """Eight fixed images of noise at the network's input size."""
    size = network.backbone.spec.img_size
    source = generator(0, "probe", "images")
    shape = (PROBE_IMAGES, 3, size, size)
    return torch.randint(256, shape, generator=source, dtype=torch.uint8)


def _check_fit(config: Config, folder: Path) -> None:
    """Refuse a config whose tensors are not those of its adapter and head, before any is there.

    Raises: CheckpointError; UnknownNameError and RecipeError for no such adapter; UsageError for no
    such backbone.
    """
    anatomy, adapter = describe_anatomy(config.backbone), build_adapter(config.adapter)
    check_carries(anatomy, adapter, config.backbone.name)
    with torch.device("meta"):  # where nothing is drawn
        created = adapter.create(anatomy, generator(config.seed, config.role, "adapter"))
        head = nn.Linear(anatomy.num_features, config.recipe.task.num_classes)
    expected = published_names({**created.trainable, **created.frozen}, head)
    found = config.tensors
    differing = sorted(
        name
        for name in expected.keys() | found.keys()
        if name not in expected or _spec(expected[name]) != found.get(name)
    )
    if differing:
        raise CheckpointError(
            f"the tensors of '{folder}' do not fit its adapter: {', '.join(differing[:4])}."
        )


def _read_tensors(path: Path, config: Config) -> dict[str, Tensor]:
    """The file's tensors, if it is the very file the config speaks of."""
    declared = sum(spec.num_bytes for spec in config.tensors.values())
    try:
        size = path.stat().st_size
        if size > declared + MOST_HEADER:
            raise CheckpointError(
                f"'{path}' has {size:,} bytes; the tensors its config names take {declared:,}."
            )
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from None
    tensors = read_tensors(content, path)
    found = {name: _spec(tensor) for name, tensor in tensors.items()}
    if found != config.tensors:
        differing = sorted(
            name
            for name in found.keys() | config.tensors.keys()
            if found.get(name) != config.tensors.get(name)
        )
        raise CheckpointError(
            f"'{path}' does not hold the tensors its config names: {', '.join(differing[:4])}."
        )
    if files.sha256(path) != config.tensors_sha256:
        raise CheckpointError(f"'{path}' is not the file its config was written for (SHA-256).")
    return tensors


def read_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes. Raises: CheckpointError, which names the path."""
    try:
        return files.parse_tensors(content)
    except ValueError as error:
        if content[:2] not in PICKLES:  # such first bytes alone may be a safetensors header's size
            raise CheckpointError(f"'{path}' is damaged: {error}") from None
        raise CheckpointError(
            f"'{path}' is a pickle (torch.save), not safetensors; it is not opened.",
            hint="Pickles can run code when they are read. Ask for a safetensors file.",
        ) from None


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))
