"""The weights of timm's backbones on the Hub: their repository, their file, their local copy."""

from pathlib import Path

from idat_zoo.errors import HubError, WeightsError
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import patiently, plain_errors

WEIGHTS_FILE = "model.safetensors"


def weights_repo(timm_name: str, tag: str) -> str:
    """The repository in which timm publishes a backbone's weights."""
    return f"timm/{timm_name}.{tag}"


def cached_weights(timm_name: str, tag: str) -> Path | None:
    """The weights' file in the Hub's local cache, without any request."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(weights_repo(timm_name, tag), WEIGHTS_FILE)
    return Path(found) if isinstance(found, str) else None


def fetch_weights(timm_name: str, tag: str) -> Path:
    """The weights' file, downloaded unless cached. Only safetensors.

    Raises: WeightsError when the Hub cannot be reached or has no such file.
    """
    from huggingface_hub import hf_hub_download

    repo = weights_repo(timm_name, tag)
    try:
        with plain_errors(HubReference(repo=repo)):
            return Path(patiently(lambda: hf_hub_download(repo, WEIGHTS_FILE)))
    except HubError as error:
        raise WeightsError(
            f"cannot download '{WEIGHTS_FILE}': {error.message}",
            hint=f"On a connected machine: hf download {repo} {WEIGHTS_FILE}, then bring the Hub's "
            "cache folder here (HF_HOME).",
        ) from error
