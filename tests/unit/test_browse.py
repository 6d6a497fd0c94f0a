"""`idat list`, `show`, `cp`, `validate`, `env`, and what every command shares."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from idat_zoo.cli import app
from idat_zoo.cli.list_shelves import Kind
from idat_zoo.cli.overview import TRY
from idat_zoo.data.suites.vtab1k import VTAB1K_LISTS
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.registry import get_recipe, load_registry

RESULTS = str(Path(__file__).parents[2] / "benchmarks" / "results" / "digits")
HEAVY = ("torch", "timm", "sklearn", "huggingface_hub")


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No shelf, no data and an empty Hub cache, whatever the machine has."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})


def document(*words: str) -> dict[str, Any]:
    result = idat(*words, "--json")
    assert result.exit_code == 0, result.stderr
    parsed: dict[str, Any] = json.loads(result.stdout)
    assert parsed.pop("schema_version") == 1
    return parsed


def run_outside(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        *(["list", kind.value] for kind in Kind if kind != Kind.RUNS),
        ["list", "adapters", "--pair", "micro"],
        *(["show", name] for name in ("micro/lora/digits", "lora", "micro", "dtd", "vit_b")),
        ["validate"],
        ["validate", "RECIPE"],
        *(["report", RESULTS, *options] for options in ([], ["--format", "markdown"], ["--json"])),
        ["data", "info"],
        ["data", "info", "mini,dtd,fewshot"],
        ["data", "verify", "mini"],
        ["data", "cache"],
    ],
)
def test_browsing_never_loads_torch(words: list[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(dump_recipe(get_recipe("digits", "lora")))
    words = [str(recipe) if word == "RECIPE" else word for word in words]
    code = (
        "import sys\nfrom idat_zoo.cli import app\n"
        f"try: app({words!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    assert run_outside(code).stderr.splitlines()[-1] == "[]"


def test_bare_list_is_one_screen_and_ends_with_what_to_try() -> None:
    lines = idat("list").stdout.splitlines()
    assert len(lines) <= 28
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines[-2:]] == list(TRY)


def test_bare_list_says_what_runs_here_now(tmp_path: Path) -> None:
    snapshot = "snapshots/0/model.safetensors"
    for name in ("vit_small_patch16_224", "vit_base_patch16_224"):
        weights = tmp_path / f"hub/models--timm--{name}.augreg_in21k" / snapshot
        weights.parent.mkdir(parents=True)
        weights.touch()
    for name in VTAB1K_LISTS.values():
        (tmp_path / "data/cifar").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/cifar" / name).touch()
    here = document("list", "--data-dir", str(tmp_path / "data"))["runs_here"]
    mini = ["digits", "textures", "lesions", "sprites_loc", "sprites_ori", "count"]
    assert here["tasks"] == [*mini, "fashion", "cifar100"]
    assert "vit_s_to_vit_b" in here["pairs"]
    assert "vit_ti_to_vit_b" not in here["pairs"]
    assert "vit_s_to_vit_b_random" in here["pairs"]


def test_bare_list_names_every_task_once_and_condenses_the_few_shot_ones() -> None:
    lines = idat("list").stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Tasks"))
    end = next(i for i, line in enumerate(lines) if line.startswith("Runs here"))
    words = " ".join(lines[start + 1 : end]).split()
    tasks = load_registry().tasks.values()
    assert [word for word in words if word in load_registry().tasks] == [
        task.id for task in tasks if not task.shots
    ]
    assert "fewshot_{food101,pets,cars,flowers,aircraft}_{1,2,4,8,16}" in words
    assert sum("{" in word for word in words) == 1
    whole = document("list")["tasks"]
    assert [name for members in whole.values() for name in members] == [task.id for task in tasks]
    assert lines[start + 2].split() == ["real", "fashion"]
    assert lines[start + 3].split()[:2] == ["natural", "cifar100"]


def test_few_shot_tasks_of_ones_own_are_condensed_by_their_numbers_of_images(
    tmp_path: Path,
) -> None:
    (tmp_path / "tasks.toml").write_text(OWN_SHOTS)
    lines = idat("list", "--shelf", str(tmp_path)).stdout
    (told,) = (line for line in lines.splitlines() if "mine_" in line)
    assert told.split()[-2:] == ["mine_{1,3}", "fewshot_own_2"]


def test_bare_list_names_every_pair_once_and_folds_the_tiny_ones() -> None:
    lines = idat("list").stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Pairs"))
    end = next(i for i, line in enumerate(lines) if line.startswith("Tasks"))
    words = " ".join(lines[start + 1 : end]).split()
    pairs = list(load_registry().pairs)
    tiny = [pair for pair in pairs if pair.startswith("tiny_random_")]
    assert [word for word in words if word != "tiny_random_*"] == [
        p for p in pairs if p not in tiny
    ]
    folded = [row["name"] for row in document("list", "pairs", "tiny_random_*")["pairs"]]
    assert folded == tiny
    assert len(tiny) == 10
    assert document("list")["pairs"] == pairs


@pytest.mark.parametrize("words", [[], ["--pair", "vit_s_to_vit_b"], ["--pair", "convnext_t_to_b"]])
def test_the_list_of_adapters_fits_80_columns(words: list[str]) -> None:
    lines = idat("list", "adapters", *words).stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_adapters_of_a_pair_come_with_the_numbers_that_they_train_there() -> None:
    lines = idat("list", "adapters", "l*", "--pair", "vit_s_to_vit_b").stdout.splitlines()
    assert lines[0].split() == ["name", "student", "teacher", "merge", "stack", "paper", "year"]
    assert lines[1].split()[:3] == ["lora", "294,912", "147,456"]
    rows = document("list", "adapters", "--pair", "convnext_t_to_b")["adapters"]
    assert rows
    assert "shared_parallel" not in {row["name"] for row in rows}  # it needs attention
    assert all(row["student"] >= 0 for row in rows)
    refused = idat("list", "adapters", "--pair", "nothing")
    assert refused.exit_code == 2
    assert "unknown pair 'nothing'" in refused.stderr


def test_an_adapter_is_shown_with_the_numbers_that_it_trains_on_every_pair() -> None:
    shown = idat("show", "lora").stdout
    assert "\nvit_s_to_vit_b               294,912    147,456\n" in shown
    assert document("show", "lora")["adapter"]["parameters"]["vit_s_to_vit_b"] == {
        "student": 294_912,
        "teacher": 147_456,
    }


def test_the_list_of_tasks_tells_the_suite() -> None:
    lines = idat("list", "tasks", "*100*").stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "suite", "group"]
    assert lines[1].split()[:3] == ["cifar100", "vtab1k", "natural"]


@pytest.mark.parametrize(
    "kind", ["recipes", "adapters", "pairs", "backbones", "tasks", "shipped", "published"]
)
def test_every_list_has_the_same_names_as_text_and_as_json(kind: str) -> None:
    rows = document("list", kind)[kind]
    lines = idat("list", kind).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [row["name"] for row in rows]


def test_recipes_are_listed_for_each_tasks_own_pair_unless_asked() -> None:
    def names(*words: str) -> list[str]:
        return [row["name"] for row in document("list", "recipes", *words)["recipes"]]

    registry = load_registry()
    assert len(names()) == len(registry.tasks) * len(registry.adapters)
    assert names("--task", "digits,cifar", "--adapter", "lora") == [
        "micro/lora/digits",
        "vit_s_to_vit_b/lora/cifar100",
    ]
    assert names("--task", "dtd", "--adapter", "lora", "--pair", "micro") == ["micro/lora/dtd"]
    assert len(names("*/lora/dtd")) == len(registry.pairs)


def test_what_a_users_shelf_wrote_is_marked(tmp_path: Path) -> None:
    (tmp_path / "pairs.toml").write_text('[micro]\nteacher = "vit_ti"\nstudent = "vit_s"\n')
    result = idat("list", "pairs", "mi*", "--shelf", str(tmp_path))
    assert result.stdout.splitlines()[1].split()[:3] == ["micro*", "vit_ti", "vit_s"]
    assert "from your own shelf" in result.stderr


def test_the_shelf_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pairs.toml").write_text('[mine]\nteacher = "vit_ti"\nstudent = "vit_s"\n')
    monkeypatch.setenv("IDAT_SHELF", str(tmp_path))
    assert document("show", "mine")["pair"]["name"] == "mine"


@pytest.mark.parametrize(
    ("name", "kind", "key", "value"),
    [
        ("lora", "adapter", "year", 2021),
        ("vit_s_to_vit_b", "pair", "name", "vit_s_to_vit_b"),
        ("cifar", "task", "aliases", ["cifar", "cifar_100"]),
        ("fewshot_pets_4", "task", "shots", 4),
        ("cub", "task", "images", "images"),
        ("vit_b_orig", "backbone", "weights", "orig_in21k"),
        ("vit_s_to_vit_b/sequential/cifar", "recipe", "lr", 5e-3),
    ],
)
def test_show_finds_each_kind_of_thing(name: str, kind: str, key: str, value: Any) -> None:
    shown = document("show", name)
    assert shown["kind"] == kind
    assert shown[kind][key] == value


def test_show_names_the_source_of_a_recipe_and_is_itself_a_recipe() -> None:
    text = idat("show", "vit_s_to_vit_b/sequential/dtd").stdout
    assert "# [task.dtd.idat] of vit_s_to_vit_b.toml" in text
    assert "# Source: JCruan519/iDAT" in text
    assert parse_recipe(text, where="shown") == get_recipe("dtd", "sequential")


def test_cp_makes_a_file_that_validates_and_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    assert idat("cp", "micro/lora/digits", str(file)).stdout == f"{file}\n"
    assert parse_recipe(file.read_text(), where="") == get_recipe("digits", "lora")
    assert idat("validate", str(file)).stdout == f"ok  {file}\n"
    assert document("show", str(file))["recipe"]["task"]["id"] == "digits"

    before = file.read_bytes()
    again = idat("cp", "micro/linear/digits", str(file))
    assert (again.exit_code, file.read_bytes()) == (2, before)
    assert idat("cp", "micro/linear/digits", str(file), "--force").exit_code == 0
    assert file.read_bytes() != before
    assert list(tmp_path.iterdir()) == [file]


def test_cp_makes_the_folder_of_its_file_as_out_does(tmp_path: Path) -> None:
    assert idat("cp", "micro/lora/digits", str(tmp_path / "no/mine.toml")).exit_code == 0
    assert (tmp_path / "no/mine.toml").is_file()


def test_cp_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    result = idat("cp", "micro/lora/digits", str(tmp_path / "no/mine.toml"))
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: cannot write '{tmp_path}/no/mine.toml': File exists\n"
        "hint: A file or folder stands in the way: choose another FILE.\n"
    )


OWN_SHOTS = """
[mine]
suite = "fewshot"
num_classes = 3
num_test = [9]
shots = [1, 3]
pair = "micro"
[fewshot_own_2]
suite = "fewshot"
num_classes = 3
num_test = [9]
shots = 2
pair = "micro"
"""
OWN_BACKBONES = """
[resnet]
timm = "resnet18"
weights = "a1_in1k"
[pooled]
timm = "vit_tiny_patch16_224"
weights = "random"
args = { global_pool = "" }
[tag]
timm = "vit_small_patch16_224"
weights = "augreg_in21kk"
img_size = 224
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[dino]
timm = "vit_small_patch14_dinov2"
weights = "lvd142m"
img_size = 224
"""


def test_validate_holds_backbones_of_ones_own_against_timm(tmp_path: Path) -> None:
    (tmp_path / "backbones.toml").write_text(OWN_BACKBONES)
    result = idat("validate", str(tmp_path))
    assert result.exit_code == 2
    for told in (
        "backbone 'resnet' (resnet18) is of no kind that adapters know: it is a ResNet.",
        "backbone 'pooled': args: global_pool: without pooling",
        "unknown tag of vit_small_patch16_224 'augreg_in21kk'. Did you mean 'augreg_in21k'",
        "error: 3 faults",
    ):
        assert told in result.stderr
    note = "backbone 'dino': img_size is 224; vit_small_patch14_dinov2.lvd142m was trained with 518"
    assert note in result.stderr
    answer = json.loads(idat("validate", str(tmp_path), "--json").stdout)
    assert answer["notes"] == [f"{tmp_path}: {note}"]
    assert len(answer["faults"]) == 3


def test_validate_holds_the_backbones_of_a_recipe_against_timm(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    text = dump_recipe(get_recipe("digits", "lora", pair="vit_s_to_vit_b"))
    file.write_text(text.replace("vit_base_patch16_224", "vit_base_patch16_225"))
    result = idat("validate", str(file))
    assert result.exit_code == 2
    assert "unknown network 'vit_base_patch16_225'. Did you mean" in result.stderr


@pytest.mark.slow
def test_validate_lists_the_faults_of_all_that_it_is_given(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    (shelf / "recipes").mkdir(parents=True)
    (shelf / "recipes/micro.toml").write_text("[defaults]\nepochs = 5\n")
    broken = tmp_path / "broken.toml"
    broken.write_text("lr =\n")
    good = tmp_path / "good.toml"
    idat("cp", "micro/lora/digits", str(good))

    result = idat("validate", str(shelf), str(broken), str(good))
    assert result.exit_code == 2
    assert result.stdout == f"ok  {good}\n"
    assert result.stderr.startswith("error: 2 faults:\n")
    assert f"{shelf}/recipes/micro.toml: [defaults]: warmup_epochs = 10 is more" in result.stderr
    assert f"{broken}: broken TOML: " in result.stderr

    answer = json.loads(idat("validate", str(broken), "--json").stdout)
    assert (answer["valid"], len(answer["faults"])) == (False, 1)


def test_env_names_versions_and_folders(tmp_path: Path) -> None:
    facts = document("env")["env"]
    assert {"idat-zoo", "python", "torch", "cuda", "IDAT_SHELF"} <= set(facts)
    assert facts["hub cache"] == str(tmp_path / "hub")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["show", "lorra"], "error: unknown name 'lorra'. Did you mean 'lora'"),
        (
            ["show", "micro/lorra/digits"],
            "error: unknown recipe 'micro/lorra/digits'. Did you mean 'micro/lora/digits'",
        ),
        (["list", "recipes", "--task", "dtdd"], "error: unknown task 'dtdd'. Did you mean 'dtd'?"),
        (["list", "tasks", "--task", "dtd"], "error: --task: only recipes can be filtered so"),
        (["list", "--shelf", "/nowhere"], "error: /nowhere: the shelf is not a folder"),
        (["validate", "/nowhere.toml"], "error: /nowhere.toml: cannot be read: No such file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(words: list[str], line: str) -> None:
    result = idat(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(line)
    assert "Traceback" not in result.stderr


def test_a_traceback_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDAT_DEBUG", "1")
    assert "Traceback" in idat("show", "lorra").stderr


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(shelf: Path | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("idat_zoo.registry.load_registry", interrupt)
    result = idat("list")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")  # --resume is of training


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "from idat_zoo.cli import main; import sys; sys.argv[1:] = ['list', 'recipes', '*']; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=60)


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("idat list recipes --task dtd,sv", ["dtd,svhn", "dtd,svhn_cropped"]),
        ("idat list recipes --adapter lo", ["lora", "lokr", "loha"]),
        ("idat list recipes --pair micro_", ["micro_random"]),
    ],
)
def test_the_shell_completes_names(line: str, answers: list[str]) -> None:
    result = run_outside(
        "from idat_zoo.cli import main; main()",
        _IDAT_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split()) - 1),
    )
    assert result.stdout.split() == answers
