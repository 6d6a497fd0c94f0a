"""Our networks with the tensors of authors' own code: the golden files of `tests/golden/zoo`.

Each was made by running the released code of a family (or PEFT) in float64 on one of two tiny ViTs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from families import Case, Form
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import functional_call

from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.anatomy import measure
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.frozen import FrozenBackbone, hash_network
from idat_zoo.backbones.kinds import load_kind
from idat_zoo.backbones.network import DROP_PATH, Network
from idat_zoo.formats.timm_model import merge
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Backbone
from idat_zoo.specs import AdapterSpec

FOLDER = Path(__file__).parent / "golden" / "zoo"
CLASSES = 5
HEADS = {"backbone_a": 4, "backbone_b": 3}
PROBES = ("drop_path_half", "dropout_half")


@dataclass(frozen=True)
class Golden:
    """One file, or one variant in it, with the backbone's file. `raw` is all that the file has."""

    theirs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    logits: Tensor
    loss: Tensor
    merged: dict[str, Tensor]
    deltas: dict[str, Tensor]
    probes: dict[str, Tensor]
    backbone: str
    info: Mapping[str, Any] = field(repr=False)
    raw: dict[str, Tensor] = field(repr=False)

    @property
    def shared(self) -> dict[str, Tensor]:
        """`weight.…`, `input`, `target` and `logits.backbone`."""
        return read(self.backbone)[0]


