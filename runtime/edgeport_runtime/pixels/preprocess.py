"""From an image to a network's input: one implementation for export, calibration, evaluation and run time.

The steps are torchvision's evaluation transform: EXIF rotation, colour conversion, resize (the shorter side, with the
longer one truncated, or both sides exactly), centre crop, scale, normalize; or a letterbox in place of resize and crop.
Shapes: H W image, C channels.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.decode import MAX_PIXELS, ArrayColor, ImageMode, ImageSource, load_image, name_of
from edgeport_runtime.pixels.depth import MAX_BITS, MIN_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "NUM_CHANNELS",
    "PAD_LEVEL",
    "Color",
    "CropOffset",
    "Interpolation",
    "PreprocessSpec",
    "Resize",
    "Scale",
    "Size",
    "as_size",
    "centre_crop",
    "normalize",
    "offsets",
    "pixels_of",
    "preprocess",
    "resize_image",
    "resized_sides",
    "sides_of",
    "to_pixels",
]

Color = Literal["rgb", "bgr", "grey", "rgba", "la"]
Resize = Literal["shorter", "exact", "pad", "none"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
Scale = Literal["unit", "byte"]
CropOffset = Literal["even", "down"]
Size: TypeAlias = "int | tuple[int, int]"
"""Height and width in pixels; one number where they are equal."""

NUM_CHANNELS: dict[Color, int] = {"grey": 1, "la": 2, "rgb": 3, "bgr": 3, "rgba": 4}
PAD_LEVEL = 114
"""What padding has by default, in each colour: the letterbox of YOLO."""
_MODES: dict[Color, ImageMode] = {"grey": "L", "la": "LA", "rgb": "RGB", "bgr": "RGB", "rgba": "RGBA"}

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_MAX_IMAGE_SIZE = 4096
# Fields that are absent from JSON where they have their default.
_OPTIONAL = {"bits": None, "pad_color": None, "crop_offset": "even"}


def sides_of(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def as_size(height: int, width: int) -> Size:
    """Inverse of ``sides_of``."""
    return height if height == width else (height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSpec:
    """The input contract of a network.

    Attributes:
        color: order of the channels; ``grey`` is one channel (ITU-R 601-2 luma), ``la`` is grey and alpha.
        resize: ``shorter`` brings the shorter side to ``resize_size`` pixels and keeps the aspect ratio (of two sides:
            as small as covers both), ``exact`` brings both sides to it, ``pad`` makes the image as large as fits into
            it and fills the rest with ``pad_color``, ``none`` takes images of ``image_size`` only.
        resize_size: side in pixels after the resize, at least ``image_size``; height and width where they differ.
        interpolation: resampling filter, with antialiasing except for ``nearest``.
        image_size: side in pixels of the network's input, cut from the centre; height and width where they differ.
        scale: ``unit`` divides pixels by 255, ``byte`` leaves them 0 to 255.
        mean: subtracted after scaling, one value per channel.
        std: divides after that, one value per channel, positive.
        bits: of values with more than 8 bits, which of them are in use where the file does not say: the high 8 of as
            many are kept. None, which bundles of EdgePort 0.1 have, keeps the high byte of 16, whatever the file says.
        pad_color: of ``pad``, one value of 0 to 255 per channel, in the order of ``color``; otherwise None.
        crop_offset: how half a pixel before the crop is rounded: to the ``even`` number, as torchvision does, or
            ``down``, as transformers does.

    Raises:
        InputError: naming the field, if a value is not possible.
    """

    color: Color
    resize: Resize
    resize_size: Size
    interpolation: Interpolation
    image_size: Size
    scale: Scale
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bits: int | None = None
    pad_color: tuple[int, ...] | None = None
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
            _check_size(getattr(self, field), field)
        if any(large < small for large, small in zip(sides_of(self.resize_size), self.image_sides, strict=True)):
            raise InputError(f"resize_size {self.resize_size} is smaller than image_size {self.image_size}")
        if self.resize == "none" and self.resize_size != self.image_size:
            raise InputError("without a resize, resize_size must equal image_size")
        if self.resize == "pad" and self.resize_size != self.image_size:
            raise InputError("with padding nothing is cropped, so that resize_size must equal image_size")
        for field in ("mean", "std"):
            self._check_channels(field)
        self._check_pad_color()
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

    def _check_pad_color(self) -> None:
        values = self.pad_color
        if (values is not None) != (self.resize == "pad"):
            raise InputError(f"pad_color is {values!r}, but resize is {self.resize}; the two go together")
        if values is None:
            return
        if not isinstance(values, tuple) or not all(_is_int(v) and 0 <= v <= 255 for v in values):
            raise InputError(f"pad_color is {values!r}; give whole numbers from 0 to 255, one per channel")
        if len(values) != self.num_channels:
            told = f"{len(values)} value{'s' * (len(values) != 1)}"
            raise InputError(
                f"pad_color has {told}, but {self.color} images have {self.num_channels}; give one for each channel"
            )

    @property
    def num_channels(self) -> int:
        """1 for grey, 2 with alpha; 3 for colours, 4 with alpha."""
        return NUM_CHANNELS[self.color]

    @property
    def image_sides(self) -> tuple[int, int]:
        """H, W of the network's input."""
        return sides_of(self.image_size)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C, H, W of the network's input."""
        return self.num_channels, *self.image_sides

    @property
    def mode(self) -> ImageMode:
        """Pillow's mode of the decoded image."""
        return _MODES[self.color]

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.color in ("rgba", "la")

    @property
    def pixel_mode(self) -> Literal["RGB", "RGBA"]:
        """Pillow's mode of what a graph takes that holds the preprocessing."""
        return "RGBA" if self.has_alpha else "RGB"

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON types, fields in their order; what is optional only where it is not the default."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        for field, default in _OPTIONAL.items():
            if values[field] == default:
                del values[field]
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PreprocessSpec:
        """Inverse of ``to_dict``.

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
        for field in ("image_size", "resize_size", "pad_color"):
            if isinstance(values.get(field), list):
                values[field] = tuple(values[field])
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
        uint8 HWC in the channel order of ``spec.color``, H and W as ``spec.image_size`` says.

    Raises:
        InputError: as ``preprocess``.
    """
    return pixels_of(load_image(source, spec.mode, color=color, bits=spec.bits), spec, name=name_of(source))


