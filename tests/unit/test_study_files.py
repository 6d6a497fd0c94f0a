"""Study files: the runs that they ask for, and every fault of a wrong one in a line of its own."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from idat_zoo.errors import RecipeError, UnknownNameError, UsageError
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.registry import get_recipe, load_registry
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.studies import get_study, read_study, study_files, study_titles
from idat_zoo.study.design import Study

HEAD = 'title = "T"\nreference = "none"\npair = "micro_random"\n'
PART = """
[[part]]
tasks = ["digits"]
adapters = ["linear"]
terms = ["none", "mse"]
"""
LORA = PART.replace("linear", "lora")


@cache
def registry() -> Registry:
    return load_registry()


def study_of(text: str, folder: Path) -> Study:
    file = folder / "mine.toml"
    file.write_text(text)
    return read_study(file, registry=registry())


def faults_of(text: str, folder: Path) -> list[str]:
    """The faults of a study file, without the path of the file, which all of them begin with."""
    with pytest.raises(RecipeError) as caught:
        study_of(text, folder)
    start = f"{folder / 'mine.toml'}: "
    assert all(fault.startswith(start) and "\n" not in fault for fault in caught.value.faults)
    return [fault.removeprefix(start) for fault in caught.value.faults]


# What a file asks for


def test_a_part_is_the_cross_product_of_its_axes(tmp_path: Path) -> None:
    axes = (
        'seeds = [3, 0]\ncontrols = ["alone"]\nvalues = {lr = [1e-3, 2e-3], adapter.rank = [4]}\n'
    )
    study = study_of(HEAD + LORA.replace('"digits"', '"digits", "count"') + axes, tmp_path)
    assert (study.name, study.title, study.reference) == ("mine", "T", "none")
    places = [(run.task, run.arm, run.seed, run.values["lr"]) for run in study.runs]
    assert len(places) == len(set(places)) == 2 * 3 * 2 * 2
    assert {run.values["adapter.rank"] for run in study.runs} == {4}
    assert {run.recipe.lr for run in study.runs} == {1e-3, 2e-3}
    assert {run.recipe.adapter.options["rank"] for run in study.runs} == {4}
    assert {run.recipe.pair.name for run in study.runs} == {"micro_random"}
    assert {run.recipe.pair.teacher is None for run in study.runs if run.arm == "alone"} == {True}


def test_a_term_may_have_options_settings_and_a_label(tmp_path: Path) -> None:
    term = '{name = "kl", temperature = 2, epochs = 7, label = "soft"}'
    none, soft = study_of(HEAD + PART.replace('"mse"', term), tmp_path).runs
    assert (none.arm, soft.arm) == ("none", "soft")
    assert none.recipe.epochs != soft.recipe.epochs == 7
    words = ["distillation=kl", "temperature=2", "epochs=7"]
    assert soft.recipe == get_recipe("digits", "linear", pair="micro_random", overrides=words)


def test_fixed_words_concern_every_run_of_a_part(tmp_path: Path) -> None:
    study = study_of(HEAD + LORA + "set = {adapter.rank = 2, epochs = 3}\n", tmp_path)
    assert {run.recipe.epochs for run in study.runs} == {3}
    assert {run.recipe.adapter.options["rank"] for run in study.runs} == {2}
    assert [dict(run.values) for run in study.runs] == [{}, {}]


def test_a_control_counts_by_the_metric_that_it_names(tmp_path: Path) -> None:
    study = study_of(HEAD + PART + 'controls = ["alone", "logit_ensemble"]\n', tmp_path)
    metrics = {run.arm: run.metric for run in study.runs}
    assert metrics == {
        "none": "student",
        "mse": "student",
        "alone": "student",
        "logit_ensemble": "logit_ensemble",
    }


def test_adapters_named_by_all_are_optional(tmp_path: Path) -> None:
    some = study_of(HEAD + PART, tmp_path)
    every = study_of(HEAD + PART.replace('"linear"', '"all"'), tmp_path)
    assert some.optional == ()
    assert {"lora", "linear", "sequential"} < set(every.optional)
    assert {run.adapter for run in every.runs} <= set(every.optional)


# Faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "broken TOML: Invalid value (at end of document)"),
        (HEAD + 'tile = "x"\n' + PART, "unknown key 'tile'. Did you mean 'title'?"),
        (HEAD, "part: is missing"),
        (HEAD + "part = []\n", "part: expected tables [[part]] (got [])"),
        (HEAD + "part = [3]\n", "part: expected tables [[part]] (got [3])"),
        (
            HEAD + '[part]\ntasks = ["digits"]\n',
            "part: expected tables [[part]] (got {'tasks': ['digits']})",
        ),
        (HEAD.replace('"T"', "3") + PART, "title: must be a text (got 3)"),
        (
            HEAD.replace("micro_random", "mikro") + PART,
            "part 1: unknown pair 'mikro'. Did you mean 'micro'?",
        ),
        (
            HEAD.replace("none", "nun") + PART,
            "reference: unknown arm 'nun'. Did you mean 'none'?",
        ),
        (HEAD + PART + "seds = [1]\n", "part 1: unknown key 'seds'. Did you mean 'seeds'"),
        (
            HEAD + PART.replace("digits", "digit"),
            "part 1: tasks: unknown task 'digit'. Did you mean 'digits'",
        ),
        (
            HEAD + PART.replace("linear", "linar"),
            "part 1: adapters: unknown adapter 'linar'. Did you mean 'linear'",
        ),
        (
            HEAD + PART.replace("mse", "mze"),
            "part 1: terms: item 2: unknown distillation term 'mze'. Did you mean 'mse'?",
        ),
        (
            HEAD + PART + 'controls = ["alon"]\n',
            "part 1: controls: unknown control 'alon'. Did you mean 'alone'?",
        ),
        (
            HEAD + PART.replace('["digits"]', "[]"),
            "part 1: tasks: is an empty axis: it needs at least one value (got [])",
        ),
        (HEAD + PART + "seeds = []\n", "part 1: seeds: is an empty axis"),
        (HEAD + PART + "values = {lr = []}\n", "part 1: values: lr: is an empty axis"),
        (
            HEAD + '[[part]]\ntasks = ["digits"]\nadapters = ["linear"]\n',
            "part 1: has no arms: give terms, controls or both",
        ),
        (HEAD + PART + "seeds = [0, 1, 0]\n", "part 1: seeds: holds 0 twice"),
        (HEAD + PART + "values = {lr = [1e-3, 0.001]}\n", "part 1: values: lr: holds 0.001 twice"),
        (HEAD + PART.replace('"mse"', '"none"'), "part 1: terms: holds 'none' twice"),
        (
            HEAD + PART + "values = {lr = 1e-3}\n",
            "part 1: values: lr: expected a list of numbers, words or booleans (got 0.001)",
        ),
        (
            HEAD + PART + "set = {lr = 1e-3}\nvalues = {lr = [1e-3]}\n",
            "part 1: values: lr: is in `set`, too; give one of them",
        ),
        (
            HEAD + PART + "set = {seed = 1}\n",
            "part 1: set: seed: is set by the part's own key `seeds`",
        ),
        (
            HEAD + PART + 'seeds = ["0"]\n',
            "part 1: seeds.0: must be a whole number (got '0')",
        ),
        (
            HEAD + PART + "seeds = [-1]\n",
            "part 1: seeds.0: must be greater than or equal to 0 (got -1)",
        ),
        (HEAD + PART + "seeds = 1\n", "part 1: seeds: expected a list (got 1)"),
        (
            HEAD + PART.replace('["digits"]', '"digits"'),
            "part 1: tasks: expected a list (got 'digits')",
        ),
        (HEAD + PART + "set = 3\n", "part 1: set: expected a table (got 3)"),
        (HEAD + PART + 'protocol = "papr"\n', "part 1: protocol: must be 'standard' or"),
        (
            HEAD + PART.replace('"mse"', "3"),
            "part 1: terms: item 2: expected the name of a distillation term, or a table with its "
            "name (got 3)",
        ),
        (
            HEAD + PART.replace('"mse"', '{name = "kl", temprature = 2}'),
            "part 1: terms: item 2: unknown key 'temprature'. Did you mean 'temperature' or "
            "'temperature_squared'?",
        ),
        (
            HEAD + PART.replace('"mse"', '{name = "mse", label = "a b"}'),
            "part 1: terms: item 2: label: expected a name of letters, digits",
        ),
        (
            HEAD + PART.replace('"mse"', '{name = "mse", label = "none"}'),
            "part 1: two arms are called 'none'; `label` of a term gives it another name",
        ),
        (HEAD + PART + "set = {lrr = 1}\n", "part 1: unknown key 'lrr'. Did you mean 'lr'?"),
        (
            HEAD + PART + "set = {lr = -1}\nseeds = [0, 1]\n",
            "part 1: lr: must be greater than 0 (got -1)",
        ),
        (
            HEAD + PART.replace('"mse"', '{name = "kl", temperature = -2}'),
            "part 1: distillation 'kl': temperature: must be greater than 0 (got -2)",
        ),
        (
            HEAD + LORA + "values = {adapter.rank = [4, 99999999]}\n",
            "part 1: adapter 'lora': options.rank: at most 16,384 (got 99999999)",
        ),
        (
            HEAD + PART + 'controls = ["equal_parameters"]\n',
            "part 1: control 'equal_parameters' of micro_random/linear/digits cannot be made",
        ),
        (
            HEAD + PART + "\n" + PART,
            "part 2 repeats 2 runs of part 1: linear on digits, none, seed 0",
        ),
        (
            HEAD + PART.replace('"mse"', '"mse", {name = "mse", label = "again"}'),
            "arm 'mse' and arm 'again' are the same: linear on digits, again, seed 0 occurs twice",
        ),
        (
            HEAD + PART + PART.replace('"mse"', '{name = "kl", label = "mse"}').replace("di", "di"),
            "part 2: arm 'mse' is another one in an earlier part",
        ),
        (
            HEAD + PART.replace("digits", "folder"),
            "part 1: tasks: task 'folder' is the images of --data-dir: no shelf has it.",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    first, *others = faults_of(text, tmp_path)
    assert first.startswith(message)
    repeated = "repeats" if "another one" in message else None  # as its first arm is not changed
    assert [fault for fault in others if repeated is None or repeated not in fault] == []


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    head = HEAD.replace('"T"', "[1]").replace("none", "nun") + "x = 1\n"
    first = PART.replace("digits", "digts").replace("linear", "linr").replace("mse", "mes")
    second = "[[part]]\ntasks = []\nadapters = ['lora']\n"
    third = LORA + "set = {epochs = 0}\n"
    faults = faults_of(head + first + 'controls = ["alon"]\n' + second + third, tmp_path)
    starts = [
        "unknown key 'x'",
        "title: ",
        "part 1: terms: item 2: unknown distillation term 'mes'",
        "part 1: controls: ",
        "part 1: tasks: ",
        "part 1: adapters: ",
        "part 2: tasks: ",
        "reference: unknown arm 'nun'",
        "part 3: epochs: ",
    ]
    assert [fault.startswith(start) for fault, start in zip(faults, starts, strict=True)] == [
        True
    ] * len(starts)


def test_a_fault_of_a_part_hides_no_other_of_its_faults(tmp_path: Path) -> None:
    """Each fault stands for itself: its mending shows no new one."""
    head = HEAD.replace("micro_random", "mikro")
    part = LORA.replace("digits", "digts") + "sedes = [0]\nprotocol = 1\n"
    words = "values = {epoks = [2], lr = -1}\nset = {adapter.rang = 3, warmup_epochs = -2}\n"
    faults = faults_of(head + part + words, tmp_path)
    parts = (
        *("key 'sedes'", "protocol: ", "pair 'mikro'", "task 'digts'", "lr: expected a list"),
        *("key 'epoks'", "key 'adapter.rang'", "warmup_epochs: ", "lr: must be greater"),
    )
    assert [[own in fault for fault in faults].count(True) for own in parts] == [1] * len(parts)
    assert len(faults) == len(parts)


def test_a_reference_whose_arm_has_a_fault_is_no_second_fault(tmp_path: Path) -> None:
    term = '{name = "mse", lrr = 1}'
    text = HEAD.replace('"none"', '"mse"') + PART.replace('"mse"', term)
    assert len(faults_of(text, tmp_path)) == 1


@pytest.mark.parametrize("word", ["run", "status", "report"])
def test_a_study_cannot_have_the_name_of_a_command(word: str, tmp_path: Path) -> None:
    file = tmp_path / f"{word}.toml"
    file.write_text(HEAD + PART)
    with pytest.raises(RecipeError, match=f"cannot be called '{word}'; rename the file"):
        get_study(file)


def test_a_file_name_that_is_no_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "my study.toml"
    file.write_text(HEAD + PART)
    with pytest.raises(RecipeError, match=r"my study\.toml: name: "):
        get_study(file)


def test_files_that_are_not_there_and_unknown_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"there is no study file 'nowhere\.toml'"):
        get_study("nowhere.toml")
    with pytest.raises(UnknownNameError, match=r"unknown study 'invers'.* 'inverse'"):
        get_study("invers")
    monkeypatch.chdir(tmp_path)
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for place, named in ((None, ""), (shelf, f"in '{shelf / 'studies'}', ")):
        with pytest.raises(UnknownNameError, match="unknown study 'zzz'") as caught:
            get_study("zzz", shelf=place)
        assert caught.value.hint == (
            f"Known: inverse, paper, zoo. Looked among the studies that ship, {named}for a file "
            f"in '{tmp_path}'."
        )
    (tmp_path / "zzz.toml").touch()
    with pytest.raises(UnknownNameError, match=r"unknown study 'zzz'.* 'zzz\.toml'"):
        get_study("zzz")
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="is not UTF-8 text"):
        get_study(tmp_path / "mine.toml")


# The studies that ship, and those of a shelf


def test_the_studies_that_ship(tmp_path: Path) -> None:
    assert list(study_files()) == ["inverse", "paper", "zoo"]
    assert all(study_titles().values())
    paper = get_study("paper")
    assert len(paper.runs) == 19 * 3 * 2 * 3 + 19 * 3 * 2
    assert {run.values["protocol"] for run in paper.runs} == {"standard", "paper"}
    assert {run.recipe.pair.name for run in paper.runs} == {"vit_s_to_vit_b"}
    zoo = get_study("zoo")
    assert {run.arm for run in zoo.runs} == {"mse", "alone"}
    assert {run.adapter for run in zoo.runs} <= set(zoo.optional)


def test_the_runs_of_inverse_are_those_of_idat_train() -> None:
    study = get_study("inverse")
    assert len(study.runs) == 6 * 6 * 3 + 3 * 8 * 3 + 3 * 2 * 3 + 6 * 3
    assert {run.arm for run in study.runs if run.part == 1} == {
        *("none", "mse", "kl", "kl_t2", "mutual", "until_teacher")
    }
    for run in study.runs:
        if run.part == 1:
            words = [f"distillation={run.arm}"]
            if run.arm == "until_teacher":
                words = ["distillation=mse", "distillation_until=teacher"]
            same = get_recipe(run.task, "lora", overrides=words)
            assert recipe_hash(run.recipe) == recipe_hash(same), run
        elif run.arm == "alone":
            same = get_recipe(run.task, run.adapter, teacher="none")
            assert recipe_hash(run.recipe) == recipe_hash(same), run


def test_a_shelf_may_have_studies_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "shelf" / "studies").mkdir(parents=True)
    (tmp_path / "shelf" / "studies" / "own.toml").write_text(HEAD + PART)
    assert study_titles(tmp_path / "shelf")["own"] == "T"
    assert len(get_study("own", shelf=tmp_path / "shelf").runs) == 2


def test_studies_are_read_without_torch() -> None:
    code = (
        "import json, sys\n"
        "from idat_zoo.registry.studies import get_study, study_titles\n"
        "study_titles()\n"
        "print(json.dumps([len(get_study('zoo').runs), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, has_torch = json.loads(done.stdout)
    assert count > 400
    assert not has_torch  # unless a control counts operations or parameters
