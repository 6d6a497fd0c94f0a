"""The target modules of a PEFT configuration, and the rank and factor of each, by PEFT's rules.

A list holds names of modules or ends of names; a string is a regular expression for the whole name.
The first key of `rank_pattern` or `alpha_pattern` that is a module's name, or its end, applies to
it. (PEFT 0.21: `check_target_module_exists`, `get_pattern_key`.)

A configuration may come from a stranger, and a regular expression may take for ever to match. So
all of them are matched in a separate process with a time limit.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

ALL_LINEAR = "all-linear"
WHOLE, ENDING, NUMBERED = "{}", r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(?P<idx>\d+)\."
"""How PEFT matches a pattern of targets, of `rank_pattern` and `alpha_pattern`, of layers."""
ANY_LAYER = r".*?\.[^.]*"
"""PEFT's default `layers_pattern`; timm's names `blocks.0.…` are too short to match it."""
PATIENCE = 5.0  # seconds
SHOWN = 80  # characters
MATCHER = """
import json, re, sys
asked, names = json.load(sys.stdin)
answer = []
for frame, text in asked:
    match = re.fullmatch if frame == "{}" else re.match
    try:
        found = [match(frame.format(text), name) for name in names]
    except (re.error, OverflowError, RecursionError) as error:
        sys.exit(f"{text[:60]!r} is no regular expression: {error}")
    answer.append([match and match.groupdict().get("idx", "") for match in found])
json.dump(answer, sys.stdout)
"""
"""A script that prints, for each pattern and name, null or the match's group `idx`."""

Rank = Annotated[int, Field(ge=1, le=16_384)]
Names = str | list[str] | None


class AdaptedClass(BaseModel):
    """The class of the network that was adapted."""

    base_model_class: str
    parent_library: str


class Noted(BaseModel):
    """What adapter_config.json says of the network on which an adapter was trained."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    auto_mapping: AdaptedClass | None = None
    base_model_name_or_path: str | None = None


class PeftConfig(Noted):
    """The fields of adapter_config.json that say what was adapted, and how."""

    target_modules: str | list[str]
    exclude_modules: Names = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Names = None

    r: Rank = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, float] | None = None

    @property
    def targets(self) -> str:
        """All fields that choose the updated modules, as written there; long ones are cut."""
        keys = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
        told = {key: repr(value) for key in keys if (value := getattr(self, key)) not in (None, [])}
        return ", ".join(
            f"{key}={text if len(text) <= SHOWN else text[:SHOWN] + '…'}"
            for key, text in told.items()
        )


@dataclass(frozen=True, kw_only=True)
class Update:
    """The update of a module: the rank R of its A and B, and the factor on B A."""

    rank: int
    scale: float


class Pattern(NamedTuple):
    """A regular expression, and the use that PEFT makes of it."""

    frame: str
    text: str


Matches = Mapping[Pattern, Mapping[str, str]]
"""For each pattern, the names that it matches, with the match's group `idx`."""


def find_updates(config: PeftConfig, modules: Mapping[str, bool]) -> dict[str, Update]:
    """The updated modules. `modules` maps each name to whether it is a linear layer.

    Raises: ValueError for an invalid regular expression, or one that takes too long to match.
    """
    if isinstance(config.target_modules, str) and config.target_modules.lower() == ALL_LINEAR:
        linear = [name for name, is_linear in modules.items() if is_linear]
        config = config.model_copy(update={"target_modules": linear})
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    endings = [Pattern(ENDING, text) for text in (*ranks, *alphas)]
    matches = _match([*_wholes(config), *_layers(config), *endings], list(modules))

    def chosen(texts: Iterable[str], name: str) -> str:
        """The first key that applies to a module, or the module's name, as PEFT takes it."""
        return next((text for text in texts if name in matches[Pattern(ENDING, text)]), name)

    updates = {}
    for name in modules:
        if _is_target(name, config, matches):
            rank = ranks.get(chosen(ranks, name), config.r)
            alpha = alphas.get(chosen(alphas, name), config.lora_alpha)
            divisor = math.sqrt(rank) if config.use_rslora else rank
            updates[name] = Update(rank=rank, scale=alpha / divisor)
    return updates


def check_patterns(options: Mapping[str, Any], names: list[str]) -> None:
    """Try all patterns of a configuration that PEFT will match against modules' names.

    Raises: ValueError for an invalid regular expression, or one that takes too long to match.
    """
    wholes = [text for key, text in options.items() if key.endswith("_modules")]
    keys = [key for text in options.values() if isinstance(text, dict) for key in text]
    _match(
        [Pattern(WHOLE, text) for text in wholes if isinstance(text, str)]
        + [Pattern(ENDING, key) for key in keys],
        names,
    )


def _wholes(config: PeftConfig) -> list[Pattern]:
    """The values of `target_modules` and `exclude_modules` that are regular expressions."""
    texts = (config.target_modules, config.exclude_modules)
    return [Pattern(WHOLE, text) for text in texts if text and isinstance(text, str)]


def _layers(config: PeftConfig) -> list[Pattern]:
    """The patterns that find a layer's number where layers are chosen; the first match counts."""
    if config.layers_to_transform is None or config.layers_to_transform == []:
        return []
    texts = config.layers_pattern or ANY_LAYER
    return [Pattern(NUMBERED, text) for text in ([texts] if isinstance(texts, str) else texts)]


def _is_target(name: str, config: PeftConfig, matches: Matches) -> bool:
    """Whether a module is updated."""
    targets, layers = config.target_modules, _layers(config)
    if _is_meant(name, config.exclude_modules or [], matches):
        return False
    if isinstance(targets, str) or name in targets or not layers:
        return _is_meant(name, targets, matches)
    chosen = config.layers_to_transform
    chosen = [chosen] if isinstance(chosen, int) else chosen
    found = next((matches[pattern][name] for pattern in layers if name in matches[pattern]), "")
    return _is_meant(name, targets, matches) and found != "" and int(found) in (chosen or [])


def _is_meant(name: str, names: str | list[str], matches: Matches) -> bool:
    """Whether a pattern, or a list of names and ends of names, matches a module."""
    if isinstance(names, str):
        return bool(names) and name in matches[Pattern(WHOLE, names)]
    return any(name == each or name.endswith(f".{each}") for each in names)


def _match(patterns: list[Pattern], names: list[str]) -> Matches:
    """Match all patterns against all names. Raises: ValueError with the reason."""
    if not patterns:
        return {}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MATCHER],
            input=json.dumps([patterns, names]),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        told = ", ".join(pattern.text for pattern in patterns)
        raise ValueError(
            f"matching {told[:SHOWN]} takes longer than {PATIENCE:g} seconds"
        ) from None
    if done.returncode:
        raise ValueError(done.stderr.strip().rpartition("\n")[2])
    answer = json.loads(done.stdout)
    return {
        pattern: {n: idx for n, idx in zip(names, found, strict=True) if idx is not None}
        for pattern, found in zip(patterns, answer, strict=True)
    }
