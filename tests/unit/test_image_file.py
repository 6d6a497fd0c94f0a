"""One image file's bytes -> pixels, for every kind of image, or one named reason why not."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from idat_zoo.data import image_file
from idat_zoo.data.image_file import (
    FORMATS,
    UnreadableImageError,
    decode_image,
    decoder,
    without_pillow_warnings,
)

SIZE = 16
ORIENTATION = 0x0112
ROTATED = ("JPEG", "PNG", "TIFF", "WEBP")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with without_pillow_warnings():
        yield


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, size: int = SIZE, megapixels: float = 64.0) -> np.ndarray:
    return decode_image(content, size, max_megapixels=megapixels)


def refusal(content: bytes, megapixels: float = 64.0) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decoded(content, megapixels=megapixels)
    return str(caught.value)


def noise(seed: int = 0, *, height: int = SIZE, width: int = SIZE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(*, height: int = SIZE, width: int = SIZE) -> Image.Image:
    """Three gradients, which JPEG keeps to within a few levels."""
    y, x = np.mgrid[:height, :width] * 255 // max(height, width)
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


# Sizes and colours


def test_an_image_of_the_right_size_keeps_every_pixel() -> None:
    image = noise()
    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        assert np.array_equal(decoded(encoded(image, kind, **options)), np.asarray(image)), kind


@pytest.mark.parametrize(("height", "width"), [(7, 40), (40, 7), (1, 1), (100, 100)])
def test_the_resize_is_direct_and_bicubic_without_a_crop(height: int, width: int) -> None:
    image = noise(height=height, width=width)
    expected = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert np.array_equal(decoded(encoded(image, "PNG")), np.asarray(expected))


def test_a_jpeg_is_decoded_whole_and_not_at_a_reduced_scale() -> None:
    content = encoded(noise(height=256, width=256), "JPEG")
    with Image.open(io.BytesIO(content)) as image:
        expected = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert np.array_equal(decoded(content), np.asarray(expected))


def test_grey_and_black_and_white_become_three_equal_channels() -> None:
    for mode in ("L", "1"):
        image = noise().convert(mode)
        expected = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
        assert np.array_equal(decoded(encoded(image, "PNG")), expected), mode
    assert set(np.unique(expected)) == {0, 255}


def test_transparency_is_dropped_and_its_colours_stay() -> None:
    colours = np.asarray(noise())
    alpha = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 1), dtype=np.uint8)
    rgba = Image.fromarray(np.concatenate([colours, alpha], axis=2))
    assert np.array_equal(decoded(encoded(rgba, "PNG")), colours)
    grey_alpha = Image.fromarray(np.concatenate([colours[..., :1], alpha], axis=2))
    assert grey_alpha.mode == "LA"
    assert np.array_equal(decoded(encoded(grey_alpha, "PNG")), colours[..., :1].repeat(3, axis=2))
    keyed = encoded(noise(), "PNG", transparency=tuple(map(int, colours[0, 0])))
    assert np.array_equal(decoded(keyed), colours)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"transparency": 3}),
        ("PNG", {"transparency": bytes(range(16))}),
        ("GIF", {}),
        ("GIF", {"transparency": 3}),
        ("TIFF", {}),
    ],
)
def test_a_palette_is_looked_up_before_resizing(kind: str, options: dict[str, Any]) -> None:
    image = noise(height=9, width=20).quantize(16)
    expected = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert np.array_equal(decoded(encoded(image, kind, **options)), np.asarray(expected))


def test_cmyk_becomes_the_colours_it_was_made_of() -> None:
    image = smooth()
    for kind, most in (("TIFF", 0), ("JPEG", 16)):
        found = decoded(encoded(image.convert("CMYK"), kind)).astype(int)
        assert np.abs(found - np.asarray(image)).max() <= most, kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bit_grey_the_upper_8_bits_stay(kind: str) -> None:
    wide = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE)).astype(np.uint16)
    found = decoded(encoded(Image.fromarray(wide), kind))
    assert np.array_equal(found, (wide >> 8)[..., None].repeat(3, axis=2))


def test_big_endian_16_bit_grey_is_read_alike() -> None:
    wide = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE)).astype(">u2")
    image = Image.frombytes("I;16B", (SIZE, SIZE), wide.tobytes())
    found = decoded(encoded(image, "TIFF"))
    assert np.array_equal(found, (wide >> 8).astype(int)[..., None].repeat(3, axis=2))


def test_16_bit_colour_keeps_its_upper_8_bits() -> None:
    wide = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    content = png(SIZE, SIZE, zlib.compress(rows), depth=16, colour=2)
    assert np.array_equal(decoded(content), wide >> 8)


def test_floating_point_pixels_are_refused() -> None:
    content = encoded(Image.new("F", (SIZE, SIZE)), "TIFF")
    assert refusal(content) == "has floating-point pixels, whose range is not known"


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ROTATED)
def test_every_exif_orientation_ends_upright(kind: str, orientation: int) -> None:
    image = stored(smooth(height=24, width=40), orientation)
    options: dict[str, Any] = {"exif": exif(orientation)}
    if kind == "WEBP":
        options["lossless"] = True
    found = decoded(encoded(image, kind, **options)).astype(int)
    expected = np.asarray(
        smooth(height=24, width=40).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    )
    # JPEG blurs a little, and bicubic weights round unlike where an image is turned
    assert np.abs(found - expected).max() <= (24 if kind == "JPEG" else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_turned_upright_too(kind: str, orientation: int) -> None:
    wide = (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) * 251 % 2**16).astype(np.uint16)
    image = stored(Image.fromarray(wide), orientation)
    found = decoded(encoded(image, kind, exif=exif(orientation)))
    assert np.array_equal(found[..., 0], wide >> 8)


def test_an_unknown_orientation_leaves_the_image_as_it_lies() -> None:
    for orientation in (0, 9, 65535):
        content = encoded(noise(), "PNG", exif=exif(orientation))
        assert np.array_equal(decoded(content), np.asarray(noise()))


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}
"""From an upright image to what a camera stores, by EXIF 2.3's table of where row 0, column 0 lie:
6 is stored turned left, so that a viewer has to turn it right."""


def stored(image: Image.Image, orientation: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(image))))


# Several frames


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    first, second = noise(0), noise(1)
    if kind == "GIF":
        first, second = first.quantize(64), second.quantize(64)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(first, kind, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert np.array_equal(decoded(content), np.asarray(first.convert("RGB")))


# Too large


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of any size that its header may claim."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, content)
        for name, content in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def test_more_megapixels_than_allowed_are_refused_by_the_header_alone() -> None:
    told = refusal(png(8001, 8000, b""))
    assert told == "8001 x 8000 pixels are more than 64 megapixels"
    assert refusal(png(4, 3, b""), megapixels=11e-6).startswith("4 x 3 pixels are more than")


def test_the_limit_itself_is_allowed() -> None:
    content = encoded(noise(height=4, width=3), "PNG")
    assert decoded(content, megapixels=12e-6).shape == (SIZE, SIZE, 3)


def test_what_pillow_calls_a_bomb_is_named_whatever_the_limit() -> None:
    for width, height in ((20_000, 10_000), (2**31 - 1, 2**31 - 1)):
        assert "decompression bomb" in refusal(png(width, height, b""), megapixels=1e30)


def test_between_pillows_warning_and_its_limit_our_own_limit_decides() -> None:
    assert "100 megapixels" in refusal(png(12_000, 10_000, b""), megapixels=100.0)
    assert "truncated" in refusal(png(12_000, 10_000, b""), megapixels=150.0)


def test_zeros_that_unpack_to_more_than_the_header_says_are_not_all_unpacked() -> None:
    bomb = png(SIZE, SIZE, zlib.compress(bytes(50_000_000), 9))
    assert len(bomb) < 100_000
    assert not decoded(bomb).any()


@pytest.mark.parametrize("name", ["zTXt", "iTXt", "iCCP"])
def test_a_text_that_unpacks_without_end_is_named_or_left_out(name: str) -> None:
    bomb = zlib.compress(bytes(3 * PngImagePlugin.MAX_TEXT_CHUNK), 9)
    keyword = {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0"}[name]
    whole = encoded(noise(), "PNG")
    hurt = whole[:33] + chunk(name.encode(), keyword + bomb) + whole[33:]
    if name == "zTXt":
        assert "is damaged: Decompressed data too large" in refusal(hurt)
    else:
        try:
            assert np.array_equal(decoded(hurt), np.asarray(noise()))
        except UnreadableImageError as error:
            assert "too large" in str(error)  # noqa: PT017


# Damaged, or no image


def test_an_empty_file_is_named() -> None:
    assert refusal(b"") == "is empty (0 bytes)"


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"P6 1 1 255 abc",
        b"\0\0\1\0\1\0",
        b"hello",
        bytes(1000),
    ],
)
def test_other_formats_are_not_opened(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("an EPS file was opened as one")

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", opened)
    assert refusal(content) == "is not an image of a known format"


def test_an_image_of_every_other_format_that_pillow_can_write_is_refused() -> None:
    refused = []
    for kind in ("PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "JPEG2000", "EPS", "PDF", "ICNS"):
        try:
            content = encoded(noise(), kind)
        except (KeyError, OSError, ValueError):
            continue  # not built into this Pillow
        assert refusal(content) == "is not an image of a known format", kind
        refused.append(kind)
    assert {"PPM", "TGA", "EPS"} <= set(refused)


@pytest.mark.parametrize(
    ("kind", "reader", "told"),
    [
        ("AVIF", "_can_read_avif", "is AVIF, which needs Pillow 11.3: pip install -U pillow"),
        (
            "HEIF",
            "_can_read_heic",
            "is HEIC, which needs pillow-heif: pip install 'idat-zoo[heic]'",
        ),
    ],
)
def test_avif_and_heic_are_read_or_say_what_would_read_them(
    kind: str, reader: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_heic()
    content = encoded(smooth(), kind, quality=95)
    assert np.abs(decoded(content).astype(int) - np.asarray(smooth())).max() < 24
    monkeypatch.setattr(image_file, reader, lambda: False)
    assert refusal(content) == told


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_ends_upright(orientation: int) -> None:
    image = stored(smooth(height=24, width=40), orientation)
    found = decoded(encoded(image, "AVIF", quality=95, exif=exif(orientation))).astype(int)
    upright = smooth(height=24, width=40).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert np.abs(found - np.asarray(upright)).max() < 24


def test_heic_counts_in_what_the_decoder_is_called() -> None:
    learn_heic()
    assert "pillow-heif" in decoder()  # what could not be read without it is tried again


def learn_heic() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()


@pytest.mark.parametrize("kind", [*FORMATS, "AVIF", "HEIF"])
def test_an_image_that_is_cut_off_is_named_wherever_it_ends(kind: str) -> None:
    if kind == "HEIF":
        learn_heic()
    content = encoded(noise(), kind)
    whole = decoded(content)
    for length in range(0, len(content) - 1, 7):
        try:
            found = decoded(content[:length])
        except UnreadableImageError:
            continue
        # what ends behind its last pixel has lost none
        assert np.array_equal(found, whole), f"{length} of {len(content)} bytes"


def test_a_png_with_a_broken_chunk_is_named() -> None:
    content = bytearray(encoded(noise(), "PNG"))
    content[35] -= 1  # the pixels' chunk says it is shorter, so the next is read amid pixels
    assert refusal(bytes(content)).startswith("is damaged: broken PNG file")  # a SyntaxError


def sources() -> list[bytes]:
    image, turned = noise(height=20, width=24), noise(1, height=20, width=24)
    frames = {"save_all": True, "append_images": [turned]}
    return [
        encoded(image, "JPEG", exif=exif(6)),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG", exif=exif(3)),
        encoded(image.quantize(16), "PNG", transparency=3),
        encoded(image.convert("I;16"), "PNG"),
        encoded(image, "PNG", **frames),
        encoded(image, "TIFF", exif=exif(6)),
        encoded(image.convert("I;16"), "TIFF"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "WEBP"),
        encoded(image, "WEBP", **frames),
        encoded(image, "GIF"),
        encoded(image.quantize(16), "GIF", **frames),
        encoded(image, "BMP"),
    ]


def test_damaged_bytes_are_read_or_named_and_never_more() -> None:
    source = np.random.default_rng(0)
    read = named = 0
    for content in sources() * 40:
        hurt = bytearray(content)
        reach = len(hurt) if source.random() < 0.5 else min(len(hurt), 200)  # headers or anything
        for place in source.integers(0, reach, 4):
            hurt[place] = source.integers(0, 256)
        try:
            assert decoded(bytes(hurt)).shape == (SIZE, SIZE, 3)
            read += 1
        except UnreadableImageError as error:
            assert str(error)  # noqa: PT017
            named += 1
    assert min(read, named) > 100


def test_the_decoder_names_the_libraries_that_make_the_pixels() -> None:
    assert "Pillow" in decoder()
    assert "libjpeg" in decoder()
