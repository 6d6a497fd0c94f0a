"""`idat merge`: an adapter folded into its backbone, as a plain timm model."""

from idat_zoo.cli.options import (
    CheckpointArgument,
    CheckpointOption,
    JsonOption,
    PluginOption,
    YesOption,
    one_checkpoint,
)
from idat_zoo.cli.own_weights import GivenWeightsOption
from idat_zoo.cli.written import (
    NewFolderOption,
    Written,
    load_agreed,
    print_written,
)


def merge(
    out: NewFolderOption,
    checkpoint: CheckpointArgument = None,
    named: CheckpointOption = None,
    weights: GivenWeightsOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Fold an adapter into its backbone, as a plain timm model.

    The model can be used without idat-zoo.

    For example: idat merge builtin:digits-lora -o digits-vit
    """
    from idat_zoo.checkpoint.opened import open_checkpoint
    from idat_zoo.formats.timm_model import write_merged

    opened = open_checkpoint(one_checkpoint(checkpoint, named))
    difference = write_merged(load_agreed(opened, yes=yes), out)
    how = f'timm.create_model("local-dir:{out}", pretrained=True)'
    print_written(Written(out=out, how=how, notes={"largest_difference": difference}), json=json)
