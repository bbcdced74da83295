"""Decoding of untrusted images into 8-bit RGB or grey, with alpha or without, with bounded pixels."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from PIL import Image

from edgeport_runtime.errors import ImageWarning, InputError
from edgeport_runtime.pixels.depth import Depth, depth_of, png_depth, to_8_bits
from edgeport_runtime.pixels.formats import (
    describe_left_out,
    image_suffixes,
    kind_of,
    open_image,
    short_name,
    why_no_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "MAX_PIXELS",
    "ArrayColor",
    "FoundImages",
    "ImageMode",
    "ImageSource",
    "check_color",
    "find_images",
    "is_folder",
    "load_image",
    "name_of",
    "orientation_of",
    "search_images",
]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[np.uint8]"
ArrayColor: TypeAlias = Literal["rgb", "bgr"]
ImageMode: TypeAlias = Literal["RGB", "L", "RGBA", "LA"]

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded: Pillow's own limit for decompression bombs."""

_MAX_BYTES = 8 * MAX_PIXELS  # of a file: no image within the limit has more, uncompressed

_KINDS = "a path, bytes, a binary file, a PIL image or a uint8 array HWC"

# What Pillow's readers raise on damaged files, be it in the header or in the pixels.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
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


class FoundImages(NamedTuple):
    """What a folder holds: the image files, and how many others there are of each kind."""

    paths: list[Path]
    left_out: Counter[str]


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files under a folder, searched recursively, sorted by path; errors as ``search_images``."""
    return search_images(folder).paths


def search_images(folder: str | os.PathLike[str]) -> FoundImages:
    """All image files under a folder, searched recursively, sorted by path, and what is left out.

    A file counts as an image by the end of its name, in upper or lower case. Others are counted by it, except hidden
    ones such as ``.DS_Store``. What macOS puts beside files (``._photo.jpg``) is hidden too, and so is everything in
    hidden folders, such as the copies that Jupyter keeps in ``.ipynb_checkpoints``.

    Raises:
        InputError: if the folder does not exist or holds no image.
    """
    root = Path(folder)
    if not is_folder(root):
        raise InputError(f"{short_name(root)} is not a folder of images")
    suffixes = image_suffixes()
    files = [p for p in root.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(root))]
    found = sorted(p for p in files if p.suffix.lower() in suffixes)
    others = (p for p in files if p.suffix.lower() not in suffixes and not p.name.startswith("."))
    left_out = Counter(kind_of(p.suffix) for p in others)
    if not found:
        others_told = f"; {describe_left_out(left_out)}" if left_out else ""
        raise InputError(f"{root} contains no image ({' '.join(sorted(suffixes))}){others_told}")
    return FoundImages(found, left_out)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith("._") or any(part.startswith(".") for part in path.parts[:-1])


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder; what no system takes as a path, such as a text that is far too long, is none."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def name_of(source: ImageSource) -> str:
    """What messages call an image: its path where there is one."""
    if isinstance(source, str | os.PathLike):
        return short_name(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "the image data"
    name = getattr(source, "name", None) if hasattr(source, "read") else None
    return short_name(name) if isinstance(name, str) else "the image"


def load_image(
    source: ImageSource, mode: ImageMode, *, color: ArrayColor = "rgb", bits: int | None = None
) -> Image.Image:
    """Decode an image, rotate it as its EXIF orientation says, and convert it to 8-bit RGB or grey.

    Without alpha in the mode, transparency is dropped, not blended, as ``Image.convert("RGB")`` does in training
    pipelines; with it, what has no transparency is opaque (255).

    Args:
        source: a path, the bytes of an image file, a binary file that is read from its start, a PIL image, or a uint8
            array HWC (C of 1, 3 or 4; 2 for the mode LA) or HW.
        mode: the result's mode.
        color: order of an array's channels; other images know their own.
        bits: of values with more than 8 the high 8 are kept: of as many as the file says, or else of this many. None
            keeps the high byte of 16, whatever the file says.

    Raises:
        InputError: naming the image, if it cannot be decoded or has more than ``MAX_PIXELS`` pixels.
    """
    name = name_of(source)
    check_color(color)
    _check_kind(source)
    if isinstance(source, np.ndarray):
        return _convert(_from_array(source, color, mode), mode, name=name)
    if color != "rgb":
        raise InputError(
            f"color={color!r} is for arrays, but {name} says itself what its colours are; omit color for it"
        )
    if isinstance(source, Image.Image):
        with _errors_naming(name):
            return _decode(source, mode, depth_of(source), bits, name=name)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open(io.BytesIO(source), mode, bits, name=name)
    if not isinstance(source, str | os.PathLike) and hasattr(source, "read"):
        return _open(_seekable(source, name), mode, bits, name=name)
    with _opened(source) as file:
        return _open(_seekable(file, name), mode, bits, name=name)


def orientation_of(path: Path) -> int:
    """The EXIF orientation of an image file, 1 (upright as it is stored) where it has none; no pixel is decoded.

    Raises:
        InputError: naming the image, if its header cannot be read.
    """
    name = name_of(path)
    with _errors_naming(name), _opened(path) as file, open_image(file, name) as image:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    return orientation if orientation in _TRANSPOSE else 1


def check_color(color: object) -> None:
    """Raise InputError unless it is an order that an array's channels can have."""
    if color not in get_args(ArrayColor):
        raise InputError(f"color is {color!r}; the channels of an array are in the order rgb or bgr")


