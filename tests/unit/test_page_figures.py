"""The figures of an HTML page: what stands in their SVG, and where."""

import re
from xml.etree import ElementTree

import pytest
from page_of_inverse import MSE, inverse

from idat_zoo.page.costs import Cost, build_costs, draw_costs
from idat_zoo.page.details import Detail, draw_curves, draw_reliability
from idat_zoo.page.figures import VARIABLES, Drawing, drawing
from idat_zoo.page.gains import draw_forest, teacher_forests
from idat_zoo.page.ranks import build_ranks, draw_ranks
from idat_zoo.page.watched import Watched, draw_watched


def tips(svg: str) -> dict[str, str]:
    """The text that is shown beside each marked artist, by its id."""
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    found = ((own.get("id", ""), own.find(f"{space}title")) for own in root.iter(f"{space}g"))
    return {name: tip.text or "" for name, tip in found if tip is not None}


def place_of(svg: str, gid: str, *, axis: str) -> float:
    """The value at which a marker stands, by the labels of the ticks of its axis."""
    at = 0 if axis == "x" else 1
    ticks = []
    part = svg[svg.index(f"matplotlib.axis_{at + 1}") :]
    for number in re.finditer(rf"-{axis}tick_\d+\">(.*?)</text>", part, re.DOTALL):
        where = re.search(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', number[1])
        text = number[1].rpartition(">")[2].replace("−", "-")
        if where and re.fullmatch(r"-?[\d.]+", text):
            ticks.append((float(where[at + 1]), float(text)))
    (x0, first), (x1, last) = ticks[0], ticks[-1]
    return first + (marker_of(svg, gid)[at] - x0) * (last - first) / (x1 - x0)


def marker_of(svg: str, gid: str) -> tuple[float, float]:
    """Where a marker stands in the figure, in points."""
    found = re.search(
        rf'id="[^"]*-{re.escape(gid)}">.*?<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg, re.DOTALL
    )
    assert found is not None, gid
    return float(found[1]), float(found[2])


def test_a_forest_plot_shows_its_gains() -> None:
    report, _, entries = inverse()
    (forest,) = [own for own in teacher_forests(entries, report.gains) if own.method == MSE]
    svg = draw_forest(forest, "forest", over="over the student alone").svg()
    assert tips(svg)["forest-line-1"].startswith("lesions: +4.60 points (")
    assert place_of(svg, "line-1", axis="x") == pytest.approx(4.60, abs=0.01)
    assert place_of(svg, "line-0", axis="x") == pytest.approx(3.05, abs=0.01)
    assert "+4.60</text>" in svg


def test_a_plot_of_watched_runs_shows_both_epochs() -> None:
    watched = [
        Watched(task="digits", method="lora", last=0.91, best=0.95, seeds=1),
        Watched(task="count", method="lora", last=0.52, best=0.52, seeds=1),
    ]
    svg = draw_watched(watched, "watched").svg()
    assert place_of(svg, "last-1", axis="x") == pytest.approx(91, abs=0.01)
    assert place_of(svg, "best-1", axis="x") == pytest.approx(95, abs=0.01)
    assert tips(svg)["watched-best-1"] == "digits, best epoch: 95.00 % (+4.00)"


def test_a_plot_of_costs_shows_each_method() -> None:
    _, _, entries = inverse()
    costs = build_costs(entries)
    svg = draw_costs(costs, "cost", of="parameters").svg()
    number = next(k for k, cost in enumerate(costs) if cost.method == MSE)
    assert tips(svg)[f"cost-point-{number}"] == f"{MSE}: 75.20 %, 16.4 k"
    assert place_of(svg, f"point-{number}", axis="y") == pytest.approx(75.20, abs=0.01)


def cost(number: int, **own: float) -> Cost:
    """A method of one task, and its costs."""
    known = {"top1": 0.9, "parameters": 100, "minutes": 1, "memory": 900} | own
    return Cost.model_validate(
        {"number": number, "method": f"m{number}", "tasks": 1, "devices": ("cpu",), **known}
    )


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_costs_that_hardly_differ_are_not_torn_apart() -> None:
    costs = [cost(1, memory=961.2, top1=0.8), cost(2, memory=961.5)]
    svg = draw_costs(costs, "cost", of="memory").svg()
    assert marker_of(svg, "point-0")[0] == pytest.approx(marker_of(svg, "point-1")[0], abs=2)
    assert {"920", "1,000"} <= set(texts(svg))


def test_methods_on_one_point_have_their_numbers_in_one_text() -> None:
    costs = [cost(4), cost(5), cost(6, top1=0.5), cost(7, parameters=0)]
    shown = texts(draw_costs(costs, "cost", of="parameters").svg())
    assert "4, 5" in shown
    assert {"6", "7"} <= set(shown)
    assert not {"4", "5"} & set(shown)
    many = [cost(number) for number in (*range(1, 41), 50, 60, 70, 80)]
    assert "1–40, 50, 60, 70, …" in texts(draw_costs(many, "cost", of="parameters").svg())


def test_the_axis_of_costs_has_plain_numbers() -> None:
    costs = [cost(1, minutes=0.0042), cost(2, minutes=150), cost(3, minutes=2)]
    svg = draw_costs(costs, "cost", of="minutes").svg()
    assert {"0.01", "1", "100"} <= set(texts(svg))
    assert tips(svg)["cost-point-0"] == "m1: 90.00 %, 0.0042 min"
    assert tips(svg)["cost-point-1"] == "m2: 90.00 %, 150 min"
    adapters = [cost(1, parameters=0), cost(2, parameters=16384)]
    assert "10.0 k" in texts(draw_costs(adapters, "cost", of="parameters").svg())


def test_a_plot_of_ranks_shows_each_method() -> None:
    report, _, entries = inverse()
    ranks = build_ranks(entries, report.means)["mini"]
    svg = draw_ranks(ranks, "ranks").svg()
    last = len(ranks.methods) - 1
    assert place_of(svg, f"rank-{last}", axis="x") == pytest.approx(ranks.methods[0].rank, abs=0.01)
    assert tips(svg)["ranks-rank-0"].startswith("linear, alone: average rank ")


@pytest.fixture
def detail() -> Detail:
    """A task with two bins and two seeds of three epochs."""
    curves = tuple(
        (
            seed,
            tuple(
                {"epoch": n, "loss": 2.0 - n / 4 - seed / 8, "val_top1": n / 4} for n in (1, 2, 3)
            ),
        )
        for seed in (0, 1)
    )
    return Detail.model_validate(
        {
            **{"task": "digits", "method": "lora", "seeds": (0, 1), "classes": ("a", "b")},
            **{"matrix": None, "confusions": (), "recalls": (), "calibration_error": 0.1},
            "reliability": (
                {"confidence": 0.55, "accuracy": 0.4, "count": 10},
                {"confidence": 0.95, "accuracy": 0.9, "count": 30},
            ),
            **{"curves": curves, "agreements": ()},
        }
    )


def test_a_reliability_diagram_shows_its_bins(detail: Detail) -> None:
    svg = draw_reliability(detail, "reliability").svg()
    assert place_of(svg, "bin-0", axis="x") == pytest.approx(55, abs=0.01)
    assert place_of(svg, "bin-0", axis="y") == pytest.approx(40, abs=0.01)
    assert tips(svg)["reliability-bin-1"] == "confidence 95.00 %: right 90.00 % of 30"


def test_learning_curves_end_at_the_last_epoch(detail: Detail) -> None:
    told = tips(draw_curves(detail, "curves").svg())
    assert told["curves-loss-1"] == "loss, seed 1: 1.12 in the last epoch"
    assert told["curves-val_top1-0"] == "top-1 on val, seed 0: 75 in the last epoch"


def test_the_axis_of_learning_curves_has_whole_epochs(detail: Detail) -> None:
    svg = draw_curves(detail, "curves").svg()
    own = svg[svg.index("matplotlib.axis_1") : svg.index("matplotlib.axis_2")]
    assert texts(own) == ["1", "2", "3", "epoch"]


def test_a_figure_has_the_same_bytes_each_time_and_no_colours_of_its_own() -> None:
    def draw() -> str:
        with drawing(4, 3) as (figure, axes):
            axes.plot([1, 2], [3, 4], label="<a> & b", gid="line")
            axes.legend()
            return Drawing(figure, "one", 'A "title"', {"line": "<tip>"}).svg()

    first = draw()
    assert first == draw()
    ElementTree.fromstring(first)
    assert 'aria-label="A &quot;title&quot;"' in first
    assert not [colour for colour in VARIABLES if colour in first]
    assert len(set(re.findall(r'\bid="([^"]+)"', first))) == first.count(' id="')
