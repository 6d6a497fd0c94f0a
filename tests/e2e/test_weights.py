"""Weights of every kind by the real client from a Hub on loopback: ours are what timm loads."""

import sys
from pathlib import Path

import pytest
from hub_server import Hub, Repo, serving
from kinds import FILES, file_of, pinned
from test_hub import Person

from idat_zoo.files import dump_tensors
from idat_zoo.hub.weights import WEIGHTS_FILE, weights_repo

SERVED = (
    "vit",
    "siglip",
    "eva02 tiny",
    "dinov3",
    "beit",
    "swin padded",
    "swinv2",
    "convnext",
)
LOADING = """
import sys, warnings
warnings.simplefilter("ignore")
import timm
from kinds import CLASSES, FORMS, pinned
from idat_zoo.backbones.frozen import load_backbone

for form in sys.argv[1:]:
    spec = pinned(form)
    ours = load_backbone(spec).body.state_dict()
    tagged = f"{spec.timm}.{spec.weights}"
    overlay = {"num_classes": CLASSES, "custom_load": False}
    size = {} if FORMS[form].kind == "convnext" else {"img_size": spec.img_size}
    theirs = timm.create_model(
        tagged, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **size, **spec.args
    ).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    print(form)
"""


@pytest.mark.slow
def test_weights_of_every_kind_come_from_the_hub_as_timm_loads_them(tmp_path: Path) -> None:
    hub = Hub(large="lfs")
    for form in SERVED:
        spec = pinned(form)
        repo = hub.repos[weights_repo(spec.timm, spec.weights)] = Repo()
        repo.commit({WEIGHTS_FILE: dump_tensors(file_of(form))})
    tests = Path(__file__).parents[1]
    with serving(hub) as running:
        someone = Person(
            running,
            tmp_path,
            PYTHONPATH=str(tests),
            IDAT_CACHE_DIR=str(tmp_path / "cache"),
        )
        done = someone.run(sys.executable, "-c", LOADING, *SERVED)
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.splitlines()) == SERVED
    assert any(FILES[form] != pinned(form).img_size for form in SERVED)
