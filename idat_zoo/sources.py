"""The sources of tasks' images. This module does not import torch."""

from pydantic import Field

from idat_zoo.recipe import Frozen, Suite


class DataSource(Frozen):
    """A zip file in a dataset repository of the Hub that holds the folders of a suite's tasks.

    `gigabytes` is the approximate size shown to the user; the true size is read when the file is
    opened. `remarks` is what a person should know before downloading it.
    """

    name: str
    title: str
    suite: Suite
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"
    file: str
    gigabytes: float = Field(gt=0)
    licence: str
    remarks: str = ""

    @property
    def place(self) -> str:
        """The file's path on the Hub."""
        return f"datasets/{self.repo}/{self.file}"
