"""Inducer-tuning."""

from torch import Tensor

from families import Case, Facts, Normal, renamed

NAMES = renamed(
    ("attn.", ""),
    ("prefix_v_pert_mlp.", "key."),
    ("prefix_v_mlp.", "value."),
    ("prefix_A", "down.weight"),
    ("A_bias", "down.bias"),
    ("prefix_B", "up.weight"),
    ("B_bias", "up.bias"),
    ("WQ_LoRA.", "query."),
    ("lora_A", "down.weight"),
    ("lora_B", "up.weight"),
    ("query.b", "query.up.bias"),
)
EXTENDED = {"extend": "heads"}


def starts_as_frozen_where_asked() -> None:
    from laws import adapter_of, wide  # which reads these facts

    from idat_zoo.randomness import generator

    for extend in ("none", "heads", "shared"):
        adapter = adapter_of("inducer", {"extend": extend, "zero_start": True, "query_rank": 2})
        made: dict[str, Tensor] = adapter.create(wide().anatomy, generator(0, "t", "t")).trainable
        for name, tensor in made.items():
            zero = ".value.up." in name or ".query.up." in name
            assert tensor.any() == (not zero), name


def keeps_laws_behind_the_projection() -> None:
    import laws

    for own in ({"extend": "heads", "query_rank": 2}, {"extend": "shared", "key_rank": 0}):
        cell = laws.Cell("inducer", own=own)
        laws.is_alive(cell)
        laws.mixes_as_alone(cell)
        laws.bears_bf16(cell)
        laws.walks_on_from_its_prefix(cell, drop_path=0.3)
    laws.stacks_as_alone(laws.Cell("inducer", own=EXTENDED))


FACTS = {
    "inducer": Facts(
        golden=(
            Case(file="inducer", variant="ext", names=NAMES, options=EXTENDED),
            Case(file="inducer", variant="nonext", names=NAMES),
            Case(
                file="inducer_variants",
                variant="headshare",
                names=NAMES,
                options={"extend": "shared"},
            ),
            Case(
                file="inducer_variants",
                variant="ext_lora",
                names=NAMES,
                options={**EXTENDED, "query_rank": 4, "query_scale": 8.0},
            ),
            Case(file="inducer_variants", variant="nokey", names=NAMES, options={"key_rank": 0}),
        ),
        more={
            "starts as the frozen network": starts_as_frozen_where_asked,
            "keeps laws behind the projection": keeps_laws_behind_the_projection,
        },
        count=lambda s: s.L * ((2 * s.D + s.M) * 6 + 2 * s.D),
        published={"B": 129_888, "S": 64_944},
        initial={"blocks.*": Normal(0.00866, cut=0.02)},
        identity=False,
        unlike=({"rank": 2, "key_rank": 1}, {"rank": 5, "key_rank": 3}),
        refused_by=frozenset({"swinv2", "convnext"}),
    ),
}
