"""Copy the golden files of the zoo small: `python tests/golden/copy_zoo.py FOLDER`, run once.

FOLDER holds one safetensors file per family, made by running the authors' own code. Each has the
weights of one of two tiny backbones with input and targets: those are stored once. What stays of
each family is numbers alone, in float64.
"""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent / "zoo"

BACKBONES = {"backbone_a": "adaptformer", "backbone_b": "hydra"}
"""The two backbones, and a file that has each."""

FAMILIES = """
adapter_plus adapter_plus_lora adapter_plus_positions adapter_plus_vpt adaptformer bi_adaptformer
bi_lora convpass fact_tk fact_tt houlsby noah_lora pfeiffer ssf vpt_deep vpt_shallow
arc compacter compacter_phm consolidator consolidator_shuffle dtl hydra inducer inducer_variants
mlae peft_dora peft_ia3 peft_loha peft_lokr peft_lokr_full peft_lora peft_lora_bias peft_oft
peft_oft_coft peft_oft_exact peft_pvera peft_vera repadapter
"""

SHARED = ("weight.", "input", "target", "logits.backbone")
KEPT = """
adapter. logits loss grad. merged. merged_formula. delta. frozen. codebook. effective. packed.
probe. layer. variant.
"""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def is_shared(name: str) -> bool:
    return name.startswith(SHARED[:1]) or name in SHARED


def copy(folder: Path) -> None:
    backbones = {}
    for backbone, family in BACKBONES.items():
        tensors, _ = read(folder / f"{family}.safetensors")
        backbones[backbone] = {name: tensors[name] for name in tensors if is_shared(name)}
        save_file(backbones[backbone], HERE / f"{backbone}.safetensors")
    for family in FAMILIES.split():
        tensors, metadata = read(folder / f"{family}.safetensors")
        own = {name: tensors.pop(name) for name in list(tensors) if is_shared(name)}
        (backbone,) = (
            name
            for name, shared in backbones.items()
            if own.keys() == shared.keys() and all(own[n].equal(t) for n, t in shared.items())
        )
        left = [name for name in tensors if not name.startswith(tuple(KEPT.split()))]
        assert not left, f"{family}: {left}"
        save_file(tensors, HERE / f"{family}.safetensors", metadata | {"backbone": backbone})


if __name__ == "__main__":
    copy(Path(sys.argv[1]))
