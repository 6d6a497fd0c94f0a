"""Distillation terms as recipes name them: their facts, and the checks of their options."""

from collections.abc import Mapping
from typing import Any

from idat_zoo.distillation import TERMS, build_term, find_term
from idat_zoo.errors import RecipeError, ZooError
from idat_zoo.outside import TERMS_GROUP, providers
from idat_zoo.registry.shelves import unknown
from idat_zoo.specs import DEFAULT_TERM, FLAT_OPTIONS, NO_TERM, Plugin, TermSpec
from idat_zoo.values import Frozen, Scalar


class TermFacts(Frozen):
    """The listed facts of a distillation term; `options` are the defaults of its options."""

    name: str
    title: str
    summary: str
    paper: str
    year: int
    reads: tuple[str, ...]
    options: dict[str, Any]
    plugin: Plugin | None = None


def term_names() -> list[str]:
    """The names of all terms that recipes can use, including `none`."""
    return [*TERMS, *providers(TERMS_GROUP), NO_TERM]


def short_key(key: str) -> str:
    """The key of a recipe's setting: `temperature` for `distillation.temperature`, and so on."""
    option = key.removeprefix("distillation.")
    return option if option in FLAT_OPTIONS else key


def term_options(name: object) -> list[str]:
    """The names of a term's options; empty for `none` and for unknown names."""
    if name == NO_TERM or name not in term_names():
        return []
    return list(find_term(str(name)).Options.model_fields)


def laid_over(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe with others laid over them.

    Where these name another distillation term, the options of the one before are dropped; where
    they name the same one, the options are kept.
    """
    if "distillation" not in own:
        return {**settings, **own}
    before, after = (_term_fields(one) for one in (settings, own))
    if before.get("name") == after.get("name"):
        options = {**before.get("options", {}), **after.get("options", {})}
        return {**settings, **own, "distillation": {**after, "options": options}}
    kept = {name: value for name, value in settings.items() if name not in FLAT_OPTIONS}
    return {**kept, **own}


def _term_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the distillation term, which may be given by its name alone."""
    term = settings.get("distillation", DEFAULT_TERM)
    return dict(term) if isinstance(term, Mapping) else {"name": term}


def describe_terms() -> dict[str, TermFacts]:
    """The facts of all terms by name, including those of plugins."""
    found, outside = {}, providers(TERMS_GROUP)
    for name in term_names():
        if name != NO_TERM:
            term = find_term(name)
            found[name] = TermFacts(
                name=name,
                title=term.title,
                summary=(term.__doc__ or "").partition("\n")[0],
                paper=term.paper,
                year=term.year,
                reads=tuple(sorted(term.reads)),
                options={key: one.default for key, one in term.Options.model_fields.items()},
                plugin=outside[name].plugin if name in outside else None,
            )
    return found


def write_out(spec: TermSpec, *, where: str) -> TermSpec:
    """The spec of a term with all options checked and written out.

    Raises: RecipeError with every fault, each naming `where`.
    """
    if spec.name == NO_TERM:
        return spec
    if spec.name not in term_names() and spec.plugin is None:
        message = unknown("distillation term", spec.name, term_names())
        raise RecipeError([f"{where}: distillation: {message}"])
    try:
        options = build_term(spec).options.model_dump()
    except RecipeError as error:
        raise RecipeError([f"{where}: {fault}" for fault in error.faults]) from None
    except ZooError as error:
        raise RecipeError([f"{where}: {error}".replace("\n", " ")]) from None
    return spec.model_copy(update={"options": options})


def check_option(spec: TermSpec, option: str, value: Scalar, *, where: str) -> Scalar:
    """A value of a term's option, converted to the option's type. Raises: RecipeError."""
    changed = spec.model_copy(update={"options": {**spec.options, option: value}})
    checked: Scalar = write_out(changed, where=where).options[option]  # type: ignore[assignment]
    return checked
