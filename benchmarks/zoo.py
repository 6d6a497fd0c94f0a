"""Every adapter family on the micro pair, alone and with iDAT: choice, runs, table, what ships.

    python benchmarks/zoo.py choose [1/2]    each family's learning rate, on val200 of digits
    python benchmarks/zoo.py rates           write the rates to registry/recipes/micro.toml
    python benchmarks/zoo.py measure [1/2]   the runs that the table `zoo` shows
    python benchmarks/zoo.py clock           time all families, one after the other, in rounds
    python benchmarks/zoo.py table           write the tables `zoo`, `zoo_gain` and `zoo_choice`
    python benchmarks/zoo.py ship            train builtin:TASK-FAMILY for the six mini tasks
    python benchmarks/zoo.py                 all six

Runs lie in build/zoo-runs and are resumed or reused. `1/2` and `2/2` are halves of the families,
for two processes side by side, of one thread each; `choose` is whole before `measure` begins. Test
is read by `measure` alone, after each family's rate is written to registry/recipes/micro.toml.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from statistics import fmean, median

import tomli_w
import torch
from micro import RESULTS, ROOT, interval, told_versions, val_top1, write

from idat_zoo.adapters import ADAPTERS
from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.engine.precision import describe_device
from idat_zoo.errors import DivergedError
from idat_zoo.recipe import Recipe
from idat_zoo.registry import averaged_tasks, get_recipe, load_registry, task_suites
from idat_zoo.report.build import build_report
from idat_zoo.report.cells import points
from idat_zoo.report.rows import estimate
from idat_zoo.results import RESULT_FILE, Result, find_results
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run
from idat_zoo.versions import versions

RUNS = ROOT / "build" / "zoo-runs"
CHOICES = RUNS / "choices"
CLOCK = RUNS / "clock"
RECIPES = ROOT / "registry" / "recipes" / "micro.toml"
BUILTIN = ROOT / "idat_zoo" / "builtin"
SHELF = ROOT / "registry" / "shipped.toml"
SHELF_HEADER = "# Source: written by `python benchmarks/zoo.py ship` from the runs it made.\n\n"

RATES = (1e-3, 1e-2)
TO_CHOOSE = {"epochs": 4, "warmup": 1}
BUDGET = {"epochs": 10, "warmup_epochs": 1}
ROUNDS = 3
IMAGES = 960  # of an epoch: a last, partial batch is dropped
TASKS = ("digits", "textures", "sprites_loc")
ARMS = {"alone": "none", "with iDAT": None}
THREE_SEEDS = ("lora", "adapter_plus", "krona")
SHIPPED = ("lora", "adapter_plus", "krona")


def choose(families: Sequence[str]) -> None:
    """Each family's rate, by the mean val200 top-1 of both arms: neither is favoured."""
    CHOICES.mkdir(parents=True, exist_ok=True)
    for family in families:
        place = CHOICES / f"{family}.json"
        if not place.exists():
            reached = {f"{rate:g}": [_reached(family, rate, arm) for arm in ARMS] for rate in RATES}
            write(place, {"val_top1": reached})


def _reached(family: str, rate: float, arm: str) -> float:
    try:
        return val_top1(family, rate, ARMS[arm], out=RUNS, **TO_CHOOSE)
    except DivergedError as error:
        print(f"{family}, lr {rate:g}, {arm}: {error}", flush=True)
        return 0.0


def chosen() -> dict[str, float]:
    """The rate of every family; of two that are equal the smaller."""
    found = {}
    for family in ADAPTERS:
        reached = json.loads((CHOICES / f"{family}.json").read_text())["val_top1"]
        found[family] = max(RATES, key=lambda rate: (fmean(reached[f"{rate:g}"]), -rate))
    return found


def write_rates() -> None:
    """The rates that are not the pair's own, as tables of its recipe file."""
    own, _, _ = RECIPES.read_text().partition("\n[adapter.")
    usual = get_recipe("digits", "linear").lr
    tables = [
        f"\n[adapter.{family}]\nlr = {rate:g}\n"
        for family, rate in chosen().items()
        if rate != usual
    ]
    RECIPES.write_text(own.rstrip("\n") + "\n" + "".join(tables))


