"""Plugins: families from a file or an installed distribution, and what is never run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from conftest import FAMILIES, TOY_PAIR, toy_pair, toy_recipe
from idat_zoo import load, load_plugin, outside, run
from idat_zoo.adapters import build_adapter, find_adapter
from idat_zoo.backbones.frozen import describe_anatomy, load_backbone
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.self_check import relative_difference
from idat_zoo.backbones.stack import StackedNetwork
from idat_zoo.cli import app
from idat_zoo.errors import (
    DataError,
    PluginWarning,
    RecipeError,
    TrainingError,
    UnknownNameError,
    UsageError,
    WalkError,
)
from idat_zoo.outside import Provider
from idat_zoo.randomness import generator
from idat_zoo.recipe import Pair
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.registry import get_recipe, load_registry, recipe_from_file
from idat_zoo.runs.inputs import Inputs, require_inputs
from idat_zoo.runs.states import resume_command
from idat_zoo.specs import AdapterSpec, Plugin

pytestmark = pytest.mark.filterwarnings("ignore:Overwriting")  # timm's, of a name told again
DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLE, MIXER, SIMILARITY, PLAIN_TEXT = (
    next(block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if table in block)
    for table in ("ADAPTERS = {", "KINDS = {", "TERMS = {", "TRACKERS = {")
)
SHELF = dict(re.findall(r"```toml\n# (shelf/\w+\.toml)\n(.*?)```", DOCS, re.DOTALL))
FILES = {
    "affine.py": EXAMPLE,
    "mixer.py": MIXER,
    "similarity.py": SIMILARITY,
    "plain_text.py": PLAIN_TEXT,
}
COMMANDS = [
    line
    for line in DOCS.splitlines()
    if line.startswith("idat ") and "leaves.py" not in line  # those are in test_plugin_suites.py
]
IDAT = Path(sys.executable).with_name("idat")
TRAP = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
"""Leaves a file beside itself if it is run."""


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    outside.forget()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The file of the docs."""
    file = tmp_path / "affine.py"
    file.write_text(EXAMPLE)
    return file


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def elsewhere(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, which knows of no plugin."""
    return subprocess.run(
        [IDAT, *words],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def written(folder: Path, text: str, name: str = "affine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the docs' family."""
    place = tmp_path_factory.mktemp("trained")
    load_plugin(written(place, EXAMPLE))
    run(toy_recipe("affine", epochs=1, warmup_epochs=0), device="cpu", out=place / "runs")
    outside.forget()
    (folder,) = place.glob("runs/*/*/*/*/seed0")
    return folder


@pytest.fixture
def with_docs_files(tmp_path: Path) -> Path:
    """A folder with all files of the docs."""
    (tmp_path / "shelf").mkdir()
    for name, text in {**FILES, **SHELF}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.system
def test_the_examples_of_the_docs_train_and_load_in_processes_of_their_own(
    with_docs_files: Path,
) -> None:
    place = with_docs_files
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        _, *words = command.split()
        words = [str(*place.glob(word)) if "*" in word else word for word in words]
        done = elsewhere(*words, cwd=place)
        assert done.returncode == 0, done.stderr
        own = ("tiny_random/lora/digits", "tiny_random/linear/digits")
        named = ("affine", "mixers/sequential/digits", "similarity", *own)
        assert any(name in done.stdout for name in named), (command, done.stdout)
    affine, mixer, similarity = (
        *place.glob("runs/*/affine/*/*/seed0"),
        *place.glob("runs/mixers/*/*/*/seed0"),
        *place.glob("runs/*/lora/*/*/seed0"),
    )
    recipe = parse_recipe((similarity / "recipe.toml").read_text(), where="run")
    assert recipe.distillation.options == {"scale": 2.0}
    assert recipe.plugin_words == ["--plugin", "similarity.py"]
    assert elsewhere("eval", str(similarity), cwd=place).returncode == 0  # the student alone
    for folder, what, name in (
        (affine, "adapter 'affine'", "affine.py"),
        (mixer, "kind of backbone 'mixer'", "mixer.py"),
    ):
        refused = elsewhere("eval", str(folder), cwd=place)
        assert refused.returncode == 2, refused.stderr
        assert f"{what} is of plugin '{name}' (SHA-256 " in refused.stderr
        assert f"--plugin {name}" in refused.stderr
        load_plugin(place / name)
        network, _ = load(folder)
        assert network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 10)