def pixels_of(image: Image.Image, spec: PreprocessSpec, *, name: str) -> NDArray[np.uint8]:
    """As ``to_pixels``, of an image that ``load_image`` gave; ``name`` is what messages call it."""
    pixels_HWC = np.asarray(centre_crop(resize_image(image, spec, name=name), spec), dtype=np.uint8)
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
    """Resize a decoded image as the contract says, and pad it; ``name`` is what messages call it.

    Raises:
        InputError: if it does not fit a spec without resize, or becomes too large.
    """
    width, height = image.size
    if spec.resize == "none":
        wanted_height, wanted_width = spec.image_sides
        if (width, height) != (wanted_width, wanted_height):
            raise InputError(
                f"{name} is {width}x{height} pixels, but this model takes {wanted_width}x{wanted_height} "
                "without resizing; resize the image first, or export with --resize shorter"
            )
        return image
    new_height, new_width = resized_sides(height, width, spec)
    if max(new_width * height, new_width * new_height) > MAX_PIXELS:
        raise InputError(
            f"{name}, of {width}x{height} pixels, is too narrow to resize to {new_width}x{new_height}; "
            f"at most {MAX_PIXELS:,} are accepted"
        )
    # Pillow 13 chooses the order of the two passes by itself, and with it the pixels; networks were trained
    # on horizontal first, which two separate calls give on every version.
    resample = _FILTERS[spec.interpolation]
    if new_width != width:
        image = _resize(image, (new_width, height), resample)
    if new_height != height:
        image = _resize(image, (new_width, new_height), resample)
    return _padded(image, spec) if spec.resize == "pad" else image


def resized_sides(height: int, width: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Height and width of an image after the resize, before padding."""
    if spec.resize == "none":
        return height, width
    box_height, box_width = sides_of(spec.resize_size)
    if spec.resize == "exact":
        return box_height, box_width
    is_width_scarce = width * box_height <= height * box_width
    if spec.resize == "pad":
        # Division of whole numbers is rounded correctly, so that halves are seen as such, and go to the even side.
        if is_width_scarce:
            return box_height, max(1, round(box_height * width / height))
        return max(1, round(box_width * height / width)), box_width
    if is_width_scarce:
        return int(box_width * height / width), box_width
    return box_height, int(box_height * width / height)


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image.resize(size, resample)
    # Pillow would weigh the colours by the alpha, which to a network is one channel more.
    return Image.merge(image.mode, [band.resize(size, resample) for band in image.split()])


def _padded(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """In the middle of the network's input; of an odd number of pixels the larger half is below and to the right."""
    height, width = spec.image_sides
    assert spec.pad_color is not None
    fill = spec.pad_color[::-1] if spec.color == "bgr" else spec.pad_color
    canvas = Image.new(image.mode, (width, height), fill)
    top, left = offsets(image.height, image.width, spec)
    canvas.paste(image, (-left, -top))
    return canvas


def centre_crop(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """Cut the network's input from the centre of a resized image."""
    width, height = image.size
    new_height, new_width = spec.image_sides
    if (width, height) == (new_width, new_height):
        return image
    top, left = offsets(height, width, spec)
    return image.crop((left, top, left + new_width, top + new_height))


def offsets(height: int, width: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Row and column of a resized image at which the network's input begins; 0 and below where it is padded."""
    new_height, new_width = spec.image_sides
    if spec.resize == "pad":
        return -((new_height - height) // 2), -((new_width - width) // 2)
    # round() to even, as torchvision.transforms.functional.center_crop does.
    whole = round if spec.crop_offset == "even" else math.floor
    return whole((height - new_height) / 2.0), whole((width - new_width) / 2.0)


def _check_size(size: object, field: str) -> None:
    """Raise InputError unless it is a ``Size`` within the limits."""
    values = size if isinstance(size, tuple) else (size,)
    if not all(isinstance(v, int) and _is_int(v) and 1 <= v <= _MAX_IMAGE_SIZE for v in values):
        raise InputError(f"{field} is {size!r}; it must be a whole number of pixels from 1 to {_MAX_IMAGE_SIZE}")
    if isinstance(size, tuple) and (len(size) != 2 or size[0] == size[1]):
        raise InputError(f"{field} is {size!r}; give the height and the width, or one number where they are equal")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
