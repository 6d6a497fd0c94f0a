"""A checkpoint that needs a plugin, to the Hub and back: nothing that the Hub sends is run."""

import re
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, serving
from test_hub import Person

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
EXAMPLE, *_ = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
TRAP = b"import pathlib\npathlib.Path('ran').touch()\n"
REPO = "zoo/affine"
HERE = f"hub:{REPO}"


@pytest.mark.system
def test_a_plugin_in_a_repository_is_neither_fetched_nor_run(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        author = Person(hub, tmp_path / "author", HF_TOKEN=TOKEN)
        plugin = author.home / "affine.py"
        plugin.write_text(EXAMPLE)
        named = ("--plugin", str(plugin))
        train = ("train", "--task", "digits", "--adapter", "affine", "--pair", "tiny_random")
        done = author.idat(*train, "epochs=1", *named)
        assert done.returncode == 0, done.stderr
        (run,) = author.home.glob("runs/*/*/*/*/seed0")
        refused = author.idat("publish", str(run), "--repo", REPO)
        assert refused.returncode == 2, refused.stderr
        assert "is of plugin 'affine.py'" in refused.stderr
        published = author.idat("publish", str(run), "--repo", REPO, "--public", *named)
        assert published.returncode == 0, published.stderr
        assert f"--plugin {plugin}" in published.stdout

        repo = hub.repos[REPO]
        files = dict(repo.commits[repo.names["main"]])
        assert not any(name.endswith(".py") for name in files)
        card = files["README.md"].decode()
        assert re.search(r"needs plugin 'affine.py' .SHA-256 [0-9a-f]{12}.", card)
        assert f"idat eval {HERE} --plugin affine.py" in card
        assert "load_plugin('affine.py')" in card
        planted = ("affine.py", "plugin.py", "adapters/affine.py", "conftest.py")
        repo.commit(files | dict.fromkeys(planted, TRAP))

        hub.requests.clear()
        person = Person(hub, tmp_path / "person")
        (person.home / "affine.py").write_bytes(TRAP)
        for words in (("eval", HERE), ("export", HERE, "--to", "onnx", "-o", "graph")):
            refused = person.idat(*words)
            assert refused.returncode == 2, refused.stderr
            assert "is of plugin 'affine.py' (SHA-256 " in refused.stderr
            assert "which is not loaded" in refused.stderr
        evaluated = person.idat("eval", HERE, *named)
        assert evaluated.returncode == 0, evaluated.stderr
        assert not any(".py" in line for line in hub.requests)
        assert not list((person.home / "hf").rglob("*.py"))
        assert not list(tmp_path.rglob("ran"))
