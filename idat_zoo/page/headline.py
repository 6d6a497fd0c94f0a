"""The first sentence of a page: one result with its interval."""

from collections.abc import Sequence

from idat_zoo.page.gains import Forest, Line
from idat_zoo.page.heat import Heat, Method
from idat_zoo.report.cells import percent, plural, points
from idat_zoo.standing import TOO_CLOSE

Best = tuple[Method, str, float]


def headline(heat: Heat, forests: Sequence[Forest], *, over: str) -> str:
    """The gain of the method that gains most over the reference, or else the best mean or number.

    `over` is what the forests compare with: `with its teacher over the student alone`.
    """
    if forests:
        forest = max(forests, key=lambda one: _whole(one).gain)
        line = _whole(forest)
        most = f", the most of {len(forests)} methods" if len(forests) > 1 else ""
        if line.verdict == "tie":
            every = all(_whole(one).verdict == "tie" for one in forests)
            which = "The" if len(forests) == 1 else "Every" if every else "The largest"
            gain = "mean gain" if forest.mean else "gain"
            said = f"{which} {gain} is {TOO_CLOSE}: {forest.method} has {_gain(line, forest)}"
            return f"{said} {over}{most}."
        return f"{forest.method} gains {_gain(line, forest)} {over}{most}."
    mean = heat.means[-1] if heat.means else ""
    with_mean = [method for method in heat.methods if mean in method.means]
    if with_mean:
        best = max(with_mean, key=lambda method: method.means[mean])
        among = f", the highest of {len(with_mean)} methods" if len(with_mean) > 1 else ""
        return f"{best.name} reaches {percent(best.means[mean])} % of top-1 on {mean}{among}."
    method = max(heat.methods, key=lambda own: max(cell.top1 for cell in own.cells.values()))
    task, cell = max(method.cells.items(), key=lambda pair: pair[1].top1)
    return (
        f"{method.name} reaches {percent(cell.top1)} % of top-1 on {task} (95 % interval "
        f"{percent(cell.low)} to {percent(cell.high)}, over {cell.over})."
    )


def _whole(forest: Forest) -> Line:
    """The mean gain of a method, or its only one."""
    return forest.mean or forest.lines[0]


def _gain(line: Line, forest: Forest) -> str:
    counts = {"win": "up", "tie": TOO_CLOSE, "loss": "down"}
    told = ", ".join(f"{forest.count(kind)} {word}" for kind, word in counts.items())
    where = (
        f"over {plural(len(forest.lines), 'task')} ({told})" if forest.mean else f"on {line.task}"
    )
    return (
        f"{points(line.gain)} points of top-1 (95 % interval {points(line.low)} to "
        f"{points(line.high)}) {where},"
    )
