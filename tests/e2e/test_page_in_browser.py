"""The HTML page of a report in a real browser: its layout, its colours, and who can read it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from debian import MissingError, install
from page_of_inverse import MSE, entries_of, page
from playwright.sync_api import Browser, Page, sync_playwright

from conftest import skip_or_fail
from idat_zoo.page.compare import render_comparison
from idat_zoo.page.thumbnails import shown_images
from idat_zoo.page.write import build_page
from idat_zoo.report.compare import compare_results
from idat_zoo.results import find_results

pytestmark = pytest.mark.system
CHROMIUM = "/usr/bin/chromium"
RESULTS = Path(__file__).parents[2] / "benchmarks/results"
WIDTHS, SCHEMES = (400, 1400), ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, from Debian's package."""
    try:
        install([CHROMIUM], ["chromium", "fonts-dejavu-core"])
    except MissingError as error:
        skip_or_fail(str(error))
    with sync_playwright() as tools:
        own = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield own
        own.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages on disk: the study `inverse`, two recipes with their logits, and a comparison."""
    report, groups, _ = entries_of(find_results([RESULTS / "digits"]))
    lesions = RESULTS / "inverse/micro/lora/lesions"
    found = compare_results(*(find_results([lesions / own]) for own in ("8114e1a3", "fd17f3d3")))
    wanted = {image.index for own in shown_images(found.tasks[0]) for image in own}
    grey = {index: np.full((48, 48, 3), 99, dtype=np.uint8) for index in wanted}
    texts = {
        "inverse": page(),
        "digits": build_page(report, groups).render(title="Two runs"),
        "compared": render_comparison(found, {"lesions": grey}),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=str)
def view(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty tab of a width and a colour scheme, that keeps what goes wrong in `faults`."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    yield tab
    context.close()


@pytest.mark.parametrize("name", ["inverse", "digits", "compared"])
def test_the_page_opens_without_a_fault(view: Page, files: dict[str, Path], name: str) -> None:
    faults: list[str] = []
    view.on("console", lambda message: faults.append(message.text))
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("request", lambda request: faults.append(request.url))
    view.goto(files[name].as_uri())
    open_all(view)
    assert faults == [files[name].as_uri()]  # the page itself, and nothing else
    width = view.viewport_size["width"] if view.viewport_size else 0
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    for figure in view.query_selector_all("figure svg"):
        box = figure.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        points = float((figure.get_attribute("viewBox") or "").split()[2])
        assert 10 * box["width"] / points > 8.5  # pixels of the text, which is set in 10 points
    for caption in view.query_selector_all("caption"):
        box = caption.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width  # it is read without scrolling its table
        assert box["width"] >= 350  # and is no column of single words


@pytest.mark.parametrize("name", ["inverse", "digits", "compared"])
def test_it_can_be_read_with_other_means_than_eyes(
    view: Page, files: dict[str, Path], name: str
) -> None:
    view.goto(files[name].as_uri())
    open_all(view)
    found = Axe().run(view)
    told = [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert found.response["passes"]
    assert told == []


def open_all(view: Page) -> None:
    view.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")


def test_the_scheme_of_the_reader_is_followed(browser: Browser, files: dict[str, Path]) -> None:
    inks = {}
    for scheme in SCHEMES:
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.goto(files["inverse"].as_uri())
        inks[scheme] = [
            tab.evaluate("getComputedStyle(document.body).backgroundColor"),
            tab.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill"),
        ]
        context.close()
    assert inks["light"] == ["rgb(255, 255, 255)", "rgb(22, 25, 29)"]
    assert inks["dark"] == ["rgb(20, 23, 26)", "rgb(232, 235, 238)"]


def test_tables_are_sorted_by_a_click_or_a_key(browser: Browser, files: dict[str, Path]) -> None:
    tab = browser.new_page()
    tab.goto(files["inverse"].as_uri())
    head = tab.locator("#scores ~ .scroll thead button", has_text="lesions").first
    column = "#scores ~ .scroll tbody tr"

    def values() -> list[float]:
        cells = tab.locator(column).evaluate_all("rows => rows.map(r => r.children[3].textContent)")
        return [float(cell.rstrip("†")) for cell in cells if cell != "–"]

    before = values()
    head.click()
    assert values() == sorted(before, reverse=True)
    assert tab.locator(f"{column} >> nth=0 >> th").inner_text() == MSE
    head.press("Enter")
    assert values() == sorted(before)
    assert head.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    tab.close()


def test_a_number_of_each_figure_is_shown_beside_it(
    browser: Browser, files: dict[str, Path]
) -> None:
    tab = browser.new_page()
    tab.goto(files["inverse"].as_uri())
    told = tab.locator("figure svg g > title").all_text_contents()
    assert any(text.startswith(f"{MSE}: +3.05 points (") for text in told)
    assert f"{MSE}: 75.20 %, 16.4 k" in told
    assert any(text.startswith(f"{MSE}: average rank ") for text in told)
    tab.goto(files["digits"].as_uri())
    told = tab.locator("figure svg g > title").all_text_contents()
    assert any(text.startswith("confidence ") for text in told)
    tab.close()
