"""The teacher-student pair as networks: frozen backbones, adapters, new heads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.network import Network, build_network
from idat_zoo.recipe import AdapterChoice, Backbone, Recipe

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class NetworkPair:
    """The larger student, and the smaller teacher it is trained with (iDAT's inversion), if any."""

    student: Network
    teacher: Network | None

    def roles(self) -> Iterator[tuple[Role, Network]]:
        """("student", network), then ("teacher", network) if there is one."""
        yield "student", self.student
        if self.teacher is not None:
            yield "teacher", self.teacher


def build_pair(recipe: Recipe, *, seed: int, device: torch.device) -> NetworkPair:
    """Fresh networks on the device. Raises what loading backbones and building adapters raise."""

    def network(role: str, spec: Backbone, choice: AdapterChoice) -> Network:
        return build_network(
            load_backbone(spec),
            build_adapter(choice),
            num_classes=recipe.task.num_classes,
            normalisation=recipe.normalisation,
            seed=seed,
            role=role,
        ).to(device)

    teacher = None
    if recipe.pair.teacher is not None and recipe.teacher_adapter is not None:
        teacher = network("teacher", recipe.pair.teacher, recipe.teacher_adapter)
    return NetworkPair(network("student", recipe.pair.student, recipe.adapter), teacher)


def count_parameters(roles: Iterable[tuple[Role, Network]]) -> dict[str, int]:
    """How many numbers learn and how many are frozen, named as `results.Parameters` names them."""
    counts: dict[str, int] = {}
    for role, network in roles:
        prefix = "" if role == "student" else "teacher_"
        trained = network.trainable()
        for part in ("adapter", "head"):
            own = [p.numel() for name, p in trained.items() if name.startswith(f"{part}.")]
            counts[prefix + part] = sum(own)
        counts[f"{prefix}backbone"] = sum(p.numel() for p in network.vit.parameters())
    return counts
