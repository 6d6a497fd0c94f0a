"""The compilation of forward passes by torch.compile, with a fallback to the uncompiled pass."""

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
    """Compile a forward pass; if `trial` fails with it, report a note and return the original.

    `trial` runs the compiled pass once, because torch.compile compiles at the first call. On CUDA,
    inductor also records CUDA graphs (`reduce-overhead`). On a CPU it needs a C++ compiler.
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
