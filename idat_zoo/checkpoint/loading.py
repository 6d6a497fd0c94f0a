"""The loading of a checkpoint: its adapter and head on the backbone that it was trained on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.build import build_network, check_carries
from idat_zoo.backbones.ensemble import Ensemble, member_name
from idat_zoo.backbones.frozen import FrozenBackbone, describe_anatomy, load_backbone
from idat_zoo.backbones.inputs import check_inputs
from idat_zoo.backbones.network import Network, published_names
from idat_zoo.backbones.without_compiler import without_compiler
from idat_zoo.checkpoint.config import Config
from idat_zoo.checkpoint.opened import Opened, Reference, open_checkpoint
from idat_zoo.checkpoint.tensors import read_own_tensors, spec_of
from idat_zoo.checkpoint.transform import Transform
from idat_zoo.errors import CheckpointError, UsageError
from idat_zoo.outside import ADAPTERS_GROUP, warn_if_changed
from idat_zoo.randomness import generator
from idat_zoo.recipe import Recipe
from idat_zoo.specs import AdapterSpec


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network, which is an adapter and a head on a backbone, and the config of its checkpoint.

    `network` may be an ensemble of several. `file` holds the network's published tensors; None for
    a network that was not loaded.
    """

    network: Network | Ensemble
    config: Config
    file: Path | None = None

    def single_network(self, what: str) -> Network:
        """The network, where `what` is done with a single one. Raises: UsageError for ensembles."""
        if isinstance(self.network, Ensemble):
            raise UsageError(
                f"this checkpoint is an ensemble of {len(self.network.members)} adapters, and "
                f"{what}.",
                hint="`idat eval`, `idat predict` and `idat publish` take it, and so do "
                "idat_zoo.load and AdapterPool.",
            )
        return self.network


def load_checkpoint(
    reference: Reference | Opened, *, backbone: FrozenBackbone | None = None
) -> Checkpoint:
    """Load an adapter onto its backbone, on CPU in float32.

    `reference` is a folder that holds both files, `builtin:NAME`,
    `hub:ORG/NAME[@REVISION][/SUBFOLDER]`, or a checkpoint that was opened. Only safetensors are
    read. A `backbone` that is loaded already is used in place of the one that the config names;
    it must have the same weights.

    Raises: CheckpointError where a file is missing, damaged, of a newer schema, or does not fit
    its config; UnknownNameError for a built-in that does not exist; HubError; and what loading the
    backbone raises.
    """
    opened = open_checkpoint(reference)
    config = opened.config
    _check_fit(opened)
    adapter = config.adapter
    warn_if_changed("adapter", adapter.name, adapter.plugin, group=ADAPTERS_GROUP)
    file = opened.find_tensors()
    tensors = read_own_tensors(file, config)
    backbone = backbone or load_backbone(config.backbone)
    if backbone.sha256 != config.backbone_sha256:
        raise CheckpointError(
            f"'{opened.folder}' was trained on other weights of backbone '{config.backbone.name}': "
            f"expected {config.backbone_sha256[:12]}…, these are {backbone.sha256[:12]}….",
            hint="An adapter works on the very weights it was trained on.",
        )
    names, networks = config.recipe.task.class_names, []
    for recipe in config.recipes:
        one = build_network(
            backbone,
            build_adapter(_adapter_of(config, recipe)),
            num_classes=recipe.task.num_classes,
            normalisation=recipe.normalisation,
            seed=config.seed,
            role=config.role,
        )
        one.class_names = names
        networks.append(one)
    network = Ensemble(networks) if config.members else networks[0]
    network.fill(tensors)
    network.class_names = names
    return Checkpoint(network=network.eval(), config=config, file=file)


def load(reference: Reference | Opened) -> tuple[Network | Ensemble, Transform]:
    """A trained network as `nn.Module`, and the transform that prepares a PIL image for it.

    The logits of an ensemble are log probabilities.

    The network gives logits `[B, K]` of uint8 images `[B, 3, S, S]`, as the transform makes them,
    or of floats that are normalised already (`network.normalise`). Anything else raises InputError,
    a TypeError: paths, PIL images, arrays, floats of 0 to 255. Floats of 0 to 1 cannot be told from
    normalised ones if mean and std are 0.5; convert them to uint8. `network.class_names` is `()` if
    the names are not known; `network.num_classes` is K.

    Raises: what `load_checkpoint` raises.
    """
    checkpoint = load_checkpoint(reference)
    check_inputs(checkpoint.network)
    return checkpoint.network, Transform(checkpoint.config.backbone.img_size)


def _adapter_of(config: Config, recipe: Recipe) -> AdapterSpec:
    """The adapter of a member, or of the single network."""
    return recipe.adapter if config.members else config.adapter


def _check_fit(opened: Opened) -> None:
    """Refuse a config whose tensors are not those of its adapter and head.

    Nothing of the tensor file is read for that.

    Raises: CheckpointError; UnknownNameError and RecipeError for no such adapter; UsageError for no
    such backbone.
    """
    config = opened.config
    anatomy, expected = describe_anatomy(config.backbone), dict[str, Tensor]()
    for number, recipe in enumerate(config.recipes):
        adapter = build_adapter(_adapter_of(config, recipe))
        check_carries(anatomy, adapter, config.backbone.name)
        with without_compiler(), torch.device("meta"):  # where nothing is drawn
            created = adapter.create(anatomy, generator(config.seed, config.role, "adapter"))
            head = nn.Linear(anatomy.num_features, config.recipe.task.num_classes)
        own = published_names({**created.trainable, **created.frozen}, head)
        if config.members:
            own = {member_name(number, name): tensor for name, tensor in own.items()}
        expected |= own
    found = config.tensors
    differing = sorted(
        name
        for name in expected.keys() | found.keys()
        if name not in expected or spec_of(expected[name]) != found.get(name)
    )
    if differing:
        raise CheckpointError(
            f"the tensors of '{opened.folder}' do not fit its adapter: {', '.join(differing[:4])}."
        )
