"""The bridge to the package PEFT: any of its tuners as an adapter (`peft:lokr`, `peft:oft`, …).

PEFT replaces modules of a network with its own. The network is a copy of the frozen one here, and
`backbones/peft_network.py` walks through it. Sites and `apply` are not used, so these adapters do
not stack, and tasks do not share a pass.

Where timm reads a layer's weight without calling its module (BEiT, SwinV2, some EVA and DINOv3),
PEFT's module would never be called and would train nothing, so it is refused. PEFT draws initial
values and dropouts from torch's global generator; here it is seeded by our keys meanwhile, and then
restored.
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
from idat_zoo.specs import BRIDGE
from idat_zoo.values import Frozen, OptionValue

LAYERS = ("qkv", "q_proj", "k_proj", "v_proj", "proj", "fc1", "fc1_g", "fc1_x", "fc2")
NORMS = ("norm1", "norm2")
"""The default targets: a block's linear layers, and its norms for `ln_tuning`."""

IN_A_BLOCK = re.compile(r"^(?:(?:layers|stages)\.\d+\.)?blocks\.\d+\.")
FEEDFORWARD = "feedforward_modules"
CHOOSING = (TARGETS, "exclude_modules", "layers_to_transform", "layers_pattern")
NOISE = (
    "Failed to load the CUDA ext",
    "Setting boft_n_butterfly_factor",
    "Unsupported layer type '<class 'timm.layers.norm",
)
"""The beginnings of warnings that do not concern the adapter. All others are shown."""
REFUSALS = (ValueError, TypeError, AttributeError, KeyError, RuntimeError, StopIteration)
"""The exceptions that PEFT raises where options do not fit a network."""


class PeftOptions(Frozen):
    """A tuner by PEFT's name, and the configuration's fields that differ from the defaults.

    A list in `target_modules` holds names of modules, or the ends of names within blocks.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OptionValue]

    tuner: str


class Peft(Adapter):
    """Any tuner of PEFT, with its own configuration, on a copy of timm's network."""

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
        """PEFT's name of the tuner, in lower case."""
        return self.options.tuner

    @property
    def word(self) -> str:
        """The name by which the command line calls it."""
        return f"{BRIDGE}:{self.tuner}"

    def _amiss(self, why: str, *, hint: str = "") -> UsageError:
        return UsageError(f"adapter '{self.word}': {why}.", hint=hint)

    @property
    def lives_within(self) -> int:  # type: ignore[override]
        """More steps with `module_dropout`, which may drop a module for several steps."""
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
        """The configuration's fields that differ from the defaults, with every module named.

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
        """A PeftModel around a copy of the network, which itself is not changed.

        It is made on the CPU, so draws do not depend on the device, or on the meta device. Raises:
        RecipeError; UsageError where PEFT cannot adapt the network, or changes frozen weights.
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
        """Check that PEFT adapted the named modules and saves all it trains. Raises: UsageError."""
        beyond = set(adapted(model)) - set(config.target_modules)
        if beyond:
            raise self._amiss(f"by the names that are given, PEFT adapts {min(beyond)} as well")
        kept = {id(parameter) for parameter in trained(model).values()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in kept:
                raise self._amiss(f"PEFT would not save {name}, which is trained")

    def try_out(self, anatomy: Anatomy) -> Any:
        """A PeftModel on the meta device, or with random weights where PEFT reads their values."""
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
        """The reason why PEFT cannot adapt a network, or would train nothing in it, or ''."""
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
        """The tensors that are trained and saved, named as in `backbones/peft_network.py`."""
        model = self.try_out(anatomy)
        learn, own = trained(model), saved(model)
        return Created(
            trainable={name: tensor.detach() for name, tensor in learn.items()},
            frozen={name: tensor for name, tensor in own.items() if name not in learn},
        )

    def apply(self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, **others: Any) -> Tensor:
        """Never called: timm's network calls PEFT's modules."""
        raise AssertionError("PEFT's modules stand in the network itself")


def adapted(model: Any) -> list[str]:
    """The modules that PEFT replaced, by timm's names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    named = model.base_model.model.named_modules()
    return [name for name, own in named if isinstance(own, BaseTunerLayer)]


def uncalled(anatomy: Anatomy, names: list[str]) -> list[str]:
    """Those of the named modules that the network's forward pass does not call."""
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
    """The tensors that PEFT saves of an adapter, by its names: the very tensors, each once."""
    found = all_saved(model)
    return {name: own for name, own in found.items() if first_name(own, found) == name}


def all_saved(model: Any) -> dict[str, Tensor]:
    """As `saved`, with shared tensors under every module's name, as PEFT writes them."""
    state: dict[str, Tensor] = require_peft().get_peft_model_state_dict(
        model, state_dict=model.state_dict(keep_vars=True), save_embedding_layers=False
    )
    return state


def trained(model: Any) -> dict[str, nn.Parameter]:
    """The trained parameters, by the names under which PEFT saves them."""
    return {
        n: own
        for n, own in saved(model).items()
        if isinstance(own, nn.Parameter) and own.requires_grad
    }


def first_name(tensor: Tensor, found: Tensors) -> str:
    """The first of a tensor's names."""
    return next(name for name, own in found.items() if own is tensor)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal; a meta tensor equals any."""
    return a.is_meta or torch.equal(a, b.to(a.device))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them after it."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield
