"""Where each option's value comes from: one table, and one function that gives values and their sources together.

A *place* is a file, a checkpoint, the command line or a table of ours; ``Told`` maps each place to the options that it
tells. What a place tells of one option can change another: a side given on the command line moves the resize as well.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from edgeport_export.source.processor import CONFIG, PROCESSOR
from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.depth import MAX_BITS
from edgeport_runtime.pixels.preprocess import NUM_CHANNELS, PAD_LEVEL, PreprocessSpec, as_size, sides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeport_export.config import ExportConfig, GraphOptions, InputOptions
    from edgeport_runtime.pixels.preprocess import Color

__all__ = [
    "ARCHITECTURE",
    "CHECKPOINT",
    "COMMAND_LINE",
    "CONTRACT_OPTIONS",
    "INPUT_FIELDS",
    "LABELS_FILE",
    "LIBRARY",
    "OPTIONS",
    "Told",
    "Value",
    "contract_of",
    "preprocess_of",
    "resolve",
    "resolve_preprocess",
    "sources_of",
    "tell_architecture",
    "tell_command_line",
]

COMMAND_LINE, CHECKPOINT, ARCHITECTURE = "command line", "checkpoint", "architecture default"
LIBRARY = "library"  # that the network comes from, as it describes its pretrained weights
LABELS_FILE = "labels"  # the file given on the command line, as it tells the number of classes

Told: TypeAlias = "Mapping[str, Mapping[str, Any]]"

_OPAQUE = 255

INPUT_FIELDS = tuple(field.name for field in fields(PreprocessSpec))
CONTRACT_OPTIONS = ("task", "threshold", *INPUT_FIELDS, "num_classes", "labels")
"""The options that make the contract."""


class Value(NamedTuple):
    """An option's value, and the place that tells it."""

    value: Any
    source: str


class Option(NamedTuple):
    """A row of the table.

    Attributes:
        name: as of ``ExportConfig``, or of the contract.
        order: the places that can tell it; the first that does is believed.
        follow: gives the value once the places of a stage have spoken, where it depends on other options. It is called
            with what the stage told, the values before the stage, and the values so far.
    """

    name: str
    order: tuple[str, ...]
    follow: Callable[[dict[str, Value], dict[str, Value], dict[str, Value]], Value | None] | None = None


# Files beside the weights describe the input as a whole, so that the command line speaks after they have been merged.
_STAGES = ((ARCHITECTURE, LIBRARY), (LABELS_FILE, CHECKPOINT, CONFIG, PROCESSOR), (COMMAND_LINE,))


def resolve(told: Told) -> dict[str, Value]:
    """The value of every option that any place tells, with its source.

    Raises:
        InputError: if what the places tell contradicts each other.
    """
    values: dict[str, Value] = {}
    for stage in _STAGES:
        here: dict[str, Value] = {}
        for option in OPTIONS:
            source = next((p for p in option.order if p in stage and option.name in told.get(p, {})), None)
            if source is not None:
                here[option.name] = Value(told[source][option.name], source)
        before = dict(values)
        for option in OPTIONS:
            if option.name in here:
                values[option.name] = here[option.name]
            if option.follow is not None and (followed := option.follow(here, before, values)) is not None:
                values[option.name] = followed
    return values


def resolve_preprocess(default: PreprocessSpec, options: InputOptions) -> PreprocessSpec:
    """An input contract with the user's options put in, where no weights take part.

    Raises:
        InputError: if they contradict each other.
    """
    given = {name: value for name, value in options._asdict().items() if value is not None}
    return preprocess_of(resolve({ARCHITECTURE: tell_architecture(default), COMMAND_LINE: given}))


def preprocess_of(values: Mapping[str, Value]) -> PreprocessSpec:
    """The input contract.

    Raises:
        InputError: naming the field, if a value is not possible.
    """
    return PreprocessSpec(**{name: values[name].value for name in INPUT_FIELDS if name in values})


