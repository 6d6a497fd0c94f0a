"""Tensors under dotted names, as a module."""

from torch import Tensor, nn

from idat_zoo.adapters.tensors import Created


class NamedTensors(nn.Module):
    """Tensors under dotted names, which move with the module that holds them."""

    def __init__(self, created: Created) -> None:
        super().__init__()
        self._names = {_attribute(name): name for name in (*created.trainable, *created.frozen)}
        for name, tensor in created.trainable.items():
            self.register_parameter(_attribute(name), nn.Parameter(tensor))
        for name, tensor in created.frozen.items():
            self.register_buffer(_attribute(name), tensor)

    def tensors(self) -> dict[str, Tensor]:
        """All of them by their dotted names."""
        return {name: getattr(self, attribute) for attribute, name in self._names.items()}

    def under(self, *prefixes: str) -> dict[str, Tensor]:
        """Those whose name begins with one of the prefixes, by the rest of their names."""
        return {
            name.removeprefix(prefix): getattr(self, attribute)
            for attribute, name in self._names.items()
            for prefix in prefixes
            if name.startswith(prefix)
        }


def _attribute(name: str) -> str:
    return name.replace(".", "/")  # torch forbids dots in the names of parameters
