"""The five mini tasks: the same bytes everywhere, and labels that follow from what is drawn."""

import ast
import hashlib
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from idat_zoo.data import mini
from idat_zoo.data.mini import DRAWERS, count, lesions, sprites, textures
from idat_zoo.data.mini.counter import Draws
from idat_zoo.data.mini.drawing import CHUNK, NUM_IMAGES, Drawing
from idat_zoo.data.mini.raster import ONE, PIXEL, TURN, place, root, shrink, sine

pytestmark = pytest.mark.slow  # thousands of images are drawn

CLASSES = {"textures": 8, "lesions": 4, "sprites_loc": 16, "sprites_ori": 16, "count": 8}

# Made with NumPy 2.4.6 on x86-64; NumPy 1.26.4 gave the same.
SHA256 = {
    "textures": (
        "e0029bb1707519533e41ce940849134ef960363082eaa0b1848123f6c9ab774d",
        "8171eadf5366bb7181b5b1bb08f129ab72ae0be284c7bde760d94f88957b0364",
    ),
    "lesions": (
        "65f0180cbe434246c6915f39e2d93aa10652e43b89de5ed6f840d8c2247fa123",
        "0b8a748ad2a30d3c4e49f1a737337ddac73263c7e07a4a1a420905a2278357f2",
    ),
    "sprites_loc": (
        "227a96a9506fb1f7988e734c916fa4a033c92737aa88b6622246551fa1e35694",
        "e8c8658ea53a0d5db473ab86951fdd6caf5b4a38aa194070a4486c01fdccdff3",
    ),
    "sprites_ori": (
        "227a96a9506fb1f7988e734c916fa4a033c92737aa88b6622246551fa1e35694",
        "2331fe392effd98ab1738f1a000370710952cce75467fb1175b8ec4bd27e509f",
    ),
    "count": (
        "293ac82ccbc3d7480e0530b00f59ab2c078244e88a44a77b994d32fdeab7aa2c",
        "712556fb9a3274c07e34a4b668cf9b68a6416cab22dfa783ccbf8a5ea1b5f717",
    ),
}
"""Of each task's images and of its labels as little-endian int64."""

WORD = 2**64


def mix(word: int) -> int:
    """splitmix64's finaliser in Python's own integers."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB % WORD
    return word ^ word >> 31


def word_of(task: str, name: str, image: int, position: int = 0) -> int:
    """One word of the generator, from its definition."""
    start = 0xCBF29CE484222325
    for byte in f"{task}/{name}".encode():
        start = (start ^ byte) * 0x100000001B3 % WORD
    golden = 0x9E3779B97F4A7C15
    row = mix((start + golden * (image + 1)) % WORD)
    return mix((row + golden * (position + 1)) % WORD)


def integer_of(task: str, name: str, image: int, low: int, high: int) -> int:
    """The first integer that a task draws for an image under a name."""
    return low + ((word_of(task, name, image) >> 32) * (high - low + 1) >> 32)


def all_draws(task: str, images: int = NUM_IMAGES) -> Draws:
    return Draws(task=task, images=np.arange(images))


def components(mask: np.ndarray) -> list[np.ndarray]:
    """The pixels of each 8-connected component of a mask `[H, W]`, as indices into it."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        edge = [left.pop()]
        component = list(edge)
        while edge:
            row, column = edge.pop()
            near = {(row + i, column + j) for i, j in product((-1, 0, 1), repeat=2)} & left
            left -= near
            edge += near
            component += near
        found.append(np.array(component).T)
    return found


@pytest.fixture(scope="module")
def drawing() -> Callable[[str], Drawing]:
    """Each task, drawn once, with every floating-point fault an error."""
    drawn: dict[str, Drawing] = {}

    def get(task: str) -> Drawing:
        if task not in drawn:
            with np.errstate(all="raise"):
                drawn[task] = DRAWERS[task]()
        return drawn[task]

    return get


# The generator


def test_the_generator_gives_its_known_words() -> None:
    words = Draws(task="task", images=np.array([0, 1, 1999])).words("name", 2)
    assert words.tolist() == [
        [9526089765153714379, 16722665587619163541],
        [5878291059362098468, 214025967574137153],
        [7361158897663433711, 2813074505044946650],
    ]


