"""Every family on every kind of backbone that can carry it: trained, kept, merged, stacked, mixed.

Where float64 passes are compared, they agree to 1e-9, gradients of the largest of each tensor:
`bmm` and `mm` sum in different orders.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from families import facts_of
from kinds import FORMS, frozen_of, tiny
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from conftest import for_both, toy_recipe
from idat_zoo import hub
from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.adapters.base import Site
from idat_zoo.backbones import frozen, pinned
from idat_zoo.backbones.anatomy import everywhere
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.kinds import KINDS
from idat_zoo.backbones.network import DROP_PATH, Network, build_network
from idat_zoo.backbones.pair import Backbones, build_pair, check_carried
from idat_zoo.backbones.prefix import constant_until, walk_prefix
from idat_zoo.backbones.sites import Visitor
from idat_zoo.backbones.stack import MixedNetwork, StackedNetwork
from idat_zoo.backbones.walk import Partway, Place, begin, walk
from idat_zoo.checkpoint import load_checkpoint, probe_logits, write_checkpoint
from idat_zoo.cli import app
from idat_zoo.engine.train import Learner, Trainer
from idat_zoo.errors import TrainingError, UsageError
from idat_zoo.files import parse_tensors
from idat_zoo.formats.timm_model import largest_difference, merge
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import AdapterChoice, Backbone, Pair, Recipe
from idat_zoo.run_folder import PROBE_FILE
from idat_zoo.runs import run

TOLERANCE = 1e-9
BATCH = 4

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, dict(facts_of(family).small)) for family in ADAPTERS},
    "lora+key": ("lora", {"key": True}),
}
"""Families, and one with an option that changes where it acts."""

CARRIED = {
    kind: {
        variant
        for variant, (family, _) in VARIANTS.items()
        if kind not in facts_of(family).refused_by
    }
    - ({"lora+key"} if kind == "convnext" else set())
    for kind in KINDS
}
"""By kind of backbone, what it carries. All others of VARIANTS are refused."""

UNLIKE_FORMS = (
    "vit",
    "siglip",
    "dinov2 registers",
    "eva02 tiny",
    "eva02 base",
    "dinov3",
    "dinov3 qkvb",
    "rope mixed",
    "beit",
    "beit shared bias",
    "swin padded",
    "swinv2 padded",
    "convnext",
    "convnext 1x1",
    "convnext v2",
)
"""Those that carry all that their kind carries here; each other form carries one."""

QUICK = {("vit", variant) for variant in VARIANTS} | {(form, "lora") for form in UNLIKE_FORMS}
QUICK |= {(form, "sequential") for form in UNLIKE_FORMS if FORMS[form].kind == "convnext"}
"""All other cells take minutes."""

CELLS = [
    (form, variant)
    for form, own in FORMS.items()
    for variant in VARIANTS
    if variant in CARRIED[own.kind] and (form in UNLIKE_FORMS or variant == "lora")
]
REFUSED = [
    (form, variant)
    for form, own in FORMS.items()
    for variant in VARIANTS
    if variant not in CARRIED[own.kind]
]

each_cell = pytest.mark.parametrize(
    ("form", "variant"),
    [pytest.param(*c, marks=[] if c in QUICK else pytest.mark.system) for c in CELLS],
)


def spec_of(form: str, role: str = "student") -> Backbone:
    """In float32, with other weights for the teacher."""
    spec = tiny(form)
    return spec.model_copy(update={"name": f"{spec.name}_{role}"})


def choice_of(variant: str, **options: Any) -> AdapterChoice:
    family, own = VARIANTS[variant]
    return AdapterChoice(name=family, options=own | options)


def dropout_of(variant: str) -> Mapping[str, Any]:
    return facts_of(VARIANTS[variant][0]).dropout


def recipe_of(form: str, variant: str, **fields: Any) -> Recipe:
    """Two steps on a pair of a form."""
    choice = choice_of(variant, **dropout_of(variant))
    steps = {"epochs": 1, "warmup_epochs": 0, "batch_size": BATCH, "precision": "float32"}
    recipe = toy_recipe(choice.name, options=choice.options, drop_path=0.1, **(steps | fields))
    pair = Pair(name="cross", teacher=spec_of(form, "teacher"), student=spec_of(form))
    return recipe.model_copy(update={"pair": pair})


@cache
def backbone_of(form: str) -> FrozenBackbone:
    """For networks in float64."""
    return frozen_of(form)


@cache
def backbones_to_train() -> Backbones:
    return Backbones(torch.device("cpu"))


def pixels(form: str, count: int = BATCH, *, seed: int = 0) -> Tensor:
    size = FORMS[form].img_size
    source = generator(seed, "test", "images")
    return torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)


def network_of(
    form: str, variant: str, *, seed: int = 0, num_classes: int = 5, **options: Any
) -> Network:
    """In float64, every trained tensor away from its start."""
    network = build_network(
        backbone_of(form),
        build_adapter(choice_of(variant, **options)),
        num_classes=num_classes,
        normalisation="model",
        seed=seed,
        role="student",
    ).double()
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(seed, "test", name))
    return network


def two_networks(form: str, variant: str) -> list[Network]:
    options = facts_of(VARIANTS[variant][0]).unlike
    return [
        network_of(form, variant, seed=seed, num_classes=classes, **options[seed])
        for seed, classes in enumerate((5, 9))
    ]


def untrained(network: Network) -> dict[str, Tensor]:
    """All that a frozen backbone computes with."""
    body = network.body
    return dict(body.named_parameters()) | dict(body.named_buffers())


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def learner_of(recipe: Recipe, form: str) -> Learner:
    pair = build_pair(recipe, seed=0, backbones=backbones_to_train())
    images = pixels(form, 2 * BATCH)
    return Learner(pair, for_both(images), torch.arange(2 * BATCH), recipe, seed=0)


def furthest(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape
    return (first - second).abs().max().item()


# Which stand on which


def test_the_tables_have_every_family_and_every_kind() -> None:
    assert {family for family, _ in VARIANTS.values()} == set(ADAPTERS)
    assert {FORMS[form].kind for form in UNLIKE_FORMS} == set(KINDS)
    refused = sum(len(VARIANTS) - len(CARRIED[FORMS[form].kind]) for form in UNLIKE_FORMS)
    assert len(FORMS) == 47
    assert len(CELLS) == len(FORMS) + len(UNLIKE_FORMS) * (len(VARIANTS) - 1) - refused


@pytest.mark.parametrize("form", FORMS)
def test_a_form_carries_what_the_table_says_of_its_kind(form: str) -> None:
    anatomy = backbone_of(form).anatomy
    assert anatomy.kind == FORMS[form].kind
    fits = {name for name in VARIANTS if not build_adapter(choice_of(name)).misfit(anatomy)}
    assert fits == CARRIED[anatomy.kind]


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be built with weights, read or fetched."""

    def touched(*args: Any, **names: Any) -> None:
        raise AssertionError("weights are touched")

    monkeypatch.setattr(frozen, "load_pinned", touched)
    monkeypatch.setattr(frozen, "_initialise", touched)
    monkeypatch.setattr(pinned, "weights_path", touched)
    monkeypatch.setattr(hub, "fetch_weights", touched)


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(("form", "variant"), REFUSED)
def test_what_a_kind_cannot_carry_is_refused_by_name_before_any_weights(
    form: str, variant: str, tmp_path: Path
) -> None:
    recipe, family = recipe_of(form, variant), VARIANTS[variant][0]
    refused, name = f"adapter '{family}' cannot stand on backbone", tiny(form).name
    with pytest.raises(UsageError, match=f"{refused} '{name}_student' .{FORMS[form].kind}.: "):
        run(recipe, out=tmp_path)
    assert not list(tmp_path.iterdir())
    teacher_alone = recipe.model_copy(update={"adapter": choice_of("linear")})
    with pytest.raises(UsageError, match=f"{refused} '{name}_teacher'"):
        check_carried(teacher_alone)


