"""The card (README.md) of a repository on the Hub: its adapters, their results, how to use them.

Every number comes from the results beside it; nothing is written by hand.
"""

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from idat_zoo.data.suites import suite_of
from idat_zoo.data.suites.base import Place
from idat_zoo.recipe import Backbone
from idat_zoo.report.benchmark import Averaged
from idat_zoo.report.build import build_report
from idat_zoo.report.layout import lay_out
from idat_zoo.report.markdown import as_markdown, escaped, markdown_table
from idat_zoo.report.teachers import teachers_in_words
from idat_zoo.results import ENSEMBLE, RESULT_FILE, WATCHED, Result

T = TypeVar("T")

PEFT_FOLDER = "peft"
PROTOCOLS = {
    "standard": "Top-1 of the last epoch; test was read once, after training.",
    "paper": "**protocol = paper**: the released code's schedule; top1_best_on_test is the best of "
    "all epochs, chosen on test, and optimistic. Top-1 is the last epoch's.",
}
"""The sentence about the numbers of each protocol."""
METRICS = {
    "standard": "top-1, last epoch",
    "paper": "top-1, last epoch, protocol = paper",
}


@dataclass(frozen=True, kw_only=True)
class Exports:
    """The forms without idat-zoo that an adapter has: a tuner of PEFT, or weights of timm's.

    `peft` is of its family: on some backbones PEFT's tuner is another function.
    """

    peft: bool
    merged: bool


def card_fields(results: Mapping[str, Result]) -> dict[str, Any]:
    """The metadata that the Hub reads, without the scores."""
    first = next(iter(results.values()))
    student = first.recipe.pair.student
    suites = sorted({result.recipe.task.suite for result in results.values()})
    fields: dict[str, Any] = {
        "library_name": "idat-zoo",
        "pipeline_tag": "image-classification",
        **_licence(results.values()),
        "tags": list(dict.fromkeys(["idat", "timm", first.recipe.adapter.label, *suites])),
    }
    if student.from_hub:
        fields |= {
            "base_model": f"timm/{student.timm}.{student.weights}",
            "base_model_relation": "adapter",
        }
    return as_plain(fields)


def _licence(results: Iterable[Result]) -> dict[str, str]:
    """The one licence of the backbone and all tasks, or a pointer to the list of several."""
    recipes = [result.recipe for result in results]
    licences = {text for r in recipes for text in (r.pair.student.licence, r.task.licence)}
    if len(licences) == 1 and (licence := licences.pop().lower()) not in ("", "not stated"):
        return {"license": licence}
    return {"license": "other", "license_name": "see-data-and-licences"}


