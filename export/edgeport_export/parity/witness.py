"""A second implementation of the input contract, by which an export judges the runtime's.

Written against ``docs/bundle.md`` (preprocess) in PyTorch's arithmetic, and sharing nothing with the runtime's: Pillow
decodes the file and no more. Shapes: C channels, H W image.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

from edgeport_runtime.errors import ParityError
from edgeport_runtime.pixels.decode import load_image
from edgeport_runtime.pixels.preprocess import centre_crop, normalize, resize_image, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from edgeport_runtime.pixels.preprocess import Interpolation, PreprocessSpec, Size

__all__ = ["confirmed_pixels", "normalized"]

# Measured over photos and noise, of six filters, smaller and larger: 0, but for hamming 1 level in at most 1.7e-4 of
# the values.
_MAX_LEVELS, _MAX_SHARE = 1, 1e-3
_MAX_NORMALIZED = 1e-6  # of values of order 1; measured: 0

_ORIENTATION_TAG = 274
# EXIF 2.32, 4.6.4 A: whether rows and columns are exchanged, then rows reversed, then columns reversed.
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
_LUMA = (19595, 38470, 7471)  # ITU-R 601-2, in 65,536ths
# Half width, and value at a distance: a triangle, the cubic of Keys 1981 (Equation 15, a = -0.5), Lanczos of 3 lobes,
# a box, and a sinc under Hamming's window.
_KERNELS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "bilinear": (1.0, lambda x: (1 - x.abs()).clamp(min=0)),
    "bicubic": (2.0, lambda x: _cubic(x.abs())),
    "lanczos": (3.0, lambda x: torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3)),
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)).to(torch.float64)),
    "hamming": (1.0, lambda x: torch.sinc(x) * (0.54 + 0.46 * torch.cos(torch.pi * x)) * (x.abs() < 1)),
}
_STRIP = 2**22  # values resampled at a time: bounds memory for any image


class _Stages(NamedTuple):
    """Pixels after each step of the contract: uint8 CHW."""

    decode: Tensor
    resize: Tensor
    crop: Tensor
    color: Tensor


def confirmed_pixels(data: bytes, spec: PreprocessSpec, *, source: str) -> NDArray[np.uint8]:
    """The runtime's pixels of an image, compared step by step with an independent computation.

    Args:
        data: the image file.
        spec: the input contract.
        source: where it came from, for messages.

    Returns:
        uint8 HWC in the channel order of ``spec.color``, H and W as ``spec.image_size`` says.

    Raises:
        InputError: if the image cannot be used.
        ParityError: naming the first step that departs.
    """
    ours = _runtime_stages(data, spec)
    for bits in _depths(data, spec):
        theirs = _witness_stages(data, spec, bits)
        if torch.equal(ours.decode, theirs.decode):
            break
    for step, mine, other in zip(_Stages._fields, ours, theirs, strict=True):
        problem = _departure(mine, other, is_exact=step == "decode")
        if problem is not None:
            raise ParityError(
                f"preprocessing: the step {step} departs from the contract on {source}: {problem}; "
                "no bundle was written"
            )
    pixels_HWC: NDArray[np.uint8] = ours.color.permute(1, 2, 0).numpy()
    x_CHW = torch.from_numpy(normalize(pixels_HWC, spec))
    difference = (x_CHW - normalized(ours.color, spec)).abs().max().item()
    largest = max(1.0, x_CHW.abs().max().item())
    if not difference <= _MAX_NORMALIZED * largest:
        raise ParityError(
            f"preprocessing: the step normalize departs from the contract on {source}: by {difference:.2e}; "
            "no bundle was written"
        )
    return pixels_HWC


def normalized(pixels_CHW: Tensor, spec: PreprocessSpec) -> Tensor:
    """Step 5 of the contract, in float32: uint8 or float pixels to the network's input, CHW both."""
    x_CHW = pixels_CHW.to(torch.float32)
    if spec.scale == "unit":
        x_CHW = x_CHW / 255
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (spec.mean, spec.std))
    return (x_CHW - mean) / std