# Training, and what is written of it


@each_cell
def test_two_steps_change_all_that_learns_and_no_frozen_bit(
    form: str, variant: str, tmp_path: Path
) -> None:
    recipe = recipe_of(form, variant)
    learner = learner_of(recipe, form)
    before = {role: copied(untrained(network)) for role, network in learner.pair.roles()}
    begun = copied(learner.trainable())
    Trainer([learner]).train_epoch(0)
    assert learner.fault is None
    assert not learner.watched
    assert all(not tensor.equal(begun[name]) for name, tensor in learner.trainable().items())
    for role, network in learner.pair.roles():
        after = untrained(network)
        assert after.keys() == before[role].keys()
        assert all(after[name].equal(tensor) for name, tensor in before[role].items())
        assert not any(tensor.requires_grad for tensor in after.values())
        write_checkpoint(tmp_path / role, network, recipe, role=role, recipe_hash="0" * 64, seed=0)
        read = load_checkpoint(tmp_path / role, backbone=network.backbone).network
        assert probe_logits(read).equal(probe_logits(network))


@each_cell
def test_what_is_merged_gives_the_adapted_networks_logits(form: str, variant: str) -> None:
    network = network_of(form, variant)
    if not network.adapter.mergeable:
        with pytest.raises(UsageError, match="cannot be merged"):
            merge(network)
        return
    before = copied(network.state_dict())
    assert largest_difference(network, merge(network)) < TOLERANCE
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())


