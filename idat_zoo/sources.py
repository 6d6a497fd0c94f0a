"""The sources that `idat data pull` downloads images from. Loads no torch."""

from pydantic import Field

from idat_zoo.values import Frozen, Name


class DataSource(Frozen):
    """A zip file in a dataset repository of the Hub that holds the folders of a suite's tasks.

    `gigabytes` is its published size, shown before a download; the true size is read from the Hub
    when the file is opened. `remarks` is shown before a download as well.
    """

    name: str
    title: str
    suite: Name
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"
    file: str
    gigabytes: float = Field(gt=0)
    licence: str
    remarks: str = ""

    @property
    def place(self) -> str:
        """The repository and file as the Hub's addresses write them."""
        return f"datasets/{self.repo}/{self.file}"