def test_a_plugins_family_is_on_the_shelves(plugin: Path) -> None:
    assert "affine" not in load_registry().adapters
    listed = json.loads(idat("list", "adapters", "--json", "--plugin", str(plugin)).stdout)
    (own,) = (row for row in listed["adapters"] if row["name"] == "affine")
    assert own["options"] == {"scale": 1.0, "shift": True}
    assert own["plugin"]["file"] == "affine.py"
    shown = idat("show", "affine")
    assert "# adapter affine, from plugin 'affine.py' (SHA-256 " in shown.stdout
    assert "factor on the gain" in shown.stdout
    with pytest.raises(RecipeError, match="adapter 'affine': scale"):
        get_recipe("digits", "affine", overrides={"adapter.scale": -1.0})
    with pytest.raises(RecipeError, match=r"Did you mean 'adapter\.scale'"):
        get_recipe("digits", "affine", overrides={"adapter.scael": 1.0})


def test_recipes_say_which_plugin_and_others_stay_as_they_are(plugin: Path, tmp_path: Path) -> None:
    lora = get_recipe("digits", "lora")
    before = dump_recipe(lora), recipe_hash(lora)
    load_plugin(plugin)
    assert (dump_recipe(lora), recipe_hash(lora)) == before
    assert "plugin" not in before[0]
    recipe = get_recipe("digits", "affine")
    assert recipe.adapter.plugin is not None
    assert recipe.adapter.plugin == recipe.teacher_adapter.plugin  # type: ignore[union-attr]
    text = dump_recipe(recipe)
    assert parse_recipe(text, where="test") == recipe
    load_plugin(written(tmp_path, EXAMPLE + "# changed\n"))
    changed = get_recipe("digits", "affine")
    assert recipe_hash(changed) != recipe_hash(recipe)


