"""The HTML page of a comparison, with the images that changed sides."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from command import idat
from page_of_inverse import RESULTS
from PIL import Image

from idat_zoo.data.load import load_task
from idat_zoo.page.compare import render_comparison
from idat_zoo.page.thumbnails import MOST, SIDE, shown_images, thumbnails
from idat_zoo.registry import load_registry
from idat_zoo.report.compare import ChangedImage, TaskComparison, compare_results
from idat_zoo.results import find_results

LESIONS = RESULTS / "inverse/micro/lora/lesions"
NONE, MSE = LESIONS / "8114e1a3", LESIONS / "fd17f3d3"
SHOWN = re.compile(r'<img src="data:image/png;base64,([^"]+)" alt="Test image (\d+) of lesions">')


@pytest.mark.slow
def test_the_page_shows_the_images_that_changed_sides(tmp_path: Path) -> None:
    file = tmp_path / "ab.html"
    done = idat("compare", str(NONE), str(MSE), "--html", str(file))
    assert done.exit_code == 0, done.stderr
    text = file.read_text()
    found = compare_results(find_results([NONE]), find_results([MSE]))
    gained, lost = shown_images(found.tasks[0])
    shown = SHOWN.findall(text)
    assert [int(index) for _, index in shown] == [image.index for image in [*gained, *lost]]
    assert len(shown) == 2 * MOST
    task = load_registry().tasks["lesions"]
    test = load_task(task, img_size=48).test
    for content, index in shown[:3]:
        (place,) = (test.index == int(index)).nonzero()[0]
        pixels = test.images[int(place) : int(place) + 1][0].permute(1, 2, 0).numpy()
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        assert image.size == (SIDE, SIDE)
        assert np.array_equal(np.asarray(image)[::2, ::2], pixels)
    assert "+4.60" in text
    assert re.search(r"https?://(?!www\.w3\.org)", text) is None


@pytest.mark.slow
def test_other_images_than_those_of_the_runs_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.data.task_data.TaskData.fingerprint", "another")
    file = tmp_path / "ab.html"
    done = idat("compare", str(NONE), str(MSE), "--html", str(file))
    assert done.exit_code == 0, done.stderr
    assert SHOWN.findall(file.read_text()) == []
    assert "lesions: its images are not shown: what is here are not the images" in file.read_text()


def changed(index: int, *, seed: int = 0, right: str) -> ChangedImage:
    first, second = (1, 2) if right == "B" else (2, 1)
    return ChangedImage(index=index, seed=seed, target=2, first=first, second=second)


def test_an_image_is_shown_once_of_each_kind_up_to_a_number() -> None:
    images = [changed(n, seed=seed, right="B") for seed in (0, 1) for n in range(30)]
    images += [changed(3, right="A")]
    one = TaskComparison(task="digits", seeds=(0, 1), first=0.5, second=0.6, images=tuple(images))
    gained, lost = shown_images(one)
    assert [image.index for image in gained] == list(range(MOST))
    assert [image.index for image in lost] == [3]


def test_the_page_says_which_side_is_which_and_what_each_says() -> None:
    found = compare_results(find_results([NONE]), find_results([MSE]), names=("alone", "mse"))
    gained, lost = shown_images(found.tasks[0])
    pixels = {image.index: np.zeros((8, 8, 3), dtype=np.uint8) for image in (*gained, *lost)}
    text = render_comparison(found, {"lesions": pixels})
    assert "<h1>mse (B) compared with alone (A)</h1>" in text
    assert re.search(r"<figcaption>class (\w+): A says (?!\1)\w+, B says \1<br>", text)
    assert f"at most {MOST} images of each kind are shown" in text
    assert "that one side alone classifies correctly, over all seeds." in text
    assert "at most" not in render_comparison(found, {})


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8), (96, 96)), ((200, 100), (48, 96)), ((60, 80), (80, 60))]
)
def test_thumbnails_are_small_and_name_their_classes(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    pixels = np.full((*shape, 3), 7, dtype=np.uint8)
    (one,) = thumbnails([changed(5, right="B")], {5: pixels}, {2: "cat"})
    assert (one.target, one.first, one.second) == ("cat", "1", "cat")
    image = Image.open(io.BytesIO(base64.b64decode(one.source.partition(",")[2])))
    assert image.size == size
    assert (np.asarray(image) == 7).all()