def test_the_generator_is_what_pythons_integers_give() -> None:
    images = np.array([0, 7, 1999])
    words = Draws(task="count", images=images).words("place", 3, 2)
    expected = [[word_of("count", "place", int(i), k) for k in range(6)] for i in images]
    assert words.reshape(3, 6).tolist() == expected


def test_a_draw_follows_from_its_image_alone() -> None:
    together = all_draws("count", 20).integers("count", 0, 99, 4)
    alone = Draws(task="count", images=np.array([13])).integers("count", 0, 99, 4)
    assert np.array_equal(together[13:14], alone)


def test_integers_reach_both_ends_and_are_even() -> None:
    drawn = all_draws("any").integers("die", -2, 3, 30)
    shares = np.unique(drawn, return_counts=True)
    assert shares[0].tolist() == [-2, -1, 0, 1, 2, 3]
    # Six standard deviations of a binomial of 60,000 throws.
    assert np.abs(shares[1] - 10_000).max() < 6 * math.sqrt(60_000 * 5 / 36)


def test_noise_is_the_difference_of_the_words_bytes() -> None:
    noise = all_draws("any", 2).noise("grain", 4)
    parts = word_of("any", "grain", 1).to_bytes(8, "little")
    assert noise[1].tolist() == [parts[k] - parts[k + 1] for k in range(0, 8, 2)]


DRAWING = [path for path in Path(mini.__file__).parent.glob("*.py") if path.stem != "load"]


@pytest.mark.parametrize("path", sorted(DRAWING), ids=lambda path: path.stem)
def test_nothing_is_drawn_in_floating_point(path: Path) -> None:
    """No float, true division, or NumPy function that gives floats; no other generator."""
    floating = {"random", "sqrt", "sin", "cos", "exp", "mean", "linspace", "float32", "float64"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), node.lineno
        assert not isinstance(node, ast.Div), "true division"
        assert not (isinstance(node, ast.Attribute) and node.attr in floating), node.lineno


# The raster


