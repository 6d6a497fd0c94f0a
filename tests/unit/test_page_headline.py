"""The first sentence of an HTML page, of gains that may be too close to call."""

from page_of_inverse import inverse

from idat_zoo.page.contrast import Contrasts
from idat_zoo.page.gains import Forest, Line
from idat_zoo.page.headline import headline
from idat_zoo.page.heat import build_heat


def test_the_headline_says_of_which_gains_it_is_too_close_to_call() -> None:
    report, _, entries = inverse()
    heat = build_heat(entries, report.means, Contrasts(entries))

    def said(*gains: tuple[float, float, float]) -> str:
        lines = [
            Line(task="digits", gain=gain, low=low, high=high, paired=True)
            for gain, low, high in gains
        ]
        forests = [Forest(method=f"m{k}", lines=(line,), mean=None) for k, line in enumerate(lines)]
        return headline(heat, forests, over="over it").partition(" too close to call")[0]

    wide, narrow, other = (0.03, -0.04, 0.1), (0.01, 0.005, 0.015), (0.01, -0.01, 0.03)
    assert said(wide, other) == "Every gain is"
    assert said(wide, narrow) == "The largest gain is"
    assert said(wide) == "The gain is"