def test_a_run_from_python_names_the_plugin_too(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    digest = sha256(EXAMPLE.encode()).hexdigest()
    for role in ("adapter", "teacher_adapter"):
        assert config["recipe"][role]["plugin"] == {"file": "affine.py", "sha256": digest}


def test_runs_of_a_plugin_share_a_pass_where_the_file_says_so(
    plugin: Path, toy_network: Callable[..., Network]
) -> None:
    load_plugin(plugin)
    networks = [toy_network("affine", scale=scale) for scale in (0.5, 2.0)]
    with torch.no_grad():
        for number, network in enumerate(networks):
            for name, tensor in network.trainable().items():
                tensor.normal_(std=0.3, generator=generator(number, "test", name))
    images = torch.rand(2, 4, 3, 16, 16, dtype=torch.float64, generator=generator(0, "test", "x"))
    together = StackedNetwork(networks)(list(images))
    for network, own, logits in zip(networks, images, together, strict=True):
        assert (network(own) - logits).abs().max() < 1e-12
    with pytest.raises(UsageError, match="cannot share a pass"):
        StackedNetwork([networks[0], toy_network("affine", shift=False)])


# Kinds of backbones


@pytest.fixture
def mixers(with_docs_files: Path) -> Pair:
    """The pair of the docs' shelf."""
    load_plugin(with_docs_files / "mixer.py")
    return load_registry(with_docs_files / "shelf").find_pair("mixers")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_stands_on_a_plugins_kind(family: str, mixers: Pair) -> None:
    recipe = toy_recipe(family).model_copy(update={"pair": mixers})
    student = toy_pair(recipe).student
    assert student.anatomy.kind == "mixer"
    with torch.no_grad():
        for name, parameter in student.trainable().items():
            parameter.normal_(std=0.1, generator=generator(0, "test", name))
    images = torch.rand(2, 3, 32, 32, generator=generator(0, "test", "x"))
    student(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in student.trainable().values())


def test_what_a_plugins_kind_cannot_carry_is_refused_by_name(mixers: Pair) -> None:
    recipe = toy_recipe("lora", options={"key": True}).model_copy(update={"pair": mixers})
    with pytest.raises(UsageError, match="'lora' cannot stand on backbone 'mixer_tiny'"):
        toy_pair(recipe)


def test_the_walk_of_a_plugins_kind_is_held_to_timm(
    mixers: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDAT_CACHE_DIR", str(tmp_path))
    assert relative_difference(load_backbone(mixers.student).kind, mixers.student) == 0
    outside.forget()
    load_plugin(written(tmp_path, MIXER.replace("mlp_tokens(h.mT).mT", "mlp_tokens(h.mT).mT * 2")))
    with pytest.raises(WalkError, match="backbone 'mixer_small'"):
        load_backbone(outside.marked(mixers.student))


def test_a_kind_from_outside_is_taken_where_a_backbone_names_it_alone(
    mixers: Pair, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is of no kind that adapters know: it is a MlpMixer"):
        describe_anatomy(mixers.student.model_copy(update={"kind": None}))
    with pytest.raises(UsageError, match="is of no kind that adapters know: it is a MlpMixer"):
        describe_anatomy(mixers.student.model_copy(update={"kind": "vit"}))
    with pytest.raises(UnknownNameError, match="Did you mean 'mixer'"):
        describe_anatomy(mixers.student.model_copy(update={"kind": "mixr", "plugin": None}))
    greedy = MIXER.replace("MlpMixer\n    block", "VisionTransformer\n    block").replace(
        "from torch import", "from timm.models import VisionTransformer\nfrom torch import"
    )
    outside.forget()
    load_plugin(written(tmp_path, greedy))
    assert describe_anatomy(TOY_PAIR.student).kind == "vit"


def test_recipes_say_which_plugin_a_kind_is_of(mixers: Pair, with_docs_files: Path) -> None:
    shelf = with_docs_files / "shelf"
    recipe = get_recipe("digits", "sequential", pair="mixers", shelf=shelf)
    (plugin,) = recipe.plugins
    assert recipe.pair.student.plugin == recipe.pair.teacher.plugin == plugin  # type: ignore[union-attr]
    assert plugin.sha256 == sha256(MIXER.encode()).hexdigest()
    assert recipe.plugin_words == ["--plugin", "mixer.py"]
    assert parse_recipe(dump_recipe(recipe), where="test") == recipe
    changed = MIXER + "# changed\n"
    (with_docs_files / "recipe.toml").write_text(dump_recipe(recipe))
    load_plugin(written(with_docs_files, changed, "mixer.py"))
    told = idat("show", str(with_docs_files / "recipe.toml"))
    assert told.stderr.count("kind of backbone 'mixer' was made with plugin 'mixer.py'") == 1
    with pytest.warns(PluginWarning, match="kind of backbone 'mixer'"):
        load_backbone(recipe.pair.student)
    again = get_recipe("digits", "sequential", pair="mixers", shelf=shelf)
    assert recipe_hash(again) != recipe_hash(recipe)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('{"mixer": Mixer}', '{"vit": Mixer}'), "kind of backbone 'vit' of plugin 'affine.py'"),
        (('{"mixer": Mixer}', '{"mixer": MlpMixer}'), "is no subclass of idat_zoo.backbones"),
        (("    title =", "    name ="), "Mixer lacks title"),
        (("def embed", "def embeds"), "Mixer lacks embed"),
    ],
)
def test_a_kind_that_cannot_be_taken_is_refused(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    assert change[0] in MIXER
    with pytest.raises(UsageError, match=re.escape(told)):
        load_plugin(written(tmp_path, MIXER.replace(*change)))
    assert not outside.providers(outside.KINDS_GROUP)


# What is refused, and what is never run


def test_without_the_plugin_a_checkpoint_is_refused_and_no_file_of_its_name_is_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    traps = [written(place, TRAP) for place in (tmp_path, folder, folder / "teacher")]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    for words in (
        ("eval", str(folder)),
        ("predict", str(folder), "photo.png"),
        ("export", str(folder), "--to", "onnx", "-o", "graph"),
        ("train", "--recipe", str(folder / "recipe.toml")),
        ("validate", str(folder / "recipe.toml")),
        ("show", str(folder / "recipe.toml")),
    ):
        refused = idat(*words)
        assert refused.exit_code == 2, (words, refused.output)
        assert "adapter 'affine' is of plugin 'affine.py' (SHA-256 " in refused.stderr
        assert "which is not loaded" in refused.stderr
        assert "--plugin affine.py" in refused.stderr
    with pytest.raises(UsageError, match="which is not loaded"):
        load(folder)
    assert not any(trap.with_suffix(".ran").exists() for trap in traps)


def test_commands_that_are_told_name_the_plugin(trained: Path, plugin: Path) -> None:
    assert "--resume --plugin affine.py" in resume_command(trained)
    load_plugin(plugin)
    recipe = get_recipe("dtd", "affine")
    with pytest.raises(DataError) as caught:
        require_inputs(recipe, Inputs(), seed=0)
    assert "--adapter affine --plugin affine.py" in caught.value.hint


def test_results_are_read_without_the_plugin(trained: Path) -> None:
    told = idat("report", str(trained))
    assert told.exit_code == 0, told.output
    assert "affine" in told.stdout
    told = idat("report", str(trained), "--json")
    assert "'affine.py' (SHA-256 " in told.stdout
    assert idat("list", "runs", str(trained.parents[4])).exit_code == 0


def test_a_changed_plugin_is_told_and_goes_on(trained: Path, tmp_path: Path) -> None:
    changed = written(tmp_path, EXAMPLE + "# changed\n")
    told = idat("eval", str(trained), "--plugin", str(changed), "--json")
    assert told.exit_code == 0, told.output
    assert "'affine' was made with plugin 'affine.py' (SHA-256 " in told.stderr
    assert json.loads(told.stdout)["results"][0]["recipe"]["adapter"]["plugin"]
    told = idat("show", str(trained / "recipe.toml"))
    assert "'affine' was made with plugin 'affine.py' (SHA-256 " in told.stderr
    with pytest.warns(PluginWarning, match="here it is plugin 'affine.py'"):
        load(trained)


def test_the_same_plugin_is_loaded_without_a_word(
    trained: Path, plugin: Path, recwarn: pytest.WarningsRecorder
) -> None:
    told = idat("eval", str(trained), "--plugin", str(plugin))
    assert told.exit_code == 0, told.output
    assert "made with" not in told.output
    load(trained)
    assert not [one for one in recwarn if one.category is PluginWarning]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('ADAPTERS = {"affine"', 'ADAPTERS = {"a/b"'), "'a/b' cannot be the name of its adapter"),
        (("ADAPTERS = ", "FAMILIES = "), "brings nothing: it has no dict ADAPTERS"),
        (('{"affine": Affine}', "{}"), "brings nothing"),
        (("class Affine(", "class Affine(("), "is no Python: "),
        (("import torch\n", "import torhc\n"), "No module named 'torhc'"),
        (('{"affine": Affine}', '{"affine": AffineOptions}'), "is no subclass of idat_zoo"),
        (('{"affine": Affine}', '{"afine": Affine}'), "its class has name = 'affine'"),
        (('"affine"', '"lora"'), "there is another of this name"),
        (("paper, year =", "paper, jahr ="), "Affine lacks year"),
        (("def create", "def make"), "Affine lacks create"),
        (("float = Field(default=1.0, ", "float = Field("), "scale"),
    ],
)
def test_a_plugin_that_cannot_be_taken_is_refused(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    assert change[0] in EXAMPLE
    file = written(tmp_path, EXAMPLE.replace(*change))
    refused = idat("list", "adapters", "--plugin", str(file))
    assert refused.exit_code == 2, refused.output
    assert told in refused.stderr
    assert "affine" not in load_registry().adapters


def test_what_a_plugin_prints_is_not_the_result(tmp_path: Path) -> None:
    told = idat("list", "--json", "--plugin", str(written(tmp_path, f"print('hello')\n{EXAMPLE}")))
    assert "affine" in json.loads(told.stdout)["adapters"]
    assert told.stderr.startswith("hello")


def test_a_plugin_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused = idat("list", "--plugin", str(tmp_path / "absent.py"))
    assert refused.exit_code == 2
    assert "absent.py' cannot be read: No such file or directory" in refused.stderr


def test_options_that_recipes_cannot_hold_are_refused(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        EXAMPLE.replace("scale: float = Field(default=1.0", "scale: list = Field(default=[1]"),
    )
    refused = idat("list", "adapters", "--plugin", str(file))
    assert refused.exit_code == 2
    assert "options.scale.type" in refused.stderr


def test_a_literal_option_takes_its_values_alone(tmp_path: Path) -> None:
    text = EXAMPLE.replace(
        "    shift: bool", '    where: Literal["all", "odd"] = "all"\n    shift: bool'
    )
    load_plugin(written(tmp_path, "from typing import Literal\n" + text))
    assert get_recipe("digits", "affine").adapter.options["where"] == "all"
    with pytest.raises(RecipeError, match=r"adapter 'affine': where: .*'all' or 'odd'"):
        get_recipe("digits", "affine", overrides={"adapter.where": "even"})


def test_two_files_cannot_bring_one_name_and_a_changed_file_may(
    plugin: Path, tmp_path: Path
) -> None:
    load_plugin(plugin)
    with pytest.raises(UsageError, match="there is another of this name"):
        load_plugin(written(tmp_path / "other", EXAMPLE))
    before = find_adapter("affine")
    plugin.write_text(EXAMPLE.replace("Gain and shift by channel", "Another"))
    load_plugin(plugin)
    assert find_adapter("affine").title == "Another"
    assert before.title != "Another"


def test_a_shelf_may_set_recipes_of_a_plugins_family(plugin: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    (shelf / "recipes").mkdir(parents=True)
    (shelf / "recipes" / "micro.toml").write_text("[adapter.affine]\nlr = 0.5\n")
    with pytest.raises(RecipeError, match="unknown adapter 'affine'"):
        load_registry(shelf)
    load_plugin(plugin)
    assert get_recipe("digits", "affine", pair="micro", shelf=shelf).lr == 0.5


# From an installed distribution


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages with one that brings the family."""
    site = tmp_path / "site"
    written(site, EXAMPLE + TRAP, "affine_adapter.py")
    about = site / "affine_adapter-1.2.dist-info"
    written(about, "Metadata-Version: 2.1\nName: affine-adapter\nVersion: 1.2\n", "METADATA")
    written(about, "[idat_zoo.adapters]\naffine = affine_adapter:Affine\n", "entry_points.txt")
    return site


@pytest.mark.system
def test_a_family_of_an_installed_distribution_needs_no_naming(site: Path, tmp_path: Path) -> None:
    with_it = {"PYTHONPATH": str(site)}
    overview = elsewhere("list", "--json", cwd=tmp_path, **with_it)
    assert "affine" in json.loads(overview.stdout)["adapters"]
    train = ("train", "--task", "digits", "--adapter", "lora", "--pair", "tiny_random", "epochs=1")
    assert elsewhere(*train, cwd=tmp_path, **with_it).returncode == 0
    assert not (site / "affine_adapter.ran").exists()  # nobody asked for the family
    words = [word.replace("lora", "affine") for word in train]
    done = elsewhere(*words, cwd=tmp_path, **with_it)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("runs/*/affine/digits/*/seed0")
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"]["adapter"]["plugin"] == {
        "distribution": "affine-adapter",
        "version": "1.2",
    }
    assert elsewhere("eval", str(folder), cwd=tmp_path, **with_it).returncode == 0
    refused = elsewhere("eval", str(folder), cwd=tmp_path)
    assert refused.returncode == 2
    assert "plugin 'affine-adapter' 1.2, which is not installed" in refused.stderr
    assert "pip install affine-adapter==1.2" in refused.stderr


def test_a_kind_of_an_installed_distribution_is_imported_where_a_backbone_names_it(
    with_docs_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (with_docs_files / "mixer.py").rename(with_docs_files / "mixer_kind.py")
    monkeypatch.syspath_prepend(with_docs_files)
    mixer = Provider("mixer_kind:Mixer", Plugin(distribution="mixer-kind", version="2.0"))
    found = {outside.KINDS_GROUP: {"mixer": mixer}}
    monkeypatch.setattr(outside, "installed", lambda group: found.get(group, {}))
    monkeypatch.delitem(timm.models._registry._model_entrypoints, "mixer_tiny", raising=False)
    recipe = get_recipe("digits", "linear", pair="mixers", shelf=with_docs_files / "shelf")
    assert recipe.plugins == [mixer.plugin]
    assert recipe.plugin_words == []
    assert "mixer_kind" not in sys.modules
    assert describe_anatomy(recipe.pair.student).kind == "mixer"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of packages with one whose family cannot be imported, and which also brings lora."""
    site = tmp_path / "site"
    written(site, "import no_such_module\n", "broken_adapter.py")
    about = site / "broken_adapter-0.1.dist-info"
    written(about, "Metadata-Version: 2.1\nName: broken-adapter\nVersion: 0.1\n", "METADATA")
    entries = "[idat_zoo.adapters]\nbroken = broken_adapter:X\nlora = broken_adapter:Y\n"
    written(about, entries, "entry_points.txt")
    return site


@pytest.mark.slow
def test_a_broken_distribution_is_told_and_spoils_nothing(broken: Path, tmp_path: Path) -> None:
    with_it = {"PYTHONPATH": str(broken)}
    listed = elsewhere("list", "adapters", "--json", cwd=tmp_path, **with_it)
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)["adapters"]}
    assert rows["broken"]["title"] == "'broken-adapter' 0.1"
    assert rows["lora"]["title"] == "LoRA"
    assert "'lora' of plugin 'broken-adapter' 0.1 is left out" in listed.stderr
    recipes = elsewhere(
        "list", "recipes", "--task", "digits", "--adapter", "all", cwd=tmp_path, **with_it
    )
    assert recipes.returncode == 0, recipes.stderr
    assert "micro/lora/digits" in recipes.stdout
    assert "No module named 'no_such_module'" in recipes.stderr
    train = ("train", "--task", "digits", "--pair", "tiny_random", "epochs=1", "--adapter")
    done = elsewhere(*train, "lora", cwd=tmp_path, **with_it)
    assert done.returncode == 0, done.stderr
    (recipe,) = tmp_path.glob("runs/*/lora/digits/*/seed0/recipe.toml")
    assert "plugin" not in recipe.read_text()
    refused = elsewhere(*train, "broken", cwd=tmp_path, **with_it)
    assert refused.returncode == 2
    assert "No module named 'no_such_module'" in refused.stderr


