"""The README of a repository on the Hub: what the adapters in it are, reach, and need.

Every number comes from the results beside it; nothing is written by hand.
"""

from collections.abc import Mapping
from typing import Any

from idat_zoo.report.markdown import markdown_table
from idat_zoo.results import Result

PROTOCOLS = {
    "standard": "Top-1 of the last epoch; test was read once, after training.",
    "paper": "**protocol = paper**: the released code's schedule; a best epoch was chosen on test "
    "and is optimistic. The table shows the last epoch.",
    "imported": "**protocol = imported**: trained elsewhere, with settings that are not known, nor "
    "how often test was read.",
}
"""What its protocol says of a number."""


def card_fields(results: Mapping[str, Result]) -> dict[str, Any]:
    """The metadata that the Hub reads, but for the scores."""
    first = next(iter(results.values()))
    student = first.recipe.pair.student
    suites = sorted({result.recipe.task.suite for result in results.values()})
    fields: dict[str, Any] = {
        "library_name": "idat-zoo",
        "pipeline_tag": "image-classification",
        "license": student.licence.lower() or "other",
        "tags": ["idat", "timm", first.recipe.adapter.name, *suites],
    }
    if ":" not in student.weights and student.weights != "random":
        fields |= {
            "base_model": f"timm/{student.timm}.{student.weights}",
            "base_model_relation": "adapter",
        }
    return fields


def card_scores(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """One entry a run for the Hub's model-index; top-1 on test as a fraction."""
    return [
        {
            "task_type": "image-classification",
            "dataset_type": result.recipe.task.id,
            "dataset_name": result.recipe.task.title or result.recipe.task.id,
            "dataset_config": place or result.recipe.task.id,
            "dataset_split": "test",
            "metric_type": "accuracy",
            "metric_name": "top-1, last epoch",
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


def card_text(repo: str, results: Mapping[str, Result]) -> str:
    """The card below its metadata, in Markdown. `results` by their subfolder, '' for the root."""
    first = next(iter(results.values()))
    recipe, student = first.recipe, first.recipe.pair.student
    teacher = recipe.pair.teacher
    if recipe.protocol == "imported":
        trained = "trained elsewhere"
    elif teacher is None:
        trained = "trained alone by idat-zoo"
    else:
        trained = (
            f"trained jointly with a frozen {teacher.name} as its teacher (the smaller network: "
            "iDAT's inversion, arXiv:2403.15750) by idat-zoo"
        )
    rows = [
        [
            place or ".",
            result.recipe.task.id,
            str(result.seed),
            f"{100 * result.top1:.1f}",
            f"{100 * result.top1_interval[0]:.1f}–{100 * result.top1_interval[1]:.1f}",
            str(result.student.count),
            _beside(result),
        ]
        for place, result in results.items()
    ]
    example = f"hub:{repo}" + (f"/{next(iter(results))}" if next(iter(results)) else "")
    columns = ["folder", "task", "seed", "top-1 %", "95 % interval", "test images", "raw pixels"]
    tasks = {result.recipe.task.id: result.recipe.task for result in results.values()}
    lines = [
        f"# {repo.partition('/')[2]}",
        "",
        f"`{recipe.adapter.name}` on {student.name} (timm `{student.timm}`, weights "
        f"`{student.weights}`), {trained}.",
        "",
        markdown_table(columns, rows),
        "",
        PROTOCOLS[recipe.protocol],
        "",
        "## Use",
        "",
        "```",
        f"idat eval --checkpoint {example}",
        f"idat predict --checkpoint {example} photo.jpg",
        "```",
        "",
        "```python",
        "from idat_zoo import load",
        "",
        f'network, transform = load("{example}")  # an nn.Module; PIL image -> uint8 tensor',
        "```",
        "",
        "Elsewhere: `idat export --to onnx`"
        + (
            ", `idat export --to peft`, `idat merge` (a plain timm model)."
            if recipe.adapter.name == "lora"
            else "."
        ),
        "",
        "## Data and licences",
        "",
        *(
            f"* {task.id}: {task.source or 'source not stated'}; licence "
            f"{task.licence or 'not stated'}. Fingerprint of the images: "
            f"`{next(r for r in results.values() if r.recipe.task.id == name).data_fingerprint}`."
            for name, task in tasks.items()
        ),
        f"* Backbone: {student.licence or 'licence not stated'}.",
        "",
        "## Limits",
        "",
        "An adapter works on the very backbone weights it was trained on; loading checks their "
        "hash. The numbers hold for the copy of the data that the fingerprint names.",
        "",
    ]
    return "\n".join(lines)


def _beside(result: Result) -> str:
    """What pixels reach without any network, where that was measured."""
    return f"{100 * max(result.baselines.values()):.1f}" if result.baselines else ""
