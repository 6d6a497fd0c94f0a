"""Words and mappings that change a recipe, on the command line and in Python."""

import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from shelf_files import write_shelf

from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.registry import get_recipe
from idat_zoo.specs import AdapterSpec, TermSpec


def test_options_are_written_out_and_the_teacher_has_the_students() -> None:
    recipe = get_recipe("digits", "lora", overrides=["adapter.rank=4"])
    assert recipe.pair.name == "micro"
    assert recipe.adapter.options == {"rank": 4, "scale": 1.0, "dropout": 0.0}
    assert recipe.teacher_adapter == recipe.adapter


def test_values_are_toml_or_else_plain_strings() -> None:
    recipe = get_recipe(
        "dtd", "lora", overrides=["lr=1", "distillation=kl", 'detach="teacher"', "temperature=3"]
    )
    assert (recipe.lr, recipe.distillation.name, recipe.detach) == (1.0, "kl", "teacher")
    assert (type(recipe.lr), type(recipe.distillation.options["temperature"])) == (float, float)


def test_a_value_cannot_bring_a_second_key() -> None:
    with pytest.raises(RecipeError, match="lr: must be a number"):
        get_recipe("dtd", "lora", overrides=["lr=1\nepochs = 3"])


@pytest.mark.parametrize(("epochs", "warmup"), [(30, 10), (8, 4), (1, 0)])
def test_fewer_epochs_shorten_the_warmup_unless_it_is_given(epochs: int, warmup: int) -> None:
    words = [f"epochs={epochs}"]
    assert get_recipe("dtd", "lora", overrides=words).warmup_epochs == warmup
    assert get_recipe("dtd", "lora", overrides=[*words, "warmup_epochs=1"]).warmup_epochs == 1


def test_the_teachers_adapter_may_differ() -> None:
    other_rank = get_recipe("dtd", "lora", overrides=["teacher_adapter.rank=2"])
    assert other_rank.teacher_adapter is not None
    assert other_rank.teacher_adapter.options["rank"] == 2
    assert other_rank.adapter.options["rank"] == 8
    head_only = get_recipe("dtd", "lora", overrides=["teacher_adapter=linear"])
    assert head_only.teacher_adapter == AdapterSpec(name="linear", options={"dropout": 0.0})


def test_no_teacher_means_no_teacher_adapter_and_no_distillation() -> None:
    recipe = get_recipe("dtd", "lora", teacher="none")
    assert recipe.pair.name == "vit_s_to_vit_b"
    assert (recipe.pair.teacher, recipe.teacher_adapter, recipe.distillation.name) == (
        None,
        None,
        "none",
    )


def test_another_teacher_names_the_pair_anew() -> None:
    recipe = get_recipe("dtd", "lora", teacher="vit_ti")
    assert recipe.pair == get_recipe("dtd", "lora", pair="vit_ti_to_vit_b").pair
    assert get_recipe("dtd", "lora", teacher="vit_s") == get_recipe("dtd", "lora")


def test_an_option_that_came_later_is_written_only_where_it_is_used() -> None:
    plain = get_recipe("digits", "lora")
    assert "key" not in plain.adapter.options
    assert get_recipe("digits", "lora", overrides=["adapter.key=false"]) == plain
    used = get_recipe("digits", "lora", overrides=["adapter.key=true"])
    assert used.adapter.options == {**plain.adapter.options, "key": True}
    words = ["selection=val", "candidates.adapter.key=[false,true]"]
    chosen = get_recipe("digits", "lora", overrides=words)
    assert chosen.candidates == {"adapter.key": (False, True)}


