"""Which modules of a network a configuration of PEFT updates, and how: by PEFT's own rules.

Names in a list are modules, or ends of their names; a string is a regular expression for the whole
name. The first key of `rank_pattern` and of `alpha_pattern` that is a module's name, or its end,
holds for it. (PEFT 0.21: `check_target_module_exists`, `get_pattern_key`.)

A configuration comes from others, and a regular expression can run for ever: all of them are
matched in a process of its own, which has little time.
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
"""How PEFT uses a pattern of targets, of `rank_pattern` and `alpha_pattern`, of layers."""
ANY_LAYER = r".*?\.[^.]*"
"""Its `layers_pattern` where none is given; timm's `blocks.0.` is too short for it."""
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
"""For each pattern and name: null, or the match's group `idx`."""

Rank = Annotated[int, Field(ge=1, le=16_384)]
Names = str | list[str] | None


class AdaptedClass(BaseModel):
    """The class of the network that was adapted."""

    base_model_class: str
    parent_library: str


class Noted(BaseModel):
    """What of adapter_config.json says on which network an adapter was trained."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    auto_mapping: AdaptedClass | None = None
    base_model_name_or_path: str | None = None


class PeftConfig(Noted):
    """What else says what was adapted, where, and how large the updates are."""

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
        """All that says which modules are updated, as it is written there, the longest cut."""
        keys = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
        told = {key: repr(value) for key in keys if (value := getattr(self, key)) not in (None, [])}
        return ", ".join(
            f"{key}={text if len(text) <= SHOWN else text[:SHOWN] + '…'}"
            for key, text in told.items()
        )


@dataclass(frozen=True, kw_only=True)
class Update:
    """The update of a module: R of its A and B, and the factor on B A."""

    rank: int
    scale: float


class Pattern(NamedTuple):
    """A regular expression, and what PEFT makes of it before it matches."""

    frame: str
    text: str


Matches = Mapping[Pattern, Mapping[str, str]]
"""For each pattern the names that it matches, each with its group `idx`."""


def find_updates(config: PeftConfig, modules: Mapping[str, bool]) -> dict[str, Update]:
    """The modules that are updated; `modules` tells of each name whether it is a linear layer.

    Raises: ValueError for a pattern that is no regular expression, or runs for too long.
    """
    if isinstance(config.target_modules, str) and config.target_modules.lower() == ALL_LINEAR:
        linear = [name for name, is_linear in modules.items() if is_linear]
        config = config.model_copy(update={"target_modules": linear})
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    endings = [Pattern(ENDING, text) for text in (*ranks, *alphas)]
    matches = _match([*_wholes(config), *_layers(config), *endings], list(modules))

    def chosen(texts: Iterable[str], name: str) -> str:
        """The first that holds for a module; PEFT takes its name where none does."""
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
    """Try all patterns of a configuration that PEFT itself will match against modules' names.

    Raises: ValueError for a pattern that is no regular expression, or runs for too long.
    """
    wholes = [text for key, text in options.items() if key.endswith("_modules")]
    keys = [key for text in options.values() if isinstance(text, dict) for key in text]
    _match(
        [Pattern(WHOLE, text) for text in wholes if isinstance(text, str)]
        + [Pattern(ENDING, key) for key in keys],
        names,
    )


def _wholes(config: PeftConfig) -> list[Pattern]:
    """Of `target_modules` and `exclude_modules`, those that are patterns."""
    texts = (config.target_modules, config.exclude_modules)
    return [Pattern(WHOLE, text) for text in texts if text and isinstance(text, str)]


def _layers(config: PeftConfig) -> list[Pattern]:
    """What finds a layer's number, where layers are chosen; the first that finds one holds."""
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
    """Whether a pattern, or a list of names and their ends, means a module."""
    if isinstance(names, str):
        return bool(names) and name in matches[Pattern(WHOLE, names)]
    return any(name == each or name.endswith(f".{each}") for each in names)


def _match(patterns: list[Pattern], names: list[str]) -> Matches:
    """All patterns on all names. Raises: ValueError with what is wrong with one."""
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
