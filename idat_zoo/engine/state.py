"""The state of a learner between two epochs, from which another process can resume its training.

It holds no random state, because every random draw is determined by a key.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from idat_zoo.engine.learner import Learner
from idat_zoo.engine.train import Trainer

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def state_of(trainer: Trainer, learner: Learner) -> dict[str, Tensor]:
    """A learner's trained parameters and AdamW state, as `ROLE/value/NAME` and `ROLE/MOMENT/NAME`.

    Before the first step there are no moments. In fp16 the state of the gradient scaler is added.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in learner.trainable().items():
        role, _, own = name.partition("/")
        state[f"{role}/value/{own}"] = parameter.detach()
        moments = trainer.optimiser.state.get(parameter, {})
        state |= {f"{role}/{moment}/{own}": value for moment, value in moments.items()}
    if trainer.scaler.is_enabled():
        scaler = trainer.scaler.state_dict()
        state["scaler/scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
        state["scaler/growth"] = torch.tensor(scaler["_growth_tracker"])
    return state


def load_state(trainer: Trainer, learner: Learner, state: Mapping[str, Tensor]) -> None:
    """Restore what `state_of` returned for a learner of the same recipe and seed."""

    def moment_like(value: Tensor, moment: str) -> Tensor:
        """A copy on the trainer's device; AdamW's step counter stays on the CPU unless fused."""
        if moment == "step" and not trainer.fused:
            return value.clone()
        return value.to(trainer.device, copy=True)

    with torch.no_grad():
        for name, parameter in learner.trainable().items():
            role, _, own = name.partition("/")
            parameter.copy_(state[f"{role}/value/{own}"])
            keys = {moment: f"{role}/{moment}/{own}" for moment in MOMENTS}
            trainer.optimiser.state[parameter] = {
                moment: moment_like(state[key], moment)
                for moment, key in keys.items()
                if key in state
            }
    if trainer.scaler.is_enabled():
        fresh = trainer.scaler.state_dict()
        fresh["scale"] = state["scaler/scale"].item()
        fresh["_growth_tracker"] = int(state["scaler/growth"].item())
        trainer.scaler.load_state_dict(fresh)
