"""The options of PEFT's tuners: which tuners fit a vision network, and which fields each takes."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from idat_zoo.errors import RecipeError, UnknownNameError, UsageError
from idat_zoo.recipe import describe_faults
from idat_zoo.specs import BRIDGE
from idat_zoo.values import OptionValue

PROMPTS = "it puts virtual tokens before a language model's text"
UNFIT = {
    "adamss": "how large its tensors are depends on the frozen weights, so nothing can be checked",
    "adalora": "its ranks are shared out anew by calls between steps, in a loop of its own",
    "adaption_prompt": "it stands in the attention of LLaMA and its like",
    "cartridge": PROMPTS,
    "cpt": PROMPTS,
    "multitask_prompt_tuning": PROMPTS,
    "p_tuning": PROMPTS,
    "poly": "every call must tell it which task its images are of",
    "prefix_tuning": PROMPTS,
    "prompt_tuning": PROMPTS,
    "shadow": "it runs beside the layers of a language model",
    "trainable_tokens": "it trains rows of an embedding of words",
    "xlora": "it mixes adapters that were trained before",
}
"""The tuners that cannot be used on a vision network here, and the reason."""

UNMERGED = ("lily",)
"""The tuners that PEFT cannot merge into the weights."""

NOT_TAKEN = {
    *("alora_invocation_tokens", "ensure_weight_tying", "layer_replication", "megatron_core"),
    *("modules_to_save", "target_parameters", "tokenizer_name_or_path", "trainable_token_indices"),
    *("qalora_group_size", "use_qalora", "boft_n_butterfly_factor", "fan_in_fan_out"),
}
"""Fields that are of language models, quantised or transposed layers, our head, a CUDA extension.
"""

START = "init_lora_weights"
STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""The values of `init_lora_weights` that do not change the frozen weights."""

TARGETS = "target_modules"
SCALARS = (bool, int, float, str, type(None), dict, list, tuple)


class Known(NamedTuple):
    """A field of a tuner's configuration: its type, PEFT's default and its description."""

    type: Any
    default: Any
    help: str


def require_peft() -> Any:
    """The imported package `peft`. Raises: UsageError where it is not installed."""
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise UsageError(
            f"adapters '{BRIDGE}:NAME' are tuners of the package peft, which is not installed.",
            hint="pip install 'idat-zoo[peft]'",
        ) from None
    return peft


@cache
def tuners() -> Mapping[str, type[Any]]:
    """Every tuner of the installed PEFT that can be used, with the class of its configuration."""
    require_peft()
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    found = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return {name: found[name] for name in sorted(found) if name not in UNFIT}


def find_tuner(name: str) -> type[Any]:
    """The class of a tuner's configuration.

    Raises: UnknownNameError; UsageError for one that does not fit.
    """
    known = tuners()
    if not name:
        raise UsageError(
            f"adapter '{BRIDGE}' is any tuner of PEFT: say which, e.g. {BRIDGE}:lokr.",
            hint=f"There are {', '.join(known)}",
        )
    if name in UNFIT:
        raise UsageError(
            f"adapter '{BRIDGE}:{name}' does not fit a vision network: {UNFIT[name]}.",
            hint=f"Those that do: {', '.join(known)}",
        )
    if name not in known:
        raise UnknownNameError("tuner of PEFT", name, known)
    return known[name]


@cache
def known_fields(tuner: str) -> Mapping[str, Known]:
    """The fields that a tuner takes, by PEFT's names. Raises: as `find_tuner`."""
    peft, config = require_peft(), find_tuner(tuner)
    hints, base = get_type_hints(config), {field.name for field in fields(peft.PeftConfig)}
    return {
        field.name: Known(
            _widened(field.name, hints[field.name]),
            _default(field),
            " ".join(str(field.metadata.get("help", "")).split()),
        )
        for field in fields(config)
        if field.name not in base | NOT_TAKEN and _is_plain(hints[field.name])
    }


def all_defaults(tuner: str) -> dict[str, Any]:
    """PEFT's default for every field, including those that cannot be set here."""
    return {field.name: _default(field) for field in fields(find_tuner(tuner))}


def check_options(tuner: str, options: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The options of a configuration, each checked against its field's type.

    Raises: RecipeError with every fault; as `find_tuner`.
    """
    known = known_fields(tuner)
    where = f"{where}: adapter '{BRIDGE}:{tuner}'" if where else f"adapter '{BRIDGE}:{tuner}'"
    faults = []
    for name in options.keys() - known.keys():
        error = UnknownNameError("option", name, known)
        faults.append(f"{where}: {error.message} {error.hint}".rstrip())
    given = {name: as_plain(value) for name, value in options.items() if name in known}
    try:
        model = _model(tuner).model_validate(given)
    except ValidationError as error:
        raise RecipeError(sorted(faults) + describe_faults(error, where=where)) from None
    if faults:
        raise RecipeError(sorted(faults))
    return {name: getattr(model, name) for name in known}


def written(tuner: str, values: Mapping[str, Any]) -> dict[str, OptionValue]:
    """The fields that recipes name: the rank, and those that differ from PEFT's defaults."""
    known = known_fields(tuner)
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None and (value != known[name].default or name == "r")
    }


def configure(tuner: str, options: Mapping[str, Any]) -> Any:
    """PEFT's configuration object, from checked options.

    Raises: RecipeError where PEFT refuses them, or where frozen weights would be changed.
    """
    start = options.get(START, True)
    if start not in STARTS:
        raise RecipeError(
            [
                f"adapter '{BRIDGE}:{tuner}': {START} = {start!r} may change the frozen weights; "
                f"expected one of {', '.join(map(str, STARTS))}"
            ]
        )
    try:
        return find_tuner(tuner)(**{n: as_plain(v) for n, v in options.items()})
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError([f"adapter '{BRIDGE}:{tuner}': {told(error)}"]) from None


def as_plain(value: Any) -> Any:
    """Lists in place of tuples, as PEFT expects."""
    return list(value) if isinstance(value, tuple) else value


def told(error: Exception) -> str:
    """An exception's text in one line, without a final full stop."""
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


@cache
def _model(tuner: str) -> type[BaseModel]:
    """The options as pydantic checks them."""
    taken: Any = {name: (own.type, own.default) for name, own in known_fields(tuner).items()}
    config = ConfigDict(protected_namespaces=(), frozen=True, extra="forbid", strict=True)
    model: type[BaseModel] = create_model("Options", __config__=config, **taken)
    return model


def _default(field: "Field[Any]") -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _widened(name: str, hint: Any) -> Any:
    """The type of a factor, widened from PEFT's `int` to any number, which PEFT accepts."""
    return int | float if hint is int and name.endswith(("alpha", "lambda")) else hint


def _is_plain(hint: Any) -> bool:
    """Whether TOML can express a value: numbers, strings, and lists and mappings of them."""
    if hint in SCALARS or get_origin(hint) is Literal:
        return True
    if get_origin(hint) in (Union, types.UnionType, list, dict, tuple):
        return all(_is_plain(part) for part in get_args(hint))
    return False
