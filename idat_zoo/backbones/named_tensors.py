"""A module that holds tensors under dotted names, which torch forbids for parameters."""

import torch
from torch import Tensor, nn

from idat_zoo.adapters.tensors import Created


class NamedTensors(nn.Module):
    """An adapter's tensors under dotted names; they move with the module that contains this one.

    The trainable tensors are parameters, and the frozen ones are buffers.
    """

    def __init__(self, created: Created) -> None:
        super().__init__()
        self._names = {_attribute(name): name for name in (*created.trainable, *created.frozen)}
        self._under: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # asked for at every site
        for name, tensor in created.trainable.items():
            self.register_parameter(_attribute(name), nn.Parameter(tensor))
        for name, tensor in created.frozen.items():
            self.register_buffer(_attribute(name), tensor)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by their dotted names."""
        return {name: getattr(self, attribute) for attribute, name in self._names.items()}

    def under(self, *prefixes: str) -> dict[str, Tensor]:
        """The tensors whose name begins with one of the prefixes, by the rest of the name."""
        return {name: getattr(self, attribute) for name, attribute in self._named(prefixes)}

    def _named(self, prefixes: tuple[str, ...]) -> list[tuple[str, str]]:
        """The rest of each name under the prefixes, and the attribute that holds its tensor."""
        known = self._under.get(prefixes)
        if known is not None:
            return known
        found = [
            (name.removeprefix(prefix), attribute)
            for attribute, name in self._names.items()
            for prefix in prefixes
            if name.startswith(prefix)
        ]
        if not torch.compiler.is_compiling():  # a compiler would compile anew when this changes
            self._under[prefixes] = found
        return found


def _attribute(name: str) -> str:
    return name.replace(".", "/")  # torch forbids dots in the names of parameters