def card_scores(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """One entry for each run in the Hub's model-index; top-1 on test is a fraction.

    Each has a config of its own: what agrees in that is read back with one source for all.
    """
    scores = [
        {
            "task_type": "image-classification",
            "dataset_type": result.recipe.task.id,
            "dataset_name": result.recipe.task.title or result.recipe.task.id,
            "dataset_config": place or result.recipe.task.id,
            "dataset_split": "test",
            "metric_type": "accuracy",
            "metric_name": metric_in_words(result) + (", diverged" if result.diverged else ""),
            "metric_value": result.top1,
            "metric_args": {
                "seed": result.seed,
                "interval": list(result.top1_interval),
                "images": result.student.count,
                "protocol": result.recipe.protocol,
            },
        }
        for place, result in results.items()
    ]
    return as_plain(scores)


def metric_in_words(result: Result) -> str:
    """What the top-1 of a result is: `top-1, last epoch`, and what else is to be known of it."""
    watched = ", watched on test" if result.recipe.watch == "test" else ""
    return METRICS[result.recipe.protocol] + _of_an_ensemble(result) + watched


def _of_an_ensemble(result: Result) -> str:
    """`, ensemble of 6`, or nothing for the result of a single network."""
    selection = result.selection
    if selection is None or selection.mode != "ensemble":
        return ""
    return f", ensemble of {len(selection.tried)}"


def as_plain(value: T) -> T:
    """The same value in plain JSON types: without NumPy numbers, paths and tuples."""

    def plain(other: Any) -> Any:
        return other.tolist() if hasattr(other, "tolist") else os.fspath(other)

    same: T = json.loads(json.dumps(value, default=plain))
    return same


def card_text(
    repo: str,
    results: Mapping[str, Result],
    exports: Exports,
    *,
    in_peft: bool,
    averaged: Averaged | None = None,
) -> str:
    """The card below its metadata, in Markdown. `results` by their subfolder, '' for the root.

    `in_peft`: whether PEFT's form is in the repository, beside the adapters. `averaged`: as
    `build_report` takes it.
    """
    place, first = next(iter(results.items()))
    recipe, student = first.recipe, first.recipe.pair.student
    found = [(Path(below) / RESULT_FILE, run) for below, run in results.items()]
    report = build_report(found, averaged=averaged)
    lines = [
        f"# {repo.partition('/')[2]}",
        "",
        f"{recipe.adapter.word} on {escaped(student.name)} (timm {escaped(student.timm)}, weights "
        f"{_told_weights(student)}), trained {teachers_in_words(recipe)} by idat-zoo.",
        "",
        "## Results",
        "",
        as_markdown(lay_out(report)),
        *dict.fromkeys(_about_numbers(run) for run in results.values()),
        "",
        *(_folders(results) if len(results) > 1 else []),
        "## Use",
        "",
        *_use(repo, place, first, exports, in_peft=in_peft),
        "## Data and licences",
        "",
        *_data(results),
        f"* Backbone {escaped(student.timm)}: {escaped(student.licence or 'licence not stated')}.",
        "",
        "## Limits",
        "",
        "An adapter works on the very backbone weights it was trained on; loading checks their "
        "hash. The numbers hold for the copy of the data that the fingerprint names.",
        "",
    ]
    return "\n".join(lines)


def _about_numbers(result: Result) -> str:
    """The sentences about how a run's number came about."""
    of_several = _of_an_ensemble(result)
    if of_several:
        return f"{_about_training(result)} **selection = ensemble**{of_several}: {ENSEMBLE}."
    return _about_training(result)


def _about_training(result: Result) -> str:
    """The sentence about the epoch that counts, and about test."""
    if result.recipe.watch == "test":
        return f"Top-1 of the last epoch. **watch = test**: {WATCHED['test']}."
    return PROTOCOLS[result.recipe.protocol]


def _told_weights(backbone: Backbone) -> str:
    """A backbone's weights in words; a file of the publisher's own has a SHA-256 and no name."""
    sha256 = backbone.own_file
    return f"of the publisher's own, SHA-256 `{sha256}`" if sha256 else escaped(backbone.weights)


def _folders(results: Mapping[str, Result]) -> list[str]:
    columns = ["folder", "task", "seed", "top-1 %", "protocol", "selection"]
    rows = [
        [
            place,
            result.recipe.task.id,
            str(result.seed),
            f"{100 * result.top1:.2f}",
            result.recipe.protocol,
            result.recipe.selection + _of_an_ensemble(result).removeprefix(", ensemble"),
        ]
        for place, result in results.items()
    ]
    return ["## Folders", "", markdown_table(columns, rows), ""]


def _use(repo: str, place: str, result: Result, exports: Exports, *, in_peft: bool) -> list[str]:
    """The commands that load the first adapter: with idat-zoo, with PEFT and with timm alone."""
    reference = f"hub:{repo}" + (f"/{place}" if place else "")
    place_of_images = suite_of(result.recipe.task).place
    images = " --data-dir DIR" if place_of_images is Place.DATA_DIR else ""
    words, several = result.recipe.plugin_words, bool(_of_an_ensemble(result))
    named = f" {shlex.join(words)}" if words else ""
    own = result.recipe.pair.student.own_file
    named += " --weights student=FILE" if own else ""
    files = [plugin.file for plugin in result.recipe.plugins if plugin.file is not None]
    lines = [
        *_plugin(result),
        *_own_weights(own),
        "```",
        *([] if place_of_images is Place.MEMORY else [f"idat eval {reference}{images}{named}"]),
        f"idat predict {reference} photo.jpg{named}",
        *([] if several else [f"idat export {reference} --to onnx -o graph{named}"]),
        "```",
        "",
        "```python",
        f"from idat_zoo import load{', load_plugin' if files else ''}"
        f"{', own_weights' if own else ''}",
        "",
        *(f"load_plugin({file!r})" for file in files),
        *(["own_weights.remember_weights(FILE)"] if own else []),
        f'network, transform = load("{reference}")  # an nn.Module; PIL image -> uint8 tensor',
        "```",
        "",
    ]
    if several:
        return [*lines, "An ensemble has no form without idat-zoo.", ""]
    if in_peft:
        lines += _with_peft(repo, place, result)
    elif exports.peft:
        lines += _without_peft(result)
    if not exports.merged:
        return lines
    return [
        *lines,
        "As a plain timm model, the adapter folded into the weights:",
        "",
        "```",
        f"idat merge {reference} -o merged{named}",
        "python -c \"import timm; timm.create_model('local-dir:merged', pretrained=True)\"",
        "```",
        "",
    ]


def _plugin(result: Result) -> list[str]:
    """The plugins that the adapter needs beside idat-zoo."""
    plugins = " and ".join(escaped(str(plugin)) for plugin in result.recipe.plugins)
    if not plugins:
        return []
    return [
        f"It needs plugin {plugins}, which is not in this repository. A plugin is Python that runs "
        "with all your rights: take it from somebody you trust.",
        "",
    ]


def _own_weights(sha256: str) -> list[str]:
    """Which file the adapter needs where the backbone's weights are the publisher's own."""
    if not sha256:
        return []
    return [
        "The backbone's weights are a file of the publisher's own, which is not in this "
        f"repository: FILE below, with SHA-256 `{sha256}`.",
        "",
    ]


def _with_peft(repo: str, place: str, result: Result) -> list[str]:
    """How PEFT loads the adapter from the folder of its form."""
    recipe, student = result.recipe, result.recipe.pair.student
    folder = f"{place}/{PEFT_FOLDER}" if place else PEFT_FOLDER
    if not student.from_hub:
        whose = "the publisher" if student.own_file else "idat-zoo"
        return [
            f"With PEFT: `{folder}/`, on the backbone's weights, which {whose} alone has.",
            "",
        ]
    arguments = {"num_classes": recipe.task.num_classes, "img_size": student.img_size}
    told = ", ".join(f"{name}={value!r}" for name, value in (arguments | student.args).items())
    normalised = {
        "model": f"mean {student.mean}, std {student.std}",
        "imagenet": "ImageNet's mean and std",
        "none": "not normalised",
    }
    return [
        f"With PEFT; images in [0, 1] resized to {student.img_size} x {student.img_size} without "
        f"crop, {normalised[recipe.normalisation]}:",
        "",
        "```python",
        "import timm",
        "from peft import PeftModel",
        "",
        f'vit = timm.create_model("{student.timm}.{student.weights}", pretrained=True, {told})',
        f'network = PeftModel.from_pretrained(vit, "{repo}", subfolder="{folder}")',
        "```",
        "",
    ]


def _without_peft(result: Result) -> list[str]:
    """Why there is no form of PEFT although the family has one elsewhere."""
    name = escaped(result.recipe.pair.student.timm)
    return [f"PEFT has no form of it on {name}, where its own tuner is another function.", ""]


def _source(result: Result) -> str:
    """Where a task's images are from."""
    if suite_of(result.recipe.task).place is Place.MEMORY:
        return (
            "images and labels that a Python program held; whoever has them evaluates by "
            "`idat_zoo.evaluate(reference, data=…)`"
        )
    return escaped(result.recipe.task.source or "source not stated")


def _data(results: Mapping[str, Result]) -> list[str]:
    """The source, licence and fingerprint of the images behind the numbers."""
    copies = {(run.recipe.task.id, run.data_fingerprint): run for run in results.values()}
    return [
        f"* {task}: {_source(run)}; licence "
        f"{escaped(run.recipe.task.licence or 'not stated')}."
        + (f" Copy: {escaped(run.data_copy)}." if run.data_copy else "")
        + f" Fingerprint of the images: `{fingerprint}`."
        for (task, fingerprint), run in copies.items()
    ]