def measure(families: Sequence[str]) -> None:
    """The runs of the table, kept as result files."""
    for family in families:
        for task in TASKS:
            for teacher in ARMS.values():
                for seed in seeds_of(family):
                    recipe = recipe_of(family, task, teacher)
                    _keep(run(recipe, seed=seed, device="cpu", out=RUNS, resume=True))


def seeds_of(family: str) -> range:
    """One seed, or three of those that are looked at more closely."""
    return range(3 if family in THREE_SEEDS else 1)


def recipe_of(family: str, task: str, teacher: str | None) -> Recipe:
    """A family's recipe on the micro pair within the budget of the table."""
    return get_recipe(task, family, teacher=teacher, overrides=BUDGET)


def _keep(result: Result) -> None:
    folder = run_folder(RUNS, result.recipe, result.seed)
    target = RESULTS / "zoo_runs" / folder.relative_to(RUNS)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / RESULT_FILE, target / RESULT_FILE)
    print(f"{result.label} seed {result.seed}: {result.top1:.4f}", flush=True)


def clock() -> None:
    """Seconds of each family's budget on digits, alone: by one epoch in each of the rounds.

    All families take turns, so that what else the machine does meets all of them.
    """
    for number in range(ROUNDS):
        for family in ADAPTERS:
            place = CLOCK / f"{number}" / f"{family}.json"
            if not place.exists():
                recipe = get_recipe("digits", family, teacher="none", overrides={"epochs": 1})
                result = run(recipe, device="cpu", out=place.with_suffix(""), resume=True)
                assert result.images_per_second is not None
                write(place, {"seconds": IMAGES * BUDGET["epochs"] / result.images_per_second})


def table() -> None:
    """One row a family, from the results that are in the repository."""
    results = [result for _, result in find_results([RESULTS / "zoo_runs"])]
    rows = [_row(family, results) for family in ADAPTERS]
    note = (
        "Pair micro, default options, "
        f"{BUDGET['epochs']} epochs. Top-1 in per cent on test after the last epoch with its 95 % "
        "interval over the test images (Wilson's, at the mean of the seeds) or, where that is "
        "wider, over the seeds (Student's): three seeds of "
        f"{', '.join(THREE_SEEDS)}, one of all others. lr: the better of "
        f"{' and '.join(f'{rate:g}' for rate in RATES)} on val200 of digits "
        f"({TO_CHOOSE['epochs']} epochs, the mean of both arms, table `zoo_choice`). "
        "Trained: numbers in the student's adapter. Seconds: what the epochs take on digits, "
        f"alone, one thread: median of {ROUNDS} rounds in which all families take turns, and the "
        "rounds' spread. "
        f"{results[0].device}; {told_versions(results[0].versions)}; "
        "`python benchmarks/zoo.py`"
    )
    columns = ["family", "trained", "lr"]
    columns += [f"{task}, {arm}" for task in TASKS for arm in ARMS] + ["seconds"]
    write(RESULTS / "zoo.json", {"columns": columns, "rows": rows, "note": note})
    _write_gain()
    _write_choice()


def _row(family: str, results: Sequence[Result]) -> list[str]:
    own = [result for result in results if result.recipe.adapter.name == family]
    alone = [r for r in own if r.recipe.pair.teacher is None and r.recipe.task.id == TASKS[0]]
    row = [family, f"{alone[0].parameters.adapter:,}", f"{alone[0].recipe.lr:g}"]
    for task in TASKS:
        for teacher in ARMS.values():
            here = [
                result.student
                for result in own
                if result.recipe.task.id == task
                and (result.recipe.pair.teacher is None) == (teacher == "none")
            ]
            assert len(here) == len(seeds_of(family)), f"{family} on {task}: {len(here)} runs"
            top1 = estimate(here)
            row.append(interval(top1.mean, *top1.interval))
    return [*row, _seconds(family)]


def _seconds(family: str) -> str:
    files = [CLOCK / f"{number}" / f"{family}.json" for number in range(ROUNDS)]
    found = [json.loads(file.read_text())["seconds"] for file in files]
    return f"{median(found):.1f} ({min(found):.1f}–{max(found):.1f})"


