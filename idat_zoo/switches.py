"""The switches of a run: settings of speed and repeatability that a recipe does not hold.

They do not change what is computed, but can change the last bits. So a result records its switches,
and a training can only be resumed with those that it was started with.
"""

from idat_zoo.values import Frozen


class Switches(Frozen):
    """The settings that can be turned on and off.

    `prefix_cache` computes the part before the first adapter once for each training image; `fused`
    updates all tensors in one kernel of AdamW (None: on CUDA); `compile` is torch.compile, with
    CUDA graphs on CUDA; `deterministic` chooses repeatable kernels on CUDA, and `keep_memory` lets
    a CPU process keep the memory that it frees (glibc) instead of requesting it again.
    """

    prefix_cache: bool = True
    fused: bool | None = None
    compile: bool = False
    deterministic: bool = False
    keep_memory: bool = True