def test_an_installed_family_is_listed_by_its_name_without_being_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = Plugin(distribution="other", version="1")
    found = {"gone": Provider("no_such_module:X", plugin)}
    monkeypatch.setattr(outside, "installed", lambda group: found)
    listed = json.loads(idat("list", "adapters", "--json").stdout)["adapters"]
    (own,) = (row for row in listed if row["name"] == "gone")
    assert own["title"] == "'other' 1"
    with pytest.raises(UsageError, match="plugin 'other' 1: No module named 'no_such_module'"):
        find_adapter("gone")
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        build_adapter(AdapterSpec(name="liner"))


@pytest.fixture
def similarity(tmp_path: Path) -> Path:
    """The docs' term, loaded."""
    file = written(tmp_path, SIMILARITY, "similarity.py")
    load_plugin(file)
    return file


def test_a_term_of_a_file_is_trained_with(similarity: Path, tmp_path: Path) -> None:
    term = {"name": "similarity", "options": {"scale": 3.0}}
    recipe = toy_recipe(distillation=term, epochs=1, warmup_epochs=0, precision="float32")
    result = run(recipe, device="cpu", out=tmp_path / "runs")
    (log,) = (tmp_path / "runs").rglob("log.jsonl")
    assert 0 < json.loads(log.read_text())["distillation_loss"] < 3
    (plugin,) = result.recipe.plugins
    assert plugin.file == "similarity.py"
    assert result.recipe_hash == recipe_hash(outside.with_plugins(recipe))
    plain = toy_recipe(distillation={"name": "similarity"})
    default = {"name": "similarity", "options": {"scale": 1.0}}
    assert recipe_hash(plain) == recipe_hash(toy_recipe(distillation=default))
    assert recipe_hash(plain) != recipe_hash(recipe)


