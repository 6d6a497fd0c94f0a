"""torch.compile, with a clean way back where it does not work."""

from collections.abc import Callable

import torch

from idat_zoo.backbones.stack import Forward


def compile_or_not(
    forward: Forward,
    trial: Callable[[Forward], None],
    *,
    device: torch.device,
    note: Callable[[str], None],
) -> Forward:
    """The compiled pass, if `trial` gets through with it; else the pass itself, and a note.

    On CUDA inductor also records CUDA graphs (`reduce-overhead`). On a CPU it needs a C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    mode = "reduce-overhead" if device.type == "cuda" else None
    compiled: Forward = torch.compile(forward, dynamic=False, mode=mode)
    try:
        trial(compiled)
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        note(f"torch.compile failed; training goes on without it ({reason})")
        return forward
    return compiled
