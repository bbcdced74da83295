"""The input contract in transformers' ``preprocessor_config.json`` and in the ``config.json`` of timm and transformers.

Each function returns the ``PreprocessSpec`` fields that its file specifies, except those that the user gave.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from edgeport_runtime.errors import WeightsError
from edgeport_runtime.pixels.preprocess import as_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["CONFIG", "PROCESSOR", "processor_fields", "timm_fields"]

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"

_MAX_SIZE = 4096
_GEOMETRY_OPTIONS = "--resize (with --image-size and --crop-pct)"
# PIL.Image.Resampling
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_TYPE = re.compile(r"(?P<family>\w+?)(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?")
_SQUARE = {"ViT", "DeiT", "Beit", "EfficientNet", "Pvt", "Segformer"}  # a lone number is both sides of the resize
_CROPS = {"DeiT", "Bit", "CLIP", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer"}  # if nothing is said
_FAMILIES = {*_SQUARE, *_CROPS, "ConvNext", "Siglip"}
_FLIPS = "do_flip_channel_order"
_KNOWN_STEPS = (
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"),
    "do_reduce_labels",  # of the maps that segmentation is trained with
)
_LEVIT_CROP = 224 / 256
_POOLFORMER_CROP = 0.9
_CONVNEXT_CROP, _CONVNEXT_WHOLE = 224 / 256, 384  # of ConvNextImageProcessor: from this side on nothing is cropped


def processor_fields(document: Mapping[str, Any], given: Set[str]) -> dict[str, Any]:
    """The fields that ``preprocessor_config.json`` specifies.

    Args:
        document: its content, empty if there is none.
        given: fields that the command line gives.

    Raises:
        WeightsError: naming the key whose value has the wrong type, or is not supported.
    """
    if not document:
        return {}
    reader = _Reader(PROCESSOR, document)
    fields: dict[str, Any] = {}
    fields |= _geometry(reader, given, _processor_geometry)
    if "interpolation" not in given and reader.flag("do_resize", default=True) and "resample" in document:
        filter_ = document["resample"]
        if type(filter_) is not int or filter_ not in _FILTERS:
            known = ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
            reader.refuse("resample", f"only {known} are known", "--interpolation")
        fields["interpolation"] = _FILTERS[filter_]
    return fields | _processor_values(reader, given)


def _geometry(reader: _Reader, given: Set[str], read: Callable[[_Reader], dict[str, Any]]) -> dict[str, Any]:
    if "resize" not in given:
        return read(reader)
    try:
        return {name: value for name, value in read(reader).items() if name == "image_size"}
    except WeightsError:  # a resize that cannot be done, and that the command line says in its place
        return {}


def _processor_values(reader: _Reader, given: Set[str]) -> dict[str, Any]:
    family = _family(reader)
    is_scaled = reader.flag("do_rescale", default=True)
    factor = reader.document.get("rescale_factor", 1 / 255)
    if family == "EfficientNet" and is_scaled and _is_number(factor) and factor > 0:
        return _efficientnet_values(reader, given, 255 * factor)
    fields: dict[str, Any] = {}
    if "scale" not in given:
        if is_scaled and not (_is_number(factor) and abs(factor * 255 - 1) < 1e-6):
            reader.refuse("rescale_factor", "only 1/255 is supported", "--scale, --mean and --std")
        fields["scale"] = "unit" if is_scaled else "byte"
    if family == "MobileViT" and "color" not in given and reader.flag(_FLIPS, default=True):
        fields["color"] = "bgr"
    is_normalized = family != "MobileViT" and reader.flag("do_normalize", default=True)
    for name, key, neutral in (("mean", "image_mean", 0.0), ("std", "image_std", 1.0)):
        if name in given:
            continue
        if not is_normalized:
            fields[name] = (neutral,) * 3
        elif key in reader.document:
            fields[name] = reader.channels(key, f"--{name}")
    return fields | _color_of(fields)


def _efficientnet_values(reader: _Reader, given: Set[str], factor: float) -> dict[str, Any]:
    """Of pixels times a factor, perhaps less 1, normalized, and perhaps divided by the deviation once more."""
    is_normalized = reader.flag("do_normalize", default=True)
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if is_normalized and "image_mean" in reader.document:
        mean = reader.channels("image_mean", "--mean")
    if "image_std" in reader.document:
        std = reader.channels("image_std", "--std")
    offset = 1.0 if reader.flag("rescale_offset", default=False) else 0.0
    power = int(is_normalized) + int(reader.flag("include_top", default=True))
    fields: dict[str, Any] = {"scale": "unit"}
    fields["mean"] = tuple((offset + value) / factor for value in mean)
    fields["std"] = tuple(value**power / factor for value in std)
    return {name: value for name, value in fields.items() if name not in given}


def _kind(reader: _Reader) -> str | None:
    """The key that names the class of transformers."""
    return next((key for key in ("image_processor_type", "feature_extractor_type") if reader.document.get(key)), None)


def _family(reader: _Reader) -> str | None:
    """Whose class it is; None where it is none that is known."""
    kind = _kind(reader)
    match = _TYPE.fullmatch(str(reader.document[kind])) if kind else None
    return match["family"] if match and match["family"] in _FAMILIES else None


def _processor_geometry(reader: _Reader) -> dict[str, Any]:
    option = _GEOMETRY_OPTIONS
    document = reader.document
    kind, family = _kind(reader), _family(reader)
    if kind and family is None:
        reader.refuse(kind, "EdgePort does not know how it resizes", option)
    known = (*_KNOWN_STEPS, _FLIPS) if family == "MobileViT" else _KNOWN_STEPS
    for key, value in document.items():
        if key.startswith("do_") and key not in known and value not in (False, None):
            reader.refuse(key, "this step is not supported", option)
    if family == "ConvNext":
        return _convnext_geometry(reader, option)
    is_cropped = reader.flag("do_center_crop", default=family in _CROPS and "crop_size" in document)
    if not reader.flag("do_resize", default=True):
        if is_cropped:
            reader.refuse("do_center_crop", "a crop without a resize is not supported", option)
        return {"resize": "none"}
    if "size" not in document:
        if family:
            reader.refuse("size", "it is required", option)
        return {}
    resize, size = reader.size("size", option, is_square=family is None or family in _SQUARE)
    if family == "Levit" and resize == "shorter" and isinstance(size, int):
        size = int(size / _LEVIT_CROP)
    if family == "PoolFormer":
        if not isinstance(size, int):
            reader.refuse("size", "only one side, or shortest_edge, is supported", option)
        resize, size = "shorter", int(size / reader.part("crop_pct", option, default=_POOLFORMER_CROP))
    if is_cropped:
        _, crop = reader.size("crop_size", option, is_square=True)
        return {"resize": resize, "resize_size": size, "image_size": crop, "crop_offset": "down"}
    if resize == "shorter":
        reader.refuse("size", "without a centre crop the images would differ in shape", option)
    return {"resize": resize, "resize_size": size, "image_size": size}


def _convnext_geometry(reader: _Reader, option: str) -> dict[str, Any]:
    if not reader.flag("do_resize", default=True):
        return {"resize": "none"}
    _, size = reader.size("size", option, is_square=False)
    if not isinstance(size, int):
        reader.refuse("size", "only one side, or shortest_edge, is supported", option)
    if size >= _CONVNEXT_WHOLE:
        return {"resize": "exact", "resize_size": size, "image_size": size}
    part = reader.part("crop_pct", option, default=_CONVNEXT_CROP)
    sides = {"resize_size": int(size / part), "image_size": size}
    return {"resize": "shorter", **sides, "crop_offset": "down"}


def timm_fields(document: Mapping[str, Any], given: Set[str], *, file: str = CONFIG) -> dict[str, Any]:
    """The fields that ``config.json`` specifies: timm's ``pretrained_cfg``, or the channels and size of transformers.

    Args:
        document: its content, empty if there is none.
        given: fields that the command line gives.
        file: what messages call it.

    Raises:
        WeightsError: naming the key whose value has the wrong type, or is not supported.
    """
    inner = document.get("pretrained_cfg", document if "architecture" in document else None)
    if inner is None:
        return _transformers_fields(_Reader(CONFIG, document), given)
    if not isinstance(inner, dict):
        _Reader(file, document).refuse("pretrained_cfg", "it must be an object", "all input options")
    reader = _Reader(file, inner)
    fields: dict[str, Any] = {}
    if "interpolation" not in given and "interpolation" in inner:
        if inner["interpolation"] not in _FILTERS.values():
            reader.refuse("interpolation", f"only {', '.join(_FILTERS.values())} are supported", "--interpolation")
        fields["interpolation"] = inner["interpolation"]
    for name in ("mean", "std"):
        if name not in given and name in inner:
            fields[name] = reader.channels(name, f"--{name}")
    fields |= _color_of(fields)
    if "input_size" in inner:
        fields |= _geometry(reader, given, _timm_geometry)
    return fields


def _timm_geometry(reader: _Reader) -> dict[str, Any]:
    option = _GEOMETRY_OPTIONS
    sizes = reader.document["input_size"]
    if not (isinstance(sizes, list) and len(sizes) == 3 and all(type(v) is int and 0 < v <= _MAX_SIZE for v in sizes)):
        reader.refuse("input_size", "it must be a list of channels, height and width", option)
    mode = reader.document.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        reader.refuse("crop_mode", "only center and squash are supported", option)
    part = reader.part("crop_pct", option, default=0.875)
    resize, size = "exact" if mode == "squash" else "shorter", as_size(*sizes[1:])
    resize_size = as_size(*(math.floor(side / part) for side in sizes[1:]))
    if resize == "shorter" and not isinstance(resize_size, int):
        reader.refuse("input_size", "timm rounds the longer side of an input that is not square otherwise", option)
    return {"resize": resize, "resize_size": resize_size, "image_size": size}


def _transformers_fields(reader: _Reader, given: Set[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "image_size" not in given and type(reader.document.get("image_size")) in (int, list):
        fields["image_size"] = reader.size("image_size", "--image-size", is_square=True)[1]
    channels = reader.document.get("num_channels")
    if channels is not None and not {"color", "channels"} & given:
        if channels not in (1, 3):
            reader.refuse("num_channels", "it must be 1 or 3", "--channels")
        if channels == 1:
            fields["color"] = "grey"
    return fields


def _color_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A single mean is that of grey images; three are those of colours."""
    lengths = {len(fields[name]) for name in ("mean", "std") if name in fields}
    return {"color": "grey"} if lengths == {1} else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Reader:
    """Typed access to a JSON object, with errors that name the file, the key, and the option to set instead."""

    def __init__(self, file: str, document: Mapping[str, Any]) -> None:
        self.file = file
        self.document = document

    def refuse(self, key: str, reason: str, option: str) -> NoReturn:
        shown = repr(self.document[key])[:60] if key in self.document else "absent"
        raise WeightsError(f"{self.file}: {key} is {shown}; {reason}; set {option} instead")

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.document.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, "it must be true or false", "all input options")
        return value

    def channels(self, key: str, option: str) -> tuple[float, ...]:
        value = self.document[key]
        values = value if isinstance(value, list) else [value] * 3
        if len(values) not in (1, 3) or not all(map(_is_number, values)):
            self.refuse(key, "it must be a list of numbers, one per channel", option)
        return tuple(float(v) for v in values)

    def part(self, key: str, option: str, *, default: float) -> float:
        value = self.document.get(key)
        if value is None:
            return default
        if not _is_number(value) or not 0 < value <= 1:
            self.refuse(key, "it must be above 0 and at most 1", option)
        return float(value)

    def size(self, key: str, option: str, *, is_square: bool) -> tuple[str, Size]:
        """How images are resized and to what size; ``is_square`` says what a lone number means."""
        value = self.document.get(key)
        if isinstance(value, dict):
            if set(value) == {"shortest_edge"}:
                resize, sides = "shorter", [value["shortest_edge"]] * 2
            elif set(value) == {"height", "width"}:
                resize, sides = "exact", [value["height"], value["width"]]
            else:
                self.refuse(key, "only shortest_edge, or height and width, are supported", option)
        elif isinstance(value, list) and len(value) == 2:
            resize, sides = "exact", value
        else:
            resize, sides = ("exact" if is_square else "shorter"), [value] * 2
        if not all(type(side) is int and 0 < side <= _MAX_SIZE for side in sides):
            self.refuse(key, f"it must be a whole number of pixels from 1 to {_MAX_SIZE}", option)
        return resize, as_size(*sides)
