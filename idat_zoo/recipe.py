"""Pair, Task and Recipe: all that fixes a run except seed, device and paths.

Frozen, checked by pydantic, free of torch. The registry builds recipes from TOML; a hand-made
`Recipe` trains just as well.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from idat_zoo.errors import RecipeError, plainly
from idat_zoo.specs import (
    DEFAULT_TERM,
    FLAT_OPTIONS,
    NO_TERM,
    OF_THE_TERM,
    AdapterSpec,
    Plugin,
    TeacherSpec,
    TermSpec,
    with_term,
)
from idat_zoo.specs import Backbone as Backbone
from idat_zoo.values import (
    MOST_CLASSES,
    MOST_EPOCHS,
    BelowOrHere,
    Frozen,
    Name,
    Number,
    Scalar,
)

Augmentation = Literal["flip", "crop", "randaugment"]

# What describes a recipe without changing what it computes. Left out of the recipe's hash.
DESCRIPTIVE: Any = {  # as pydantic's `exclude` takes it
    "pair": {"teacher": {"licence"}, "student": {"licence"}},
    "task": {"title", "licence", "source", "class_names"},
    "further_teachers": {"__all__": {"backbone": {"licence"}}},
}


class Pair(Frozen):
    """A small teacher and a larger student, named teacher first, as knowledge flows in iDAT."""

    name: Name
    student: Backbone
    teacher: Backbone | None = None

    def backbones(self) -> list[Backbone]:
        """The teacher, if there is one, and the student."""
        return [self.student] if self.teacher is None else [self.teacher, self.student]


class Task(Frozen):
    """An image-classification task, and what its data must look like.

    `num_classes` is declared and never counted from labels: the 1,000 training images of SUN397
    show 325 of its 397 classes. `num_train`, `num_val` and `num_test` list the valid sizes of a
    split; with none listed, the size is not checked. `folder` is a path below the data folder, and
    `images` one below `folder`.
    `shots` is the images per class of a few-shot task. `suite` names a class of `data/suites`, or
    one that a `plugin` brings.
    """

    id: Name
    title: str = ""
    suite: Name
    group: Name | None = None
    num_classes: int = Field(gt=1, le=MOST_CLASSES)
    num_train: Annotated[tuple[int, ...], Strict(False)] = (800,)
    num_val: Annotated[tuple[int, ...], Strict(False)] = (200,)
    num_test: Annotated[tuple[int, ...], Strict(False)]
    folder: BelowOrHere = ""
    images: BelowOrHere = ""
    shots: int = Field(default=0, ge=0)
    class_names: Annotated[tuple[str, ...], Strict(False)] = ()
    licence: str = ""
    source: str = ""
    plugin: Plugin | None = None

    @model_validator(mode="after")
    def _names_every_class(self) -> "Task":
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"class_names: {len(self.class_names)} names for {self.num_classes} classes"
            )
        return self

    def with_names(self, names: Sequence[str]) -> "Task":
        """The task with these class names, unless it has its own."""
        if self.class_names or not names:
            return self
        return self.model_copy(update={"class_names": tuple(names)})


FurtherTeachers = Annotated[tuple[TeacherSpec, ...], Strict(False), Field(min_length=1)]


class Recipe(Frozen):
    """Everything that determines a run except seed, device and paths.

    `epochs` and `warmup_epochs` count epochs; `lr` is the peak learning rate of AdamW, for both
    networks. The term `distillation` has weight `distillation_weight`, which rises linearly from 0
    over `distillation_warmup_epochs`; `detach` names the side whose outputs are constants in it
    (iDAT as released: `none`, both learn). With `distillation_gate = "teacher_right"` it acts on
    the images that the teacher classifies correctly, and with `distillation_until = "teacher"` it
    ends after the first epoch in which the student's training accuracy is above the teacher's.
    With `task_loss = "joint"` the cross-entropy of the sum of both networks' logits takes the place
    of the two separate ones. `class_weights = "balanced"` weights each image in cross-entropies by
    N / (K n), for n of the N training images in its class and K classes. `watch` names the images
    on which the student's top-1 is logged after every epoch, by which nothing is chosen; with `val`
    the run is trained on the train split alone, so that these images are new to it.
    With `teacher_mode = "offline"` the teacher is a checkpoint that was trained before, and its
    logits are constants; `teacher_sha256` is the SHA-256 of its adapter_model.safetensors. Where
    there are several, the one with the smallest SHA-256 is the pair's teacher, and the others are
    `further_teachers`, by ascending SHA-256.
    `candidates` (field -> values) are what `selection = "val"` chooses among; with `"ensemble"` all
    of them are trained, and the mean of their softmaxes answers. `protocol = "imported"` marks an
    adapter trained elsewhere, whose training is not known.

    Recipes of the older form are accepted, in which `distillation` is the term's name, and
    `temperature` and `temperature_squared` are fields of their own.
    """

    pair: Pair
    task: Task
    adapter: AdapterSpec
    teacher_adapter: AdapterSpec | None = None

    lr: Number = Field(default=1e-3, gt=0)
    weight_decay: Number = Field(default=1e-4, ge=0)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=64, gt=0)
    epochs: int = Field(default=100, gt=0, le=MOST_EPOCHS)
    warmup_epochs: int = Field(default=10, ge=0, le=MOST_EPOCHS)

    distillation: TermSpec = TermSpec(name=DEFAULT_TERM)
    distillation_weight: Number = Field(default=1.0, ge=0)
    distillation_warmup_epochs: int = Field(default=0, ge=0, le=MOST_EPOCHS)
    distillation_gate: Literal["none", "teacher_right"] = "none"
    distillation_until: Literal["end", "teacher"] = "end"
    detach: Literal["none", "teacher", "student"] = "none"
    task_loss: Literal["each", "joint"] = "each"
    class_weights: Literal["none", "balanced"] = "none"
    teacher_mode: Literal["online", "offline"] = "online"
    teacher_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    further_teachers: FurtherTeachers | None = None

    protocol: Literal["standard", "paper", "imported"] = "standard"
    selection: Literal["none", "val", "ensemble"] = "none"
    candidates: dict[str, Annotated[tuple[Scalar, ...], Strict(False)]] = Field(
        default_factory=dict
    )
    watch: Literal["none", "val", "test"] = "none"
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    normalisation: Literal["model", "imagenet", "none"] = "model"
    augmentation: Annotated[tuple[Augmentation, ...], Strict(False)] = ()

    @property
    def distils(self) -> bool:
        """Whether there is a distillation term."""
        return self.distillation.name != NO_TERM

    @property
    def offline_teachers(self) -> tuple[TeacherSpec, ...]:
        """The checkpoints of offline teachers, by ascending SHA-256; () for an online teacher."""
        backbone, adapter = self.pair.teacher, self.teacher_adapter
        if self.teacher_sha256 is None or backbone is None or adapter is None:
            return ()
        first = TeacherSpec(backbone=backbone, adapter=adapter, sha256=self.teacher_sha256)
        return (first, *(self.further_teachers or ()))

    def backbones(self) -> list[Backbone]:
        """The backbones of the pair, and those of further teachers."""
        return [*self.pair.backbones(), *(one.backbone for one in self.further_teachers or ())]

    @property
    def plugins(self) -> list[Plugin]:
        """The plugins that the recipe needs, each once."""
        specs = (self.adapter, self.teacher_adapter, self.distillation)
        further = (one.adapter for one in self.further_teachers or ())
        parts = (*specs, *further, *self.backbones(), self.task)
        named = (part.plugin for part in parts if part is not None)
        return list(dict.fromkeys(plugin for plugin in named if plugin is not None))

    @property
    def plugin_words(self) -> list[str]:
        """The words of a command line that load these plugins."""
        return [word for plugin in self.plugins for word in plugin.words]

    @model_validator(mode="before")
    @classmethod
    def _takes_the_older_form(cls, fields: Any) -> Any:  # whatever a caller hands in
        return with_term(fields) if isinstance(fields, Mapping) else fields

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        usual = type(self).model_fields
        digests = [one.sha256 for one in self.offline_teachers]
        acting = [name for name in OF_THE_TERM if getattr(self, name) != usual[name].default]
        faults = [
            message
            for wrong, message in (
                (
                    self.warmup_epochs > self.epochs,
                    f"warmup_epochs = {self.warmup_epochs} is more than epochs = {self.epochs}",
                ),
                (
                    self.pair.teacher is None and self.distils,
                    f"distillation = '{self.distillation.name}' needs a teacher; "
                    "without one it is 'none'",
                ),
                (
                    (self.pair.teacher is None) != (self.teacher_adapter is None),
                    "a teacher and a teacher_adapter come together",
                ),
                (
                    self.distillation.name in (DEFAULT_TERM, NO_TERM)
                    and any(name in self.distillation.options for name in FLAT_OPTIONS),
                    "temperature and temperature_squared act only with distillation = 'kl'",
                ),
                (
                    not self.distils and bool(acting),
                    f"{' and '.join(acting)} need{'s' * (len(acting) == 1)} a distillation term",
                ),
                (
                    self.task_loss == "joint" and self.pair.teacher is None,
                    "task_loss = 'joint' needs a teacher, whose logits are added to the student's",
                ),
                (
                    self.task_loss == "joint" and self.teacher_mode == "offline",
                    "task_loss = 'joint' needs an online teacher, which learns with the student",
                ),
                (
                    self.task_loss == "joint" and self.selection != "none",
                    f"task_loss = 'joint' takes no selection = '{self.selection}', which scores "
                    "the student",
                ),
                (
                    self.task_loss == "joint" and self.protocol == "paper",
                    "task_loss = 'joint' takes no protocol = 'paper', which tests the student",
                ),
                (
                    self.watch == "val" and self.selection != "none",
                    "watch = 'val' takes no selection, whose last training uses the val images",
                ),
                (
                    self.watch != "none" and self.protocol != "standard",
                    f"watch is of protocol = 'standard'; '{self.protocol}' takes none"
                    + " and tests after every epoch" * (self.protocol == "paper"),
                ),
                (
                    (self.teacher_mode == "offline") != (self.teacher_sha256 is not None),
                    "teacher_mode = 'offline' and teacher_sha256 come together; --teacher-from REF "
                    "sets both",
                ),
                (
                    self.further_teachers is not None and self.teacher_mode != "offline",
                    "further_teachers need teacher_mode = 'offline'; --teacher-from REF, given "
                    "for each teacher, sets both",
                ),
                (
                    digests != sorted(set(digests)),
                    "the SHA-256 of teacher_sha256 and of further_teachers must ascend, each once",
                ),
                (
                    self.teacher_mode == "offline" and not self.distils,
                    "teacher_mode = 'offline' needs a teacher and a distillation term",
                ),
                (
                    self.teacher_mode == "offline" and self.detach == "student",
                    "detach = 'student' leaves nothing to learn with teacher_mode = 'offline', "
                    "where the teacher is constant",
                ),
                (
                    self.teacher_mode == "offline" and bool(self.augmentation),
                    "augmentation needs an online teacher: an offline teacher's logits are of the "
                    "images as they are",
                ),
                (
                    self.selection != "none" and not self.candidates,
                    f"selection = '{self.selection}' needs candidates, e.g. "
                    "candidates.lr=[1e-3,1e-2]",
                ),
                (
                    self.selection == "none" and bool(self.candidates),
                    "candidates need selection = 'val' or 'ensemble'",
                ),
                (
                    any(not values for values in self.candidates.values()),
                    "each of candidates needs at least one value",
                ),
                (
                    any(len({*values}) < len(values) for values in self.candidates.values()),
                    "candidates have each value once",
                ),
                (
                    self.selection != "none" and self.protocol == "paper",
                    "protocol = 'paper' chooses on test; it takes no selection = "
                    f"'{self.selection}'",
                ),
                (
                    self.protocol == "imported"
                    and (self.selection != "none" or self.pair.teacher is not None),
                    "protocol = 'imported' (trained elsewhere) has no teacher and no selection",
                ),
                (
                    bool(self.augmentation)
                    and self.pair.teacher is not None
                    and self.pair.teacher.img_size != self.pair.student.img_size,
                    "augmentation needs a teacher and a student of one input size",
                ),
            )
            if wrong
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def check_recipe(fields: Mapping[str, Any], *, where: str) -> Recipe:
    """Build a recipe from nested mappings; `where` (a file, a command line) names its origin.

    Raises: RecipeError with every fault, each naming `where` and the key.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(describe_faults(error, where=where)) from None


def describe_faults(error: ValidationError, *, where: str) -> list[str]:
    """One line for each fault that pydantic found: where, key, what is wrong, and the value."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = plainly(fault["msg"])
        if fault["type"] == "extra_forbidden":
            message = "unknown key"
        if fault["type"] == "string_pattern_mismatch":
            message = "holds characters that do not belong there"
        got = "" if not key or fault["type"] == "missing" else f" (got {fault['input']!r})"
        lines.append(": ".join(part for part in (where, key, message) if part) + got)
    return lines
