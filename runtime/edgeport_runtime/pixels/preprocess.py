"""From an image to a network's input: one implementation for export, calibration, evaluation and run time.

The steps are torchvision's evaluation transform: EXIF rotation, colour conversion, resize (the shorter side, with the
longer one truncated, or both sides exactly), centre crop, scale, normalize. Shapes: H W image, C channels.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.decode import MAX_PIXELS, ArrayColor, ImageSource, load_image, name_of
from edgeport_runtime.pixels.depth import MAX_BITS, MIN_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "Color",
    "CropOffset",
    "Interpolation",
    "PreprocessSpec",
    "Resize",
    "Scale",
    "centre_crop",
    "normalize",
    "preprocess",
    "resize_image",
    "to_pixels",
]

Color = Literal["rgb", "bgr", "grey"]
Resize = Literal["shorter", "exact", "none"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
Scale = Literal["unit", "byte"]
CropOffset = Literal["even", "down"]

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_MAX_IMAGE_SIZE = 4096
_OPTIONAL = {"bits": None, "crop_offset": "even"}  # fields that are absent from JSON where they have their default


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSpec:
    """The input contract of a network.

    Attributes:
        color: order of the channels; ``grey`` is one channel (ITU-R 601-2 luma).
        resize: ``shorter`` brings the shorter side to ``resize_size`` pixels and keeps the aspect ratio, ``exact``
            brings both sides to it, ``none`` takes images of ``image_size`` only.
        resize_size: side in pixels after the resize, at least ``image_size``.
        interpolation: resampling filter, with antialiasing except for ``nearest``.
        image_size: side in pixels of the network's square input, cut from the centre.
        scale: ``unit`` divides pixels by 255, ``byte`` leaves them 0 to 255.
        mean: subtracted after scaling, one value per channel.
        std: divides after that, one value per channel, positive.
        bits: of values with more than 8 bits, which of them are in use where the file does not say: the high 8 of as
            many are kept. None, which bundles of EdgePort 0.1 have, keeps the high byte of 16, whatever the file says.
        crop_offset: how half a pixel before the crop is rounded: to the ``even`` number, as torchvision does, or
            ``down``, as transformers does.

    Raises:
        InputError: naming the field, if a value is not possible.
    """

    color: Color
    resize: Resize
    resize_size: int
    interpolation: Interpolation
    image_size: int
    scale: Scale
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bits: int | None = None
    crop_offset: CropOffset = "even"

    def __post_init__(self) -> None:
        for field, allowed in (
            ("color", Color),
            ("resize", Resize),
            ("interpolation", Interpolation),
            ("scale", Scale),
            ("crop_offset", CropOffset),
        ):
            value = getattr(self, field)
            if value not in get_args(allowed):
                raise InputError(f"{field} is {value!r}; choose one of {', '.join(get_args(allowed))}")
        for field in ("image_size", "resize_size"):
            value = getattr(self, field)
            if not _is_int(value) or not 1 <= value <= _MAX_IMAGE_SIZE:
                raise InputError(
                    f"{field} is {value!r}; it must be a whole number of pixels from 1 to {_MAX_IMAGE_SIZE}"
                )
        if self.resize_size < self.image_size:
            raise InputError(f"resize_size {self.resize_size} is smaller than image_size {self.image_size}")
        if self.resize == "none" and self.resize_size != self.image_size:
            raise InputError("without a resize, resize_size must equal image_size")
        for field in ("mean", "std"):
            self._check_channels(field)
        if self.bits is not None and not (_is_int(self.bits) and MIN_BITS <= self.bits <= MAX_BITS):
            raise InputError(f"bits is {self.bits!r}; it must be a whole number from {MIN_BITS} to {MAX_BITS}")

    def _check_channels(self, field: str) -> None:
        values = getattr(self, field)
        if not isinstance(values, tuple) or not all(isinstance(v, float) and math.isfinite(v) for v in values):
            raise InputError(f"{field} is {values!r}; give finite numbers, one per channel")
        if len(values) != self.num_channels:
            told = f"{len(values)} value{'s' * (len(values) != 1)}"
            raise InputError(
                f"{field} has {told}, but {self.color} images have {self.num_channels}; give one for each channel"
            )
        if field == "std" and min(values) <= 0:
            raise InputError(f"std is {values!r}; every value must be positive")

    @property
    def num_channels(self) -> int:
        """1 for grey, otherwise 3."""
        return 1 if self.color == "grey" else 3

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON types, fields in their order; the last two only where they are not the default."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        for field, default in _OPTIONAL.items():
            if values[field] == default:
                del values[field]
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PreprocessSpec:
        """Inverse of :meth:`to_dict`.

        Raises:
            InputError: if a field is missing, unknown, or of the wrong kind.
        """
        fields = set(cls.__dataclass_fields__) - set(_OPTIONAL)
        if set(data) - set(_OPTIONAL) != fields:
            raise InputError(
                f"the fields are {sorted(fields)}, but {sorted(set(data) ^ fields)} are missing or unknown"
            )
        values = dict(data)
        if "bits" in data and data["bits"] is None:
            raise InputError("bits is None; omit it, or give a whole number")
        for field in ("mean", "std"):
            if not isinstance(values[field], list) or not all(_is_number(v) for v in values[field]):
                raise InputError(f"{field} is {values[field]!r}; give a list of finite numbers, one per channel")
            values[field] = tuple(float(v) for v in values[field])
        return cls(**values)

    def sha256(self) -> str:
        """Hex digest of the canonical JSON form: two specs with the same digest give the same numbers."""
        import hashlib
        import json

        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def preprocess(source: ImageSource, spec: PreprocessSpec, *, color: ArrayColor = "rgb") -> NDArray[np.float32]:
    """Decode and preprocess one image.

    Args:
        source: a path, the bytes of an image file, a binary file, a PIL image, or a uint8 array HWC or HW.
        spec: the input contract.
        color: order of an array's channels.

    Returns:
        float32 CHW, ready to be stacked into a batch.

    Raises:
        InputError: if the image cannot be read, is too large, or does not fit a spec without resize.
    """
    return normalize(to_pixels(source, spec, color=color), spec)


def to_pixels(source: ImageSource, spec: PreprocessSpec, *, color: ArrayColor = "rgb") -> NDArray[np.uint8]:
    """Decode, rotate, convert, resize and crop: everything that happens on 8-bit pixels; arguments as above.

    Returns:
        uint8 HWC in the channel order of ``spec.color``, H = W = ``spec.image_size``.

    Raises:
        InputError: as :func:`preprocess`.
    """
    image = load_image(source, "L" if spec.color == "grey" else "RGB", color=color, bits=spec.bits)
    pixels_HWC = np.asarray(centre_crop(resize_image(image, spec, name=name_of(source)), spec), dtype=np.uint8)
    if spec.color == "grey":
        return pixels_HWC[:, :, np.newaxis]
    return pixels_HWC[:, :, ::-1] if spec.color == "bgr" else pixels_HWC


def normalize(pixels_HWC: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Scale, subtract the mean, divide by the standard deviation, and put the channels first.

    Every step is in float32 and in torchvision's order, through a table of the 256 values a pixel can have.

    Args:
        pixels_HWC: uint8, C = ``spec.num_channels``, in the order of ``spec.color``.
        spec: the input contract.

    Returns:
        float32 CHW.
    """
    table = _normalization_table(spec.scale, spec.mean, spec.std)
    x_CHW = np.empty((spec.num_channels, *pixels_HWC.shape[:2]), np.float32)
    for channel in range(spec.num_channels):
        np.take(table[channel], pixels_HWC[:, :, channel], out=x_CHW[channel], mode="clip")
    return x_CHW


