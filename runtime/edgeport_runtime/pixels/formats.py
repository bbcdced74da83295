"""Which image files are taken, and what a person is told of one that is not."""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
from typing import TYPE_CHECKING, Any

import PIL
from PIL import Image, UnidentifiedImageError

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["describe_left_out", "image_formats", "image_suffixes", "kind_of", "open_image", "short_name", "why_no_file"]

# Raster formats only: some of Pillow's other readers start programs (EPS) or are rarely exercised.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_SUFFIXES |= {".pbm", ".pgm", ".pnm", ".ppm"}
_AVIF_SUFFIXES = frozenset({".avif"})
_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

_HEIF_REMEDY, _AVIF_REMEDY = "pip install pillow-heif", "pip install 'pillow>=11.3'"

_MAX_NAME = 120  # characters of a path that messages repeat whole
_BEGINNING = 32
_URL = re.compile(r"[a-z][a-z0-9+.-]{1,15}:/", re.IGNORECASE)  # pathlib makes one slash of two
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkq", "TU0AK")  # PNG, JPEG, GIF, WebP, TIFF


def image_formats() -> tuple[str, ...]:
    """Names of the formats that Pillow is asked for; HEIC, which a plugin reads, comes after all of them."""
    return (*_FORMATS, "AVIF") if _has("PIL._avif") else _FORMATS


def image_suffixes() -> frozenset[str]:
    """File names that count as images when a folder is searched, in lower case: what is taken alone is taken there."""
    suffixes = _SUFFIXES
    if _has("PIL._avif"):
        suffixes |= _AVIF_SUFFIXES
    return suffixes | _HEIF_SUFFIXES if _has("pillow_heif") else suffixes


def kind_of(suffix: str) -> str:
    """How a file that is not taken is counted: by its suffix, with what would let it be taken."""
    suffix = suffix.lower()
    if suffix in _HEIF_SUFFIXES:
        return f"{suffix} (needs: {_HEIF_REMEDY})"
    if suffix in _AVIF_SUFFIXES:
        return f"{suffix} (needs: {_AVIF_REMEDY})"
    return short_name(suffix) if suffix else "without a suffix"


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Files that were not taken, by kind, the most frequent first, in a line."""
    total = sum(left_out.values())
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{count} {kind}" for kind, count in kinds[:10])
    more = sum(count for _, count in kinds[10:])
    return f"{total} file{'' if total == 1 else 's'} not taken as images: {told}{f', {more} others' * (more > 0)}"


def open_image(file: Any, name: str) -> Image.Image:
    """Open an image file; its pixels are not read.

    Args:
        file: binary, at its start, which can seek.
        name: what messages call it.

    Raises:
        InputError: if it is of no format that can be read here, with what would help.
    """
    try:
        return Image.open(file, formats=image_formats())
    except UnidentifiedImageError:
        file.seek(0)
        brands = _brands(file.read(64))
    if brands & _AVIF_BRANDS and "AVIF" not in image_formats():
        raise InputError(
            f"{name} is an AVIF image, which Pillow {PIL.__version__} cannot read here; {_AVIF_REMEDY}, or save the "
            "image as JPEG or PNG"
        )
    if brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS:
        return _open_heif(file, name)
    raise InputError(f"{name} cannot be read as an image ({', '.join(image_formats())})")


def short_name(text: str | os.PathLike[str]) -> str:
    """A path as messages repeat it: one that is absurdly long by its beginning and its length."""
    text = str(text)
    return text if len(text) <= _MAX_NAME else f"{text[:_BEGINNING]!r}... ({len(text):,} characters)"


def why_no_file(text: str, error: OSError | ValueError) -> str:
    """What to say of a path that cannot be opened, which may be no path at all.

    Args:
        text: the path as it was given.
        error: what the system said.
    """
    name = short_name(text)
    if text.startswith("data:"):
        return f"{name} is a data URL, not a path; give the decoded bytes: base64.b64decode(text.partition(',')[2])"
    if _URL.match(text):
        return f"{name} is a URL, and EdgePort downloads nothing; download the image, and give its path or its bytes"
    is_long = len(text) > _MAX_NAME
    if text.startswith(_BASE64_STARTS) or (is_long and "." not in text and _BASE64.fullmatch(text)):
        return f"{name} looks like base64, not like a path; give the decoded bytes: base64.b64decode(text)"
    return f"{name}: {getattr(error, 'strerror', None) or error}"


def _open_heif(file: Any, name: str) -> Image.Image:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise InputError(f"{name} is a HEIC image; {_HEIF_REMEDY}, or save it as JPEG or PNG") from None
    file.seek(0)
    try:
        return Image.open(file, formats=("HEIF",))
    except UnidentifiedImageError:
        raise InputError(f"{name} is a HEIC image that pillow-heif cannot read; save it as JPEG or PNG") from None


def _brands(header: bytes) -> frozenset[bytes]:
    """The brands of an ISO base media file, which say what is in it; empty for other files."""
    if header[4:8] != b"ftyp":
        return frozenset()
    box = io.BytesIO(header[8 : int.from_bytes(header[:4], "big")])
    return frozenset(iter(lambda: box.read(4), b""))


def _has(module: str) -> bool:
    """Whether a module is there, without importing it: Pillow's AVIF reader brings a library of megabytes."""
    return importlib.util.find_spec(module) is not None