def test_candidates_take_the_types_of_their_fields() -> None:
    recipe = get_recipe(
        "dtd",
        "lora",
        overrides=["selection=val", "candidates.lr=[1, 1e-3]", "candidates.adapter.rank=[2]"],
    )
    assert recipe.candidates == {"lr": (1.0, 1e-3), "adapter.rank": (2,)}
    assert type(recipe.candidates["lr"][0]) is float


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "'lr': expected KEY=VALUE, e.g. lr=1e-3"),
        (["=1"], "'=1': expected KEY=VALUE, e.g. lr=1e-3"),
        (["lr=1", "lr=2"], "'lr' is given twice: lr=1 and lr=2"),
        (["lrr=1"], "override: unknown key 'lrr'. Did you mean 'lr'?"),
        (["Batch-Size=8"], "override: unknown key 'Batch-Size'. Did you mean 'batch_size'?"),
        (
            ["rank=4"],
            "override: unknown key 'rank'. Did you mean 'adapter.rank' or "
            "'candidates.adapter.rank' or 'teacher_adapter.rank'?",
        ),
        (["lr=abc"], "override: lr: must be a number (got 'abc')"),
        (["lr=-1"], "override: lr: must be greater than 0 (got -1)"),
        (["epochs=0"], "override: epochs: must be greater than 0 (got 0)"),
        (["adapter=lora"], "override: adapter: is chosen by --adapter, not by a word"),
        (["teacher=none"], "override: teacher: is chosen by --teacher, not by a word"),
        (["seed=1"], "override: seed: is chosen by --seed, not by a word"),
        (["data_dir=x"], "override: data_dir: is chosen by --data-dir, not by a word"),
        (
            ["adapter.rnk=4"],
            "override: unknown key 'adapter.rnk'. Did you mean 'adapter.rank' or "
            "'adapter.key' or 'adapter.parts'?",
        ),
        (
            ["teacher_adapter.rank=0"],
            "override: adapter 'lora': rank: must be greater than or equal to 1 (got 0)",
        ),
        (
            ["distillation=kl", "temperature_squared=1"],
            "override: distillation 'kl': temperature_squared: must be true or false (got 1)",
        ),
        (
            ["temperature=3"],
            "override: temperature and temperature_squared act only with distillation = 'kl'",
        ),
        (["warmup_epochs=101"], "override: warmup_epochs = 101 is more than epochs = 100"),
        (
            ["lr=1", "selection=val", "candidates.lr=[1]"],
            "override: lr: candidates.lr chooses it; set only one of the two",
        ),
        (
            ["selection=val", "candidates.lr=[-1]"],
            "override: candidates: lr: must be greater than 0 (got -1)",
        ),
        (
            ["selection=val", "candidates.adapter.rank=[0]"],
            "override: candidates: adapter 'lora': rank: "
            "must be greater than or equal to 1 (got 0)",
        ),
        (
            ["candidates.lr=[1]"],
            "override: candidates need selection = 'val' or 'ensemble'",
        ),
        (
            ["distillation=kl", "temperature=2", "distillation.temperature=3"],
            "override: temperature and distillation.temperature say the same; give one of them",
        ),
        (
            [
                *("distillation=kl", "selection=val"),
                *("candidates.temperature=[2]", "candidates.distillation.temperature=[3]"),
            ],
            "override: candidates.temperature and candidates.distillation.temperature say the "
            "same; give one of them",
        ),
        (
            [
                *("distillation=kl", "selection=val", "distillation.temperature=7"),
                "candidates.temperature=[3]",
            ],
            "override: temperature: candidates.temperature chooses it; set only one of the two",
        ),
    ],
)
def test_each_wrong_word_is_named(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_recipe("dtd", "lora", overrides=words)
    assert caught.value.faults == [message]


def test_all_wrong_words_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        get_recipe("dtd", "lora", overrides=["lr=x", "epochs=-1", "adapter.rank=0"])
    assert len(caught.value.faults) == 3


def test_an_option_of_the_term_has_two_spellings_and_one_recipe() -> None:
    short, long = (
        get_recipe("digits", "lora", overrides=["distillation=kl", "selection=val", *words])
        for words in (
            ["temperature_squared=true", "candidates.temperature=[2,7]"],
            ["distillation.temperature_squared=true", "candidates.distillation.temperature=[2,7]"],
        )
    )
    assert short == long
    assert short.candidates == {"temperature": (2.0, 7.0)}


def test_the_default_temperature_may_be_spelt_out_beside_any_term() -> None:
    plain = get_recipe("digits", "lora")
    assert get_recipe("digits", "lora", overrides=["temperature=5.0"]) == plain


@pytest.mark.parametrize("value", [{"options": {"temperature": 3}}, {"name": "kl", "options": 3}])
def test_a_term_as_a_mapping_is_checked(value: dict[str, object]) -> None:
    fault = r"temperature.* act only with|distillation\.options: must be a table"
    with pytest.raises(RecipeError, match=fault):
        get_recipe("digits", "lora", overrides={"distillation": value})
    recipe = get_recipe("digits", "lora", overrides={"distillation": {"name": "kl", "options": {}}})
    assert recipe.distillation.options["temperature"] == 5.0
    assert get_recipe("digits", "lora", overrides={"distillation": {}}) == get_recipe(
        "digits", "lora"
    )


def test_candidates_of_the_term_fit_the_recipe() -> None:
    words = ["selection=val", 'candidates.distillation=["kl","mse"]']
    recipe = get_recipe("digits", "lora", overrides=words)
    assert recipe.candidates == {"distillation": ("kl", "mse")}
    with pytest.raises(RecipeError, match=r"candidates: distillation = 'kl' needs a teacher"):
        get_recipe("digits", "lora", teacher="none", overrides=words)


def test_a_shelfs_tables_lay_terms_over_each_other(tmp_path: Path) -> None:
    recipes = {
        "recipes/micro.toml": (
            '[defaults]\ndistillation = "kl"\ntemperature = 3.0\n'
            '[task.digits]\ndistillation = "mse"\n'
            '[task.textures]\ndistillation = "kl"\n'
            '[task.lesions]\ndistillation = {name = "kl", options = {temperature_squared = true}}\n'
        )
    }
    shelf = write_shelf(tmp_path, recipes)
    found = {
        task: get_recipe(task, "lora", pair="micro", shelf=shelf).distillation
        for task in ("digits", "textures", "lesions")
    }
    squared = {"temperature": 3.0, "temperature_squared": True}
    assert found["digits"] == TermSpec(name="mse")
    assert found["textures"].options == squared | {"temperature_squared": False}
    assert found["lesions"].options == squared


def test_words_for_a_teacher_that_is_not_there_are_refused() -> None:
    with pytest.raises(RecipeError, match="this recipe has no teacher"):
        get_recipe("dtd", "lora", teacher="none", overrides=["teacher_adapter.rank=2"])
    with pytest.raises(RecipeError, match="needs a teacher"):
        get_recipe("dtd", "lora", teacher="none", overrides=["distillation=kl"])


def test_overrides_are_words_or_a_mapping() -> None:
    words = get_recipe("digits", "lora", overrides=["epochs=2", "adapter.rank=4", "lr=0.02"])
    mapping = {"epochs": 2, "adapter.rank": 4, "lr": 0.02}
    assert get_recipe("digits", "lora", overrides=mapping) == words
    assert get_recipe("digits", "lora", overrides="epochs=2").epochs == 2
    chosen = get_recipe(
        "digits", "lora", overrides={"selection": "val", "candidates.lr": (1e-3, 1e-2)}
    )
    assert chosen.candidates == {"lr": (1e-3, 1e-2)}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epoch": 2}, "unknown key 'epoch'. Did you mean 'epochs'"),
        ({"epochs": "2"}, "epochs: must be a whole number (got '2')"),
        ({"adapter.rank": 0}, "rank"),
        ({"task": "dtd"}, "task"),
    ],
)
def test_a_mapping_is_checked_as_words_are(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_recipe("digits", "lora", overrides=wrong)
    assert told in str(caught.value)


def test_ones_own_images_are_a_task_from_python_too(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path / "pets", {"cat": 9, "dog": 9})
    for place in (tmp_path / "pets", str(tmp_path / "pets")):
        recipe = get_recipe("folder", "lora", pair="micro", data_dir=place)
        assert recipe.task.class_names == ("cat", "dog")
        assert recipe.task.id.startswith("folder-")
    assert get_recipe("folder", "lora", data_dir=place).pair.name == "vit_s_to_vit_b"
    for wrong in ({"task": "folder"}, {"task": "digits", "data_dir": tmp_path}):
        with pytest.raises(UsageError, match="data_dir is where the images of task 'folder' are"):
            get_recipe(adapter="lora", **wrong)  # type: ignore[arg-type]


def test_dir_is_what_is_public_and_loads_nothing() -> None:
    code = (
        "import sys, idat_zoo; print(*dir(idat_zoo)); "
        "print(all(callable(getattr(idat_zoo, name)) for name in dir(idat_zoo)))"
    )
    bare = "import sys, idat_zoo; dir(idat_zoo); print('torch' in sys.modules)"
    said = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
        for c in (code, bare)
    ]
    assert said == ["adapt evaluate load load_plugin run run_many\nTrue\n", "False\n"]
