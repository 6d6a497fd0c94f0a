"""Distillation terms. Adding one is a file and a line in `TERMS`; plugins bring others."""

from typing import Any

from idat_zoo.distillation.base import Term
from idat_zoo.errors import UsageError
from idat_zoo.outside import TERMS_GROUP, check_class, claim, find_class, lacking, providers
from idat_zoo.specs import TermSpec

TERMS = {
    "mse": "idat_zoo.distillation.mse:MeanSquaredError",
    "kl": "idat_zoo.distillation.kl:KullbackLeibler",
}

claim(TERMS_GROUP, TERMS)

WHAT = "distillation term"
FACTS = ("name", "title", "paper", "year", "Options", "reads")
"""What every term's class says of itself."""


def find_term(name: str) -> type[Term]:
    """The class of a term.

    Raises: UnknownNameError; UsageError for a plugin's class that is no term.
    """
    found: type[Term] = find_class(WHAT, name, own=TERMS, group=TERMS_GROUP)
    return found if name in TERMS else check_term(name, found)


def check_term(name: str, found: Any) -> type[Term]:
    """The same class, where it is a term of this name. Raises: UsageError."""
    check_class(WHAT, name, found, base=Term, facts=FACTS)
    term: type[Term] = found
    if term.name != name:
        raise UsageError(f"{WHAT} '{name}': its class has name = '{term.name}'.")
    return term


def build_term(spec: TermSpec) -> Term:
    """The term with its options checked. `none` is no term, and cannot be built.

    Raises: UnknownNameError, RecipeError; UsageError where a plugin that it needs is not here.
    """
    if spec.plugin is not None and spec.name not in {*TERMS, *providers(TERMS_GROUP)}:
        raise lacking(WHAT, spec.name, spec.plugin)
    return find_term(spec.name)(**spec.options)
