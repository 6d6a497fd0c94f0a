"""Kronecker products of small matrices, applied without making the large one.

Shape letters: R summed products; A is `[R, a1, a2]`, B `[R, b1, b2]`, their product
`[a1 b1, a2 b2]`, entry (i b1 + k, j b2 + l) being A[i, j] B[k, l], as in `torch.kron`.
"""

import math

import torch
from torch import Tensor


def nearest_factors(size: int) -> tuple[int, int]:
    """The two divisors nearest to the square root, the smaller first: 768 is 24 times 32."""
    small = next(number for number in range(math.isqrt(size), 0, -1) if size % number == 0)
    return small, size // small


def kron_linear(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`[.., a2 b2] -> [.., a1 b1]`: the sum of all `F.linear(x, torch.kron(A, B))`.

    With x as a matrix X `[a2, b2]`, row by row, each of them is A X B^T.
    """
    matrix = x.unflatten(-1, (left.shape[-1], right.shape[-1]))
    within = torch.einsum("...jl,rkl->...rjk", matrix, right)
    return torch.einsum("...rjk,rij->...ik", within, left).flatten(-2)
