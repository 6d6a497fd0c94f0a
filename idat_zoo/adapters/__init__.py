"""The adapter families by name. A new one is a file here and a line in `ADAPTERS`.

Plugins bring further families (`outside.py`).
"""

from typing import TYPE_CHECKING, Any

from idat_zoo.outside import ADAPTERS_GROUP, check_class, claim, find_class, lacking, providers
from idat_zoo.specs import BRIDGE

if TYPE_CHECKING:
    from idat_zoo.adapters.base import Adapter
    from idat_zoo.specs import AdapterSpec

ADAPTERS = {
    "sequential": "idat_zoo.adapters.idat:Sequential",
    "shared_parallel": "idat_zoo.adapters.idat:SharedParallel",
    "idat_adaptformer": "idat_zoo.adapters.idat:IdatAdaptFormer",
    "lora": "idat_zoo.adapters.lora:LoRA",
    "dora": "idat_zoo.adapters.dora:DoRA",
    "adaptformer": "idat_zoo.adapters.adaptformer:AdaptFormer",
    "houlsby": "idat_zoo.adapters.houlsby:Houlsby",
    "pfeiffer": "idat_zoo.adapters.pfeiffer:Pfeiffer",
    "adapter_plus": "idat_zoo.adapters.adapter_plus:AdapterPlus",
    "ssf": "idat_zoo.adapters.ssf:SSF",
    "bitfit": "idat_zoo.adapters.bitfit:BitFit",
    "layernorm": "idat_zoo.adapters.layernorm:LayerNorm",
    "vpt_shallow": "idat_zoo.adapters.vpt:VPTShallow",
    "vpt_deep": "idat_zoo.adapters.vpt:VPTDeep",
    "convpass": "idat_zoo.adapters.convpass:Convpass",
    "repadapter": "idat_zoo.adapters.repadapter:RepAdapter",
    "fact_tt": "idat_zoo.adapters.fact:FacTTT",
    "fact_tk": "idat_zoo.adapters.fact:FacTTK",
    "bi_lora": "idat_zoo.adapters.bi_lora:BiLoRA",
    "bi_adaptformer": "idat_zoo.adapters.bi_adaptformer:BiAdaptFormer",
    "krona": "idat_zoo.adapters.krona:KronA",
    "krona_b": "idat_zoo.adapters.krona_b:KronAB",
    "krona_res": "idat_zoo.adapters.krona_b:KronARes",
    "lokr": "idat_zoo.adapters.lokr:LoKr",
    "loha": "idat_zoo.adapters.loha:LoHa",
    "compacter": "idat_zoo.adapters.compacter:Compacter",
    "inducer": "idat_zoo.adapters.inducer:Inducer",
    "vera": "idat_zoo.adapters.vera:VeRA",
    "pvera": "idat_zoo.adapters.vera:PVeRA",
    "ia3": "idat_zoo.adapters.ia3:IA3",
    "arc": "idat_zoo.adapters.arc:ARC",
    "consolidator": "idat_zoo.adapters.consolidator:Consolidator",
    "hydra": "idat_zoo.adapters.hydra:Hydra",
    "mlae": "idat_zoo.adapters.mlae:MLAE",
    "dtl": "idat_zoo.adapters.dtl:DTL",
    "oft": "idat_zoo.adapters.oft:OFT",
    "linear": "idat_zoo.adapters.linear:Linear",
    "full": "idat_zoo.adapters.full:Full",
}

claim(ADAPTERS_GROUP, ADAPTERS)

FACTS = ("name", "title", "paper", "year", "Options")
"""The attributes that every family's class must define."""


def find_adapter(name: str) -> "type[Adapter]":
    """The class of a family.

    Raises: UnknownNameError; UsageError where a plugin's object is not an adapter family.
    """
    if name == BRIDGE:
        from idat_zoo.adapters.peft import Peft

        return Peft
    found: type[Adapter] = find_class("adapter", name, own=ADAPTERS, group=ADAPTERS_GROUP)
    return found if name in ADAPTERS else check_family(name, found)


def check_family(name: str, found: Any) -> "type[Adapter]":
    """`found` as a family of this name. Raises: UsageError where it is not one."""
    from idat_zoo.adapters.base import Adapter

    check_class("adapter", name, found, base=Adapter, facts=FACTS)
    family: type[Adapter] = found
    return family


def build_adapter(choice: "AdapterSpec") -> "Adapter":
    """The adapter that a recipe chose, with its options checked.

    Raises: UnknownNameError, RecipeError; UsageError where the plugin that it needs is not loaded.
    """
    if choice.plugin is not None and choice.name not in {*ADAPTERS, *providers(ADAPTERS_GROUP)}:
        raise lacking("adapter", choice.name, choice.plugin)
    return find_adapter(choice.name)(**choice.options)