def _write_gain() -> None:
    """What the teacher brought, task by task: paired, so from the runs and their predictions."""
    kept = {
        file.relative_to(RESULTS / "zoo_runs") for file, _ in find_results([RESULTS / "zoo_runs"])
    }
    found = find_results([(RUNS / file).parent for file in sorted(kept)])
    rows = []
    for task in TASKS:
        gains = {}
        for one in build_report(found, averaged=averaged_tasks(load_registry())).gains:
            if one.task == task:
                gains[str(one.label["adapter"])] = one.mean or one.seeds[0]
        assert gains.keys() == ADAPTERS.keys(), ADAPTERS.keys() ^ gains.keys()
        up = sum(gain.interval[0] > 0 for gain in gains.values())
        down = sum(gain.interval[1] < 0 for gain in gains.values())
        ends = [pick(gains, key=lambda family: gains[family].gain) for pick in (min, max)]
        told = [f"{points(gains[family].gain)} ({family})" for family in ends]
        middle = points(median(gain.gain for gain in gains.values()))
        rows.append([task, up, len(gains) - up - down, down, middle, *told])
    note = (
        f"Students of all {len(ADAPTERS)} families trained with their teacher minus trained alone, "
        "points of top-1 on test; helps, hurts: the 95 % interval of the family's own gain lies "
        f"above, below 0 (paired over test images; {len(ADAPTERS)} comparisons a task, so one or "
        "two would by chance). "
        f"{found[0][1].device}; {told_versions(found[0][1].versions)}; "
        "`python benchmarks/zoo.py table`"
    )
    columns = ["task", "helps", "neither", "hurts", "median gain", "smallest", "largest"]
    write(RESULTS / "zoo_gain.json", {"columns": columns, "rows": rows, "note": note})


def _write_choice() -> None:
    rows = []
    for family, rate in chosen().items():
        reached = json.loads((CHOICES / f"{family}.json").read_text())["val_top1"]
        cells = [f"{100 * value:.1f}" for one in RATES for value in reached[f"{one:g}"]]
        rows.append([family, *cells, f"{rate:g}"])
    document = {
        "columns": ["family", *(f"{rate:g}, {arm}" for rate in RATES for arm in ARMS), "chosen"],
        "rows": rows,
        "note": f"Digits, pair micro, {TO_CHOOSE['epochs']} epochs on train800, seed 0: top-1 in "
        "per cent on val200 after the last epoch; 0 where training diverged. "
        f"{describe_device(torch.device('cpu'))}; {told_versions(versions())}; "
        "`python benchmarks/zoo.py choose`",
    }
    write(RESULTS / "zoo_choice.json", document)


def ship() -> None:
    """The student of seed 0, trained with its teacher by its own recipe, for each mini task."""
    shelf = {}
    for task in task_suites(load_registry())["mini"]:
        for family in SHIPPED:
            target = BUILTIN / f"{task.id}-{family}"
            result = run(get_recipe(task.id, family), seed=0, device="cpu", out=RUNS, resume=True)
            folder = run_folder(RUNS, result.recipe, 0)
            target.mkdir(exist_ok=True)
            for name in (TENSORS_FILE, CONFIG_FILE):
                shutil.copyfile(folder / name, target / name)
            shelf[target.name] = _told(result)
            print(f"builtin:{target.name}: {result.top1:.4f}", flush=True)
    SHELF.write_text(SHELF_HEADER + tomli_w.dumps(shelf))


def _told(result: Result) -> dict[str, object]:
    return {
        "task": result.recipe.task.id,
        "adapter": result.recipe.adapter.label,
        "pair": result.recipe.pair.name,
        "trained": result.parameters.adapter,
        "top1": result.top1,
        "top1_interval": list(result.top1_interval),
        "seed": result.seed,
        "recipe_hash": result.recipe_hash,
        "sha256": result.files[TENSORS_FILE],
    }


def part(word: str) -> list[str]:
    """The families of a part such as `1/2`: every other one, so that parts are alike."""
    number, of = map(int, word.split("/"))
    return list(ADAPTERS)[number - 1 :: of]


def main(words: Sequence[str]) -> None:
    """The step that is asked for, or all in order."""
    step, families = (words[0] if words else ""), part(words[1] if len(words) > 1 else "1/1")
    torch.set_num_threads(1)
    if step in ("", "choose"):
        choose(families)
    if step in ("", "rates"):
        write_rates()
    if step in ("", "measure"):
        measure(families)
    if step in ("", "clock"):
        clock()
    if step in ("", "table"):
        table()
    if step in ("", "ship"):
        ship()


if __name__ == "__main__":
    main(sys.argv[1:])
