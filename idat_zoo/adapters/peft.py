"""Any tuner of the package PEFT, as an adapter: `peft:lokr`, `peft:oft`, `peft:vera`, …

PEFT puts modules of its own in the place of a network's. Here
that network is a copy of the frozen one, which `backbones/peft_network.py` walks; sites and `apply`
are not used, so such adapters neither stack nor share a pass.

Where timm reads a layer's weight past its module (BEiT, SwinV2, some EVA and DINOv3), PEFT's module
is never called, and would train nothing: it is refused. PEFT draws initial values and dropouts from
torch's global generator: here from a copy of it, seeded by our keys.
"""

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.peft_options import (
    TARGETS,
    check_options,
    configure,
    known_fields,
    require_peft,
    told,
    written,
)
from idat_zoo.adapters.peft_targets import PeftConfig, check_patterns, find_updates
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.recipe import BRIDGE, Frozen, OptionValue

LAYERS = ("qkv", "q_proj", "k_proj", "v_proj", "proj", "fc1", "fc1_g", "fc1_x", "fc2")
NORMS = ("norm1", "norm2")
"""What is adapted unless it is said: a block's linear layers; by `ln_tuning` its norms."""

IN_A_BLOCK = re.compile(r"^(?:(?:layers|stages)\.\d+\.)?blocks\.\d+\.")
FEEDFORWARD = "feedforward_modules"
CHOOSING = (TARGETS, "exclude_modules", "layers_to_transform", "layers_pattern")
NOISE = (
    "Failed to load the CUDA ext",
    "Setting boft_n_butterfly_factor",
    "Unsupported layer type '<class 'timm.layers.norm",
)
"""Warnings that tell nothing of an adapter; others are for whoever asked for it."""
REFUSALS = (ValueError, TypeError, AttributeError, KeyError, RuntimeError, StopIteration)
"""What PEFT raises of options that do not fit a network."""


