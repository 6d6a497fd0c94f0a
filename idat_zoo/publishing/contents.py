"""The files of a run that are published, with PEFT's form of its adapter where there is one."""

from contextlib import suppress

from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.checkpoint.loading import Checkpoint
from idat_zoo.errors import UsageError
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.formats import peft_export, peft_folder
from idat_zoo.formats.peft_export import has_form
from idat_zoo.formats.timm_model import can_be_merged
from idat_zoo.publishing.finished_run import NEEDED, TEACHER_FILES, FinishedRun
from idat_zoo.report.card import PEFT_FOLDER, Exports


def own_files(run: FinishedRun, checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files that are published of a run, with PEFT's form of it where there is one."""
    contents = dict(run.contents)
    with suppress(UsageError):  # PEFT has not every family, on every backbone
        in_peft = peft_export.peft_files(peft_export.as_peft(checkpoint))
        contents |= {f"{PEFT_FOLDER}/{name}": content for name, content in in_peft.items()}
    return contents


def all_names() -> list[str]:
    """The names of all files that may be published of a run."""
    peft = [f"{PEFT_FOLDER}/{n}" for n in (peft_folder.TENSORS_FILE, peft_folder.CONFIG_FILE)]
    return [*NEEDED, RESULT_FILE, *TEACHER_FILES, *peft]


def find_exports(checkpoint: Checkpoint) -> Exports:
    """The forms that an adapter has without idat-zoo, asked of its family and its network.

    Of an ensemble they are those of a single member; the card shows none for it.
    """
    network = checkpoint.network
    if isinstance(network, Ensemble):
        network = network.members[0]
    return Exports(peft=has_form(network.adapter), merged=can_be_merged(network))