def test_words_name_a_term_of_a_file_and_its_options(similarity: Path) -> None:
    words = ["distillation=similarity", "distillation.scale=2"]
    recipe = get_recipe("digits", "lora", overrides=words)
    assert recipe.distillation.options == {"scale": 2.0}
    again = parse_recipe(dump_recipe(recipe), where="again")
    assert again == recipe
    for wrong, fault in (
        (["distillation=similarty"], "unknown distillation term 'similarty'. Did you mean"),
        ([words[0], "distillation.scale=-1"], "scale: must be greater than 0"),
        ([words[0], "distillation.scal=1"], "'distillation.scal'"),
        ([words[0], "temperature=3"], "temperature: unknown key"),
    ):
        with pytest.raises(RecipeError, match=re.escape(fault)):
            get_recipe("digits", "lora", overrides=wrong)


def test_a_term_whose_plugin_is_not_here_is_refused_by_name(
    similarity: Path, tmp_path: Path
) -> None:
    recipe = outside.with_plugins(toy_recipe(distillation={"name": "similarity"}))
    outside.forget()
    with pytest.raises(UsageError, match=r"'similarity' is of plugin 'similarity.py'"):
        run(recipe, device="cpu", out=tmp_path / "runs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('{"similarity": Similarity}', '{"mse": Similarity}'), "there is another of this name"),
        (('{"similarity": Similarity}', '{"none": Similarity}'), "there is another of this name"),
        (('{"similarity": Similarity}', '{"alike": Similarity}'), "has name = 'similarity'"),
        (("(Term):", ":"), "is no subclass of idat_zoo.distillation.base.Term"),
        (("    reads = frozenset({Output.FEATURES})\n", ""), "lacks reads"),
        (
            ("frozenset({Output.FEATURES})", "None"),
            "reads = None; expected a frozenset of features",
        ),
        (("Output.FEATURES}", '"attention"}'), "expected a frozenset of features, logits, tokens"),
    ],
)
def test_a_term_that_cannot_be_taken_is_refused(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    text = SIMILARITY.replace(*change)
    assert text != SIMILARITY
    with pytest.raises(UsageError, match=re.escape(message)):
        load_plugin(written(tmp_path, text, "similarity.py"))


@pytest.mark.parametrize(
    ("loss", "told"),
    [("own", r"its loss is \[64, 64\]"), ("1.5", r"its loss is 1\.5; expected a scalar tensor")],
)
def test_a_loss_that_is_no_scalar_is_told(loss: str, told: str, tmp_path: Path) -> None:
    text = SIMILARITY.replace("return self.options.scale * mse_loss(own, other)", f"return {loss}")
    assert text != SIMILARITY
    load_plugin(written(tmp_path, text, "similarity.py"))
    with pytest.raises(TrainingError, match=told):
        run(toy_recipe(distillation={"name": "similarity"}), device="cpu", out=tmp_path / "runs")


def test_a_plugins_term_cannot_be_a_candidate(similarity: Path) -> None:
    words = ["selection=val", 'candidates.distillation=["mse","similarity"]']
    with pytest.raises(RecipeError, match="'similarity' is of a plugin, and no candidate can be"):
        get_recipe("digits", "lora", overrides=words)


def test_a_plugin_that_is_not_here_is_not_said_to_be_built_in(
    similarity: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    recipe = get_recipe("digits", "lora", overrides=["distillation=similarity"])
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(recipe))
    outside.forget()
    with pytest.raises(RecipeError, match=r"is of plugin 'similarity\.py'"):
        recipe_from_file(file, registry=load_registry())
    assert not [one for one in recwarn if "built in" in str(one.message)]
    plain = get_recipe("digits", "lora")
    words = ["distillation=mse"]
    assert recipe_from_file(file, registry=load_registry(), overrides=words) == plain
    alone = recipe_from_file(file, registry=load_registry(), teacher="none")
    assert alone == get_recipe("digits", "lora", teacher="none")
