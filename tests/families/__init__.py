"""What the suite of laws (`tests/laws.py`) must be told of every adapter family.

One module per group of families stands here, found by itself, with
`FACTS: dict[str, Facts]` by the family's name. A family without facts fails the suite. To run one
family's laws: `pytest tests/unit/test_families.py -k lora`.

A module of a new family, in full:

    FACTS = {
        "adaptformer": Facts(
            golden=(
                Case(
                    file="adaptformer",
                    names=renamed(("adaptmlp.down_proj", "down"), ("adaptmlp.up_proj", "up")),
                    options={"bottleneck": 4},
                    stochastic={"dropout": 0.1},
                ),
            ),
            count=lambda s: s.L * (2 * s.D * 64 + 64 + s.D),
            published={"B": 1_189_632, "S": 595_200},
            initial={
                "blocks.*.down.weight": Uniform(1 / math.sqrt(WIDE.D)),
                "blocks.*.down.bias": 0.0,
                "blocks.*.up.*": 0.0,
            },
            identity=True,
            small={"bottleneck": 4},
            dropout={"dropout": 0.1},
            unlike=({"bottleneck": 2, "scale": 0.3}, {"bottleneck": 5, "scale": 1.7}),
        ),
    }
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from idat_zoo.adapters.anatomy import Anatomy

Theirs = Mapping[str, Tensor]
"""An authors' tensors: the adapter's by their own names; `weight.…` of the backbone by timm's,
`head.…`; `frozen.…` and `codebook.…` as the file has them."""

Names = Callable[[Theirs], dict[str, Tensor]]
"""From the authors' tensors to all of ours by our names, differentiably."""


class Size(NamedTuple):
    """A plain ViT: blocks, width, width inside the MLP, heads, pixels of a patch's side."""

    L: int
    D: int
    H: int
    M: int
    P: int = 16


VIT_B, VIT_S = Size(12, 768, 3072, 12), Size(12, 384, 1536, 6)
WIDE = Size(4, 384, 1536, 6)
"""The network on which initial values are seen: random weights, image of 32, 5 tokens."""


@dataclass(frozen=True)
class Normal:
    """Values of mean 0 (or another) and a standard deviation, none further off than `cut`."""

    std: float
    mean: float = 0.0
    cut: float = float("inf")


@dataclass(frozen=True)
class Uniform:
    """Values between -bound and bound, all alike."""

    bound: float


Start = float | Normal | Uniform | Callable[[str, Tensor, Anatomy], bool]
"""How a tensor starts: at exactly a number; spread so; or as a function says that looks at it
(name, tensor, anatomy of WIDE: a copy is held to `anatomy.frozen(site, block)`)."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A golden file, or a variant in it, and how ours is made the same network.

    The authors' tensors are leaves; `names` maps them to ours, with torch's functions where shapes
    or values differ, so that every gradient is compared under the authors' names; the gradients of
    backbone tensors that they train (`grad.weight.…`) too: where ours are copies, `names` maps
    `theirs["weight.blocks.0.norm1.weight"]` to them, else the backbone's own tensor is the leaf.

    `stochastic`: options that switch on the parts that the file's probes multiply by a half (masks
    whose name has `drop_path` are drop paths, all others dropouts); `unprobed`: a probe of the file
    that ours is not compared with (`drop_path_half`, `dropout_half`), and the reason.
    `backbone`: arguments of timm's network beside those of the file's, such as `global_pool`.
    `fixed`: the authors' trainable tensors that ours does not train, and the reason: their
    gradients are not compared. `unmerged`: why a merged weight of the file is not compared.
    """

    file: str
    names: Names
    options: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    tolerance: float = 1e-10
    stochastic: Mapping[str, Any] = field(default_factory=dict)
    unprobed: Mapping[str, str] = field(default_factory=dict)
    backbone: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    unmerged: str = ""

    @property
    def id(self) -> str:
        return f"{self.file}:{self.variant}" if self.variant else self.file


