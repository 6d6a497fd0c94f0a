"""One task in detail: confusions, recall, reliability and the learning curves of one method.

Shape letters: N images, K classes.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from idat_zoo.intervals import wilson_interval
from idat_zoo.page.entries import Entry
from idat_zoo.page.figures import INK, MUTED, SERIES, Drawing, drawing, label_series
from idat_zoo.page.watched import read_log
from idat_zoo.report.cells import percent
from idat_zoo.report.predictions import LOGIT_ENSEMBLE, read_classes, read_predictions
from idat_zoo.report.rows import Group
from idat_zoo.values import Frozen

MOST_CLASSES = 20
"""Up to so many classes a confusion table is shown whole, beyond that its largest entries."""
BINS = 15
"""Bins of equal width of a reliability diagram, as of the calibration error in results."""
LOSSES = {
    "student_task_loss": "student's task loss",
    "loss": "loss",
    "teacher_task_loss": "teacher's task loss",
    "distillation_loss": "distillation",
}


class ClassRecall(Frozen):
    """The recall of a class over all seeds, a fraction, with Wilson's interval over its images."""

    name: str
    recall: float
    low: float
    high: float
    images: int


class Confusion(Frozen):
    """Images of a class that were taken for another one; a count over all seeds."""

    true: str
    predicted: str
    count: int
    share: float


class Bin(Frozen):
    """Predictions of one range of confidence: mean confidence, accuracy, and their number."""

    confidence: float
    accuracy: float
    count: int


class Agreement(Frozen):
    """Student and teacher of a method on the same images, over all seeds, as fractions.

    `both` are right with both, and so on; `ensemble` is the top-1 of the sum of their logits.
    """

    method: str
    both: float
    student_only: float
    teacher_only: float
    neither: float
    agree: float
    ensemble: float | None


class Detail(Frozen):
    """A task, shown for the method of the highest top-1 on it.

    `matrix` `[K][K]` counts over seeds, true classes in rows; it is None beyond `MOST_CLASSES`.
    `reliability` is empty where no run keeps logits, and `curves` where none keeps its log.
    """

    task: str
    method: str
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...] | None
    confusions: tuple[Confusion, ...]
    recalls: tuple[ClassRecall, ...]
    calibration_error: float
    reliability: tuple[Bin, ...]
    curves: tuple[tuple[int, tuple[dict[str, float], ...]], ...]
    agreements: tuple[Agreement, ...]


def build_details(entries: Sequence[Entry]) -> list[Detail]:
    """The details of each task, in the order of the entries."""
    by_task: dict[str, list[Entry]] = {}
    for entry in entries:
        by_task.setdefault(entry.task, []).append(entry)
    return [_detail(task, own) for task, own in by_task.items()]


def _detail(task: str, own: Sequence[Entry]) -> Detail:
    best = max(own, key=lambda entry: entry.row.top1.mean)
    group = best.group
    students = [result.student for _, result in group.results]
    size = len(students[0].confusion)  # 0 where a result has no tables by class
    counts = np.sum([np.reshape(one.confusion, (size, size)) for one in students], axis=0)
    names = tuple(one.name or str(index) for index, one in enumerate(students[0].per_class))
    whole = 0 < size <= MOST_CLASSES
    return Detail(
        task=task,
        method=best.method,
        seeds=best.row.seeds,
        classes=names,
        matrix=tuple(tuple(map(int, line)) for line in counts) if whole else None,
        confusions=_confusions(counts, names),
        recalls=_recalls(counts, names, len(students)),
        calibration_error=float(np.mean([student.calibration_error for student in students])),
        reliability=_reliability(group),
        curves=tuple(
            (seed, tuple(log))
            for seed, run in sorted(group.by_seed().items())
            if (log := read_log(*run))
        ),
        agreements=tuple(
            found for entry in own if (found := _agreement(entry.method, entry.group)) is not None
        ),
    )


def _confusions(counts: np.ndarray, names: Sequence[str]) -> tuple[Confusion, ...]:
    """The largest entries of a confusion matrix `[K, K]` off its diagonal."""
    off = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_CLASSES]
    totals = counts.sum(1)
    return tuple(
        Confusion(
            true=names[true],
            predicted=names[predicted],
            count=int(off[true, predicted]),
            share=float(off[true, predicted] / totals[true]),
        )
        for true, predicted in (divmod(int(place), len(counts)) for place in order)
        if off[true, predicted]
    )


def _recalls(counts: np.ndarray, names: Sequence[str], seeds: int) -> tuple[ClassRecall, ...]:
    """Recall by class; the interval is that of one seed's images, at the mean over seeds."""
    found = []
    for index, name in enumerate(names):
        images = int(counts[index].sum()) // seeds
        if images:
            right = float(counts[index, index]) / seeds
            low, high = wilson_interval(right, images)
            found.append(
                ClassRecall(name=name, recall=right / images, low=low, high=high, images=images)
            )
    return tuple(found)


