"""The contract of a lone model that EdgePort did not write: as its user tells it, and as the model shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from edgeport_runtime.bundle.contract import OUTPUTS, TASKS, Contract
from edgeport_runtime.engine.foreign import LAYOUTS, Asked
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.depth import MAX_BITS
from edgeport_runtime.pixels.preprocess import (
    NUM_CHANNELS,
    PAD_LEVEL,
    Color,
    CropOffset,
    Interpolation,
    PreprocessSpec,
    Resize,
    Scale,
    Size,
    as_size,
    sides_of,
)

if TYPE_CHECKING:
    import os

    from edgeport_runtime.bundle.contract import Output
    from edgeport_runtime.engine.foreign import ForeignSession, Ports

__all__ = ["asked_of", "contract_of", "read_options"]

_CHOICES = {
    "color": get_args(Color),
    "scale": get_args(Scale),
    "resize": get_args(Resize),
    "interpolation": get_args(Interpolation),
    "crop_offset": get_args(CropOffset),
    "task": TASKS,
    "output": OUTPUTS,
    "input_layout": LAYOUTS,
}
_NUMBERS = ("mean", "std", "threshold", "pad_color")
_SIZES = ("image_size", "resize_size", "bits")
_NAMES = ("input_name", "output_name")
_OPTIONS = (*_CHOICES, *_NUMBERS, *_SIZES, *_NAMES, "crop_pct", "labels")
_MAX_BYTES = 16 * 2**20
_SUM_TOLERANCE = 1e-3


def read_options(given: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """What a user tells of a model, checked one by one.

    Args:
        given: options by name, or the path of a JSON file of them; in a file, the contract of a bundle is taken as
            well: a ``manifest.json``, or what ``run-model info --json`` prints.

    Raises:
        InputError: naming the option, if there is none of that name or its value is not possible.
    """
    name, told = ("contract", given) if isinstance(given, Mapping) else (str(given), _read_json(Path(given)))
    if "contract" in told:
        told = _flat(told["contract"], name)
    options = {key: value for key, value in told.items() if value is not None}
    for key, value in options.items():
        _check(key, value, name)
    return options


def asked_of(options: Mapping[str, Any]) -> Asked:
    """What they say of the model's input and output."""
    return Asked(
        input_name=options.get("input_name"),
        output_name=options.get("output_name"),
        layout=options.get("input_layout"),
        image_size=_size(options.get("image_size")),
    )


def contract_of(options: Mapping[str, Any], session: ForeignSession) -> Contract:
    """The contract of an opened model.

    Args:
        options: of ``read_options``; what is not told is as ``export-model`` takes it for a module of one's own.
        session: the model.

    Raises:
        InputError: if they contradict each other or the model, or do not tell enough.
    """
    ports = session.ports
    spec = _spec(options, ports)
    task = options.get("task", "binary" if ports.num_outputs == 1 else "multiclass")
    if (ports.num_outputs == 1) != (task == "binary"):
        raise InputError(f"task is {task}, but {session.path.name} gives {ports.num_outputs} values for an image")
    threshold = options.get("threshold", None if task == "multiclass" else [0.5])
    labels = options.get("labels")
    return Contract(
        task=task,
        num_classes=2 if task == "binary" else ports.num_outputs,
        labels=None if labels is None else tuple(labels),
        thresholds=None if threshold is None else tuple(map(float, threshold)),
        output=_output(session, task, spec, options.get("output")),
        batch=ports.batch,
        preprocess=spec,
    )


def _spec(options: Mapping[str, Any], ports: Ports) -> PreprocessSpec:
    is_pixels = ports.dtype is np.uint8
    color = options.get("color", "grey" if ports.channels == 1 else "rgb")
    if NUM_CHANNELS[color] != ports.channels:
        raise InputError(f"color is {color}, but the model takes {ports.channels} channels")
    scale = options.get("scale", "byte" if is_pixels else "unit")
    mean, std = (
        tuple(map(float, options.get(key, [default] * ports.channels))) for key, default in (("mean", 0), ("std", 1))
    )
    if is_pixels and (scale != "byte" or any(mean) or set(std) != {1.0}):
        raise InputError("the model takes pixels as uint8 and prepares them itself; omit scale, mean and std")
    resize, crop_pct = options.get("resize", "shorter"), options.get("crop_pct", 1.0)
    if resize in ("none", "pad") and crop_pct != 1:
        raise InputError(f"crop_pct is {crop_pct}, but with resize {resize} nothing is cropped; omit one of them")
    enlarged = as_size(*(math.floor(side / crop_pct + 1e-9) for side in sides_of(ports.image_size)))
    resize_size = enlarged if resize in ("shorter", "exact") else ports.image_size
    return PreprocessSpec(
        color=color,
        resize=resize,
        resize_size=_size(options.get("resize_size")) or resize_size,
        interpolation=options.get("interpolation", "bilinear"),
        image_size=ports.image_size,
        scale=scale,
        mean=mean,
        std=std,
        bits=options.get("bits", MAX_BITS),
        pad_color=_pad_color(options, ports.channels),
        crop_offset=options.get("crop_offset", "even"),
    )


