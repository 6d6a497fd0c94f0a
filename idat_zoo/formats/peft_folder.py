"""A folder that PEFT's save_pretrained wrote: its two files, read without any pickle."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from idat_zoo import files
from idat_zoo.errors import CheckpointError

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PICKLE_FILE = "adapter_model.bin"
PREFIX = "base_model.model."


def read_config(source: Path) -> dict[str, Any]:
    """The configuration of an adapter, adapter_config.json. Raises: CheckpointError."""
    path = source / CONFIG_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"'{source}' holds no {CONFIG_FILE}: not a folder that PEFT wrote."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"'{path}' is not a configuration of PEFT: expected an object.")
    return document


def read_tensors(source: Path) -> dict[str, Tensor]:
    """The tensors that PEFT saved. Raises: CheckpointError; pickles are never opened."""
    path = source / TENSORS_FILE
    if not path.is_file() and (source / PICKLE_FILE).is_file():
        raise CheckpointError(
            f"'{source}' holds {PICKLE_FILE}, a pickle, which is not opened; {TENSORS_FILE} was "
            "expected.",
            hint="Whoever trusts it can save it anew: PeftModel's save_pretrained(DIR) writes "
            "safetensors.",
        )
    try:
        return files.parse_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(
            f"'{path}' is damaged or a pickle: {error}.", hint="Ask for a safetensors file."
        ) from None
