"""Pair forms: the swapped pair and the twins that every pair has, found by a suffix of its name.

They are controls of iDAT's inversion (a small teacher and a larger student), so no shelf lists
them. `micro_swapped` is the pair `micro` with the roles exchanged, and `micro_twins` has the
student of `micro` in both roles. Both take the recipe file of `micro`.
"""

from collections.abc import Callable, Mapping

from idat_zoo.recipe import Pair

SWAPPED = "_swapped"
TWINS = "_twins"


def swapped(pair: Pair) -> Pair:
    """The pair with the roles exchanged: its larger network teaches its smaller one.

    The pair must have a teacher.
    """
    assert pair.teacher is not None, "a pair without a teacher has nothing to exchange"
    return Pair(name=pair.name + SWAPPED, teacher=pair.student, student=pair.teacher)


def twins(pair: Pair) -> Pair:
    """A pair of two students: the student's backbone in both roles.

    Adapters, heads and masks are drawn for each role apart, so the two are unlike from the start.
    The frozen backbone is in memory once.
    """
    return Pair(name=pair.name + TWINS, teacher=pair.student, student=pair.student)


FORMS: Mapping[str, Callable[[Pair], Pair]] = {SWAPPED: swapped, TWINS: twins}
"""The function that builds each form of a pair, by the suffix of the form's name."""


def base_name(name: str) -> str:
    """The name of the pair that a form is built from: `micro` for `micro_swapped` and for itself.

    Only one suffix is taken away, because a form has no forms of its own.
    """
    return next((name.removesuffix(end) for end in FORMS if name.endswith(end)), name)


def find_form(name: str, pairs: Mapping[str, Pair]) -> Pair | None:
    """The pair with this name among `pairs` or their forms, or None. A pair's own name is first."""
    if name in pairs:
        return pairs[name]
    base = pairs.get(base_name(name))
    if base is None or base.teacher is None:
        return None
    return FORMS[name.removeprefix(base.name)](base)
