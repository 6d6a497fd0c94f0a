"""timm as it is installed, imported without torch's compiler: `import timm` alone imports it."""

from idat_zoo.backbones.without_compiler import without_compiler

with without_compiler():
    import timm

__all__ = ["timm"]
