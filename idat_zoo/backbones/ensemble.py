"""The ensemble: trained networks over one frozen backbone that answer together.

FewTrans (arXiv:2603.00478) averages over a grid of settings in place of choosing one of them on a
few validation images. Here the softmaxes of all members are averaged.

Shape letters: B batch, K classes.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.network import Images, Logits, Network
from idat_zoo.backbones.stack import StackedNetwork
from idat_zoo.errors import InputError

MOST_IMAGES = 1024
"""The number of images that members send through the backbone in one pass, at the most."""
PREFIX = "member"


def member_name(number: int, name: str) -> str:
    """The name of a member's tensor in a checkpoint: `member.K.NAME`."""
    return f"{PREFIX}.{number}.{name}"


def tensors_of_member(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """A member's tensors by their names in a checkpoint of its own."""
    prefix = member_name(number, "")
    return {
        name.removeprefix(prefix): own for name, own in tensors.items() if name.startswith(prefix)
    }


def log_mean_softmax(logits: Sequence[Logits]) -> Logits:
    """The log of the mean of the members' softmaxes, `[B, K]`, in float32 or the finer type given.

    Of a single member it is the log-softmax of its logits, bit for bit.
    """
    fine = [own.to(torch.promote_types(own.dtype, torch.float32)) for own in logits]
    logs = torch.stack([own.log_softmax(dim=-1) for own in fine])
    return logs.logsumexp(dim=0) - math.log(len(logits))


class Ensemble(nn.Module):
    """Networks that answer together: images `[B, 3, H, W]` to log probabilities `[B, K]`.

    The answer is the log of the mean of the members' softmaxes. On a CUDA device, members whose
    adapters can be stacked share passes over the backbone. Elsewhere each has a pass of its own,
    because a larger batch is no faster there, and so its logits are those that it gives alone.
    `class_names` are the names of the K classes in order, or empty if they are not known.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        assert members, "an ensemble has members"
        assert len({one.num_classes for one in members}) == 1, "of the same classes"
        self._members = nn.ModuleList(members)

    @property
    def members(self) -> list[Network]:
        """The networks, in the order of the recipe's candidates."""
        return [one for one in self._members if isinstance(one, Network)]

    @property
    def backbone(self) -> FrozenBackbone:
        """The frozen backbone of all members."""
        return self.members[0].backbone

    @property
    def body(self) -> nn.Module:
        """timm's network of the backbone."""
        body: nn.Module = self.backbone.body
        return body

    @property
    def mean(self) -> Tensor:
        """The mean of the normalisation of the first member, `[3, 1, 1]`."""
        return self.members[0].mean

    @property
    def std(self) -> Tensor:
        """The standard deviation of the normalisation of the first member, `[3, 1, 1]`."""
        return self.members[0].std

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.members[0].num_classes

    def published(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores: those of every member, as `member.K.NAME`."""
        return {
            member_name(number, name): tensor
            for number, one in enumerate(self.members)
            for name, tensor in one.published().items()
        }

    def fill(self, tensors: dict[str, Tensor]) -> None:
        """Copy the values of such tensors, as `published` names them, into the members."""
        with torch.no_grad():
            for name, tensor in self.published().items():
                tensor.copy_(tensors[name])

    def normalise(self, images: Images) -> Tensor:
        """Normalise uint8 images for the backbone; float images are returned unchanged.

        Raises: InputError if members normalise differently.
        """
        self._check_alike()
        return self.members[0].normalise(images)

    def forward(self, start: Images) -> Logits:
        """The log probabilities `[B, K]` of images.

        Raises: InputError for float images if members normalise differently.
        """
        return log_mean_softmax(self.logits_of_each(start, stacked=start.device.type == "cuda"))

    def logits_of_each(self, images: Images, *, stacked: bool) -> list[Logits]:
        """The logits `[B, K]` of every member; if `stacked`, members share passes where they can.

        Raises: InputError for float images if members normalise differently.
        """
        if images.dtype != torch.uint8:
            self._check_alike()
        members = self.members
        if not stacked:
            return [one(images) for one in members]
        logits: dict[int, Logits] = {}
        for together in self._passes(max(1, MOST_IMAGES // max(1, len(images)))):
            if len(together) == 1:
                found = [members[together[0]](images)]
            else:
                found = StackedNetwork([members[k] for k in together])([images] * len(together))
            logits |= dict(zip(together, found, strict=True))
        return [logits[k] for k in range(len(members))]

    def _passes(self, most: int) -> Iterator[list[int]]:
        """The positions of the members of each pass, at most `most` in one."""
        alike: dict[Hashable, list[int]] = {}
        for position, one in enumerate(self.members):
            adapter = one.adapter
            key = (id(one.body), adapter.stack_key) if adapter.stackable else position
            alike.setdefault(key, []).append(position)
        for group in alike.values():
            yield from (group[start : start + most] for start in range(0, len(group), most))

    def _check_alike(self) -> None:
        """Refuse images that cannot be normalised for all members at once. Raises: InputError."""
        first = self.members[0]
        if not all(
            torch.equal(one.mean, first.mean) and torch.equal(one.std, first.std)
            for one in self.members
        ):
            raise InputError(
                "the members of this ensemble normalise images differently, so it takes uint8 "
                "images alone.",
                hint="network(transform(Image.open(path))[None])",
            )
