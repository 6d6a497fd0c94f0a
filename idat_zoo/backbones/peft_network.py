"""A network whose adapter is a tuner of PEFT, with the interface of all other networks.

PEFT puts its modules into a copy of the frozen backbone, because it changes the network that it is
given.
"""

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo.adapters.peft import Peft, saved, seeded, trained
from idat_zoo.adapters.peft_options import told
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.network import DROP_PATH, Features, Images, Network, published_names
from idat_zoo.backbones.sites import Visitor
from idat_zoo.backbones.walk import Partway, begin, features
from idat_zoo.errors import CheckpointError, UsageError
from idat_zoo.randomness import Draws, generator
from idat_zoo.values import Rgb

SEED = "peft"
"""The name, among a step's masks, of the seed for PEFT's dropout."""


class PeftNetwork(Network):
    """A copy of a frozen backbone with PEFT's modules in it, and a head.

    Its tensors have the names under which PEFT saves them. PEFT's modules draw random numbers only
    in training, with the seed that is among the masks.
    """

    adapter: Peft
    mixes = False

    def __init__(
        self,
        backbone: FrozenBackbone,
        adapter: Peft,
        model: Any,  # a PeftModel
        head: nn.Module,
        *,
        mean: Rgb,
        std: Rgb,
    ) -> None:
        super().__init__(backbone, adapter, Created(trainable={}), head, mean=mean, std=std)
        self.model = model
        self.kind = type(backbone.kind)(model.base_model.model)
        self._trained = trained(model)
        self._draws = False
        self.pooled_only = False  # PEFT's dropout would draw for fewer tokens

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: `adapter.…` and `head.…`."""
        own = {f"adapter.{name}": parameter for name, parameter in self._trained.items()}
        return own | {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}

    def published(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores: those that PEFT saves, and the head's."""
        own = {name: tensor.detach() for name, tensor in saved(self.model).items()}
        return published_names(own, self.head)

    def fill(self, tensors: Tensors) -> None:
        """Copy the values of such tensors, as `published` names them, into this network.

        Raises: CheckpointError if PEFT computes some of them from others, so that they cannot be
        set.
        """
        super().fill(tensors)
        other = [n for n, own in self.published().items() if not torch.equal(own, tensors[n])]
        if other:
            raise CheckpointError(
                f"adapter '{self.adapter.word}' cannot take over {other[0]}: PEFT computes it."
            )

    def draw_masks(self, batch: int, *, drop_path: float, draws: Draws) -> dict[str, Tensor]:
        """The drop path masks of one training step, and a seed for PEFT's own random draws."""
        source = generator(draws.seed, draws.network, SEED, draws.step)
        masks = super().draw_masks(batch, drop_path=drop_path, draws=draws)
        return masks | {SEED: torch.tensor(source.initial_seed())}

    def _walked(
        self, start: Images | Partway, masks: Tensors | None, *, keeps_tokens: bool = False
    ) -> tuple[Features, Tensor | None]:
        masks = masks or {}
        self._let_draw(SEED in masks)
        if not isinstance(start, Partway):
            start = begin(self.normalise(start))
        nobody = Visitor(
            (),
            lambda site, block, x, compute, frozen: compute(x, {}),
            keeps_tokens=keeps_tokens,
        )
        drawing = seeded(int(masks[SEED]), self.mean.device) if SEED in masks else nullcontext()
        with drawing:
            pooled = features(self.kind, start, nobody, masks.get(DROP_PATH))
        return pooled, nobody.tokens

    def _let_draw(self, draws: bool) -> None:
        """Set PEFT's modules alone to training mode, in which they draw, or to evaluation mode."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        if draws != self._draws:
            self._draws = draws
            for module in self.model.modules():
                if isinstance(module, BaseTunerLayer) and isinstance(module, nn.Module):
                    module.train(draws)

    def merged(self) -> Kind:
        """A copy of timm's network into which PEFT merged the adapter, as a kind of backbone.

        Raises: UsageError for a tuner that PEFT cannot merge.
        """
        try:
            body = copy.deepcopy(self.model).merge_and_unload()
        except (NotImplementedError, ValueError, AttributeError) as error:
            raise UsageError(
                f"adapter '{self.adapter.word}' cannot be merged by PEFT: {told(error)}.",
                hint="It runs as it is: idat_zoo.load gives it.",
            ) from None
        return type(self.kind)(body)

    def move_own(self, device: torch.device) -> None:
        """Move everything except the shared backbone; PEFT's copy of it is moved, too."""
        super().move_own(device)
        self.model.to(device)

    def train(self, mode: bool = True) -> "PeftNetwork":
        """Set the mode; all modules stay in evaluation mode, and only masks bring randomness."""
        super().train(mode)
        self.model.eval()
        self._draws = False
        return self