def contract_of(values: Mapping[str, Value], options: GraphOptions) -> Contract:
    """The contract: input, task, classes and labels, with the graph's output and batch as asked for.

    Raises:
        InputError: if the thresholds or labels do not fit the task.
    """
    return Contract(
        task=values["task"].value,
        num_classes=values["num_classes"].value,
        labels=values["labels"].value if "labels" in values else None,
        thresholds=values["threshold"].value if "threshold" in values else None,
        output="probabilities" if options.activation == "in-graph" else "logits",
        batch=options.batch,
        preprocess=preprocess_of(values),
    )


def sources_of(values: Mapping[str, Value], *names: str) -> dict[str, str]:
    """For the manifest: the place that told each of those options, where any did and the contract has it."""
    sources = {name: values[name].source for name in names if name in values}
    if "crop_offset" in sources and values["crop_offset"].value == "even":
        del sources["crop_offset"]
    return {name: COMMAND_LINE if source == LABELS_FILE else source for name, source in sources.items()}


def tell_command_line(config: ExportConfig) -> dict[str, Any]:
    """The options of the table that the user gave, but for the labels, which are in a file."""
    given = {o.name: getattr(config, o.name, None) for o in OPTIONS if COMMAND_LINE in o.order and o.name != "labels"}
    return {name: value for name, value in given.items() if value is not None}


def tell_architecture(preprocess: PreprocessSpec, **others: Any) -> dict[str, Any]:
    """The defaults: an input contract, a multi-class task, and whatever else the architecture says."""
    told = {name: getattr(preprocess, name) for name in INPUT_FIELDS if name != "pad_color"}
    # None is for bundles of EdgePort 0.1, which heed nothing that an image file says of its values.
    return told | {"bits": preprocess.bits or MAX_BITS, "task": "multiclass"} | others


_Values: TypeAlias = dict[str, Value]


def _color(here: _Values, _before: _Values, values: _Values) -> Value | None:
    """``--channels`` alone chooses grey or colours, and alpha."""
    if "channels" not in here:
        return None
    channels, color = here["channels"].value, values["color"].value
    if "color" in here:
        if NUM_CHANNELS[color] != channels:
            raise InputError(f"--color {color} contradicts --channels {channels}")
        return None
    changed = color if NUM_CHANNELS[color] == channels else _COLORS[channels]
    return Value(changed, here["channels"].source)


_COLORS: dict[int, Color] = {1: "grey", 2: "la", 3: "rgb", 4: "rgba"}


def _per_channel(name: str) -> Callable[[_Values, _Values, _Values], Value | None]:
    """One value per channel: grey takes the average over the colours; three colours repeat the grey value.

    Nobody can guess that of an alpha channel, except where those of the colours are the same.
    """

    def follow(here: _Values, _before: _Values, values: _Values) -> Value | None:
        told, source = values[name]
        color = values["color"].value
        num_channels = NUM_CHANNELS[color]
        # What the user gives is taken as it is, and refused if it does not fit.
        if len(told) == num_channels or (name in here and source == COMMAND_LINE):
            return None
        if {2, 4} & {num_channels, len(told)} and (len(told) == 1 or len(set(told)) > 1):
            raise InputError(f"--{name} is missing; {color} images need {num_channels} values, one per channel")
        return Value((round(sum(told) / len(told), 6),) * num_channels, source)

    return follow


def _scale(here: _Values, before: _Values, _values: _Values) -> Value | None:
    """Pixels up to 255 cannot be normalized by a mean and deviation that were meant for pixels up to 1."""
    if "scale" not in here or here["scale"] != ("byte", COMMAND_LINE) or {"mean", "std"} <= set(here):
        return None
    if any(before["mean"].value) or set(before["std"].value) != {1.0}:
        raise InputError("--scale byte needs --mean and --std, in pixel values (0 to 255)")
    return None


