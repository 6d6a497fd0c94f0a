"""The adapter families of the registry by name: built-in, from plugins, and PEFT's tuners.

Built-in families are described in adapters.toml, so that reading them does not load torch. A family
of a plugin is described from its class at its first use, which may load torch.
"""

import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.peft_options import UNMERGED, check_options, configure, known_fields, written
from idat_zoo.errors import PluginWarning, ZooError
from idat_zoo.option_words import InBlocks
from idat_zoo.outside import ADAPTERS_GROUP, providers
from idat_zoo.registry.shelves import Family, check_table
from idat_zoo.specs import BRIDGE, AdapterSpec, Plugin

if TYPE_CHECKING:
    from idat_zoo.adapters.base import Adapter

BOUNDS = ("gt", "ge", "lt", "le")


class Families(Mapping[str, Family]):
    """Adapter families by name: the built-in ones and those of plugins."""

    def __init__(self, builtin: Mapping[str, Family]) -> None:
        self._known, self._outside = dict(builtin), providers(ADAPTERS_GROUP)

    def __getitem__(self, name: str) -> Family:
        if name.partition(":")[0] == BRIDGE:
            return peft_family(name.partition(":")[2])
        if name not in self._known:
            plugin = self._outside[name].plugin
            adapter = build_adapter(AdapterSpec(name=name))
            self._known[name] = check_table(
                Family,
                describe_family(adapter),
                where=f"plugin {plugin}: adapter '{name}'",
                given={"name": name, "plugin": plugin},
            )
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._known, *self._outside]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def unread(self) -> dict[str, Plugin]:
        """The families of installed distributions that were not used yet, by name.

        They are kept apart because describing a family imports the code of its plugin.
        """
        return {
            name: provider.plugin
            for name, provider in self._outside.items()
            if provider.file is None and name not in self._known
        }

    def described(self) -> list[Family]:
        """Every family; one whose plugin has faults is left out with a warning."""
        found = []
        for name in self:
            try:
                found.append(self[name])
            except ZooError as error:
                if name not in self.unread:
                    raise
                warnings.warn(f"left out: {error.message}", PluginWarning, stacklevel=2)
        return found


class PeftFamily(Family):
    """A tuner of PEFT as an adapter family; its options are the fields of PEFT's configuration."""

    tuner: str

    @property
    def word(self) -> str:
        """The name that the command line takes: `peft:TUNER`."""
        return f"{self.name}:{self.tuner}"

    def as_fields(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an AdapterSpec of this tuner, not yet checked."""
        return {"name": self.name, "options": {"tuner": self.tuner, **options}}

    def specify(self, options: Mapping[str, Any], *, where: str) -> AdapterSpec:
        """The spec of the tuner with these options, as recipes hold it. Raises: as `check`."""
        chosen = written(self.tuner, self.check(options, where=where))
        where = f"{where}: adapter '{self.word}'"
        return check_table(AdapterSpec, self.as_fields(chosen), where=where)

    def check(self, options: Mapping[str, Any], *, where: str) -> dict[str, Any]:
        """The values of all fields. Raises: RecipeError with every fault, including PEFT's own."""
        own = {name: value for name, value in options.items() if name != "tuner"}
        values = check_options(self.tuner, own, where=where)
        configure(self.tuner, written(self.tuner, values))
        return values


@cache
def peft_family(tuner: str) -> PeftFamily:
    """A tuner of the installed PEFT, by PEFT's name.

    Raises: UnknownNameError; UsageError for a tuner that does not fit vision networks, or if PEFT
    is not installed.
    """
    options = {
        name: {"type": "any", "default": field.default, "help": field.help}
        for name, field in known_fields(tuner).items()
    }
    about = f"{tuner} of PEFT, by the fields of its own configuration"
    return check_table(
        PeftFamily,
        {
            "title": f"PEFT's {tuner}",
            "summary": about,
            "paper": "",
            "year": 0,
            "merge": tuner not in UNMERGED,
            "stack": False,
            "options": options,
        },
        where=f"adapter '{BRIDGE}:{tuner}'",
        given={"name": BRIDGE, "tuner": tuner},
    )


def describe_family(adapter: "Adapter") -> dict[str, Any]:
    """The description of a family with default options, as adapters.toml holds it."""
    return {
        "title": adapter.title,
        "summary": (adapter.__doc__ or "").partition("\n")[0],
        "paper": adapter.paper,
        "year": adapter.year,
        "merge": adapter.mergeable,
        "stack": adapter.stackable,
        "options": {name: _option(field) for name, field in _own_first(adapter)},
    }


def _own_first(adapter: "Adapter") -> list[tuple[str, FieldInfo]]:
    """The options of a family: its own first, then those that it shares with others."""
    shared = InBlocks.model_fields
    return sorted(adapter.Options.model_fields.items(), key=lambda item: item[0] in shared)


def _option(field: FieldInfo) -> dict[str, Any]:
    bounds = {
        bound: getattr(rule, bound)
        for rule in field.metadata
        for bound in BOUNDS
        if hasattr(rule, bound)
    }
    marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    kind = type(field.default) if choices else field.annotation
    return {
        "type": getattr(kind, "__name__", str(kind)),
        "default": field.default,
        **bounds,
        **({"choices": choices} if choices else {}),
        **marks,
        "help": field.description or "",
    }
