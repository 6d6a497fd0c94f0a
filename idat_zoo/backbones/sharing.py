"""Rules of forward passes that several adapters share over one frozen backbone."""

from collections.abc import Sequence
from copy import copy

from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.errors import UsageError


def common_adapter(adapters: Sequence[Adapter]) -> Adapter:
    """An adapter whose `apply` serves all; it lacks the options in which they may differ.

    Raises: UsageError if the adapters cannot share a pass.
    """
    first = adapters[0]
    alone = [own for own in adapters if not own.stackable or own.stack_key != first.stack_key]
    if alone:
        names = " and ".join(f"{own.name} ({own.options})" for own in (first, alone[-1]))
        raise UsageError(
            f"adapters cannot share a pass: {names}.",
            hint=f"Only these options may differ: {', '.join(sorted(first.stacks_over)) or 'none'}",
        )
    common = copy(first)
    common.options = first.options.model_copy()
    for name in first.stacks_over:
        del vars(common.options)[name]  # so that reading it is an error
    return common


def of_rows(frozen: Tensors, rows: int) -> Tensors:
    """The frozen tensors for a number of rows.

    The bias of attention scores may have one entry per window; it is cut to the first `rows`.
    """
    bias = frozen.get("bias")
    if bias is None or bias.ndim < 4 or len(bias) <= rows:
        return frozen
    return {**frozen, "bias": bias[:rows]}
