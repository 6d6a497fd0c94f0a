"""Nothing that comes from the Hub is ever executed: only data is downloaded, and read as data."""

import ast
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import toy_pair, toy_recipe
from idat_zoo import load
from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.errors import CheckpointError, ZooError
from idat_zoo.hub.download import LARGEST, fetch
from idat_zoo.hub.references import HubReference

ROOT = Path(__file__).parents[2]
EXECUTING = {
    *("eval", "exec", "compile", "__import__"),
    *("runpy", "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "numpy.load", "np.load"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("snapshot_download_and_run", "get_class_from_dynamic_module"),
}
"""Calls and modules that execute what a file says, or may do so."""
FILES_OF_PERSONS = {"idat_zoo/plugins.py"}
"""The module that executes a plugin: a file that a person names on this machine."""
OWN_PROCESSES = {
    *("idat_zoo/runs/worker.py", "idat_zoo/runs/workers.py"),
    *("idat_zoo/executors/ray.py", "idat_zoo/executors/ray_task.py"),
    "idat_zoo/executors/slurm_job.py",
}
"""A process and the workers that it starts itself, over a socket that only they have, through Ray
or by files in its study's folder that Slurm's jobs write."""
DATA = {".json", ".md", ".safetensors", ".toml", ".yaml"}
PINNED = HubReference(repo="me/x", revision="0" * 40)


def executing(path: Path) -> Iterator[str]:
    """Every use of what may execute a file's content."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in EXECUTING:
                yield name
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="load"),
                keywords=[ast.keyword(arg="allow_pickle", value=ast.Constant(value=False))],
            ):
                continue  # numpy reads arrays alone
            case ast.Call(func=ast.Attribute()) if ast.unparse(node.func) in EXECUTING:
                yield ast.unparse(node.func)
            case ast.Call(func=ast.Attribute(attr=attribute)) if attribute in (
                "exec_module",
                "spec_from_file_location",
                "run_path",
            ):
                yield attribute
            case ast.Import(names=names):
                yield from (one.name for one in names if one.name in EXECUTING)
            case ast.ImportFrom(module=str(module)) if module in EXECUTING:
                yield module
            case ast.keyword(arg="trust_remote_code"):
                yield "trust_remote_code"
            case ast.keyword(arg="allow_pickle" | "weights_only", value=ast.Constant(value=value)):
                if value is (node.arg == "allow_pickle"):
                    yield str(node.arg)


def sources() -> Iterator[Path]:
    for top in ("idat_zoo", "cli", "registry"):
        for path in (ROOT / top).rglob("*.py"):
            if not path.relative_to(ROOT).as_posix().startswith(("idat_zoo/cli/", "idat_zoo/reg")):
                yield path


def test_only_plugins_that_a_person_names_are_executed() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): sorted(calls)
        for path in sources()
        if (calls := set(executing(path)))
    }
    assert found.keys() == FILES_OF_PERSONS | OWN_PROCESSES, found
    for path in OWN_PROCESSES:
        assert found[path] == ["pickle"], "nothing is executed but what their other side sent"


@pytest.mark.parametrize(
    "line",
    [
        "exec(text)",
        "import pickle",
        "from marshal import loads",
        "torch.load(path)",
        "spec.loader.exec_module(made)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "load(path, weights_only=False)",
        "make(name, trust_remote_code=False)",
    ],
)
def test_what_executes_a_file_would_be_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(line)
    assert list(executing(tmp_path / "planted.py"))


def test_numpy_may_read_arrays_alone(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("np.load(path, allow_pickle=False)")
    assert not list(executing(tmp_path / "planted.py"))


def test_only_data_is_downloaded() -> None:
    assert set(LARGEST) == DATA
    for name in ("plugin.py", "adapter_model.bin", "model.pt", "config"):
        with pytest.raises(AssertionError, match="only data is downloaded"):
            fetch(PINNED, (CONFIG_FILE, name))


class Touch:
    """A pickle of it makes a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_and_pickles_beside_a_checkpoint_are_not_run(tmp_path: Path) -> None:
    folder, ran = tmp_path / "checkpoint", tmp_path / "ran"
    recipe = toy_recipe()
    network = toy_pair(recipe, seed=3).student
    write_checkpoint(folder, network, recipe, role="student", recipe_hash="0" * 64, seed=3)
    trap = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    for name in ("plugin.py", "conftest.py", "__init__.py", "modeling.py", "affine.py"):
        (folder / name).write_text(trap)
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Touch(ran)))
    load(folder)
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    config["recipe"]["adapter"] |= {
        "name": "affine",
        "plugin": {"file": "affine.py", "sha256": "0" * 64},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ZooError, match=r"affine\.py"):
        load(folder)
    assert not ran.exists()


def test_a_pickle_in_the_place_of_tensors_is_refused_unopened(tmp_path: Path) -> None:
    recipe, ran = toy_recipe(), tmp_path / "ran"
    network = toy_pair(recipe, seed=3).student
    write_checkpoint(tmp_path, network, recipe, role="student", recipe_hash="0" * 64, seed=3)
    (tmp_path / TENSORS_FILE).write_bytes(pickle.dumps(Touch(ran)))
    with pytest.raises(CheckpointError, match="is a pickle"):
        load(tmp_path)
    assert not ran.exists()