@functools.lru_cache(maxsize=16)
def _normalization_table(scale: Scale, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    values = np.arange(256, dtype=np.float32)
    if scale == "unit":
        values = values / np.float32(255)
    return (values - np.asarray(mean, np.float32)[:, np.newaxis]) / np.asarray(std, np.float32)[:, np.newaxis]


def resize_image(image: Image.Image, spec: PreprocessSpec, *, name: str) -> Image.Image:
    """Resize a decoded image as the contract says; ``name`` is what messages call it.

    Raises:
        InputError: if it does not fit a spec without resize, or becomes too large.
    """
    width, height = image.size
    if spec.resize == "none":
        if (width, height) != (spec.image_size, spec.image_size):
            raise InputError(
                f"{name} is {width}x{height} pixels, but this model takes {spec.image_size}x{spec.image_size} "
                "without resizing; resize the image first, or export with --resize shorter"
            )
        return image
    target = spec.resize_size
    if spec.resize == "exact":
        new_width = new_height = target
    elif width <= height:
        new_width, new_height = target, int(target * height / width)
    else:
        new_width, new_height = int(target * width / height), target
    if max(new_width * height, new_width * new_height) > MAX_PIXELS:
        raise InputError(
            f"{name}, of {width}x{height} pixels, is too narrow to resize to {new_width}x{new_height}; "
            f"at most {MAX_PIXELS:,} are accepted"
        )
    # Pillow 13 chooses the order of the two passes by itself, and with it the pixels; networks were trained
    # on horizontal first, which two separate calls give on every version.
    resample = _FILTERS[spec.interpolation]
    if new_width != width:
        image = image.resize((new_width, height), resample)
    if new_height != height:
        image = image.resize((new_width, new_height), resample)
    return image


def centre_crop(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """Cut the network's input from the centre of a resized image."""
    width, height = image.size
    size = spec.image_size
    if (width, height) == (size, size):
        return image
    # round() goes to even, as in torchvision.transforms.functional.center_crop.
    whole = round if spec.crop_offset == "even" else math.floor
    left, top = whole((width - size) / 2.0), whole((height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