# Several in one pass


@each_cell
def test_two_tasks_in_one_pass_learn_what_they_would_alone(form: str, variant: str) -> None:
    networks = two_networks(form, variant)
    images = [pixels(form, seed=seed) for seed in range(2)]
    masks = [
        network.draw_masks(BATCH, drop_path=rate, draws=Draws(seed, "student", 7))
        for seed, (network, rate) in enumerate(zip(networks, (0.3, 0.0), strict=True))
    ]
    alone = [n(x, m) for n, x, m in zip(networks, images, masks, strict=True)]
    expected = gradients(networks, alone)
    together = StackedNetwork(networks)(images, masks)
    found = gradients(networks, together)
    for one, other in zip(alone, together, strict=True):
        assert furthest(one, other) < TOLERANCE
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert furthest(gradient, found[name]) < TOLERANCE * gradient.abs().max()


def gradients(networks: Sequence[Network], logits: Sequence[Tensor]) -> dict[str, Tensor]:
    torch.stack([z.square().mean() for z in logits]).sum().backward()
    found = {}
    for number, network in enumerate(networks):
        for name, parameter in network.trainable().items():
            assert parameter.grad is not None
            found[f"{number}/{name}"] = parameter.grad
            parameter.grad = None
    return found


@each_cell
def test_a_mixed_batch_gives_each_its_own_logits(form: str, variant: str) -> None:
    networks = [*two_networks(form, variant), network_of(form, "sequential", seed=2)]
    images = [pixels(form, count, seed=count) for count in (3, 1, 2)]
    with torch.inference_mode():
        together = MixedNetwork(networks)(images)
        for network, own, found in zip(networks, images, together, strict=True):
            assert furthest(network(own), found) < TOLERANCE


# What comes before the first adapter, computed once


TRANSPOSED = {"res-post-norm"}
"""Its first qkv reads patches as the convolution laid them out in memory, and kept ones as rows:
its products differ in the last bit."""


@each_cell
@pytest.mark.parametrize("drop_path", [0.0, 0.3])
def test_a_walk_from_its_prefix_on_has_the_bits_of_a_whole_one(
    form: str, variant: str, drop_path: float
) -> None:
    network, images = network_of(form, variant, **dropout_of(variant)), pixels(form)
    masks = network.draw_masks(BATCH, drop_path=drop_path, draws=Draws(0, "student", 7))
    assert (DROP_PATH in masks) == (drop_path > 0)
    until = constant_until(network, drop_path)
    begun: Partway = walk_prefix(network, images, until=until, batch_size=BATCH)
    whole, rest = network(images, masks), network(begun, masks)
    expected, found = gradients([network], [whole]), gradients([network], [rest])
    pairs = [(whole, rest), *((gradient, found[name]) for name, gradient in expected.items())]
    if form in TRANSPOSED:
        assert all(furthest(one, other) < TOLERANCE for one, other in pairs)
    else:
        assert all(one.equal(other) for one, other in pairs)


# The trap that meeting weights by their identity avoids


def by_hooks(
    self: Visitor, block: int, owners: Mapping[Site, nn.Module], **how: Any
) -> AbstractContextManager[None]:
    """What `Visitor.inside` must not be: hooks of modules, which a read weight does not call."""

    def hook(site: Site) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda module, args, y: self.call(
            site, block, args[0], lambda x, copies: y, {}, ("tokens", "tokens")
        )

    @contextmanager
    def inside() -> Iterator[None]:
        met = [(site, module) for site, module in owners.items() if site in self.sites]
        handles = [module.register_forward_hook(hook(site)) for site, module in met]
        yield
        for handle in handles:
            handle.remove()

    return inside()