def _resize_size(here: _Values, before: _Values, values: _Values) -> Value | None:
    """The side after the resize keeps its ratio to the side of the input, or follows ``--crop-pct``."""
    moved = next((here[name] for name in ("resize", "image_size", "crop_pct") if name in here), None)
    if "resize_size" in here or moved is None:
        return None
    resize, size = values["resize"].value, values["image_size"].value
    crop_pct = here["crop_pct"].value if "crop_pct" in here else None
    if resize in ("none", "pad"):
        if crop_pct not in (None, 1.0):
            raise InputError(f"--crop-pct requires a resize with a crop, but --resize is {resize}")
        return Value(size, moved.source)
    sides = sides_of(size)
    if crop_pct is not None:
        return Value(as_size(*(_floor(side / crop_pct) for side in sides)), moved.source)  # as timm computes it
    if resize != before["resize"].value:
        return Value(size, moved.source)
    ratios = zip(sides, sides_of(before["resize_size"].value), sides_of(before["image_size"].value), strict=True)
    return Value(as_size(*(math.floor(side * old / whole) for side, old, whole in ratios)), moved.source)


def _floor(side: float) -> int:
    """Round down, but for what only the rounding of floats keeps below a whole number: 64 / (64 / 93) is 92.99..."""
    return round(side) if math.isclose(side, round(side), rel_tol=1e-12) else math.floor(side)


def _pad_color(here: _Values, _before: _Values, values: _Values) -> Value | None:
    """One value per channel, for ``pad`` alone; by default detectors' grey, and opaque."""
    color, resize = values["color"].value, values["resize"]
    if resize.value != "pad":
        if "pad_color" in here:
            raise InputError(f"--pad-color is for --resize pad, but --resize is {resize.value}; omit one of them")
        return None
    num_channels = NUM_CHANNELS[color]
    if "pad_color" not in here:
        colours = (PAD_LEVEL,) * num_channels
        return Value((*colours[:-1], _OPAQUE) if color in ("rgba", "la") else colours, ARCHITECTURE)
    told, source = here["pad_color"]
    return Value(told * num_channels, source) if len(told) == 1 else None


def _threshold(here: _Values, _before: _Values, values: _Values) -> Value | None:
    """One half, where the task decides by thresholds alone."""
    if "threshold" in here:
        return None
    if values["task"].value == "multiclass":
        values.pop("threshold", None)  # of another task that a file told, and the command line took back
        return None
    return values.get("threshold") or Value((0.5,), ARCHITECTURE)


_BESIDE = (PROCESSOR, CONFIG, CHECKPOINT)
_OF_INPUT = (COMMAND_LINE, *_BESIDE, LIBRARY, ARCHITECTURE)
# A published checkpoint is known by its digest, which says more than a file beside it.
_OF_NETWORK = (COMMAND_LINE, CHECKPOINT, CONFIG, ARCHITECTURE)

# An option stands after those that it follows.
OPTIONS: tuple[Option, ...] = (
    Option("task", (COMMAND_LINE, CONFIG, ARCHITECTURE)),
    Option("threshold", (COMMAND_LINE,), _threshold),
    Option("channels", (COMMAND_LINE,)),
    Option("crop_pct", (COMMAND_LINE,)),
    Option("color", _OF_INPUT, _color),
    Option("resize", _OF_INPUT),
    Option("interpolation", _OF_INPUT),
    Option("image_size", _OF_INPUT),
    Option("scale", _OF_INPUT, _scale),
    Option("mean", _OF_INPUT, _per_channel("mean")),
    Option("std", _OF_INPUT, _per_channel("std")),
    Option("bits", _OF_INPUT),
    Option("pad_color", (COMMAND_LINE,), _pad_color),
    Option("crop_offset", (*_BESIDE, LIBRARY, ARCHITECTURE)),
    Option("resize_size", (*_BESIDE, LIBRARY, ARCHITECTURE), _resize_size),
    Option("num_classes", (COMMAND_LINE, CHECKPOINT, LABELS_FILE, LIBRARY, ARCHITECTURE)),
    Option("labels", (COMMAND_LINE, CONFIG, LIBRARY)),
    Option("positions", _OF_NETWORK),
    Option("pooling", _OF_NETWORK),
    Option("transform_input", _OF_NETWORK),
)
