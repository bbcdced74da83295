"""Decoding of untrusted images into 8-bit RGB or grey, with bounded pixels."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "ImageSource", "find_images", "load_image", "name_of"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded: Pillow's own limit for decompression bombs."""

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File names that count as images when a folder is searched."""

# Raster formats only: some of Pillow's other readers start programs (EPS) or are rarely exercised.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# What Pillow's readers raise on damaged files, be it in the header or in the pixels.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
)

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files under a folder, searched recursively, sorted by path.

    Raises:
        InputError: if the folder does not exist or holds no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder of images")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{root} contains no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def name_of(source: ImageSource) -> str:
    """What messages call an image: its path where there is one."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    return "the image data" if isinstance(source, bytes | bytearray | memoryview) else "the image"


def load_image(source: ImageSource, mode: Literal["RGB", "L"]) -> Image.Image:
    """Decode an image, rotate it as its EXIF orientation says, and convert it to 8-bit RGB or grey.

    Transparency is dropped, not blended, as ``Image.convert("RGB")`` does in training pipelines; of 16-bit values
    the high byte is kept.

    Args:
        source: a path, the bytes of an image file, a PIL image, or a uint8 array HWC (RGB order, C of 1, 3 or 4) or HW.
        mode: the result's mode.

    Raises:
        InputError: naming the image, if it cannot be decoded or has more than ``MAX_PIXELS`` pixels.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source).convert(mode)
    if isinstance(source, Image.Image):
        with _errors_naming(name_of(source)):
            return _decode(source, mode, name=name_of(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _open(io.BytesIO(source), mode, name=name_of(source), is_empty=len(source) == 0)
    try:
        path = Path(source)
    except TypeError:
        raise InputError(
            f"an image is a path, bytes, a PIL image or a uint8 array HWC, not {type(source).__name__}"
        ) from None
    try:
        with path.open("rb") as file:
            return _open(file, mode, name=str(path), is_empty=os.fstat(file.fileno()).st_size == 0)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _open(file: Any, mode: Literal["RGB", "L"], *, name: str, is_empty: bool) -> Image.Image:
    if is_empty:
        raise InputError(f"{name} is empty (0 bytes)")
    with _errors_naming(name), Image.open(file, formats=_FORMATS) as image:
        return _decode(image, mode, name=name)


@contextlib.contextmanager
def _errors_naming(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name} cannot be read as an image ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name} has too many pixels; at most {MAX_PIXELS:,} are accepted") from None
    except _DAMAGE as error:
        raise InputError(f"{name} is damaged or cut short ({error})") from None


def _decode(image: Image.Image, mode: Literal["RGB", "L"], *, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width}x{height} pixels; at most {MAX_PIXELS:,} are accepted")
    if width == 0 or height == 0:
        raise InputError(f"{name} has no pixels")
    image.load()
    orientation = image.getexif().get(_ORIENTATION_TAG)
    if image.mode == "F":
        raise InputError(f"{name} has floating-point values, whose range is undefined; save it with 8 bits")
    if image.mode.startswith("I"):
        image = _high_byte(image, name)
    if isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, but straight to RGB Pillow warns
    image = image.convert(mode)
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return image


def _high_byte(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError(f"{name} has integers of more than 16 bits; save it with 8 bits")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(f"an image array must be of type uint8 (0 to 255), not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(f"an image array must be HWC with 1, 3 or 4 channels, or HW, not of shape {array.shape}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise InputError(
            f"the image array has {array.shape[1]}x{array.shape[0]} pixels; at most {MAX_PIXELS:,} are accepted"
        )
    return Image.fromarray(np.ascontiguousarray(array))