@cache
def read(file: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A file's tensors and what it says of itself."""
    with safe_open(FOLDER / f"{file}.safetensors", framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, opened.metadata() or {}


def read_golden(file: str, variant: str = "") -> Golden:
    """A file, or a variant of it, whichever of the two ways it writes variants."""
    raw, metadata = read(file)
    own = of_variant(raw, variant) if variant else raw
    backbone = metadata["backbone"]
    weights = read(backbone)[0]
    gradients = {}
    for name, gradient in under(own, "grad.").items():
        name = name.removeprefix("adapter.")
        gradients[name.removeprefix("weight.") if name.startswith("weight.head.") else name] = (
            gradient
        )
    theirs = under(own, "adapter.")
    theirs |= {n: t for n, t in own.items() if n.startswith(("frozen.", "codebook."))}
    theirs |= {n: t for n, t in weights.items() if n.startswith("weight.")}
    theirs |= under(weights, "weight.", only="head.")
    return Golden(
        theirs=theirs,
        gradients=gradients,
        logits=own["logits"],
        loss=own["loss"].squeeze(),
        merged=under(own, "merged.") | under(own, "merged_formula."),
        deltas=under(own, "delta."),
        probes={probe: own[f"probe.{probe}.logits"] for probe in PROBES if has(own, probe)},
        backbone=backbone,
        info=json.loads(metadata["info"]),
        raw=raw,
    )


def has(tensors: Mapping[str, Tensor], probe: str) -> bool:
    return f"probe.{probe}.logits" in tensors


def of_variant(raw: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
    """Names as a file without variants has them: `variant.V.logits` or `logits.V` -> `logits`."""
    own = under(raw, f"variant.{variant}.")
    for kind in ("adapter", "grad", "merged"):
        own |= {f"{kind}.{n}": t for n, t in under(raw, f"{kind}.{variant}.").items()}
    own |= {
        kind: raw[f"{kind}.{variant}"] for kind in ("logits", "loss") if f"{kind}.{variant}" in raw
    }
    assert "logits" in own, f"no variant {variant}"
    shared = ("frozen.", "codebook.")
    if not any(name.startswith("adapter.") for name in own):
        shared = ("adapter.", *shared)
    return {n: t for n, t in raw.items() if n.startswith(shared)} | own


def cases_in(file: str) -> list[str]:
    """A file and its variants, as `Case.id` names them."""
    names = read(file)[0]
    found = [name.removeprefix("logits.") for name in names if name.startswith("logits.")]
    found += [
        name.removeprefix("variant.").removesuffix(".logits")
        for name in names
        if name.startswith("variant.") and name.endswith(".logits") and ".probe." not in name
    ]
    variants = [f"{file}:{variant}" for variant in found if not variant.startswith("backbone")]
    return [file, *variants] if "logits" in names else variants


def under(tensors: Mapping[str, Tensor], prefix: str, *, only: str = "") -> dict[str, Tensor]:
    """Tensors whose names have a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix + only)
    }


def golden_args(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": HEADS[name], **args}


def timm_model(name: str, *, num_classes: int = CLASSES, **args: Any) -> Any:
    """A golden backbone as timm builds it, with its weights, in float64."""
    own = golden_args(name, args)
    body = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=16, num_classes=num_classes, **own
    )
    weights = under(read(name)[0], "weight.")
    kept = {n: t for n, t in weights.items() if num_classes or not n.startswith("head.")}
    if own.get("global_pool") == "avg" and own.get("fc_norm", True):
        kept = {
            n.replace("norm.", "fc_norm.") if n.startswith("norm.") else n: t
            for n, t in kept.items()
        }
    body = body.double().eval().requires_grad_(False)
    body.load_state_dict(kept)
    return body


def frozen_golden(name: str, args: Mapping[str, Any]) -> FrozenBackbone:
    """The same as a loaded backbone."""
    return _frozen(name, json.dumps(dict(args), sort_keys=True))


@cache
def _frozen(name: str, args: str) -> FrozenBackbone:
    own = json.loads(args)
    body = timm_model(name, num_classes=0, **own)
    kind = load_kind("vit")(body)
    spec = Backbone(
        name=name,
        timm="vit_tiny_patch16_224",
        weights="random",
        img_size=16,
        args=golden_args(name, own),
    )
    return FrozenBackbone(
        spec=spec, body=body, sha256=hash_network(body), kind=kind, anatomy=measure(kind, "vit", 16)
    )


def golden_network(
    family: str, options: Mapping[str, Any], *, backbone: str = "backbone_a", **args: Any
) -> Network:
    """Ours on a golden backbone, in float64, as it starts."""
    return build_network(
        frozen_golden(backbone, args),
        build_adapter(AdapterSpec(name=family, options=dict(options))),
        num_classes=CLASSES,
        normalisation="model",
        seed=0,
        role="student",
    ).double()


def put(network: Network, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the names that `functional_call` takes. All must be there, no other."""
    own = network.adapter_tensors.tensors()
    adapter = {n: t for n, t in ours.items() if not n.startswith("head.")}
    assert not own.keys() - adapter.keys(), f"missing: {sorted(own.keys() - adapter.keys())}"
    assert not adapter.keys() - own.keys(), f"unknown: {sorted(adapter.keys() - own.keys())}"
    for name, tensor in adapter.items():
        assert tensor.shape == own[name].shape, f"{name}: {tensor.shape}, not {own[name].shape}"
    attributes = {f"adapter_tensors.{n.replace('.', '/')}": t for n, t in adapter.items()}
    return attributes | {n: t for n, t in ours.items() if n.startswith("head.")}


def fill(network: Network, ours: Mapping[str, Tensor]) -> Network:
    """The network with our tensors in place of its own."""
    with torch.no_grad():
        put(network, ours)
        for name, tensor in network.adapter_tensors.tensors().items():
            tensor.copy_(ours[name])
        for name, tensor in network.head.named_parameters():
            tensor.copy_(ours[f"head.{name}"])
    return network


def head_of(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in theirs.items() if name.startswith("head.")}


def mismatches(family: str, case: Case) -> Iterator[str]:
    """What differs from the authors' network: backbone, logits, loss, every gradient."""
    golden = read_golden(case.file, case.variant)
    shared = golden.shared
    network = golden_network(family, case.options, backbone=golden.backbone, **case.backbone)
    if not case.backbone:
        plain = golden_network("linear", {}, backbone=golden.backbone)
        logits = fill(plain, head_of(golden.theirs))(shared["input"])
        yield from off("logits.backbone", logits, shared["logits.backbone"], case)
    leaves = {
        name: tensor.clone().requires_grad_(tensor.is_floating_point())
        for name, tensor in golden.theirs.items()
    }
    ours = case.names(leaves) | head_of(leaves)
    trained = [name for name in golden.gradients if name.startswith("weight.")]
    body = {f"body.{name.removeprefix('weight.')}": leaves[name] for name in trained}
    logits = functional_call(network, put(network, ours) | body, (shared["input"],))
    loss = F.cross_entropy(logits, shared["target"])
    yield from off("logits", logits, golden.logits, case)
    yield from off("loss", loss, golden.loss, case)
    compared = [name for name in golden.gradients if name not in case.fixed]
    assert case.fixed.keys() <= golden.gradients.keys()
    assert compared
    found = torch.autograd.grad(loss, [leaves[name] for name in compared], allow_unused=True)
    for name, gradient in zip(compared, found, strict=True):
        expected = golden.gradients[name]
        gradient = torch.zeros_like(expected) if gradient is None else gradient
        yield from off(f"grad.{name}", gradient, expected, case)


def off(what: str, ours: Tensor, theirs: Tensor, case: Case) -> Iterator[str]:
    if ours.shape != theirs.shape:
        yield f"{what}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    else:
        furthest = (ours - theirs).abs().max().item()
        if not furthest <= case.tolerance:
            yield f"{what}: off by {furthest:.1e}"


def merge_mismatches(family: str, case: Case) -> Iterator[str]:
    """What differs from the authors' merged weights, or from those of a closed form."""
    golden = read_golden(case.file, case.variant)
    network = golden_network(family, case.options, backbone=golden.backbone, **case.backbone)
    fill(network, case.names(golden.theirs) | head_of(golden.theirs))
    merged = merge(network).state_dict()
    for name, expected in golden.merged.items():
        yield from off(f"merged.{name}", merged[name], expected, case)
    for name, expected in golden.deltas.items():
        delta = merged[name] - golden.shared[f"weight.{name}"]
        yield from off(f"delta.{name}", delta, expected, case)


def probe_mismatches(family: str, case: Case) -> Iterator[str]:
    """What differs where every drop path, or every dropout, of training multiplies by a half."""
    golden = read_golden(case.file, case.variant)
    options = {**case.options, **case.stochastic}
    network = golden_network(family, options, backbone=golden.backbone, **case.backbone)
    fill(network, case.names(golden.theirs) | head_of(golden.theirs))
    images = golden.shared["input"]
    drawn = network.draw_masks(len(images), drop_path=0.1, draws=Draws(0, "student", 0))
    for probe, expected in golden.probes.items():
        if probe in case.unprobed:
            continue
        of_paths = probe == "drop_path_half"
        masks = {
            name: torch.full_like(mask, 0.5 if ("drop_path" in name) == of_paths else 1.0)
            for name, mask in drawn.items()
        }
        masks[DROP_PATH][0] = 1.0  # block 0 is never dropped
        yield from off(f"probe.{probe}", network(images, masks), expected, case)


def form_mismatches(family: str, form: Form, *, backbone: str = "backbone_a") -> Iterator[str]:
    """What differs from a closed form, with every tensor away from its start."""
    shared = read(backbone)[0]
    network = golden_network(family, form.options, backbone=backbone)
    leaves = {
        name: random_leaf(name, tensor)
        for name, tensor in network.adapter_tensors.tensors().items()
    } | {f"head.{n}": random_leaf(n, t) for n, t in network.head.named_parameters()}
    model: nn.Module = timm_model(backbone)
    case = Case(file="", names=dict)
    results = []
    for logits in (
        functional_call(network, put(network, leaves), (shared["input"],)),
        form.reference(model, leaves, shared["input"]),
    ):
        loss = F.cross_entropy(logits, shared["target"])
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        named = zip(leaves, gradients, strict=True)
        results.append(
            {"logits": logits, "loss": loss}
            | {f"grad.{n}": g if g is not None else torch.zeros_like(leaves[n]) for n, g in named}
        )
    ours, expected = results
    for name in expected:
        yield from off(name, ours[name], expected[name], case)


def random_leaf(name: str, tensor: Tensor) -> Tensor:
    values = torch.empty(tensor.shape, dtype=torch.float64)
    return values.normal_(std=0.3, generator=generator(2, "test", name)).requires_grad_()
