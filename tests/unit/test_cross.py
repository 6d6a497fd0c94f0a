"""Every family on every kind of backbone that can carry it: trained, kept, merged, stacked, mixed.

Where float64 passes are compared, they agree to 1e-9, gradients of the largest of each tensor:
`bmm` and `mm` sum in different orders.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import laws
import pytest
import tomli_w
import torch
from families import facts_of
from kinds import FORMS, tiny
from laws import BATCH, Cell, backbone_of
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from conftest import FAMILIES
from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.backbones import frozen, pinned
from idat_zoo.backbones.anatomy import everywhere
from idat_zoo.backbones.kinds import KINDS
from idat_zoo.backbones.network import DROP_PATH
from idat_zoo.backbones.pair import check_carried
from idat_zoo.backbones.sites import Visitor
from idat_zoo.backbones.walk import begin, walk
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.cli import app
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import TrainingError, UsageError
from idat_zoo.files import parse_tensors
from idat_zoo.hub import weights as hub_weights
from idat_zoo.randomness import Draws
from idat_zoo.recipe import Backbone
from idat_zoo.runs.folder import PROBE_FILE
from idat_zoo.runs.many import run
from idat_zoo.specs import AdapterSpec

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in ADAPTERS},
    "lora+key": ("lora", {"key": True}),
}
"""Families, and one with an option that changes where it acts."""

CARRIED = {
    form: {
        variant
        for variant, (family, _) in VARIANTS.items()
        if not {form, own.kind} & facts_of(family).refused_by
    }
    - ({"lora+key"} if own.kind == "convnext" else set())
    for form, own in FORMS.items()
}
"""By form, what it carries. All others of VARIANTS are refused."""

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
"""Those that the families that stand for all are tried on; each other form carries one."""

FOR_ALL = ("eva02 tiny", "dinov3", "beit shared bias", "swin padded", "swinv2 padded", "convnext")
"""Those that every family is tried on that stands there."""

QUICK = {(form, "lora") for form in UNLIKE_FORMS} | {("vit", "lora+key")}
QUICK |= {(form, "sequential") for form in UNLIKE_FORMS if FORMS[form].kind == "convnext"}
"""All other cells take minutes. Every family on the plain ViT: test_families.py."""

CELLS = [
    (form, variant)
    for form, own in FORMS.items()
    for variant in VARIANTS
    if variant in CARRIED[form]
    if variant == "lora"
    or form in FOR_ALL
    or (form in UNLIKE_FORMS and VARIANTS[variant][0] in FAMILIES)
    if (form, variant) != ("vit", VARIANTS[variant][0])
]
REFUSED = [
    (form, variant)
    for form, own in FORMS.items()
    for variant in VARIANTS
    if variant not in CARRIED[form]
]

each_cell = pytest.mark.parametrize(
    ("form", "variant"),
    [pytest.param(*c, marks=[] if c in QUICK else pytest.mark.system) for c in CELLS],
)


def cell_of(form: str, variant: str) -> Cell:
    family, own = VARIANTS[variant]
    return Cell(family, form, own)


# Which stand on which


def test_the_tables_have_every_family_and_every_kind() -> None:
    assert {family for family, _ in VARIANTS.values()} == set(ADAPTERS)
    assert {FORMS[form].kind for form in UNLIKE_FORMS} == set(KINDS)
    assert set(FOR_ALL) < set(UNLIKE_FORMS)
    assert (len(FORMS), len(CELLS)) == (47, 285)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_carries_what_the_table_says_of_it(form: str) -> None:
    anatomy = backbone_of(form).anatomy
    assert anatomy.kind == FORMS[form].kind
    fits = {
        name for name in VARIANTS if not build_adapter(cell_of(form, name).choice()).misfit(anatomy)
    }
    assert fits == CARRIED[form]


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be built with weights, read or fetched."""

    def touched(*args: Any, **names: Any) -> None:
        raise AssertionError("weights are touched")

    monkeypatch.setattr(frozen, "load_pinned", touched)
    monkeypatch.setattr(frozen, "_initialise", touched)
    monkeypatch.setattr(pinned, "weights_path", touched)
    monkeypatch.setattr(hub_weights, "fetch_weights", touched)


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(("form", "variant"), REFUSED)
def test_what_a_kind_cannot_carry_is_refused_by_name_before_any_weights(
    form: str, variant: str, tmp_path: Path
) -> None:
    recipe, family = cell_of(form, variant).recipe(), VARIANTS[variant][0]
    refused, name = f"adapter '{family}' cannot stand on backbone", tiny(form).name
    with pytest.raises(UsageError, match=f"{refused} '{name}_student' .{FORMS[form].kind}.: "):
        run(recipe, out=tmp_path)
    assert not list(tmp_path.iterdir())
    teacher_alone = recipe.model_copy(update={"adapter": AdapterSpec(name="linear")})
    with pytest.raises(UsageError, match=f"{refused} '{name}_teacher'"):
        check_carried(teacher_alone)


# Laws


@each_cell
def test_two_steps_change_all_that_learns_and_no_frozen_bit(form: str, variant: str) -> None:
    laws.learns_all_and_no_frozen_bit(cell_of(form, variant))


@each_cell
def test_what_is_loaded_has_the_logits_of_what_was_written(form: str, variant: str) -> None:
    laws.is_read_as_it_was_written(cell_of(form, variant))


@each_cell
def test_what_is_merged_gives_the_adapted_networks_logits(form: str, variant: str) -> None:
    laws.merges_to_the_same_logits(cell_of(form, variant))


@each_cell
def test_two_tasks_in_one_pass_learn_what_they_would_alone(form: str, variant: str) -> None:
    laws.stacks_as_alone(cell_of(form, variant))


@each_cell
def test_a_mixed_batch_gives_each_its_own_logits(form: str, variant: str) -> None:
    laws.mixes_as_alone(cell_of(form, variant))


@each_cell
@pytest.mark.parametrize("drop_path", [0.0, 0.3])
def test_a_walk_from_its_prefix_on_has_the_bits_of_a_whole_one(
    form: str, variant: str, drop_path: float
) -> None:
    laws.walks_on_from_its_prefix(cell_of(form, variant), drop_path=drop_path)


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
        met = [
            (site, module) for site, module in owners.items() if Place(block, site) in self.places
        ]
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
    learner = Cell("lora", form).learner()
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
    cell = Cell("linear", form)
    network = cell.network()
    masks = network.draw_masks(BATCH, drop_path=0.3, draws=Draws(0, "student", 0))
    assert masks[DROP_PATH].shape == (blocks, branches, BATCH)
    assert masks[DROP_PATH][0].eq(1).all()
    keep = torch.ones_like(masks[DROP_PATH])
    keep[:, :, 1] = 0
    nobody, here = everywhere(), begin(network.normalise(cell.pixels()))
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
        form: {role: Cell("lora", form).spec(role) for role in ("student", "teacher")}
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