def _runtime_stages(data: bytes, spec: PreprocessSpec) -> _Stages:
    image = load_image(data, spec.mode, bits=spec.bits)
    resized = resize_image(image, spec, name="the image")
    cropped = centre_crop(resized, spec)
    pixels = (np.asarray(image), np.asarray(resized), np.asarray(cropped), to_pixels(data, spec))
    return _Stages(*map(_chw, pixels))


def _depths(data: bytes, spec: PreprocessSpec) -> Sequence[int]:
    """Bits that values of more than 8 may have in use: those of the contract, or of a file that can say so any."""
    with Image.open(io.BytesIO(data)) as image:
        says_so = image.format in ("TIFF", "PPM") or b"sBIT" in data[:1024]
    contracted = spec.bits or 16
    return (contracted, *range(9, 17)) if says_so and spec.bits is not None else (contracted,)


def _witness_stages(data: bytes, spec: PreprocessSpec, bits: int) -> _Stages:
    decoded = _decoded(data, bits, spec.color)
    height, width = decoded.shape[1:]
    resized = decoded
    if spec.resize != "none":
        wide, high = _sides(width, height, spec)
        resized = _along_columns(decoded, wide, spec.interpolation)
        resized = _along_columns(resized.transpose(1, 2), high, spec.interpolation).transpose(1, 2)
    rows, columns = _both(spec.image_size)
    if spec.pad_color is not None:
        colour = torch.tensor(spec.pad_color, dtype=torch.uint8)
        padded = (colour.flip(0) if spec.color == "bgr" else colour)[:, None, None].repeat(1, rows, columns)
        top, left = ((whole - part) // 2 for whole, part in zip((rows, columns), resized.shape[1:], strict=True))
        padded[:, top : top + resized.shape[1], left : left + resized.shape[2]] = resized
        resized = padded
    top, left = (_offset(old - new, spec) for old, new in zip(resized.shape[1:], (rows, columns), strict=True))
    cropped = resized[:, top : top + rows, left : left + columns]
    return _Stages(decoded, resized, cropped, cropped.flip(0) if spec.color == "bgr" else cropped)


def _decoded(data: bytes, bits: int, color: str) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        pixels_CHW = _colours(image, bits)
        alpha_1HW = _alpha(image) if color in ("rgba", "la") else None
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    is_grey = color in ("grey", "la")
    if is_grey and len(pixels_CHW) == 3:
        red, green, blue = pixels_CHW.to(torch.int64)
        weighted = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
        pixels_CHW = ((weighted + 2**15) // 2**16).to(torch.uint8)[None]
    elif not is_grey:
        pixels_CHW = pixels_CHW.expand(3, -1, -1)
    if alpha_1HW is not None:
        pixels_CHW = torch.cat([pixels_CHW, alpha_1HW])
    is_exchanged, *is_reversed = _TURNS.get(orientation, (0, 0, 0))
    if is_exchanged:
        pixels_CHW = pixels_CHW.transpose(1, 2)
    return pixels_CHW.flip([axis for axis, flips in zip((1, 2), is_reversed, strict=True) if flips])


def _colours(image: Image.Image, bits: int) -> Tensor:
    """One grey or three colour channels, uint8 CHW, without what is transparent about them."""
    if image.mode in ("P", "PA"):
        indices = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return _chw(palette[indices])
    if image.mode == "1":
        return _chw(np.asarray(image).astype(np.uint8) * 255)
    if image.mode.startswith("I"):
        return _chw((np.asarray(image).astype(np.int64) // 2 ** (bits - 8)).astype(np.uint8))
    if image.mode in ("L", "LA", "La"):
        return _chw(np.asarray(image))[:1]
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _chw(np.asarray(image))[:3]
    return _chw(np.asarray(image.convert("RGB")))  # CMYK and other spaces: Pillow's definition is the contract's


def _alpha(image: Image.Image) -> Tensor:
    """How opaque each pixel is, uint8 1HW: a channel, or what a file says of one colour or of each of a palette's."""
    if image.mode in ("LA", "PA", "RGBA"):
        return _chw(np.asarray(image.getchannel("A")))
    clear, pixels = image.info.get("transparency"), np.asarray(image)
    if clear is None or image.mode not in ("P", "L", "RGB"):
        return torch.full((1, *pixels.shape[:2]), 255, dtype=torch.uint8)
    if isinstance(clear, bytes):
        levels = np.full(256, 255, np.uint8)
        levels[: len(clear)] = np.frombuffer(clear, np.uint8)
        return _chw(levels[pixels])
    is_clear = np.atleast_3d(pixels == np.asarray(clear, pixels.dtype)).all(axis=2)
    return _chw(np.where(is_clear, 0, 255).astype(np.uint8))


def _sides(width: int, height: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height after the resize."""
    rows, columns = _both(spec.resize_size)
    if spec.resize == "exact":
        return columns, rows
    if spec.resize == "pad":
        factor = min(Fraction(columns, width), Fraction(rows, height))
        return max(1, round(width * factor)), max(1, round(height * factor))
    factor = max(Fraction(columns, width), Fraction(rows, height))
    return int(width * factor), int(height * factor)


def _both(size: Size) -> tuple[int, int]:
    """Rows and columns."""
    return (size, size) if isinstance(size, int) else size


def _along_columns(pixels_CHW: Tensor, width: int, interpolation: Interpolation) -> Tensor:
    """One pass of a resize, along the last axis, rounded to 8 bits (halves up)."""
    channels, height, before = pixels_CHW.shape
    if width == before:
        return pixels_CHW
    if interpolation == "nearest":
        steps = np.full(width, before / width)
        steps[0] /= 2
        return pixels_CHW[:, :, torch.from_numpy(np.cumsum(steps).astype(np.int64))]  # Pillow adds the steps up
    places_wt, weights_wt = _taps(before, width, interpolation)
    parts = []
    for rows_RW in torch.split(pixels_CHW.reshape(-1, before), max(1, _STRIP // places_wt.numel())):
        resampled = (rows_RW[:, places_wt].to(torch.float64) * weights_wt).sum(dim=2)
        parts.append((resampled + 0.5).floor().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts).reshape(channels, height, width)


def _taps(before: int, after: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """For each new column: the old ones that it is made of, and their weights (both after x taps).

    The kernel is centred on the new column, and stretched where the image shrinks, which is the antialiasing. The
    weights sum to 1 before they are rounded to 22 bits behind the point, which decides which way ties go.
    """
    reach, kernel = _KERNELS[interpolation]
    scale = before / after
    stretch = max(scale, 1.0)
    centre_w = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    first_w = (centre_w - reach * stretch + 0.5).floor().clamp(min=0)
    last_w = (centre_w + reach * stretch + 0.5).floor().clamp(max=before)
    places_wt = first_w[:, None] + torch.arange(int((last_w - first_w).max()))
    weights_wt = kernel((places_wt - centre_w[:, None] + 0.5) / stretch) * (places_wt < last_w[:, None])
    weights_wt = (weights_wt / weights_wt.sum(dim=1, keepdim=True) * 2**22).round() / 2**22
    return places_wt.clamp(max=before - 1).to(torch.int64), weights_wt


def _cubic(x: Tensor) -> Tensor:
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _offset(difference: int, spec: PreprocessSpec) -> int:
    """Half of it, halves to even or down."""
    half, is_odd = divmod(difference, 2)
    return half + 1 if is_odd and half % 2 and spec.crop_offset == "even" else half


def _chw(pixels: NDArray[np.uint8]) -> Tensor:
    pixels_HWC = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    return torch.from_numpy(np.array(pixels_HWC)).permute(2, 0, 1)


def _departure(ours: Tensor, theirs: Tensor, *, is_exact: bool) -> str | None:
    if ours.shape != theirs.shape:
        return f"it gives {tuple(ours.shape)}, not {tuple(theirs.shape)} (channels, height, width)"
    levels = (ours.to(torch.int16) - theirs.to(torch.int16)).abs()
    largest, share = int(levels.max()), float((levels > 0).double().mean())
    if largest <= (0 if is_exact else _MAX_LEVELS) and share <= (0 if is_exact else _MAX_SHARE):
        return None
    return f"{share:.1%} of the values differ, by up to {largest} of 255 levels"