def test_sines_are_rounded_to_the_nearest() -> None:
    angles = np.arange(-TURN, TURN)
    exact = np.array([ONE * math.sin(2 * math.pi * angle / TURN) for angle in angles])
    # Half a step, and what floating point adds to it.
    assert np.abs(sine(angles) - exact).max() <= 0.5 + 1e-9
    assert np.array_equal(sine(angles + TURN // 2), -sine(angles))


def test_roots_and_quotients_are_exact() -> None:
    squares = np.array([0, 1, 2, 3, 4, 99, 100, 2**26 - 1])
    assert root(squares).tolist() == [math.isqrt(square) for square in squares.tolist()]
    assert shrink(np.array([-7, -6, 7]), 3).tolist() == [-2, -2, 2]


def test_placed_discs_keep_their_gap_from_each_other_and_the_edge() -> None:
    draws = all_draws("any", 100)
    radius = draws.integers("radius", 0, 5, 9) * PIXEL
    centre, gap = place(draws, radius, gap=PIXEL), PIXEL
    apart = np.sqrt(((centre[:, :, None] - centre[:, None]) ** 2).sum(axis=-1))
    real = (radius > 0)[:, :, None] & (radius > 0)[:, None] & ~np.eye(9, dtype=bool)
    needed = radius[:, :, None] + radius[:, None] + gap
    assert (apart[real] >= needed[real]).all()
    assert (centre >= (radius + gap)[..., None])[radius > 0].all()
    assert (centre <= (64 * PIXEL - radius - gap)[..., None])[radius > 0].all()


# All tasks


@pytest.mark.parametrize("task", DRAWERS)
def test_images_and_labels_are_these_bytes(task: str, drawing: Callable[[str], Drawing]) -> None:
    drawn = drawing(task)
    labels = drawn.targets.astype("<i8")
    found = tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in (drawn.images, labels))
    assert found == SHA256[task]


@pytest.mark.parametrize("task", DRAWERS)
def test_there_are_2000_images_and_every_class_is_learnt_from(
    task: str, drawing: Callable[[str], Drawing]
) -> None:
    drawn = drawing(task)
    assert drawn.images.shape == (NUM_IMAGES, 64, 64, 3)
    assert drawn.images.dtype == np.uint8
    assert drawn.targets.shape == (NUM_IMAGES,)
    assert set(drawn.targets.tolist()) == set(range(CLASSES[task]))
    in_train = np.bincount(drawn.targets[:800], minlength=CLASSES[task])
    assert in_train.min() > 0.5 * 800 / CLASSES[task]
    assert in_train.max() < 1.6 * 800 / CLASSES[task]


@pytest.mark.parametrize("task", ["textures", "lesions", "count"])
def test_no_two_images_are_alike(task: str, drawing: Callable[[str], Drawing]) -> None:
    assert len({image.tobytes() for image in drawing(task).images}) == NUM_IMAGES


@pytest.mark.parametrize(
    ("task", "draw"),
    [("textures", textures.draw), ("lesions", lesions.draw), ("count", count.draw)],
)
def test_an_image_is_the_same_in_any_company(
    task: str, draw: Callable[[Draws], Drawing], drawing: Callable[[str], Drawing]
) -> None:
    images = np.array([CHUNK + 3, 5])
    assert np.array_equal(
        draw(Draws(task=task, images=images)).images, drawing(task).images[images]
    )


# textures


def test_a_texture_is_labelled_with_the_kind_that_was_drawn(
    drawing: Callable[[str], Drawing],
) -> None:
    kinds = [integer_of("textures", "kind", image, 0, 7) for image in range(NUM_IMAGES)]
    assert drawing("textures").targets.tolist() == kinds


# lesions


def test_grades_follow_from_the_lesions_in_the_picture(
    drawing: Callable[[str], Drawing],
) -> None:
    images = 300
    draws = all_draws("lesions", images)
    depth, is_lesion = lesions.draw_figures(draws, lesions.draw_findings(draws))
    for image in range(images):
        darkest = [
            depth[image][pixels].max() for pixels in map(tuple, components(is_lesion[image]))
        ]
        points = sum(2 if depth > 128 else 1 for depth in darkest)
        assert drawing("lesions").targets[image] == points // 3, image


def test_every_score_is_reached_by_few_dark_and_by_many_pale_lesions() -> None:
    findings = lesions.draw_findings(all_draws("lesions"))
    drawn = set(zip(findings.pale.tolist(), findings.dark.tolist(), strict=True))
    assert drawn == {(p, d) for p in range(12) for d in range(6) if p + 2 * d <= 11}


# sprites


def test_sprites_factors_all_occur_and_give_the_labels(
    drawing: Callable[[str], Drawing],
) -> None:
    factors = sprites.draw_factors(all_draws("sprites"))
    for name, values in sprites.FACTORS.items():
        drawn = [integer_of("sprites", name, image, 0, values - 1) for image in range(NUM_IMAGES)]
        assert factors[name].tolist() == drawn
        assert set(drawn) == set(range(values))
    location = [math.floor(x / 2) for x in factors["x"].tolist()]
    orientation = [math.floor(o / 2.5) for o in factors["orientation"].tolist()]
    assert drawing("sprites_loc").targets.tolist() == location
    assert drawing("sprites_ori").targets.tolist() == orientation


def test_both_sprite_tasks_show_the_same_white_on_black(
    drawing: Callable[[str], Drawing],
) -> None:
    images = drawing("sprites_loc").images
    assert np.array_equal(images, drawing("sprites_ori").images)
    assert set(np.unique(images)) == {0, 255}


def test_the_white_mass_lies_where_the_label_says(drawing: Callable[[str], Drawing]) -> None:
    drawn = drawing("sprites_loc")
    mass = drawn.images[..., 0].sum(axis=1, dtype=np.int64)
    middle = (mass * np.arange(64)).sum(axis=1) / mass.sum(axis=1)
    # Index x has its centre of mass on pixel 16 + x; two indices share a label.
    assert np.abs(middle - 16.5 - 2 * drawn.targets).max() < 0.5 + 0.25


def render_each(**values: int | range) -> np.ndarray:
    """Sprites with these factors; the one that is a range runs, the others stay."""
    length = max(len(value) for value in values.values() if isinstance(value, range))
    return sprites.render(
        {
            name: np.broadcast_to(np.array(value, dtype=np.int64), length)
            for name, value in values.items()
        }
    )


@pytest.mark.parametrize("shape", range(3))
def test_all_positions_hold_the_same_whole_sprite(shape: int) -> None:
    every = np.arange(32 * 32)
    fixed = {"shape": shape, "scale": 5, "orientation": 3}
    factors = {name: np.full(len(every), value) for name, value in fixed.items()}
    images = sprites.render(factors | {"x": every % 32, "y": every // 32})
    assert not images[:, [0, -1]].any()
    assert not images[:, :, [0, -1]].any()
    for x, y in product(range(32), repeat=2):
        moved = np.roll(images[0], (y, x), axis=(0, 1))
        assert np.array_equal(images[y * 32 + x], moved), (x, y)


@pytest.mark.parametrize("shape", range(3))
def test_scales_are_linear_from_a_half_to_one(shape: int) -> None:
    images = render_each(shape=shape, scale=range(6), orientation=0, x=16, y=16)
    side = np.sqrt(images.sum(axis=(1, 2)))
    assert np.abs(side / side[-1] - np.linspace(0.5, 1, 6)).max() < 0.03  # whole pixels


@pytest.mark.parametrize(("shape", "period"), [("square", 10), ("ellipse", 20), ("heart", 40)])
def test_a_sprite_repeats_after_its_own_part_of_a_turn(shape: str, period: int) -> None:
    kind = sprites.SHAPES.index(shape)
    images = render_each(shape=kind, scale=5, orientation=range(40), x=16, y=16)
    alike: dict[bytes, list[int]] = {}
    for orientation, image in enumerate(images):
        alike.setdefault(image.tobytes(), []).append(orientation)
    assert list(alike.values()) == [list(range(first, 40, period)) for first in range(period)]
    # Each of them has another label, so the share that can be told is period / 40: 7 / 12 in all.
    for orientations in alike.values():
        assert len({o * 2 // 5 for o in orientations}) == 40 // period


def test_orientations_are_equal_steps_of_a_full_turn() -> None:
    """Turned back by its number of steps, each heart lies as the first one does."""
    images = render_each(shape=2, scale=5, orientation=range(40), x=16, y=16)
    at = np.arange(64) - 32
    angle = (2 * math.pi / 40 * np.arange(40))[:, None, None]
    x = np.rint(at * np.cos(angle) - at[:, None] * np.sin(angle)).astype(int)
    y = np.rint(at * np.sin(angle) + at[:, None] * np.cos(angle)).astype(int)
    seen = np.maximum(np.abs(x), np.abs(y)) < 32
    for orientation, image in enumerate(images):
        turned_back = seen & image[(y + 32) % 64, (x + 32) % 64]
        agreement = (turned_back == images[0]).sum(axis=(1, 2))
        assert agreement.argmax() == orientation


# count


def test_objects_in_the_picture_are_as_many_as_the_label_says(
    drawing: Callable[[str], Drawing],
) -> None:
    images = 300
    draws = all_draws("count", images)
    cover, _ = count.draw_objects(draws, count.draw_target(draws) + 3)
    found = [len(components(image > 0)) - 3 for image in cover]
    assert drawing("count").targets[:images].tolist() == found


def test_inked_area_does_not_tell_the_count() -> None:
    draws = all_draws("count")
    target = count.draw_target(draws)
    area = np.concatenate(
        [
            count.draw_objects(part, count.draw_target(part) + 3)[0].sum(axis=(1, 2))
            for part in (Draws(task="count", images=i) for i in np.split(draws.images, 40))
        ]
    )
    assert abs(np.corrcoef(area, target)[0, 1]) < 0.08
    assert 0.9 < area.mean() / (sum(count.INK) / 2 * ONE) < 1.1


def test_each_shape_has_the_area_that_it_claims() -> None:
    at = np.arange(-300, 301)
    for name, shape in count.SHAPES.items():
        inside = shape.contains(*np.broadcast_arrays(at, at[:, None]), np.array(256))
        assert inside.sum() / 256**2 == pytest.approx(shape.area / 1000, rel=0.02), name
