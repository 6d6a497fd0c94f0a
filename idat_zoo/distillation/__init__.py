"""Distillation terms by name. A new one is a file here and a line in `TERMS`, or a plugin."""

from typing import Any

from idat_zoo.distillation.base import Output, Term
from idat_zoo.errors import UsageError
from idat_zoo.outside import TERMS_GROUP, check_class, claim, find_class, lacking, providers
from idat_zoo.specs import TermSpec

TERMS = {
    "mse": "idat_zoo.distillation.mse:MeanSquaredError",
    "kl": "idat_zoo.distillation.kl:KullbackLeibler",
    "kl_t2": "idat_zoo.distillation.kl_t2:Hinton",
    "centred_mse": "idat_zoo.distillation.centred_mse:CentredMeanSquaredError",
    "standardised_kl": "idat_zoo.distillation.standardised_kl:StandardisedKullbackLeibler",
    "reverse_kl": "idat_zoo.distillation.reverse_kl:ReverseKullbackLeibler",
    "symmetric_kl": "idat_zoo.distillation.symmetric_kl:SymmetricKullbackLeibler",
    "mutual": "idat_zoo.distillation.mutual:Mutual",
    "ensemble": "idat_zoo.distillation.ensemble:Ensemble",
    "dkd": "idat_zoo.distillation.dkd:Decoupled",
    "dist": "idat_zoo.distillation.dist:Relations",
    "weak_to_strong": "idat_zoo.distillation.weak_to_strong:WeakToStrong",
    "features": "idat_zoo.distillation.features:MappedFeatures",
    "token_similarity": "idat_zoo.distillation.token_similarity:TokenSimilarity",
}
FALLBACK = "kl_t2"
"""The term that stands in for one that needs more classes than a task has."""

claim(TERMS_GROUP, TERMS)

WHAT = "distillation term"
FACTS = ("name", "title", "paper", "year", "Options", "reads")
"""The class attributes that every term must have."""


def find_term(name: str) -> type[Term]:
    """The class of the term with a name.

    Raises: UnknownNameError; UsageError for a plugin's class that is not a valid term.
    """
    found: type[Term] = find_class(WHAT, name, own=TERMS, group=TERMS_GROUP)
    return found if name in TERMS else check_term(name, found)


def check_term(name: str, found: Any) -> type[Term]:
    """Check that a class is a term with this name, and return it. Raises: UsageError."""
    check_class(WHAT, name, found, base=Term, facts=FACTS)
    term: type[Term] = found
    known = set(Output)
    if not (isinstance(term.reads, frozenset) and term.reads and term.reads <= known):
        raise UsageError(
            f"{WHAT} '{name}': reads = {term.reads!r}; expected a frozenset of "
            f"{', '.join(sorted(known))}."
        )
    return term


def term_for(spec: TermSpec, num_classes: int) -> Term:
    """The term of a spec for a task, which is `FALLBACK` where the spec's needs more classes.

    Raises: what `build_term` raises.
    """
    term = build_term(spec)
    return term if num_classes >= term.least_classes else build_term(TermSpec(name=FALLBACK))


def build_term(spec: TermSpec) -> Term:
    """The term of a spec, with checked options. It must not be called for the name `none`.

    Raises: UnknownNameError; RecipeError for its options; UsageError if its plugin is not loaded.
    """
    if spec.plugin is not None and spec.name not in {*TERMS, *providers(TERMS_GROUP)}:
        raise lacking(WHAT, spec.name, spec.plugin)
    return find_term(spec.name)(**spec.options)
