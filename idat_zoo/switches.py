"""How a run is computed, which a recipe does not say: what makes it faster or repeatable.

None of it changes what is computed, but all of it can change the last bits; so a result names its
switches, and a training goes on only under those it was begun with.
"""

from idat_zoo.recipe import Frozen


class Switches(Frozen):
    """What can be turned on and off.

    `prefix_cache` computes what comes before the first adapter once for each training image;
    `fused` updates all tensors in one kernel of AdamW (None: on CUDA); `compile` is
    torch.compile, with CUDA graphs on CUDA; `deterministic` chooses repeatable kernels on CUDA,
    and `keep_memory` lets a CPU process keep the memory it frees (glibc) instead of asking anew.
    """

    prefix_cache: bool = True
    fused: bool | None = None
    compile: bool = False
    deterministic: bool = False
    keep_memory: bool = True
