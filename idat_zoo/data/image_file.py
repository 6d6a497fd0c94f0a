"""The decoding of one image file to uint8 RGB pixels at a network's input size.

How each kind of image is handled (docs/data.md says the same to users):

- direct resize to S x S, bicubic, no crop; colours by Pillow's plain conversion to RGB: palettes
  are looked up, CMYK is not colour-managed, transparency is dropped, as VTAB-1K's readers do;
- 16-bit grey keeps its upper 8 bits (Pillow alone would clip at 255);
- an EXIF orientation is applied; the usual VTAB-1K copies have none;
- of an animation the first frame is taken.

Only the formats below are tried: Pillow knows others that start programs (EPS) or read more files.
AVIF is read where Pillow was built with it, HEIC where pillow-heif is installed (the extra `heic`).
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import ExifTags, Image, TiffImagePlugin, WebPImagePlugin, features

_LATE = (TiffImagePlugin, WebPImagePlugin)  # Pillow knows these formats once they are imported
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
AVIF, HEIC = "AVIF", "HEIF"
LATER_FORMATS = {  # by the brands in a file's first box, as ISO/IEC 23008-12 and AV1's own tell
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), HEIC),
}
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".avif", ".heic", ".heif", ".hif"),
)
PROCEDURE = "RGB, upright, first frame, direct bicubic resize, uint8; 1"
"""The decoding procedure without the versions of libraries. The number at its end is increased
with every change of the procedure."""

UPRIGHT = {  # EXIF's orientations but the first, and what undoes them
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MOST_MEGAPIXELS = 178
"""Pillow itself refuses images that are larger."""

_DAMAGED = (  # all that Pillow is known to raise over damaged bytes
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class UnreadableImageError(Exception):
    """A file cannot be used as an image; the message says why and follows the file's name."""


def decoder() -> str:
    """The procedure with the versions of its libraries: other versions may give other pixels."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    heic = _heic_version()
    return f"{PROCEDURE}; Pillow {PIL.__version__}, libjpeg {jpeg}" + (
        f", pillow-heif {heic}" if heic else ""
    )


def decode_image(content: bytes, size: int, *, max_megapixels: float) -> UInt8[np.ndarray, "S S 3"]:
    """The image in a file's bytes as `[size, size, 3]`.

    Raises: UnreadableImageError for bytes that are not an image, damaged or truncated, and for an
    image that is larger than allowed.
    """
    if not content:
        raise UnreadableImageError("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_formats(content)) as image:
            width, height = image.size
            if width * height > max_megapixels * 1e6:
                raise UnreadableImageError(
                    f"{width} x {height} pixels are more than {max_megapixels:g} megapixels"
                )
            return prepare(image, size)
    except PIL.UnidentifiedImageError:
        raise UnreadableImageError("is not an image of a known format") from None
    except _DAMAGED as error:
        raise UnreadableImageError(f"is damaged: {error}") from None


def _formats(content: bytes) -> tuple[str, ...]:
    """The formats to try on a file's bytes: AVIF or HEIC where its header says so, else the rest.

    Raises: UnreadableImageError for AVIF or HEIC where no installed library reads it, with the
    command that installs one.
    """
    length = min(int.from_bytes(content[:4], "big"), 256)
    brands = [content[place : place + 4] for place in (8, *range(16, length, 4))]
    kind = next((LATER_FORMATS[brand] for brand in brands if brand in LATER_FORMATS), "")
    if content[4:8] != b"ftyp" or not kind:
        return FORMATS
    if kind == AVIF and not _can_read_avif():
        raise UnreadableImageError("is AVIF, which needs Pillow 11.3: pip install -U pillow")
    if kind == HEIC and not _can_read_heic():
        raise UnreadableImageError("is HEIC, which needs pillow-heif: pip install 'idat-zoo[heic]'")
    return (kind,)


@cache
def _can_read_avif() -> bool:
    try:
        from PIL import AvifImagePlugin
    except ImportError:  # before Pillow 11.3
        return False
    return AvifImagePlugin.SUPPORTED


@cache
def _can_read_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _heic_version() -> str:
    try:
        return metadata.version("pillow-heif")
    except metadata.PackageNotFoundError:
        return ""


def prepare(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """An opened image as `[size, size, 3]`, converted as the module's docstring says."""
    return resized(as_rgb(image), size)


def resized(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """An RGB image as `[size, size, 3]`."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened image, upright and in RGB, converted as the module's docstring says."""
    image.load()  # turns a TIFF upright by itself, and finds what a PNG tells behind its pixels
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if image.mode.startswith("I"):
        image = _upper_bits(image)
    elif image.mode == "F":
        raise UnreadableImageError("has floating-point pixels, whose range is not known")
    if image.mode != "RGB":
        image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    return image


def _upper_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit. Older versions of Pillow open 16-bit files in their 32-bit mode."""
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Silence Pillow's warnings of large images and odd metadata; real faults raise errors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
