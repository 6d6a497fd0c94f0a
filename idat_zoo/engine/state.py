"""The state of a learner between two epochs: all that a later process needs to go on.

Random state is no part of it: every draw has a key.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from idat_zoo.engine.learner import Learner
from idat_zoo.engine.train import Trainer

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def state_of(trainer: Trainer, learner: Learner) -> dict[str, Tensor]:
    """A learner's values and moments, by their networks; none where no step was taken yet."""
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
    """Go on from a `state_of` the same recipe and seed."""

    def moment_like(value: Tensor, moment: str) -> Tensor:
        """AdamW keeps its step counter on the CPU, unless its kernels are fused."""
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
