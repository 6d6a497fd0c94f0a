"""Published rows: per-task top-1 that others print or release, with what their numbers rest on.

Free of torch.
"""

from typing import Annotated, Literal

from pydantic import Field, Strict

from idat_zoo.values import Frozen, Name, Scalar

SelectionRule = Literal["last", "val", "best_on_test"]
"""How a printed number was chosen: it is the last epoch's (`last`); so it is, and the settings were
chosen on val200 (`val`); or it is the best of all evaluations on test (`best_on_test`)."""
NormalisationName = Literal["0.5", "imagenet", "none"]
"""Mean and standard deviation 0.5, those of ImageNet, or pixels in [0, 1] as they are."""
Share = Annotated[float, Field(ge=0, le=1)]


class PublishedRow(Frozen):
    """The top-1 of one method by task, a fraction, as `source` has it.

    What is None is not established. `table` is the name of the collection and `suite` that of its
    tasks. `peft` is false for full fine-tuning and a linear probe, and `trained_millions` is the
    range of the numbers of trained parameters. `top1_best_on_test` is of the same runs as `top1`,
    where both were released. `tuned` are the settings that were chosen for each task.
    """

    table: str
    method: str = Field(pattern=r"^\S+$")
    source: str
    suite: Name
    peft: bool = True
    backbone: str
    weights: str | None = None
    normalisation: NormalisationName | None = None
    selection: SelectionRule | None = None
    data_copy: str | None = None
    trained_millions: Annotated[tuple[float, float], Strict(False)]
    top1: dict[str, Share]
    top1_best_on_test: dict[str, Share] = Field(default_factory=dict)
    tuned: dict[str, dict[str, Scalar]] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """`papers/SSF`: the table and the method."""
        return f"{self.table}/{self.method}"
