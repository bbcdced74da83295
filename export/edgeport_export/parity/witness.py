"""A second implementation of the input contract, by which an export judges the runtime's.

Written against ``docs/bundle.md`` (preprocess) in PyTorch's arithmetic, and sharing nothing with the runtime's: Pillow
decodes the file and no more. Shapes: C channels, H W image.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from edgeport_runtime.errors import InputError, ParityError
from edgeport_runtime.pixels.decode import load_image
from edgeport_runtime.pixels.preprocess import centre_crop, normalize, resize_image, to_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeport_runtime.pixels.preprocess import Interpolation, PreprocessSpec

__all__ = ["confirmed_pixels", "normalized"]

# Measured over 600 photos and 2,000 images of noise, of each filter, smaller and larger: 0 levels but for ties of the
# rounding, of which an image had at most SHARE of its values.
_MAX_LEVELS, _MAX_SHARE = 2, 0.1
_MAX_NORMALIZED = 1e-6  # of values of order 1; measured: 0

_ORIENTATION_TAG = 274
# EXIF 2.32, 4.6.4 A: whether rows and columns are exchanged, then rows reversed, then columns reversed.
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
_LUMA = (19595, 38470, 7471)  # ITU-R 601-2, in 65,536ths
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
        uint8 HWC in the channel order of ``spec.color``, H = W = ``spec.image_size``.

    Raises:
        InputError: if the image cannot be used.
        ParityError: naming the first step that departs.
    """
    ours = _runtime_stages(data, spec)
    theirs = _witness_stages(data, spec)
    for step, mine, other in zip(_Stages._fields, ours, theirs, strict=True):
        problem = _departure(mine, other, is_exact=step == "decode")
        if problem is not None:
            raise ParityError(
                f"preprocessing: the step {step} departs from the contract on {source}: {problem}; "
                "no bundle was written"
            )
    pixels_HWC = to_pixels(data, spec)
    x_CHW = torch.from_numpy(normalize(pixels_HWC, spec))
    difference = (x_CHW - normalized(_chw(pixels_HWC), spec)).abs().max().item()
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
    image = load_image(data, "L" if spec.color == "grey" else "RGB")
    resized = resize_image(image, spec, name="the image")
    cropped = centre_crop(resized, spec)
    pixels = (np.asarray(image), np.asarray(resized), np.asarray(cropped), to_pixels(data, spec))
    return _Stages(*map(_chw, pixels))


def _witness_stages(data: bytes, spec: PreprocessSpec) -> _Stages:
    decoded = _decoded(data, is_grey=spec.color == "grey")
    height, width = decoded.shape[1:]
    resized = decoded
    if spec.resize != "none":
        wide, high = _sides(width, height, spec)
        resized = _along_columns(decoded, wide, spec.interpolation)
        resized = _along_columns(resized.transpose(1, 2), high, spec.interpolation).transpose(1, 2)
    elif (width, height) != (spec.image_size, spec.image_size):
        raise InputError(f"it is {width}x{height} pixels, and the contract has no resize")
    top, left = (_offset(side - spec.image_size) for side in resized.shape[1:])
    cropped = resized[:, top : top + spec.image_size, left : left + spec.image_size]
    return _Stages(decoded, resized, cropped, cropped.flip(0) if spec.color == "bgr" else cropped)


def _decoded(data: bytes, *, is_grey: bool) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        pixels_CHW = _colours(image)
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    if is_grey and len(pixels_CHW) == 3:
        red, green, blue = pixels_CHW.to(torch.int64)
        weighted = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
        pixels_CHW = ((weighted + 2**15) // 2**16).to(torch.uint8)[None]
    elif not is_grey:
        pixels_CHW = pixels_CHW.expand(3, -1, -1)
    is_exchanged, *is_reversed = _TURNS.get(orientation, (0, 0, 0))
    if is_exchanged:
        pixels_CHW = pixels_CHW.transpose(1, 2)
    return pixels_CHW.flip([axis for axis, flips in zip((1, 2), is_reversed, strict=True) if flips])


def _colours(image: Image.Image) -> Tensor:
    """One grey or three colour channels, uint8 CHW, without what is transparent about them."""
    if image.mode in ("P", "PA"):
        indices = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return _chw(palette[indices])
    if image.mode == "1":
        return _chw(np.asarray(image).astype(np.uint8) * 255)
    if image.mode.startswith("I"):
        return _chw((np.asarray(image).astype(np.int64) // 256).astype(np.uint8))
    if image.mode in ("L", "LA", "La"):
        return _chw(np.asarray(image))[:1]
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _chw(np.asarray(image))[:3]
    return _chw(np.asarray(image.convert("RGB")))  # CMYK and other spaces: Pillow's definition is the contract's


def _sides(width: int, height: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height after the resize."""
    if spec.resize == "exact":
        return spec.resize_size, spec.resize_size
    shorter = min(width, height)
    return spec.resize_size * width // shorter, spec.resize_size * height // shorter


def _along_columns(pixels_CHW: Tensor, width: int, interpolation: Interpolation) -> Tensor:
    """One pass of a resize, along the last axis, rounded to 8 bits (halves up)."""
    channels, height, before = pixels_CHW.shape
    if width == before:
        return pixels_CHW
    if interpolation == "nearest":
        steps = np.full(width, before / width)
        steps[0] /= 2
        return pixels_CHW[:, :, torch.from_numpy(np.cumsum(steps).astype(np.int64))]  # Pillow adds the steps up
    parts = []
    for rows in torch.split(pixels_CHW.reshape(-1, before), max(1, _STRIP // before)):
        resampled = interpolate(
            rows.to(torch.float64)[None, None], (len(rows), width), mode=interpolation, antialias=True
        )
        parts.append((resampled[0, 0] + 0.5 + 1e-6).floor().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts).reshape(channels, height, width)


def _offset(difference: int) -> int:
    """Half of it, halves to even."""
    half, is_odd = divmod(difference, 2)
    return half + 1 if is_odd and half % 2 else half


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
