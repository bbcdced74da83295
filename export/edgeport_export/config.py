"""What a user can ask of an export, and its resolution into a module with an input contract."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from edgeport_export.processor import CONFIG
from edgeport_export.sidecar import (
    ARCHITECTURE,
    CHECKPOINT,
    COMMAND_LINE,
    Defaults,
    defaults_beside,
    labels_beside,
    per_channel,
    weights_entry,
)
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import init_random, read_checkpoint
from edgeport_runtime.errors import ExportError, InputError
from edgeport_runtime.manifest import Contract
from edgeport_runtime.preprocess import Color, Interpolation, PreprocessSpec, Resize, Scale

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from edgeport_models import ModelSpec
    from edgeport_models.weights import Checkpoint

__all__ = ["MAX_OPSET", "MIN_OPSET", "RANDOM_NOTE", "ExportConfig", "Subject", "find_spec", "resolve"]

MIN_OPSET, MAX_OPSET = 18, 23
_MAX_LABELS_BYTES = 16 * 2**20
RANDOM_NOTE = "random weights: parity is proven, predictions mean nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """An export. Fields left at None take the architecture's or the checkpoint's value.

    Attributes:
        architecture: a name of ``edgeport_models.ARCHITECTURES``.
        output: the bundle's folder; its parents are made.
        weights: checkpoint: a file, a folder in the Hugging Face layout, or ``hf://OWNER/NAME[@REVISION]``; None draws
            random weights from ``seed``.
        sum_channels: sum the checkpoint's first layer over its three input channels, for one channel.
        labels: text file, one label a line, in the order of the classes.
        num_classes: K, else from the checkpoint's head, the labels, or the architecture.
        channels: 1 or 3.
        image_size: side of the network's input in pixels.
        color: channel order of the input.
        scale: ``unit`` for 0 to 1, ``byte`` for 0 to 255.
        mean: subtracted after scaling, one value a channel.
        std: divides after that, one value a channel.
        resize: how an image is brought to size.
        interpolation: resampling filter.
        crop_pct: part of the resized side that the centre crop keeps, above 0 and at most 1.
        opset: ONNX operator set, 18 to 23.
        batch: fixed batch size, None for any.
        golden: folder of images for the parity chain; None makes synthetic ones from ``seed``.
        seed: of everything random.
        force: replace a bundle that is already there.
    """

    architecture: str
    output: Path
    weights: Path | str | None = None
    sum_channels: bool = False
    labels: Path | None = None
    num_classes: int | None = None
    channels: int | None = None
    image_size: int | None = None
    color: Color | None = None
    scale: Scale | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    crop_pct: float | None = None
    opset: int = 20
    batch: int | None = None
    golden: Path | None = None
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_classes", 1, 1_000_000),
            ("image_size", 1, 4096),
            ("opset", MIN_OPSET, MAX_OPSET),
            ("batch", 1, 1024),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value}; it is from {low} to {high}")
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels is {self.channels}; images have 1 (grey) or 3 (rgb or bgr)")
        if self.sum_channels and (self.weights is None or self.channels != 1):
            raise InputError("--sum-channels changes a checkpoint to one channel: it needs --weights and --channels 1")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct is {self.crop_pct}; it is above 0 and at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is exported: the module with its weights in float32 and evaluation mode, and its contract.

    Attributes:
        spec: the architecture.
        module: the original that every stage is compared with.
        contract: input, task, labels.
        weights: the manifest's entry on where the weights came from.
        sources: of each value of the contract, what gave it.
    """

    spec: ModelSpec
    module: nn.Module = field(repr=False)
    contract: Contract
    weights: dict[str, Any]
    sources: dict[str, str]


def find_spec(name: str) -> ModelSpec:
    """The specification of an architecture.

    Raises:
        InputError: listing the closest names, if there is none of that name.
    """
    spec = ARCHITECTURES.get(name)
    if spec is None:
        closest = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=3, cutoff=0.4)
        hint = f"closest: {', '.join(closest)}; " if closest else ""
        raise InputError(f"unknown architecture {name!r}; {hint}all names: export-model --list")
    return spec


