"""Families that add no module."""

from families import Facts, Form, through_blocks

FACTS = {
    "linear": Facts(
        forms=(
            Form(
                reference=lambda model, tensors, images: through_blocks(model, images, tensors),
                why="there is nothing but the head",
            ),
        ),
        count=lambda s: 0,
        unpublished="0 needs no source",
        initial={},
        identity=True,
        dropout={"dropout": 0.5},
        unlike=({"dropout": 0.1}, {"dropout": 0.2}),
        alike="it has no rank",
        outside="there is nothing in a block",
    ),
}
