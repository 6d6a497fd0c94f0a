"""A suite from a plugin: the docs' example on disk, on the command line and in reports."""

import csv
import json
import re
import shlex
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from idat_zoo import load_plugin, outside
from idat_zoo.cli import app
from idat_zoo.data.load import load_task
from idat_zoo.data.suites import SUITES, load_suite, suite_of
from idat_zoo.errors import DataError, PluginWarning, RecipeError, UnknownNameError, UsageError
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.registry import averaged_tasks, get_recipe, load_registry, resolve_tasks
from idat_zoo.runs.states import resume_command

DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
(EXAMPLE,) = (
    block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "SUITES = {" in block
)
((SHELF, TASKS),) = re.findall(r"```toml\n# (herbarium)/tasks\.toml\n(.*?)```", DOCS, re.DOTALL)
COMMANDS = [line for line in DOCS.splitlines() if re.match(r"idat .*leaves\.py", line)]
HERBS = TASKS.replace("oaks", "mints").replace("Oaks", "Mints").replace("trees", "herbs")
COUNTS = {"train": 24, "val": 6, "test": 12}
SPECIES = ("cork", "holm", "red")


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    outside.forget()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the docs: the plugin, its shelf, and images of its task."""
    (tmp_path / "leaves.py").write_text(EXAMPLE)
    (tmp_path / SHELF).mkdir()
    (tmp_path / SHELF / "tasks.toml").write_text(TASKS)
    folder = tmp_path / "images" / "oaks"
    folder.mkdir(parents=True)
    with (folder / "leaves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "species", "split"])
        for split, count in COUNTS.items():
            for number in range(count):
                name, species = f"{split}{number}.png", number % len(SPECIES)
                shade = tuple(90 * (species == channel) + number for channel in range(3))
                Image.new("RGB", (8, 8), shade).save(folder / name)
                writer.writerow([name, SPECIES[species], split])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDAT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_the_example_of_the_docs_is_verified_trained_evaluated_and_reported(place: Path) -> None:
    assert len(COMMANDS) == 3
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        done = idat(*(str(*place.glob(word)) if "*" in word else word for word in words))
        assert done.exit_code == 0, done.output
        assert "oaks" in done.stdout
    (result,) = place.glob("runs/micro/lora/oaks/*/seed0/result.json")
    task = json.loads(result.read_text())["recipe"]["task"]
    digest = sha256(EXAMPLE.encode()).hexdigest()
    assert task["plugin"] == {"file": "leaves.py", "sha256": digest}
    assert task["class_names"] == [*SPECIES]
    outside.forget()
    reported = idat("report", str(place / "runs"), "--json")  # needs neither plugin nor shelf
    assert json.loads(reported.stdout)["report"]["rows"][0]["task"] == "oaks"
    assert idat("list", "runs", str(place / "runs")).exit_code == 0
    refused = idat("eval", str(result.parent), "--data-dir", "images")
    assert refused.exit_code == 2, refused.output
    assert "suite 'leaves' is of plugin 'leaves.py' (SHA-256 " in refused.stderr
    predicted = idat("predict", str(result.parent), "images/oaks/test1.png")
    assert predicted.exit_code == 0, predicted.output
    for words in (("show",), ("validate",), ("train", "--data-dir", "images", "--recipe")):
        refused = idat(*words, str(result.parent / "recipe.toml"))
        assert refused.exit_code == 2, refused.output
        assert "suite 'leaves' is of plugin 'leaves.py' (SHA-256 " in refused.stderr
    (result.parent / "call.json").unlink(missing_ok=True)
    assert "--plugin leaves.py" in resume_command(result.parent, Path("images"))


def test_its_tasks_are_on_the_shelf_and_go_by_the_suites_name(place: Path) -> None:
    words = ("--shelf", SHELF, "--plugin", "leaves.py")
    overview = json.loads(idat("list", "--json", "--data-dir", "images", *words).stdout)
    assert overview["tasks"]["leaves"] == ["oaks"]
    assert "oaks" in overview["runs_here"]["tasks"]
    info = idat("data", "info", "leaves", "--data-dir", "images", *words).stdout
    assert "layout    DIR/oaks/leaves.csv, lines image,species,split" in info
    assert "there     leaves.csv" in info
    registry = load_registry(place / SHELF)
    assert [task.id for task in resolve_tasks("leaves,oaks", registry)] == ["oaks"]


def test_a_task_is_read_as_its_suite_says(place: Path) -> None:
    load_plugin(place / "leaves.py")
    task = load_registry(place / SHELF).find_task("oaks")
    data = load_task(task, img_size=8, data_dir=place / "images")
    assert [len(split) for split in (data.train, data.val, data.test)] == [24, 6, 12]
    assert data.train.targets[:4].tolist() == [0, 1, 2, 0]
    (place / "images" / "oaks" / "test3.png").unlink()
    with pytest.raises(DataError, match=r"leaves\.csv \(test\): test3\.png: cannot be read"):
        load_task(task, img_size=8, data_dir=place / "images")
    (place / "images" / "oaks" / "leaves.csv").write_text("image,kind,split\n")
    told = idat("data", "verify", "oaks", "--data-dir", "images", "--shelf", SHELF)
    assert "leaves.csv: expected columns image, species and split" in told.stdout
    (place / "images" / "oaks" / "leaves.csv").unlink()
    with pytest.raises(DataError, match=r"missing: images of task 'oaks': no .*leaves\.csv"):
        load_task(task, img_size=8, data_dir=place / "images")


def test_means_are_over_the_shelfs_tasks_of_the_suite(place: Path) -> None:
    load_plugin(place / "leaves.py")
    (place / SHELF / "tasks.toml").write_text(TASKS + HERBS)
    averaged = averaged_tasks(load_registry(place / SHELF))
    assert averaged["leaves"] == {"trees": ("oaks",), "herbs": ("mints",)}
    assert [*averaged] == ["mini", "vtab1k", "leaves"]


def test_a_users_task_of_a_built_in_suite_enters_no_mean(tmp_path: Path) -> None:
    table = TASKS.replace('"leaves"', '"vtab1k"').replace('"trees"', '"natural"')
    (tmp_path / "tasks.toml").write_text(table + table.replace("[oaks]", "[dtd]"))
    assert averaged_tasks(load_registry(tmp_path)) == averaged_tasks(load_registry())


def test_recipes_say_which_plugin_and_others_stay_as_they_are(place: Path) -> None:
    digits = get_recipe("digits", "lora")
    before = dump_recipe(digits), recipe_hash(digits)
    load_plugin(place / "leaves.py")
    assert (dump_recipe(digits), recipe_hash(digits)) == before
    assert "plugin" not in before[0]
    recipe = get_recipe("oaks", "lora", shelf=place / SHELF)
    assert recipe.plugin_words == ["--plugin", "leaves.py"]
    assert parse_recipe(dump_recipe(recipe), where="test") == recipe
    (place / "leaves.py").write_text(EXAMPLE + "# changed\n")
    load_plugin(place / "leaves.py")
    again = get_recipe("oaks", "lora", shelf=place / SHELF)
    assert recipe_hash(again) != recipe_hash(recipe)
    with pytest.warns(PluginWarning, match="suite 'leaves' was made with plugin 'leaves.py'"):
        load_task(recipe.task, img_size=8, data_dir=place / "images")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('{"leaves": Leaves}', '{"vtab1k": Leaves}'), "suite 'vtab1k' of plugin 'leaves.py'"),
        (('{"leaves": Leaves}', '{"leaves": Rows}'), "is no subclass of idat_zoo.data.suites"),
        (('{"leaves": Leaves}', '{"leafs": Leaves}'), "its class has name = 'leaves'"),
        (("    layout =", "    form ="), "Leaves lacks layout"),
        (("    def read(", "    def reads("), "Leaves lacks read"),
        (('groups = ("trees", "herbs")', "groups = 5"), "groups = 5; expected a tuple of names"),
    ],
)
def test_a_suite_that_cannot_be_taken_is_refused(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    assert change[0] in EXAMPLE
    file = tmp_path / "leaves.py"
    file.write_text(EXAMPLE.replace(*change))
    with pytest.raises(UsageError, match=re.escape(told)):
        load_plugin(file)
    assert not outside.providers(outside.SUITES_GROUP)


LISTED = "        return Listing(root=folder, splits=splits, class_names=tuple(species))\n"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("species.index(row[1])", "99"), "train: classes are whole numbers from 0 to 2 (got 99, "),
        (("species.index(row[1])", "row[1]"), "from 0 to 2 (got 'cork', 'holm'"),
        (
            (
                "for row in own],\n                targets",
                "for row in own][1:],\n                targets",
            ),
            "train: 23 images with 24 classes",
        ),
        (("class_names=tuple(species)", 'class_names=("x",)'), "1 class names for 3 classes"),
        ((LISTED, "        del splits['val']\n" + LISTED), "the split 'val' is missing"),
        ((LISTED, "        return None\n"), "expected a Listing (got None)"),
    ],
)
def test_lists_that_a_suite_makes_wrong_are_told_before_anything_is_read(
    change: tuple[str, str], told: str, place: Path
) -> None:
    assert change[0] in EXAMPLE
    (place / "leaves.py").write_text(EXAMPLE.replace(*change))
    on = ("--data-dir", "images", "--shelf", SHELF, "--plugin", "leaves.py")
    verified = idat("data", "verify", "oaks", *on)
    assert verified.exit_code == 1, verified.output
    assert told in verified.output
    trained = idat("train", "--task", "oaks", "--adapter", "lora", "--device", "cpu", *on)
    assert trained.exit_code == 1, trained.output
    assert told in trained.stderr
    assert "Traceback" not in trained.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"leaves"', '"vtab"'), r"\[oaks\]: suite: unknown suite 'vtab'. Did you mean 'vtab1k'"),
        (('"leaves"', '"leaves"'), r"\[oaks\]: suite: unknown suite 'leaves'.*--plugin FILE"),
        (('"leaves"\ngroup = "trees"', '"mini"\ngroup = "trees"'), r"group: must be 'nat"),
    ],
)
def test_a_shelfs_task_of_an_unknown_suite_or_group_is_a_fault(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    assert change[0] in TASKS
    (tmp_path / "tasks.toml").write_text(TASKS.replace(*change))
    with pytest.raises(RecipeError) as caught:
        load_registry(tmp_path)
    assert re.search(told, "\n".join(caught.value.faults))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('suite = "mini"', 'suite = "minni"'), "task: suite: unknown suite 'minni'. Did you mean"),
        (('group = "natural"', 'group = "naturl"'), "task: group: must be 'natural', "),
    ],
)
def test_a_recipe_file_with_an_unknown_suite_or_group_is_refused(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    text = dump_recipe(get_recipe("digits", "lora"))
    assert change[0] in text
    (tmp_path / "recipe.toml").write_text(text.replace(*change))
    refused = idat("show", str(tmp_path / "recipe.toml"))
    assert refused.exit_code == 2
    assert told in refused.stderr


def test_a_source_of_an_unknown_suite_is_a_fault(tmp_path: Path) -> None:
    table = 'repo = "a/b"\nfile = "c.zip"\ngigabytes = 1.0\nlicence = "none"\ntitle = "d"\n'
    (tmp_path / "sources.toml").write_text(f'[mine]\nsuite = "vtab"\n{table}')
    with pytest.raises(RecipeError) as caught:
        load_registry(tmp_path)
    (fault,) = caught.value.faults
    assert "sources.toml: [mine]: suite: unknown suite 'vtab'. Did you mean 'vtab1k'" in fault


@pytest.mark.parametrize("name", SUITES)
def test_every_built_in_suite_goes_by_its_name(name: str) -> None:
    assert load_suite(name).name == name


def test_a_suite_that_nobody_has_is_unknown() -> None:
    task = get_recipe("digits", "lora").task.model_copy(update={"suite": "minni"})
    with pytest.raises(UnknownNameError, match="unknown suite 'minni'"):
        suite_of(task)