class PeftOptions(Frozen):
    """A tuner by PEFT's name, and the fields of its configuration that are not at their defaults.

    `target_modules` in a list are names, or ends of names within blocks.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OptionValue]

    tuner: str


class Peft(Adapter):
    """Any tuner of PEFT by its own configuration, in a copy of timm's network."""

    name = BRIDGE
    title = "PEFT"
    paper = ""
    year = 2022
    Options = PeftOptions
    options: PeftOptions
    sites: ClassVar = frozenset({Site.PATCH_EMBED})
    stackable = False
    mergeable = True  # by PEFT, which says of a few tuners that it cannot
    trains_copies = True  # so the frozen weights stay float32: some tuners compute with them

    @property
    def tuner(self) -> str:
        """PEFT's name of it, in small letters."""
        return self.options.tuner

    @property
    def word(self) -> str:
        """What the command line calls it."""
        return f"{BRIDGE}:{self.tuner}"

    def _amiss(self, why: str, *, hint: str = "") -> UsageError:
        return UsageError(f"adapter '{self.word}': {why}.", hint=hint)

    @property
    def lives_within(self) -> int:  # type: ignore[override]
        """Where whole modules are dropped, one may be dropped for some steps."""
        return 50 if "module_dropout" in self.values else 2

    @cached_property
    def values(self) -> dict[str, OptionValue]:
        """The fields of the configuration. Raises: RecipeError, UsageError."""
        options = self.options.__pydantic_extra__ or {}
        return written(self.tuner, check_options(self.tuner, options, where=""))

    def targets(self, body: nn.Module) -> list[str]:
        """The modules that are adapted, by timm's names. Raises: UsageError."""
        modules = {
            name: isinstance(own, nn.Linear)
            for name, own in body.named_modules()
            if name and next(own.parameters(), None) is not None
        }
        asked = self.values.get(TARGETS)
        names: Any = asked or (NORMS if self.tuner == "ln_tuning" else LAYERS)
        chosen = {key: self.values[key] for key in CHOOSING if key in self.values}
        try:
            check_patterns(self.values, list(modules))
            config = PeftConfig.model_validate(
                {**chosen, TARGETS: names if isinstance(names, str) else list(names)}, strict=False
            )
            found = list(find_updates(config, modules))
        except ValueError as error:
            raise self._amiss(told(error)) from None
        if not isinstance(names, str):
            found = [name for name in found if name in names or IN_A_BLOCK.match(name)]
        if not found:
            raise self._amiss(f"{config.targets} means no module of the network")
        return found

    def fields_on(self, body: nn.Module) -> dict[str, Any]:
        """The configuration's fields that are not at their defaults; every module is named.

        Raises: RecipeError, UsageError.
        """
        targets = self.targets(body)
        values: dict[str, Any] = {n: own for n, own in self.values.items() if n not in CHOOSING}
        known = known_fields(self.tuner)
        inner = values.get(FEEDFORWARD, ("fc2",))
        if FEEDFORWARD in known and not isinstance(inner, str):  # a part of the targets, in full
            values[FEEDFORWARD] = [name for name in targets if name.endswith(tuple(inner))]
        if "progressbar" in known:
            values["progressbar"] = False
        return values | {TARGETS: targets}

    def inject(self, body: nn.Module, generator: torch.Generator, *, device: str = "cpu") -> Any:
        """A PeftModel of a copy of the network, which itself stays as it is.

        Made on the CPU, where the draws are the same for every device, or on the meta device.
        Raises: RecipeError, UsageError where PEFT cannot adapt it so, or changes frozen weights.
        """
        peft, config = require_peft(), configure(self.tuner, self.fields_on(body))
        with torch.device("cpu"):
            seed = int(torch.randint(2**62, (), generator=generator))
        own = copy.deepcopy(body)
        if next(own.parameters()).is_cuda:
            own = own.cpu()
        frozen = dict(own.named_parameters())
        with seeded(seed), warnings.catch_warnings(), torch.device(device):
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)
            try:
                model = peft.get_peft_model(own, config)
            except NotImplementedError:
                raise
            except REFUSALS as error:
                raise self._amiss(told(error)) from None
        if any(not same(frozen[name], before) for name, before in body.named_parameters()):
            raise self._amiss("it begins by changing the frozen weights")
        self._check_made(model, config)
        return model.eval()

    def _check_made(self, model: Any, config: Any) -> None:
        """Whether PEFT adapted what was meant, and saves what it trains. Raises: UsageError."""
        beyond = set(adapted(model)) - set(config.target_modules)
        if beyond:
            raise self._amiss(f"by the names that are given, PEFT adapts {min(beyond)} as well")
        kept = {id(parameter) for parameter in trained(model).values()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in kept:
                raise self._amiss(f"PEFT would not save {name}, which is trained")

    def try_out(self, anatomy: Anatomy) -> Any:
        """A PeftModel without values, or of values without meaning where PEFT looks at them."""
        source = torch.Generator().manual_seed(0)
        if next(anatomy.body.parameters()).is_meta:
            for device in ("meta", "cpu"):
                try:
                    return self.inject(anatomy.body, source, device=device)
                except NotImplementedError:
                    continue
                except UsageError:
                    if device == "cpu":
                        raise
            body = copy.deepcopy(anatomy.body).to_empty(device="cpu")
            with torch.no_grad():
                for parameter in body.parameters():
                    parameter.normal_(std=0.02, generator=source)
            return self.inject(body, source)
        return self.inject(anatomy.body, source)

    def misfit(self, anatomy: Anatomy) -> str:
        """Why PEFT cannot adapt a network, or would train nothing in it, or ''."""
        try:
            model = self.try_out(anatomy)
        except RecipeError:
            raise
        except UsageError as error:
            return error.message.removeprefix(f"adapter '{self.word}': ").removesuffix(".")
        past = uncalled(anatomy, adapted(model))
        if not past:
            return ""
        kind = type(anatomy.body).__name__
        return (
            f"timm's {kind} reads the weight of {past[0]} past its module, so that what PEFT puts "
            f"there would train nothing; adapter.{TARGETS} names the modules that are adapted"
        )

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The tensors that are trained and saved, as `backbones/peft_network.py` makes them."""
        model = self.try_out(anatomy)
        learn, own = trained(model), saved(model)
        return Created(
            trainable={name: tensor.detach() for name, tensor in learn.items()},
            frozen={name: tensor for name, tensor in own.items() if name not in learn},
        )

    def apply(self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, **others: Any) -> Tensor:
        """Not used: PEFT's modules are called by timm's."""
        raise AssertionError("PEFT's modules stand in the network itself")


def adapted(model: Any) -> list[str]:
    """The modules that PEFT put its own in the place of, by timm's names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    named = model.base_model.model.named_modules()
    return [name for name, own in named if isinstance(own, BaseTunerLayer)]


def uncalled(anatomy: Anatomy, names: list[str]) -> list[str]:
    """Those of some modules of a network that its forward pass does not call."""
    called: set[str] = set()
    modules = dict(anatomy.body.named_modules())
    hooks = [
        modules[name].register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name in names
    ]
    first = next(anatomy.body.parameters())
    image = torch.zeros(anatomy.image, device=first.device, dtype=first.dtype)
    try:
        with torch.no_grad():
            anatomy.body(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in names if name not in called]


def saved(model: Any) -> dict[str, Tensor]:
    """What PEFT saves of an adapter, by its own names: the very tensors, each once."""
    found = all_saved(model)
    return {name: own for name, own in found.items() if first_name(own, found) == name}


def all_saved(model: Any) -> dict[str, Tensor]:
    """The same with what modules share under the name of each, as PEFT writes it."""
    state: dict[str, Tensor] = require_peft().get_peft_model_state_dict(
        model, state_dict=model.state_dict(keep_vars=True), save_embedding_layers=False
    )
    return state


def trained(model: Any) -> dict[str, nn.Parameter]:
    """What learns, by the names under which PEFT saves it."""
    return {
        n: own
        for n, own in saved(model).items()
        if isinstance(own, nn.Parameter) and own.requires_grad
    }


def first_name(tensor: Tensor, found: Tensors) -> str:
    """The first of the names that a tensor has."""
    return next(name for name, own in found.items() if own is tensor)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal; those without values are."""
    return a.is_meta or torch.equal(a, b.to(a.device))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """While it lasts, torch's global generators draw by a seed; then they are as they were."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield
