"""The contract of what is exported: the options, over what the weights and the architecture tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeport_export.source.sidecar import per_channel
from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.errors import ExportError, InputError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export.config import ExportConfig
    from edgeport_runtime.pixels.preprocess import Resize

__all__ = ["make_contract", "read_labels", "resolve_preprocess"]

_MAX_LABELS_BYTES = 16 * 2**20
_DEFAULT_THRESHOLD = 0.5


def make_contract(
    config: ExportConfig, *, num_classes: int, labels: tuple[str, ...] | None, preprocess: PreprocessSpec
) -> Contract:
    """The contract with the options' task, thresholds and batch.

    Raises:
        ExportError: if there is another number of labels than classes.
        InputError: if the thresholds do not fit the task.
    """
    if labels is not None and len(labels) != num_classes:
        raise ExportError(f"{config.labels} holds {len(labels)} labels, but the model has {num_classes} classes")
    task = config.task or "multiclass"
    thresholds = config.threshold
    if thresholds is None and task != "multiclass":
        thresholds = (_DEFAULT_THRESHOLD,)
    return Contract(
        task=task,
        num_classes=num_classes,
        labels=labels,
        thresholds=thresholds,
        output="probabilities" if config.activation == "in-graph" else "logits",
        batch=config.batch,
        preprocess=preprocess,
    )


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


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels from a text file, one a line.

    Raises:
        ExportError: if it cannot be read, or a line is empty.
    """
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
