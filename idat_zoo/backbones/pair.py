"""The pair of networks, student and teacher, and the frozen backbones that pairs share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.backbones.build import build_network, check_carries
from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.backbones.frozen import FrozenBackbone, describe_anatomy, load_backbone
from idat_zoo.backbones.network import Network
from idat_zoo.distillation import term_for
from idat_zoo.distillation.base import Output, Sizes
from idat_zoo.errors import UsageError
from idat_zoo.recipe import Backbone, Recipe
from idat_zoo.specs import AdapterSpec

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class NetworkPair:
    """The student, the larger network, and the smaller teacher (iDAT's inversion) or None."""

    student: Network
    teacher: Network | None

    def network(self, role: Role) -> Network:
        """The network of a role. The pair must have a teacher for the role `teacher`."""
        network = self.student if role == "student" else self.teacher
        assert network is not None, "there is no teacher"
        return network

    def roles(self) -> Iterator[tuple[Role, Network]]:
        """("student", network), then ("teacher", network) if there is one."""
        yield "student", self.student
        if self.teacher is not None:
            yield "teacher", self.teacher


class Backbones:
    """The frozen backbones on a device, each loaded once for all networks that use it.

    There is a separate copy for each number format, because frozen weights are cast in place.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: dict[tuple[str, str], FrozenBackbone] = {}

    def load(self, spec: Backbone, precision: str) -> FrozenBackbone:
        """The backbone for a number format, loaded if need be. Raises: as `load_backbone`."""
        key = (spec.model_dump_json(), precision)
        if key not in self._loaded:
            self._loaded[key] = load_backbone(spec)
            self._loaded[key].body.to(self.device)
        return self._loaded[key]


def build_pair(recipe: Recipe, *, seed: int, backbones: Backbones) -> NetworkPair:
    """Build the networks of a recipe, with new adapters and heads, on the backbones' device.

    The pair of a recipe with an offline teacher has the student alone, as nothing else is trained.

    Raises: what `load_backbone`, `build_adapter` and `build_network` raise.
    """

    def network(role: str, spec: Backbone, choice: AdapterSpec) -> Network:
        adapter = build_adapter(choice)
        return build_network(
            backbones.load(spec, "float32" if adapter.trains_copies else recipe.precision),
            adapter,
            num_classes=recipe.task.num_classes,
            normalisation=recipe.normalisation,
            seed=seed,
            role=role,
        ).to(backbones.device)

    teacher = None
    online = recipe.teacher_mode == "online"
    if online and recipe.pair.teacher is not None and recipe.teacher_adapter is not None:
        teacher = network("teacher", recipe.pair.teacher, recipe.teacher_adapter)
    return NetworkPair(network("student", recipe.pair.student, recipe.adapter), teacher)


def check_carried(recipe: Recipe) -> None:
    """Check that the adapters fit the backbones, and that the term can compare the networks.

    No weights are read or downloaded.

    Raises: UsageError if one of them does not fit; what building an adapter, a backbone or the term
    raises.
    """
    pair = recipe.pair
    roles = [(pair.student, recipe.adapter), (pair.teacher, recipe.teacher_adapter)]
    sizes = []
    for spec, choice in roles:
        if spec is not None and choice is not None:
            anatomy = describe_anatomy(spec)
            check_carries(anatomy, build_adapter(choice), spec.name)
            sizes.append(sizes_of(anatomy, recipe.task.num_classes))
    for further in recipe.further_teachers or ():
        anatomy = describe_anatomy(further.backbone)
        check_carries(anatomy, build_adapter(further.adapter), further.backbone.name)
    if recipe.distils:
        student, teacher = sizes
        term = term_for(recipe.distillation, recipe.task.num_classes)
        if recipe.teacher_mode == "offline" and term.reads - {Output.LOGITS}:
            raise UsageError(
                f"distillation '{term.name}' reads more than logits, and these are all that is "
                "computed of an offline teacher.",
                hint="Choose another term, or leave out --teacher-from.",
            )
        why = term.why_not(student, teacher)
        if why:
            raise UsageError(
                f"distillation '{recipe.distillation.name}' cannot compare the networks of pair "
                f"'{pair.name}': {why}."
            )


def sizes_of(anatomy: Anatomy, num_classes: int) -> Sizes:
    """The sizes of a network's outputs, by which a term knows whether it can compare them."""
    last = anatomy.blocks[-1]
    return Sizes(num_classes, anatomy.num_features, (last.tokens, last.width))


def count_parameters(roles: Iterable[tuple[Role, Network | Ensemble]]) -> dict[str, int]:
    """The numbers of trained and frozen parameters, by the field names of `results.Parameters`.

    Those of an ensemble are the sums over its members, on one backbone.
    """
    counts: dict[str, int] = {}
    for role, network in roles:
        prefix = "" if role == "student" else "teacher_"
        members = network.members if isinstance(network, Ensemble) else [network]
        trained = [pair for one in members for pair in one.trainable().items()]
        for part in ("adapter", "head"):
            own = [p.numel() for name, p in trained if name.startswith(f"{part}.")]
            counts[prefix + part] = sum(own)
        counts[f"{prefix}backbone"] = sum(p.numel() for p in network.body.parameters())
    return counts
