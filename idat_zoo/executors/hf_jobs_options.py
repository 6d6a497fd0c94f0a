"""The options of the executor for jobs of Hugging Face. Free of torch and of huggingface_hub."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from idat_zoo.values import NAME, Frozen, Name

TIME = re.compile(r"[1-9][0-9]*[smhd]")


def _check_place(place: str) -> str:
    parts = place.split("/")
    if len(parts) < 2 or not all(re.fullmatch(NAME, part) for part in parts):
        raise ValueError("write OWNER/NAME or OWNER/NAME/FOLDER")
    return place


def _check_time(time: str) -> str:
    if TIME.fullmatch(time) is None:
        raise ValueError("write a number with s, m, h or d, such as 90m")
    return time


Place = Annotated[str, AfterValidator(_check_place)]
"""OWNER/NAME of a bucket, or OWNER/NAME/FOLDER in one."""


class HfJobsOptions(Frozen):
    """The options of jobs; those that are left out are the defaults below.

    `bucket` is where the study's folder lies: OWNER/NAME/FOLDER, or OWNER/NAME for a folder of the
    study's name. `images` is a bucket, or a folder in one, that has the data folder. `flavor` is
    the Hub's word for a machine, `timeout` a number with s, m, h or d, and `namespace` the account
    that pays. `package` is what `uv` installs: a version, or an address of Git or of a wheel.
    `cpus` is the number of threads of a pass.
    """

    bucket: Place
    images: Place | None = None
    flavor: str = "cpu-basic"
    timeout: Annotated[str, AfterValidator(_check_time)] = "1h"
    namespace: Name | None = None
    package: str | None = None
    cpus: int | None = Field(default=None, ge=1)

    @property
    def device(self) -> str:
        """The device of a flavor, as --device has it."""
        return "cpu" if self.flavor.startswith("cpu") else "cuda"