def _pad_color(options: Mapping[str, Any], channels: int) -> tuple[int, ...] | None:
    """One value for every channel, or one for each."""
    told = options.get("pad_color", [PAD_LEVEL] if options.get("resize") == "pad" else None)
    if told is None:
        return None
    return tuple(int(v) if v == int(v) else v for v in told) * (channels if len(told) == 1 else 1)


def _output(session: ForeignSession, task: str, spec: PreprocessSpec, told: Output | None) -> Output:
    """Whether the model gives logits or probabilities, by its answers to noise; asks where they could be either."""
    if told == "logits":
        return told
    shape = (session.ports.batch or 1, spec.num_channels, *spec.image_sides)
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    mean, std = (np.asarray(v, np.float32)[:, np.newaxis, np.newaxis] for v in (spec.mean, spec.std))
    scaled = noise / np.float32(255 if spec.scale == "unit" else 1)
    outputs_BK = session.run(((scaled - mean) / std).astype(np.float32))
    is_between = bool(((outputs_BK >= 0) & (outputs_BK <= 1 + _SUM_TOLERANCE)).all())
    if told is not None:
        if not is_between:
            raise InputError(
                f"output is probabilities, but {session.path.name} gives values from {outputs_BK.min():.3g} to "
                f"{outputs_BK.max():.3g}; omit it"
            )
        return told
    if task == "multiclass":
        sums_to_one = bool((np.abs(outputs_BK.sum(axis=1) - 1) < _SUM_TOLERANCE).all())
        return "probabilities" if is_between and sums_to_one else "logits"
    if is_between:
        raise InputError(
            f"{session.path.name} gives values between 0 and 1, which could be probabilities or logits; say which: "
            "--output probabilities, or --output logits"
        )
    return "logits"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise InputError(f"{path} is larger than {_MAX_BYTES} bytes; a contract is small")
        data: Any = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f'{path} holds no object of options, such as {{"image_size": 224, "mean": [0.5]}}')
    return dict(data)


def _flat(data: Any, name: str) -> dict[str, Any]:
    """The contract of a bundle as options; its batch is the model's own."""
    contract = Contract.from_dict(data, f"{name}: contract")
    told = contract.to_dict()
    return {
        **told["preprocess"],
        "task": told["task"],
        "labels": told["labels"],
        "threshold": told["thresholds"],
        "output": told["output"],
    }


def _check(key: str, value: Any, name: str) -> None:
    if key not in _OPTIONS:
        raise InputError(f"{name}: there is no option {key!r}; known are {', '.join(sorted(_OPTIONS))}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise InputError(f"{name}: {key} is {value!r}; choose one of {', '.join(_CHOICES[key])}")
    if key in _NUMBERS and not (isinstance(value, list | tuple) and value and all(map(_is_number, value))):
        raise InputError(f"{name}: {key} is {value!r}; give a list of finite numbers")
    if key in _SIZES and not _is_size(value, has_two=key != "bits"):
        either = "" if key == "bits" else ", or the height and the width in a list"
        raise InputError(f"{name}: {key} is {value!r}; give a whole number{either}")
    if key == "crop_pct" and not (_is_number(value) and 0 < value <= 1):
        raise InputError(f"{name}: crop_pct is {value!r}; it must be above 0 and at most 1")
    is_named = key in _NAMES and isinstance(value, str)
    is_labelled = key == "labels" and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    if (key in _NAMES and not is_named) or (key == "labels" and not is_labelled):
        raise InputError(f"{name}: {key} is {value!r}; give {'a string' if key in _NAMES else 'a list of strings'}")


def _is_size(value: object, *, has_two: bool) -> bool:
    numbers = list(value) if has_two and isinstance(value, list | tuple) and len(value) == 2 else [value]
    return all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


def _size(value: Any) -> Size | None:
    """A size as JSON has it: one side, or a list of two."""
    return as_size(*value) if isinstance(value, list | tuple) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