@pytest.mark.parametrize(
    ("form", "dead"),
    [
        ("beit", True),
        ("eva02 tiny", True),
        ("dinov3 qkvb", True),
        ("swinv2", True),
        ("vit", False),
        ("dinov3", False),
    ],
)
def test_with_hooks_of_modules_lora_is_dead_where_qkv_is_read_and_that_is_seen(
    form: str, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of(recipe_of(form, "lora"), form)
    monkeypatch.setattr(Visitor, "inside", by_hooks)
    Trainer([learner]).train_epoch(0)
    if not dead:
        assert learner.fault is None
        return
    assert isinstance(learner.fault, TrainingError)
    lora = [name for name in learner.trainable() if "/adapter." in name]
    told = f"{len(lora)} of {len(lora) + 4} trainable tensors got no gradient in two steps"
    assert learner.fault.message.startswith(told)
    assert "student/adapter.blocks.0.query.down.weight" in learner.fault.message


# Drop path by branch


@pytest.mark.parametrize(
    ("form", "blocks", "branches"),
    [
        ("convnext", 5, 1),
        ("convnext 1x1", 5, 1),
        ("convnext v2", 5, 1),
        ("swin", 4, 2),
        ("swinv2", 4, 2),
        ("vit", 2, 2),
    ],
)
def test_an_image_whose_branches_are_dropped_leaves_a_block_as_it_came(
    form: str, blocks: int, branches: int
) -> None:
    network = network_of(form, "linear")
    masks = network.draw_masks(BATCH, drop_path=0.3, draws=Draws(0, "student", 0))
    assert masks[DROP_PATH].shape == (blocks, branches, BATCH)
    assert masks[DROP_PATH][0].eq(1).all()
    keep = torch.ones_like(masks[DROP_PATH])
    keep[:, :, 1] = 0
    nobody, here = everywhere(), begin(network.normalise(pixels(form)))
    for i in range(blocks):
        here = walk(network.kind, here, nobody, keep, until=Place(i, Site.BLOCK_INPUT))
        (came,) = here.tensors
        here = walk(network.kind, here, nobody, keep, until=Place(i, Site.AFTER_MLP))
        leaves = here.tensors[1]
        changed = [not one.equal(other) for one, other in zip(came, leaves, strict=True)]
        assert changed == [True, False, True, True]


# Through the command line


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of each form, and one of ConvNeXt-T with weights that would have to be fetched."""
    folder = tmp_path_factory.mktemp("shelf")
    specs = {
        form: {role: spec_of(form, role) for role in ("student", "teacher")}
        for form in UNLIKE_FORMS
    }
    fetched = Backbone(name="fetched_convnext", timm="convnext_tiny", weights="in12k_ft_in1k")
    backbones = [fetched, *(spec for roles in specs.values() for spec in roles.values())]
    tables = {
        spec.name: spec.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
        for spec in backbones
    }
    pairs = {
        tiny(form).name: {role: spec.name for role, spec in roles.items()}
        for form, roles in specs.items()
    }
    pairs["fetched"] = {"teacher": "micro_teacher", "student": fetched.name}
    (folder / "backbones.toml").write_text(tomli_w.dumps(tables))
    (folder / "pairs.toml").write_text(tomli_w.dumps(pairs))
    return folder


def train(shelf: Path, pair: str, adapter: str, *words: str) -> Result:
    asked = ["--task", "digits", "--adapter", adapter, "--pair", pair, "--shelf", str(shelf)]
    return CliRunner().invoke(app, ["train", *asked, *words], env={"COLUMNS": "200"})


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize("words", [["--dry-run"], ["--yes"], []])
@pytest.mark.parametrize("adapter", ["shared_parallel", "shared_parallel,sequential"])
def test_the_command_refuses_it_before_weights_are_offered(
    adapter: str, words: list[str], shelf: Path, tmp_path: Path
) -> None:
    result = train(shelf, "fetched", adapter, "--out", str(tmp_path / "runs"), *words)
    assert result.exit_code == 2, result.output
    error, hint = result.stderr.splitlines()
    assert "cannot stand on backbone 'fetched_convnext' (convnext): it has no" in error
    assert f"adapter '{adapter.split(',')[0]}'" in error
    assert "idat list adapters" in hint
    assert not result.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.system
@pytest.mark.parametrize("form", UNLIKE_FORMS)
def test_the_command_trains_a_pair_of_each_form(form: str, shelf: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "runs")]
    result = train(shelf, tiny(form).name, "lora", *out, "epochs=1", "warmup_epochs=0")
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").glob("*/*/*/*/seed0")
    probe = parse_tensors((folder / PROBE_FILE).read_bytes())["logits"]
    assert probe_logits(load_checkpoint(folder).network).equal(probe)