def _check_kind(source: object) -> None:
    if source is None:
        raise InputError("the image is None, which cv2.imread gives for a file that it cannot read; check the path")
    kinds = (np.ndarray, Image.Image, bytes, bytearray, memoryview, str, os.PathLike)
    if not isinstance(source, kinds) and not hasattr(source, "read"):
        raise InputError(f"an image is {_KINDS}, not {type(source).__name__}")


def _opened(path: Any) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except TypeError:
        raise InputError(f"an image is {_KINDS}, not {type(path).__name__}") from None
    except (OSError, ValueError) as error:  # a zero byte in a path is a ValueError
        raise InputError(why_no_file(str(path) or ".", error)) from None


def _seekable(file: BinaryIO, name: str) -> BinaryIO:
    """A binary file, or its content where it cannot seek."""
    try:
        if not isinstance(file.read(0), bytes):
            raise InputError(f"{name} is open as text; open it in binary mode, 'rb'")
        if getattr(file, "seekable", lambda: False)():
            return file
        content = io.BytesIO()
        while content.tell() <= _MAX_BYTES and (part := file.read(2**20)):
            content.write(part)
        return content
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read: {error}") from None


def _open(file: BinaryIO, mode: ImageMode, bits: int | None, *, name: str) -> Image.Image:
    with _errors_naming(name):
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size == 0:
            raise InputError(f"{name} is empty (0 bytes)")
        if size > _MAX_BYTES:
            raise InputError(f"{name} has {size:,} bytes; at most {_MAX_BYTES:,} are accepted")
        depth = png_depth(file)
        with open_image(file, name) as image:
            return _decode(image, mode, depth_of(image) if depth is None else depth, bits, name=name)


@contextlib.contextmanager
def _errors_naming(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{name} has too many pixels; at most {MAX_PIXELS:,} are accepted") from None
    except _DAMAGE as error:
        raise InputError(f"{name} is damaged or cut short ({error})") from None


def _decode(image: Image.Image, mode: ImageMode, depth: Depth, bits: int | None, *, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width}x{height} pixels; at most {MAX_PIXELS:,} are accepted")
    if width == 0 or height == 0:
        raise InputError(f"{name} has no pixels")
    image.load()
    orientation = image.getexif().get(_ORIENTATION_TAG)
    if image.mode == "F":
        raise InputError(f"{name} has floating-point values, whose range is undefined; save it with 8 bits")
    image = _convert(to_8_bits(image, depth, bits, name=name), mode, name=name)
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return image


def _convert(image: Image.Image, mode: ImageMode, *, name: str) -> Image.Image:
    if mode in ("LA", "RGBA"):
        return (image if image.mode in ("LA", "RGBA") else image.convert("RGBA")).convert(mode)
    if image.has_transparency_data:
        with_alpha = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema()[0] != 255:
            message = (
                "the transparency of an image is dropped, and the colours below it are what the model sees; if it was "
                "trained on images over a background, put them on that background first"
            )
            warnings.warn(ImageWarning(message, image=name), stacklevel=1)
        if isinstance(image.info.get("transparency"), bytes):
            image = with_alpha  # the same colours, but straight to RGB Pillow warns
    return image.convert(mode)


def _remedy(array: NDArray[Any]) -> str:
    if array.ndim == 4:
        return "; give several images to predict_batch or stream"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return "; put the channels last with .transpose(1, 2, 0)"
    return ""


def _from_array(array: NDArray[Any], color: ArrayColor, mode: ImageMode) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(
            f"an image array must be of type uint8 (0 to 255), not {array.dtype}; scale its values to that range, and "
            "convert it with .astype(np.uint8)"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    counts = (2, 3, 4) if mode == "LA" else (3, 4)
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in counts)):
        raise InputError(
            f"an image array must be HWC with 1, {', '.join(map(str, counts[:-1]))} or 4 channels, or HW, not of shape "
            f"{array.shape}{_remedy(array)}"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise InputError(
            f"the image array has {array.shape[1]}x{array.shape[0]} pixels; at most {MAX_PIXELS:,} are accepted"
        )
    if color == "bgr" and array.ndim == 3 and array.shape[2] > 2:
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return Image.fromarray(np.ascontiguousarray(array))
