"""What a user can ask of an export, and its resolution into a module with an input contract."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from edgeport_export.processor import CONFIG
from edgeport_export.sidecar import (
    ARCHITECTURE,
    CHECKPOINT,
    COMMAND_LINE,
    Defaults,
    defaults_beside,
    labels_beside,
    per_channel,
    training_of,
    weights_entry,
)
from edgeport_models import ARCHITECTURES
from edgeport_models.tasks import activation
from edgeport_models.weights import init_random, read_checkpoint
from edgeport_runtime.contract import TASKS, Contract, Task
from edgeport_runtime.errors import ExportError, InputError, WeightsError
from edgeport_runtime.preprocess import Color, Interpolation, PreprocessSpec, Resize, Scale

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_models import ModelSpec
    from edgeport_models.weights import Checkpoint

__all__ = [
    "MAX_OPSET",
    "MIN_OPSET",
    "RANDOM_NOTE",
    "ExportConfig",
    "Subject",
    "find_spec",
    "make_contract",
    "make_subject",
    "read_labels",
    "resolve",
    "resolve_preprocess",
]

MIN_OPSET, MAX_OPSET = 18, 23
_MAX_LABELS_BYTES = 16 * 2**20
_DEFAULT_THRESHOLD = 0.5
RANDOM_NOTE = "random weights: parity is proven, predictions mean nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """An export. Fields left at None take the architecture's or the checkpoint's value.

    Attributes:
        architecture: a name of ``edgeport_models.ARCHITECTURES``, or a module of the user's own:
            ``path/to/file.py:factory`` or ``package.module:factory``, called without arguments. Where a module is
            passed to ``export`` this is only what the manifest calls it; None takes the name of its class.
        output: the bundle's folder; its parents are made.
        weights: checkpoint: a file, a folder in the Hugging Face layout, or ``hf://OWNER/NAME[@REVISION]``, or the name
            of weights that EdgePort ships (``digits``); None draws random weights from ``seed``.
        sum_channels: sum the checkpoint's first layer over its three input channels, for one channel.
        labels: text file, one label a line, in the order of the classes.
        num_classes: else from the checkpoint's head, the labels, or the architecture; 2 for ``binary``.
        task: what the logits mean; None takes the task that the weights were trained for, or ``multiclass``.
        threshold: probability from which on a class is decided, for ``binary`` (one value) and ``multilabel`` (one, or
            one a class); None takes 0.5.
        activation: ``in-graph`` puts the task's softmax or sigmoid into the graph, whose output is then probabilities;
            ``runtime`` leaves it to the runtime.
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

    architecture: str | None = None
    output: Path
    weights: Path | str | None = None
    sum_channels: bool = False
    labels: Path | None = None
    num_classes: int | None = None
    task: Task | None = None
    threshold: tuple[float, ...] | None = None
    activation: Literal["runtime", "in-graph"] = "runtime"
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
        for name, choices in (("task", (None, *TASKS)), ("activation", ("runtime", "in-graph"))):
            if getattr(self, name) not in choices:
                known = ", ".join(choice for choice in choices if choice is not None)
                raise InputError(f"{name} is {getattr(self, name)!r}; choose one of {known}")
        is_multiclass = self.task == "multiclass" or (self.task is None and self.weights is None)
        if self.threshold is not None and is_multiclass:
            raise InputError("threshold is for the tasks binary and multilabel; a multiclass model decides by top-1")
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
        name: of the architecture.
        source: where it was published, or where its module comes from.
        module: the original that every stage is compared with; its outputs are the contract's.
        contract: input, task, labels.
        weights: the manifest's entry on where the weights came from.
        sources: of each value of the contract, what gave it.
    """

    name: str
    source: str
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
    spec = find_spec(config.architecture or "")
    checkpoint = None if config.weights is None else read_checkpoint(config.weights, architecture=spec.name)
    defaults = Defaults(preprocess=spec.preprocess)
    if checkpoint is not None:
        defaults = defaults_beside(spec.preprocess, checkpoint, config)
        config = replace(config, task=config.task or training_of(checkpoint, spec.name))
    preprocess = resolve_preprocess(defaults.preprocess, config)
    classes = _resolve_classes(config, spec, checkpoint)
    contract = make_contract(config, num_classes=classes.number, labels=classes.labels, preprocess=preprocess)
    channels, size = preprocess.num_channels, preprocess.image_size
    torch.manual_seed(config.seed)
    try:
        module = spec.build(num_classes=contract.num_outputs, in_channels=channels, image_size=size)
    except ValueError as error:
        raise InputError(f"{spec.name}: {error}") from None
    if checkpoint is None:
        init_random(module, head=spec.head, input_shape=(channels, size, size), seed=config.seed)
        weights: dict[str, Any] = {"source": "random", "seed": config.seed, "note": RANDOM_NOTE}
    else:
        notes = checkpoint.fill(module, spec=spec, image_size=size, add_channels=config.sum_channels)
        weights = weights_entry(checkpoint.source, layout=checkpoint.layout, notes=notes)
    return make_subject(
        module,
        contract,
        name=spec.name,
        source=spec.source,
        weights=weights,
        sources=defaults.sources_with(config) | classes.sources,
    )


def make_subject(
    module: nn.Module, contract: Contract, *, name: str, source: str, weights: dict[str, Any], sources: dict[str, str]
) -> Subject:
    """The module in evaluation mode, with its activation where the contract's outputs are probabilities."""
    if contract.output == "probabilities":
        module = nn.Sequential(module, activation(contract.task))
    module = module.eval().requires_grad_(False)
    return Subject(name=name, source=source, module=module, contract=contract, weights=weights, sources=sources)


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


class _Classes(NamedTuple):
    number: int
    labels: tuple[str, ...] | None
    sources: dict[str, str]


def _resolve_classes(config: ExportConfig, spec: ModelSpec, checkpoint: Checkpoint | None) -> _Classes:
    labels = None if config.labels is None else read_labels(config.labels)
    sources = {} if labels is None else {"labels": COMMAND_LINE}
    rows = None if checkpoint is None else checkpoint.num_classes(spec)
    if config.task == "binary":
        _check_binary(config, rows)
        count, sources["num_classes"] = 2, COMMAND_LINE
    elif config.num_classes is not None:
        count, sources["num_classes"] = config.num_classes, COMMAND_LINE
    elif rows is not None:
        count, sources["num_classes"] = rows, CHECKPOINT
    elif labels is not None:
        count, sources["num_classes"] = len(labels), COMMAND_LINE
    else:
        count, sources["num_classes"] = spec.num_classes, ARCHITECTURE
    if labels is None and checkpoint is not None:
        labels = labels_beside(checkpoint, count)
        if labels is not None:
            sources["labels"] = CONFIG
    return _Classes(count, labels, sources)


def _check_binary(config: ExportConfig, rows: int | None) -> None:
    if config.num_classes not in (None, 2):
        raise InputError(f"num_classes is {config.num_classes}, but a binary task has 2")
    if rows not in (None, 1):
        raise WeightsError(
            f"weights {config.weights} have a head of {rows} rows, but a binary task has one logit; "
            "two rows are --task multiclass"
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