def resolve(config: ExportConfig) -> Subject:
    """Build the module, load or draw its weights, and settle its contract.

    Raises:
        InputError: if the options contradict each other or the architecture.
        WeightsError: if the checkpoint cannot be read or does not fit.
        ExportError: if the labels cannot be read.
    """
    spec = find_spec(config.architecture)
    checkpoint = None if config.weights is None else read_checkpoint(config.weights)
    defaults = Defaults(preprocess=spec.preprocess)
    if checkpoint is not None:
        defaults = defaults_beside(spec.preprocess, checkpoint, config)
    preprocess = resolve_preprocess(defaults.preprocess, config)
    classes = _resolve_classes(config, spec, checkpoint)
    channels, size = preprocess.num_channels, preprocess.image_size
    torch.manual_seed(config.seed)
    try:
        module = spec.build(num_classes=classes.number, in_channels=channels, image_size=size)
    except ValueError as error:
        raise InputError(f"{spec.name}: {error}") from None
    if checkpoint is None:
        init_random(module, head=spec.head, input_shape=(channels, size, size), seed=config.seed)
        weights: dict[str, Any] = {"source": "random", "seed": config.seed, "note": RANDOM_NOTE}
    else:
        notes = checkpoint.fill(module, spec=spec, image_size=size, add_channels=config.sum_channels)
        weights = weights_entry(checkpoint, notes)
    contract = Contract(
        task="multiclass", num_classes=classes.number, labels=classes.labels, batch=config.batch, preprocess=preprocess
    )
    return Subject(
        spec=spec,
        module=module.eval().requires_grad_(False),
        contract=contract,
        weights=weights,
        sources=defaults.sources_with(config) | classes.sources,
    )


class _Classes(NamedTuple):
    number: int
    labels: tuple[str, ...] | None
    sources: dict[str, str]


def _resolve_classes(config: ExportConfig, spec: ModelSpec, checkpoint: Checkpoint | None) -> _Classes:
    labels = None if config.labels is None else _read_labels(config.labels)
    sources = {} if labels is None else {"labels": COMMAND_LINE}
    count, sources["num_classes"] = config.num_classes, COMMAND_LINE
    if count is None and checkpoint is not None:
        count, sources["num_classes"] = checkpoint.num_classes(spec), CHECKPOINT
    if count is None and labels is not None:
        count, sources["num_classes"] = len(labels), COMMAND_LINE
    if count is None:
        count, sources["num_classes"] = spec.num_classes, ARCHITECTURE
    if labels is None and checkpoint is not None:
        labels = labels_beside(checkpoint, count)
        if labels is not None:
            sources["labels"] = CONFIG
    elif labels is not None and len(labels) != count:
        raise ExportError(f"{config.labels} holds {len(labels)} labels, but the model has {count} classes")
    return _Classes(count, labels, sources)


def resolve_preprocess(default: PreprocessSpec, config: ExportConfig) -> PreprocessSpec:
    """The architecture's input contract with the user's options put in.

    Raises:
        InputError: if they contradict each other.
    """
    channels = config.channels
    if channels is None:
        channels = default.num_channels if config.color is None else 1 if config.color == "grey" else 3
    color = config.color
    if color is None:
        color = "grey" if channels == 1 else "rgb" if default.color == "grey" else default.color
    if (color == "grey") != (channels == 1):
        raise InputError(f"--color {color} does not go with --channels {channels}")
    if config.scale == "byte" and (config.mean is None or config.std is None):
        raise InputError("--scale byte needs --mean and --std, in pixel values (0 to 255)")
    image_size = default.image_size if config.image_size is None else config.image_size
    resize = default.resize if config.resize is None else config.resize
    return PreprocessSpec(
        color=color,
        resize=resize,
        resize_size=_resize_size(default, config, resize=resize, image_size=image_size),
        interpolation=default.interpolation if config.interpolation is None else config.interpolation,
        image_size=image_size,
        scale=default.scale if config.scale is None else config.scale,
        mean=per_channel(default.mean, channels) if config.mean is None else config.mean,
        std=per_channel(default.std, channels) if config.std is None else config.std,
    )


def _resize_size(default: PreprocessSpec, config: ExportConfig, *, resize: Resize, image_size: int) -> int:
    if resize == "none":
        if config.crop_pct not in (None, 1.0):
            raise InputError("--crop-pct needs a resize, but --resize is none")
        return image_size
    if config.crop_pct is not None:
        return math.floor(image_size / config.crop_pct)  # as timm computes it
    if resize != default.resize:
        return image_size
    return math.floor(image_size * default.resize_size / default.image_size)


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > _MAX_LABELS_BYTES:
            raise ExportError(f"labels {path} is larger than {_MAX_LABELS_BYTES} bytes; give one label a line")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ExportError(f"labels {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ExportError(f"labels {path} is not UTF-8 text; give one label a line") from None
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        number = labels.index("") + 1 if labels else 1
        raise ExportError(f"labels {path}: line {number} is empty; give one label a line, in the order of the classes")
    return labels
