"""Similarities between the tokens of an image."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Sizes, Term

if TYPE_CHECKING:
    from torch import Tensor


class TokenSimilarity(Term):
    """Mean squared difference of the two networks' similarities between the tokens of an image.

    Similarity-preserving distillation, Tung and Mori, arXiv:1907.09682, compares similarities
    between the images of a batch; this form, between tokens and by cosine, is ours. Widths may
    differ, the numbers of tokens may not.
    """

    name, title, paper, year = "token_similarity", "Similarities between tokens", "1907.09682", 2019
    reads = frozenset({Output.TOKENS})

    def why_not(self, student: Sizes, teacher: Sizes) -> str:
        """It compares equally many tokens."""
        own, other = student.tokens[0], teacher.tokens[0]
        return "" if own == other else f"the student has {own} tokens and the teacher {other}"

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, N, D] and [B, N, E] to a scalar."""
        from torch.nn.functional import mse_loss

        return mse_loss(_similarities(student.tokens), _similarities(teacher.tokens))


def _similarities(tokens: "Tensor | None") -> "Tensor":
    """[B, N, D] -> [B, N, N]."""
    from torch.nn.functional import normalize

    assert tokens is not None
    unit = normalize(tokens, dim=-1)
    return unit @ unit.mT
