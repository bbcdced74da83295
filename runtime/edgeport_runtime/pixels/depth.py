"""Images with more than 8 bits per value, of which the high 8 are kept: the high 8 of as many as are in use.

Cameras and scanners put 10, 12 or 14 bits into files of 16. Some formats can say so: PNG by the chunk sBIT, TIFF by
BitsPerSample or SMaxSampleValue, PGM by its maximum, to which Pillow itself scales.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from edgeport_runtime.errors import ImageWarning, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_BITS", "MIN_BITS", "Depth", "depth_of", "png_depth", "to_8_bits"]

MIN_BITS, MAX_BITS = 9, 16

_DIM = 2**12  # a sixteenth of the range
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE = 258, 281, 341
_PNG = b"\x89PNG\r\n\x1a\n"


class Depth(NamedTuple):
    """What a file says of its values.

    Attributes:
        is_deep: they are stored with more than 8 bits.
        bits: how many of them are in use, as Pillow gives the values; None if the file does not say.
        is_png: ``bits`` is of a PNG, which ought to have values that are scaled up to 16 bits, and may not.
    """

    is_deep: bool = False
    bits: int | None = None
    is_png: bool = False


def png_depth(file: Any) -> Depth | None:
    """The depth that a PNG says, None of another file; leaves the file at its start."""
    try:
        if file.read(8) != _PNG:
            return None
        header = file.read(25)
        if len(header) < 25 or header[4:8] != b"IHDR":
            return None
        stored, bits = header[16], None
        while stored == MAX_BITS and len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            if head[4:] == b"sBIT":
                bits = max(file.read(min(4, int.from_bytes(head[:4], "big"))), default=None)
                break
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
        return Depth(stored == MAX_BITS, bits if bits in range(MIN_BITS, MAX_BITS) else None, is_png=True)
    finally:
        file.seek(0)


def depth_of(image: Image.Image) -> Depth:
    """The depth that an image says which Pillow has opened and not yet loaded; of a PNG, see ``png_depth``."""
    if image.format == "TIFF":
        return _tiff_depth(image.tag_v2)  # type: ignore[attr-defined]
    if image.format == "PPM":
        tiles = getattr(image, "tile", None) or [(None, None, None, None)]
        maximum = tiles[0][3][-1] if isinstance(tiles[0][3], tuple) else None
        if isinstance(maximum, int) and maximum > 255:
            # Pillow scales by the maximum; one of all 16 bits is also what it writes for values of any range.
            return Depth(is_deep=True, bits=None if maximum == 2**MAX_BITS - 1 else MAX_BITS)
    return Depth(is_deep=image.mode.startswith("I"))


def to_8_bits(image: Image.Image, depth: Depth, bits: int | None, *, name: str) -> Image.Image:
    """Keep the high 8 bits of an image's values; one that has 8 bits is returned as it is.

    Args:
        image: as Pillow loaded it.
        depth: what its file says.
        bits: of values whose file does not say; None keeps the high byte of all, as EdgePort 0.1 did.
        name: what messages call the image.

    Raises:
        InputError: if values have more bits than were said, or Pillow has thrown away the low ones.
    """
    if not image.mode.startswith("I"):
        if depth.is_deep:
            _check_colours(image, depth, bits, name=name)
        return image
    values = np.asarray(image)
    largest = int(values.max(initial=0))
    if largest > 65535 or values.min(initial=0) < 0:
        raise InputError(f"{name} has integers of more than 16 bits; save it with 8 bits")
    used = MAX_BITS if bits is None else _bits_in_file(values, largest, depth) or bits
    if largest >= 2**used:
        raise InputError(
            f"{name} has values up to {largest:,}, which are more than {used} bits; give it the range of the other "
            "images, or export with --bits 16"
        )
    is_told = depth.bits == MAX_BITS or (bits is not None and depth.bits is not None)
    if used == MAX_BITS and not is_told:
        _warn_if_dim(largest, name)
    return Image.fromarray((values.astype(np.uint16) >> (used - 8)).astype(np.uint8))


def _tiff_depth(tags: Any) -> Depth:
    stored = tags.get(_BITS_PER_SAMPLE, (1,))
    stored = max(stored) if isinstance(stored, tuple) and stored else stored
    if not isinstance(stored, int) or stored <= 8:
        return Depth()
    bits = stored if stored < MAX_BITS else None
    for tag in (_S_MAX_SAMPLE_VALUE, _MAX_SAMPLE_VALUE):
        value = tags.get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        # All ones, or else it is the largest value of this one picture.
        if isinstance(value, int) and value & (value + 1) == 0 and value.bit_length() in range(MIN_BITS, MAX_BITS):
            bits = bits or value.bit_length()
    return Depth(is_deep=True, bits=bits)


def _bits_in_file(values: NDArray[Any], largest: int, depth: Depth) -> int | None:
    if depth.bits is None or not depth.is_png:
        return None if depth.bits is None or largest >= 2**depth.bits else depth.bits
    # PNG wants values scaled up to 16 bits, and sBIT only tells how many of them mean something. Who puts 12 bits into
    # the low ones all the same has no large value, and small steps that no scaling leaves.
    step = 2 ** (MAX_BITS - depth.bits)
    is_low = largest < 2**depth.bits and bool((values.astype(np.uint16) % step > 1).any())
    return depth.bits if is_low else MAX_BITS


def _check_colours(image: Image.Image, depth: Depth, bits: int | None, *, name: str) -> None:
    """Pillow gives the high byte of colours with 16 bits, which is right if all 16 are in use."""
    is_scaled = depth.bits == MAX_BITS
    if bits not in (None, MAX_BITS) and not is_scaled:
        raise InputError(
            f"{name} has colours of 16 bits, of which Pillow reads only the high byte, but this model takes {bits} of "
            "them; save the image with 8 bits"
        )
    if not is_scaled:
        largest = int(np.asarray(image.convert("RGB")).max())
        _warn_if_dim(largest << 8, name)


def _warn_if_dim(largest: int, name: str) -> None:
    if 0 < largest < _DIM:
        message = (
            "an image of 16 bits uses less than a sixteenth of its range, so that it is nearly black to the model; "
            "if it holds 12 bits or fewer, export with --bits N, or save it with its whole range"
        )
        warnings.warn(ImageWarning(message, image=name), stacklevel=1)