@dataclass(frozen=True, kw_only=True)
class Form:
    """A closed form, for families without an authors' file.

    `reference(model, tensors, images)` gives the logits by timm's `model` itself, which has the
    golden backbone's weights and a head, and `tensors`: ours by our names, `head.…` too. Logits,
    loss and every gradient are compared. It must not use anything of ours.
    """

    reference: Callable[[nn.Module, Mapping[str, Tensor], Tensor], Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    why: str
    """Why there is no authors' file."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A family, as its authors' files and the golden READMEs have it: never as our code has it.

    * `golden`: cases; `forms`: closed forms; `more`: functions that assert what goes through a part
      of the network only (Inducer's layer), by a name. At least one of golden and forms.
    * `count(size)`: numbers trained by default, as a formula; `published`: the golden README's, by
      "B" and "S", where `published_options` are those of the README (default: ours);
      `unpublished`: why there is none.
    * `initial`: by a pattern (fnmatch) of our tensors' names, trained and frozen, how they start on
      WIDE at default options. Every tensor has exactly one pattern, every pattern a tensor.
    * `identity`: whether the adapted network starts as the frozen one does (to 1e-6).
    * `small`: options with which it fits every tiny network of the tests (widths of 8, 12, 16, 24
      and 32, 5 tokens and more), where its defaults do not. All laws but counts and initial values
      use them, and add `dropout` or `unlike` to them.
    * `dropout`: options that switch on all that is drawn in training, at rates of 0.3 to 0.5; {}:
      nothing ever is, but `noise`, which is drawn whatever the options.
    * `unlike`: options of two tasks in one stack, as unlike as they may be (ranks, scales, rates);
      `alike`: why ranks cannot differ, where they cannot; `alone`: why tasks cannot share a pass.
    * `outside`: why it stands outside blocks, where it does: it has no option `blocks`.
    * `refused_by`: kinds and forms of backbones that cannot carry it, of `KINDS` and `FORMS`.
    * `unmerged`: forms where it is mergeable but not into that backbone, and how that is told.
    """

    golden: tuple[Case, ...] = ()
    forms: tuple[Form, ...] = ()
    more: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    count: Callable[[Size], int]
    published: Mapping[str, int] = field(default_factory=dict)
    published_options: Mapping[str, Any] = field(default_factory=dict)
    unpublished: str = ""
    initial: Mapping[str, Start]
    identity: bool
    small: Mapping[str, Any] = field(default_factory=dict)
    dropout: Mapping[str, Any] = field(default_factory=dict)
    noise: bool = False
    unlike: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    alike: str = ""
    alone: str = ""
    outside: str = ""
    refused_by: frozenset[str] = frozenset()
    unmerged: Mapping[str, str] = field(default_factory=dict)


UNUSED: dict[str, str] = {
    "adaptformer:bn_head_train": "its head has a BatchNorm; our heads are linear",
    "adapter_plus_lora:qkvo": "its `o` is an update behind proj, not LoRA on it",
    "bi_adaptformer:bihead": "its head is quantised; our heads are linear, with a bias",
    "bi_lora:bihead": "its head is quantised; our heads are linear, with a bias",
    "peft_lora_bias": "its B has a bias, which ours has not",
    "ssf:avg_pool": "its last pair acts before pooling and norm; ours folds into the norm",
}
"""Golden cases that no family is held to, and why."""

Block = Callable[[Any, int, Tensor], Tensor]


def plain_block(block: Any, i: int, x: Tensor) -> Tensor:
    """One of timm's blocks."""
    y: Tensor = block(x)
    return y


def through_blocks(
    model: Any, images: Tensor, tensors: Mapping[str, Tensor], block: Block = plain_block
) -> Tensor:
    """The logits of timm's ViT, from its parts, with another function in place of its blocks'.

    `block(timm's block, its number, x)`; the head is that of `tensors`. For closed forms.
    """
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    for i, own in enumerate(model.blocks):
        x = block(own, i, x)
    features = model.forward_head(model.norm(x), pre_logits=True)
    return F.linear(features, tensors["head.weight"], tensors["head.bias"])


def renamed(*replacements: tuple[str, str], **fixed: Tensor) -> Names:
    """The authors' adapter tensors with parts of their names replaced, in this order.

    What is left of `weight.…`, `head.…`, `frozen.…` and `codebook.…` is not taken.
    """

    def names(theirs: Theirs) -> dict[str, Tensor]:
        ours = {}
        for name, tensor in theirs.items():
            if name.startswith(("weight.", "head.", "frozen.", "codebook.")):
                continue
            for old, new in replacements:
                name = name.replace(old, new)
            ours[name] = tensor
        return ours | fixed

    return names


@cache
def all_facts() -> dict[str, Facts]:
    """Every family's facts, from all modules here. No family has two."""
    facts: dict[str, Facts] = {}
    for found in pkgutil.iter_modules(__path__):
        own: dict[str, Facts] = importlib.import_module(f"{__name__}.{found.name}").FACTS
        assert not facts.keys() & own.keys(), f"{found.name}: {facts.keys() & own.keys()}"
        facts |= own
    return facts


def facts_of(family: str) -> Facts:
    """A family's facts."""
    assert family in all_facts(), (
        f"nothing is known of family '{family}': write its `Facts` in a module of tests/families"
    )
    return all_facts()[family]