def _reliability(group: Group) -> tuple[Bin, ...]:
    """Bins over the predictions of all seeds whose logits are kept."""
    confidences, rights = [], []
    for path, result in group.results:
        try:
            kept = read_predictions(path, result)
        except ValueError:
            continue
        confidence, predicted = _confidence(kept["student"])
        confidences.append(confidence)
        rights.append(predicted == kept["target"])
    if not confidences:
        return ()
    confidence, right = np.concatenate(confidences), np.concatenate(rights)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            confidence=float(confidence[bins == place].mean()),
            accuracy=float(right[bins == place].mean()),
            count=int((bins == place).sum()),
        )
        for place in range(BINS)
        if (bins == place).any()
    )


def _confidence(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest softmax probability `[N]` of logits `[N, K]`, and its class `[N]`."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    return 1 / np.exp(shifted).sum(1), logits.argmax(1)


def _agreement(method: str, group: Group) -> Agreement | None:
    """The agreement of student and teacher; None if no run keeps the predictions of both."""
    students, teachers, ensembles = [], [], []
    same = []
    for path, result in group.results:
        try:
            classes = read_classes(path, result)
        except ValueError:
            continue
        if "teacher" not in classes:
            continue
        target = classes["target"]
        students.append(classes["student"] == target)
        teachers.append(classes["teacher"] == target)
        same.append(classes["student"] == classes["teacher"])
        if LOGIT_ENSEMBLE in classes:
            ensembles.append(classes[LOGIT_ENSEMBLE] == target)
    if not students:
        return None
    student, teacher = np.concatenate(students), np.concatenate(teachers)
    return Agreement(
        method=method,
        both=float((student & teacher).mean()),
        student_only=float((student & ~teacher).mean()),
        teacher_only=float((~student & teacher).mean()),
        neither=float((~student & ~teacher).mean()),
        agree=float(np.concatenate(same).mean()),
        ensemble=float(np.concatenate(ensembles).mean()) if ensembles else None,
    )


def draw_reliability(detail: Detail, name: str) -> Drawing:
    """The figure: accuracy by confidence; the area of a point is its share of the images."""
    total = sum(one.count for one in detail.reliability)
    with drawing(3.6, 3.4) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
        tips = {}
        for place, one in enumerate(detail.reliability):
            gid = f"bin-{place}"
            axes.plot(
                [100 * one.confidence],
                [100 * one.accuracy],
                marker="o",
                markersize=3 + 14 * (one.count / total) ** 0.5,
                color=SERIES[0],
                alpha=0.8,
                clip_on=False,
                gid=gid,
            )
            tips[gid] = (
                f"confidence {percent(one.confidence)} %: right {percent(one.accuracy)} % of "
                f"{one.count:,}"
            )
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("accuracy, %")
        title = f"Reliability on {detail.task}: accuracy by confidence"
        return Drawing(figure, name, title=title, tips=tips)


def draw_curves(detail: Detail, name: str) -> Drawing:
    """The figure: the losses of every seed by epoch, and the top-1 of a split that was watched."""
    kinds = [key for key in LOSSES if any(key in log[0] for _, log in detail.curves)]
    tops = [key for key in ("val_top1", "test_top1") if _has(detail, key)]
    if kinds[:2] == ["student_task_loss", "loss"]:
        kinds.remove("loss")  # the sum of the others
    styles = label_series([*kinds, *tops])
    with drawing(5.0, 3.4) as (figure, axes):
        beside = axes.twinx() if tops else None
        tips = {}
        for key in (*kinds, *tops):
            colour, _, dashes = styles[key]
            for place, (seed, log) in enumerate(detail.curves):
                gid = f"{key}-{seed}"
                values = [line.get(key, np.nan) * (100 if key in tops else 1) for line in log]
                (axes if beside is None or key in kinds else beside).plot(
                    [line["epoch"] for line in log],
                    values,
                    color=colour,
                    linestyle=dashes,
                    linewidth=1.4,
                    label=_called(key) if not place else None,
                    gid=gid,
                )
                tips[gid] = f"{_called(key)}, seed {seed}: {values[-1]:.3g} in the last epoch"
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        if beside is not None:
            beside.grid(visible=False)
            beside.spines["right"].set_visible(True)
            beside.set_ylabel("top-1, %", color=INK)
        figure.legend(loc="outside lower center", ncols=2)
        return Drawing(figure, name, title=f"Learning curves on {detail.task}", tips=tips)


def _has(detail: Detail, key: str) -> bool:
    return any(key in line for _, log in detail.curves for line in log)


def _called(key: str) -> str:
    return LOSSES.get(key) or f"top-1 on {key.partition('_')[0]}"
