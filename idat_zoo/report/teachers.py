"""The teachers of a run in the words of its card."""

from idat_zoo.recipe import Recipe
from idat_zoo.report.markdown import escaped
from idat_zoo.specs import TeacherSpec


def teachers_in_words(recipe: Recipe) -> str:
    """How a student was trained, by the teachers of its recipe: `alone`, `jointly with …`."""
    teacher, offline = recipe.pair.teacher, recipe.offline_teachers
    if teacher is None:
        return "alone"
    if len(offline) > 1:
        return (
            f"with the fixed logits of {len(offline)} trained teachers together, which are the log "
            f"of the mean of their softmaxes (offline): {' and '.join(map(_named, offline))},"
        )
    if offline:
        return (
            f"with the fixed logits of a trained {escaped(teacher.name)} (offline; its "
            f"adapter_model.safetensors has SHA-256 {recipe.teacher_sha256})"
        )
    return (
        f"jointly with a frozen {escaped(teacher.name)} as its teacher (the smaller network: "
        "iDAT's inversion, arXiv:2403.15750)"
    )


def _named(teacher: TeacherSpec) -> str:
    """A trained teacher by its backbone, its adapter and the SHA-256 of its tensors."""
    return (
        f"{escaped(teacher.backbone.name)} with {teacher.adapter.word} (its "
        f"adapter_model.safetensors has SHA-256 {teacher.sha256})"
    )
