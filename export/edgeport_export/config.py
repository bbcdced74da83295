"""What a user can ask of an export."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from edgeport_export.quantize.histogram import METHODS, Method
from edgeport_export.quantize.recipes import SCHEMES, TARGETS, Scheme, Target
from edgeport_runtime.bundle.contract import TASKS, Task
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_models import ModelSpec
    from edgeport_runtime.pixels.preprocess import Color, Interpolation, Resize, Scale

__all__ = [
    "KINDS",
    "MAX_OPSET",
    "MIN_OPSET",
    "OPTIONS",
    "BundleOptions",
    "ExportConfig",
    "GraphOptions",
    "InputOptions",
    "Kind",
    "Place",
    "Pooling",
    "Positions",
    "QuantizeOptions",
    "Script",
    "find_spec",
]

Kind: TypeAlias = Literal["int8", "fp16", "int8-weights"]
Place: TypeAlias = Literal["runtime", "in-graph"]
Script: TypeAlias = Literal["c"]
Positions: TypeAlias = Literal["learned", "sinusoidal"]
Pooling: TypeAlias = Literal["token", "mean"]

MIN_OPSET, MAX_OPSET = 18, 23
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Variants that an export can make besides ``fp32``."""
OPTIONS = ("positions", "pooling", "transform_input")
"""Choices of an architecture that an export can ask for; each is a field of ExportConfig."""


class InputOptions(NamedTuple):
    """What an export asks of the input contract; fields as of :class:`ExportConfig`."""

    channels: int | None
    image_size: int | None
    color: Color | None
    scale: Scale | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resize: Resize | None
    interpolation: Interpolation | None
    crop_pct: float | None


class GraphOptions(NamedTuple):
    """What an export asks of the graph; fields as of :class:`ExportConfig`."""

    opset: int
    batch: int | None
    activation: Place


class QuantizeOptions(NamedTuple):
    """What an export asks of its quantized variants; fields as of :class:`ExportConfig`."""

    quantize: tuple[str, ...] | None
    target: tuple[Target, ...]
    scheme: Scheme | None
    calibration: Path | str | None
    calibration_method: Method | None
    max_drop: float | None
    eval: Path | None
    explain: bool
    golden: Path | None
    seed: int


