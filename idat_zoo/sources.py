"""Where the images of tasks can be had. Torch-free, for the shelves."""

from pydantic import Field

from idat_zoo.recipe import Frozen, Suite


class DataSource(Frozen):
    """A zip file in a dataset repository of the Hub that holds the folders of a suite's tasks.

    `gigabytes` is what people say of its size; what is true is asked when it is opened. `remarks`
    is what a person should know before fetching from it.
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
        """What people look for on the Hub."""
        return f"datasets/{self.repo}/{self.file}"
