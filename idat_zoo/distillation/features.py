"""Features through a learned linear map."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Sizes, Term

if TYPE_CHECKING:
    from torch import Generator, Tensor


class MappedFeatures(Term):
    """Mean squared difference of the teacher's pooled features and the student's, mapped to them.

    FitNets, Romero et al., arXiv:1412.6550, equation 3, with pooled features in place of a middle
    layer. The map is linear, is trained with the run and is not kept. Both networks learn by the
    term: with `detach = "teacher"` the student alone does, as in FitNets.
    """

    name, title, paper, year = "features", "Pooled features, linearly mapped", "1412.6550", 2014
    reads = frozenset({Output.FEATURES})

    def create(self, student: Sizes, teacher: Sizes, source: "Generator") -> dict[str, "Tensor"]:
        """The map `[D of the teacher, D of the student]`, drawn as torch draws a linear layer's."""
        import torch

        bound = student.features**-0.5
        drawn = torch.rand(teacher.features, student.features, generator=source)
        return {"map": bound * (2 * drawn - 1)}

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, D] and [B, E] to a scalar."""
        from torch.nn.functional import linear, mse_loss

        assert student.features is not None
        assert teacher.features is not None
        return mse_loss(linear(student.features, self.tensors["map"]), teacher.features)