class BundleOptions(NamedTuple):
    """What an export asks of the bundle's folder; fields as of :class:`ExportConfig`."""

    output: Path
    force: bool
    preprocess: Place
    script: Script | None
    ort: bool

    @property
    def has_in_graph(self) -> bool:
        """Whether there are variants with their preprocessing in the graph; the C program needs them."""
        return self.preprocess == "in-graph" or self.script is not None


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
        preprocess: ``in-graph`` writes each variant once more with its preprocessing in the graph, for languages and
            browsers that have no EdgePort; ``runtime`` leaves it to the runtime alone.
        script: ``c`` writes a C program beside ``infer.py``, which runs the variants with their preprocessing.
        ort: write each model once more in ONNX Runtime's own format, with the list of operators for a reduced build.
        positions: position encodings of a ViT, ``learned`` or ``sinusoidal``.
        pooling: of a ViT: from the class ``token``, or the ``mean`` of all patches.
        transform_input: of GoogLeNet: torchvision's change from ImageNet's normalization to 0.5 and 0.5.
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
        quantize: variants besides ``fp32``: any of ``int8``, ``fp16``, ``int8-weights``; () for none. None makes
            ``int8`` where that needs nothing more: a dynamic scheme, ``calibration``, or random weights.
        target: what int8 variants are for, one variant each.
        scheme: ``static`` or ``dynamic``; None takes the recipe's.
        calibration: folder of images for static schemes, without labels, or ``builtin`` for synthetic ones.
        calibration_method: how ranges are chosen; None takes the one that errs least on the calibration images.
        max_drop: budget of an int8 variant in points of top-1 or macro F1 on ``eval``, or without that of
            disagreement with the float model on ``calibration``. Layers return to float until it is met.
        eval: labelled images, a folder a class or a CSV, for ``max_drop``.
        explain: rank the layers by what they cost.
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
    activation: Place = "runtime"
    preprocess: Place = "runtime"
    script: Script | None = None
    ort: bool = False
    positions: Positions | None = None
    pooling: Pooling | None = None
    transform_input: bool | None = None
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
    quantize: tuple[str, ...] | None = None
    target: tuple[Target, ...] = ("cpu",)
    scheme: Scheme | None = None
    calibration: Path | str | None = None
    calibration_method: Method | None = None
    max_drop: float | None = None
    eval: Path | None = None
    explain: bool = False
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
        for name, choices in (
            ("task", (None, *TASKS)),
            ("activation", get_args(Place)),
            ("preprocess", get_args(Place)),
            ("script", (None, *get_args(Script))),
        ):
            if getattr(self, name) not in choices:
                known = ", ".join(choice for choice in choices if choice is not None)
                raise InputError(f"{name} is {getattr(self, name)!r}; choose one of {known}")
        if self.bundle_options.has_in_graph and self.batch not in (None, 1):
            raise InputError("preprocessing in the graph takes one image a call; leave out --batch, or give --batch 1")
        self._check_quantization()
        is_multiclass = self.task == "multiclass" or (self.task is None and self.weights is None)
        if self.threshold is not None and is_multiclass:
            raise InputError("threshold is for the tasks binary and multilabel; a multiclass model decides by top-1")
        if not all(0 < value < 1 for value in self.threshold or ()):
            raise InputError(f"threshold is {self.threshold}; probabilities are above 0 and below 1")
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels is {self.channels}; images have 1 (grey) or 3 (rgb or bgr)")
        if self.sum_channels and (self.weights is None or self.channels != 1):
            raise InputError("--sum-channels changes a checkpoint to one channel: it needs --weights and --channels 1")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct is {self.crop_pct}; it is above 0 and at most 1")

    def _check_quantization(self) -> None:
        for name, known in (("quantize", KINDS), ("target", TARGETS)):
            values = getattr(self, name) or ()
            for value in values:
                if value not in known:
                    raise InputError(f"{name} is {value!r}; choose of {', '.join(known)}")
            if len(set(values)) != len(values):
                raise InputError(f"{name} names {', '.join(values)}: one twice")
        for name, choices in (("scheme", SCHEMES), ("calibration_method", METHODS)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
        if not self.target:
            raise InputError(f"target is empty; choose of {', '.join(TARGETS)}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise InputError(f"max_drop is {self.max_drop}; it is in points, 0 to 100")
        if self.eval is not None and self.max_drop is None:
            raise InputError("--eval measures the loss for a budget: it needs --max-drop POINTS")
        is_quantized = self.quantize is None or bool({"int8", "int8-weights"} & set(self.quantize))
        for name in ("scheme", "calibration_method", "max_drop", "explain"):
            if getattr(self, name) not in (None, False) and not is_quantized:
                raise InputError(f"--{name.replace('_', '-')} is for int8 variants, and --quantize names none")

    @property
    def input_options(self) -> InputOptions:
        """The options of the input contract."""
        return _view(InputOptions, self)

    @property
    def graph_options(self) -> GraphOptions:
        """The options of the graph."""
        return _view(GraphOptions, self)

    @property
    def quantize_options(self) -> QuantizeOptions:
        """The options of the quantized variants."""
        return _view(QuantizeOptions, self)

    @property
    def bundle_options(self) -> BundleOptions:
        """The options of the bundle's folder."""
        return _view(BundleOptions, self)

    @property
    def options(self) -> dict[str, str | bool]:
        """The choices of the architecture that were asked for."""
        asked = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in asked.items() if value is not None}


_View = TypeVar("_View", InputOptions, GraphOptions, QuantizeOptions, BundleOptions)


def _view(kind: type[_View], config: ExportConfig) -> _View:
    return kind(**{name: getattr(config, name) for name in kind._fields})


def find_spec(name: str) -> ModelSpec:
    """The specification of an architecture.

    Raises:
        InputError: listing the closest names, if there is none of that name.
    """
    from edgeport_models import ARCHITECTURES  # brings PyTorch, which takes seconds

    spec = ARCHITECTURES.get(name)
    if spec is None:
        closest = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=3, cutoff=0.4)
        hint = f"closest: {', '.join(closest)}; " if closest else ""
        raise InputError(f"unknown architecture {name!r}; {hint}all names: export-model --list")
    return spec
