"""Many runs of one command, as a person gives it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from conftest import FAMILIES
from idat_zoo.backbones.pair import check_carried
from idat_zoo.cli import app
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.registry import get_recipe, load_registry, resolve_tasks, spread_words

TINY = ("--pair", "tiny_random", "--device", "cpu")
SHORT = ("epochs=1", "--json")
LORA = ("train", "--adapter", "lora", *TINY)


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def results_of(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["results"]
    return found


@pytest.mark.system
def test_tasks_seeds_and_values_make_a_run_of_each_combination() -> None:
    result = idat(*LORA, "--task", "digits,count", "--seeds", "0,2", "lr=1e-3,2e-3", *SHORT)
    assert result.exit_code == 0, result.output
    made = [(r["recipe"]["task"]["id"], r["recipe"]["lr"], r["seed"]) for r in results_of(result)]
    assert made == [
        (task, lr, seed) for task in ("digits", "count") for lr in (1e-3, 2e-3) for seed in (0, 2)
    ]
    folders = {r["folder"] for r in results_of(result)}
    assert len(folders) == 8
    assert all((Path(folder) / "result.json").is_file() for folder in folders)


@pytest.mark.slow
def test_runs_of_one_pass_name_each_other_and_are_not_repeated() -> None:
    words = (*LORA, "--task", "digits,textures,count", "--stack", "2", "epochs=1")
    first = idat(*words, "--json")
    assert first.exit_code == 0, first.output
    assert "3 runs take 2 passes, 2 at most in each" in first.stderr
    digits, textures, count = (r["stack"] for r in results_of(first))
    assert digits == textures
    assert [label.split("/")[2] for label in digits] == ["digits", "textures"]
    assert count == []
    again = idat(*words, "--json")
    assert again.stderr.count("finished before") == 3
    assert results_of(again) == results_of(first)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["1", "2"])
def test_the_fault_of_one_run_is_told_and_the_exit_code_is_3(stack: str) -> None:
    result = idat(*LORA, "--task", "digits", "lr=1e-3,1e30", "epochs=3", "--stack", stack)
    assert result.exit_code == 3, result.output
    assert result.stdout.count("top-1") == 1
    failed, error, hint = result.stderr.splitlines()[-3:]
    assert failed.startswith("tiny_random/lora/digits/")
    assert failed.endswith("/seed0 failed:")
    assert error.startswith("error: the loss is not finite in epoch ")
    assert "lower learning rate" in hint


@pytest.mark.slow
def test_where_all_fail_the_exit_code_is_that_of_the_fault() -> None:
    result = idat(*LORA, "--task", "digits", "lr=1e29,1e30", "epochs=3", "--stack", "2")
    assert result.exit_code == 1, result.output
    assert result.stdout == ""


@pytest.mark.slow
def test_a_dry_run_plans_every_run() -> None:
    result = idat(*LORA, "--task", "mini", "--seeds", "0,1", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    plans = json.loads(result.stdout)["plans"]
    assert len(plans) == 12
    assert len({plan["folder"] for plan in plans}) == 12
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--seed", "1", "--seeds", "0,1"), "--seed and --seeds say the same"),
        (("--seeds", "0,,1"), "expected whole numbers with commas"),
        (("--seeds", "-1"), "expected whole numbers with commas"),
        (("--seeds", "0,0"), "asked for twice"),
        (("lr=1e-3,0.001",), "asked for twice"),
        (("lr=1e-3,",), "lr"),
        (("lr=1e-3,fast",), "lr"),
        (("--stack", "0"), "--stack"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    words: tuple[str, ...], told: str
) -> None:
    result = idat(*LORA, "--task", "digits", *words)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert not list(Path().rglob("*.safetensors"))


ABSURD = ("1e400", "nan", "-1", "1e300", "100000", "10" * 40, "true", '"much"', "[1,2],[3]")
OPTIONS = [
    (family, name)
    for family, shelf in load_registry().adapters.items()
    for name, option in shelf.options.items()
    if not isinstance(option.default, bool)
]
FACTORS = {"scale", "query_scale", "residual_start", "inner", "factor", "beta"}
"""A hundred thousand is large for these, but a number that can be computed with."""


@pytest.mark.parametrize(("family", "option"), [one for one in OPTIONS if one[0] in FAMILIES])
def test_absurd_options_are_refused_in_words(family: str, option: str) -> None:
    for value in ABSURD:
        for role, more in (("adapter", ()), ("teacher_adapter", ("--dry-run",))):
            if option in FACTORS and value == "100000":
                continue
            words = ("--adapter", family, "--task", "digits", *TINY, f"{role}.{option}={value}")
            result = idat("train", *words, *more)
            assert result.exit_code == 2, (words, result.output)
            assert isinstance(result.exception, SystemExit), words
            assert option in result.stderr
            assert result.stdout == ""


@pytest.mark.parametrize(
    ("family", "option"),
    [
        pytest.param(*one, marks=() if one[0] in (*FAMILIES, "krona") else pytest.mark.system)
        for one in OPTIONS
    ],
)
def test_absurd_options_of_every_family_are_refused_before_weights_load(
    family: str, option: str
) -> None:
    for value in ABSURD:
        if option in FACTORS and value == "100000":
            continue
        words = [f"adapter.{option}={value}"]
        with pytest.raises((RecipeError, UsageError)) as caught:
            check_carried(get_recipe("digits", family, pair="tiny_random", overrides=words))
        assert option in str(caught.value), words


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("adapter.rank=100000", "rank: at most 16,384 (got 100000)"),
        ("adapter.scale=1e300", "scale: at most 1e+30 (got 1e+300)"),
        ("lr=1e300", "lr: at most 1e+30 (got 1e+300)"),
        ("weight_decay=1e300", "weight_decay: at most 1e+30"),
        ("distillation_weight=1e300", "distillation_weight: at most 1e+30"),
        ("epochs=1000000000", "epochs: must be less than or equal to 100000"),
        ("batch_size=0", "batch_size: must be greater than 0"),
    ],
)
def test_a_refused_value_is_told_with_its_bound(word: str, told: str) -> None:
    for more in ((), ("--dry-run",)):
        result = idat(*LORA, "--task", "digits", word, *more)
        assert result.exit_code == 2, result.output
        assert told in result.stderr


def test_all_is_vtab_1k() -> None:
    registry = load_registry()
    assert resolve_tasks("all", registry) == resolve_tasks("vtab1k", registry)
    assert len(resolve_tasks("all", registry)) == 19


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        ([], [[]]),
        (["lr=1"], [["lr=1"]]),
        (["lr=1,2", "b=3"], [["lr=1", "b=3"], ["lr=2", "b=3"]]),
        (
            ["lr=1,2", "b=3,4"],
            [["lr=1", "b=3"], ["lr=1", "b=4"], ["lr=2", "b=3"], ["lr=2", "b=4"]],
        ),
        (['augmentation=["crop","flip"]'], [['augmentation=["crop","flip"]']]),
        (["candidates.lr=[1,2]"], [["candidates.lr=[1,2]"]]),
        (["a=[1,2],[3]"], [["a=[1,2]"], ["a=[3]"]]),
        (['a="x,y",z'], [['a="x,y"'], ["a=z"]]),
        (["flag"], [["flag"]]),
    ],
)
def test_commas_outside_of_brackets_and_quotes_part_values(
    words: list[str], spread: list[list[str]]
) -> None:
    assert spread_words(words) == spread
