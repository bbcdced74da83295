"""The options of an export."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from edgeport_export.quantize.histogram import METHODS, Method
from edgeport_export.quantize.recipes import SCHEMES, TARGETS, Scheme, Target
from edgeport_runtime.accuracy.matching import Match
from edgeport_runtime.bundle.contract import TASKS, Task
from edgeport_runtime.engine.foreign import LAYOUTS
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.depth import MAX_BITS, MIN_BITS
from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from edgeport_models import ModelSpec
    from edgeport_runtime.engine.foreign import Layout
    from edgeport_runtime.pixels.preprocess import Color, Interpolation, Resize, Scale, Size

__all__ = [
    "DEFAULT_OPSET",
    "KINDS",
    "MAX_OPSET",
    "MIN_OPSET",
    "OPTIONS",
    "BundleOptions",
    "ExportConfig",
    "GraphOptions",
    "InputOptions",
    "Kind",
    "Library",
    "Place",
    "Pooling",
    "Positions",
    "QuantizeOptions",
    "Script",
    "find_spec",
]

Kind: TypeAlias = Literal["int8", "fp16", "int8-weights"]
Place: TypeAlias = Literal["runtime", "in-graph"]
Library: TypeAlias = Literal["timm", "torchvision"]
Script: TypeAlias = Literal["c"]
Positions: TypeAlias = Literal["learned", "sinusoidal"]
Pooling: TypeAlias = Literal["token", "mean"]

MIN_OPSET, DEFAULT_OPSET, MAX_OPSET = 13, 20, 23
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Variants that an export can make besides ``fp32``."""
OPTIONS = ("positions", "pooling", "transform_input")
"""An architecture's options that an export can set; each is a field of ExportConfig."""


class InputOptions(NamedTuple):
    """Options of the input contract; ``ExportConfig`` describes the fields."""

    channels: int | None
    image_size: Size | None
    color: Color | None
    scale: Scale | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resize: Resize | None
    interpolation: Interpolation | None
    crop_pct: float | None
    bits: int | None
    pad_color: tuple[int, ...] | None


class GraphOptions(NamedTuple):
    """Options of the graph; ``ExportConfig`` describes the fields."""

    opset: int
    batch: int | None
    activation: Place


class QuantizeOptions(NamedTuple):
    """Options of the quantized variants; ``ExportConfig`` describes the fields."""

    quantize: tuple[str, ...] | None
    target: tuple[Target, ...]
    scheme: Scheme | None
    calibration: Path | str | None
    calibration_method: Method | None
    max_drop: float | None
    min_agreement: float
    eval: Path | None
    match: Match
    explain: bool
    golden: Path | None
    seed: int


class BundleOptions(NamedTuple):
    """Options of the bundle's folder; ``ExportConfig`` describes the fields."""

    output: Path
    force: bool
    preprocess: Place
    script: Script | None
    ort: bool
    with_runtime: bool
    evidence: bool
    features: bool

    @property
    def has_in_graph(self) -> bool:
        """Whether variants with their preprocessing in the graph are written; the C program needs them."""
        return self.preprocess == "in-graph" or self.script is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """What to export, and how. A field that is None takes the checkpoint's or the architecture's value.

    Attributes:
        architecture: a name of ``edgeport_models.ARCHITECTURES``; a network of an installed library, ``timm:NAME`` or
            ``torchvision:NAME``; an image classifier of transformers or timm with its weights, ``hf:FOLDER`` or
            ``hf://OWNER/NAME[@REVISION]``; or a module of the user's own, ``path/to/file.py:factory`` or
            ``package.module:factory``, called without arguments, or with ``num_classes`` where it takes that and it is
            given; or an ``.onnx`` file of somebody else (``path/to/net.onnx``), which is then what every stage is
            compared with. If a module is passed to ``export``, this only names it in the manifest; None takes the name
            of its class.
        output: the bundle's folder; its parents are created.
        weights: checkpoint: a file, a folder in the Hugging Face layout, or ``hf://OWNER/NAME[@REVISION]``, or the name
            of weights that EdgePort ships (``digits``); None draws random weights from ``seed``.
        weights_key: the file's entry that holds the weights, such as ``model_ema``; None follows training scripts.
        sum_channels: sum the checkpoint's first layer over its three input channels, for one channel.
        labels: file of the labels: one per line in the order of the classes, ``.json`` or ``.csv``.
        num_classes: None takes it from the checkpoint's head, the labels, or the architecture; 2 for ``binary``.
        task: what the logits mean; None takes the task that the weights were trained for, or ``multiclass``.
        threshold: decision threshold, a probability, for ``binary`` (one value) and ``multilabel`` (one value, or one
            per class); None takes 0.5. For ``multiclass`` one value, below which nothing is decided; None takes none.
        output_name: the tensor to export, where a module of the user's own gives several: its key, field or index, with
            dots where they are nested. None takes the one named ``logits``, or the only one of shape (B, K).
        input_name: of an ``.onnx`` file, the input that takes the images; None takes the only one that is read.
        input_layout: of an ``.onnx`` file, ``nchw`` or ``nhwc``; None tells it by the input's shape.
        reference: ``.npz`` with what the framework that an ``.onnx`` file comes from gives: ``outputs`` (N, K), for
            ``inputs`` as the file takes them or ``images`` (uint8, N H W 3). The file must give the same.
        activation: ``in-graph`` puts the task's softmax or sigmoid into the graph, whose output is then probabilities;
            ``runtime`` leaves it to the runtime.
        preprocess: ``in-graph`` also writes each variant with its preprocessing in the graph, for languages and
            browsers that have no EdgePort; ``runtime`` leaves it to the runtime alone.
        script: ``c`` writes a C program beside ``infer.py``, which runs the variants with their preprocessing.
        ort: also write each model in ONNX Runtime's own format, with the list of operators for a reduced build.
        with_runtime: also write the runtime as a wheel, for devices without a package index.
        evidence: also write each variant with the region that speaks for an answer, for ``run-model heatmap``.
        features: also write each variant up to its last linear layer, for ``Classifier.features``.
        positions: position encoding of a ViT, ``learned`` or ``sinusoidal``.
        pooling: what a ViT classifies: the class ``token``, or the ``mean`` of all patches.
        transform_input: for GoogLeNet: torchvision's change from ImageNet's normalization to 0.5 and 0.5.
        channels: number of input channels: 1 is grey, 2 grey and alpha, 3 colours, 4 colours and alpha; those with
            alpha take any arrays of as many channels.
        image_size: side of the network's input in pixels, or its height and width.
        color: channel order of the input.
        scale: ``unit`` for pixels from 0 to 1, ``byte`` for 0 to 255.
        mean: subtracted after scaling, one value per channel.
        std: divided by after that, one value per channel.
        resize: how an image is resized before the crop.
        interpolation: resampling filter of the resize.
        crop_pct: part of the resized side that the centre crop keeps, above 0 and at most 1.
        bits: of images with more than 8 bits per value, how many are in use where the file does not say, 9 to 16; None
            takes 16.
        pad_color: with ``resize`` of ``pad``, what is beside the image: one value of 0 to 255, or one per channel. None
            takes the 114 of detectors, and opaque.
        opset: ONNX operator set, 13 to 23.
        batch: fixed batch size; None accepts any.
        golden: folder of images for the parity chain; None makes synthetic ones from ``seed``.
        quantize: variants besides ``fp32``: any of ``int8``, ``fp16``, ``int8-weights``; () for none. None makes
            ``int8`` where nothing more is needed: with a dynamic scheme, ``calibration``, or random weights.
        target: what int8 variants are made for, one variant each.
        scheme: ``static`` or ``dynamic``; None takes the recipe's.
        calibration: folder of images for static schemes, without labels, or ``builtin`` for synthetic ones.
        calibration_method: how ranges are chosen; None takes the method with the smallest error on the calibration
            images.
        max_drop: budget of an int8 variant in points of top-1 or macro F1 on ``eval``; without ``eval``, in points of
            disagreement with the float model on ``calibration``. Layers return to float until it is met.
        min_agreement: fraction of the float model's decisions that an int8 or fp16 variant without a budget must keep,
            where at least 100 images of the user's can tell (labelled, of calibration, or golden).
        eval: labelled images, one folder per class or a CSV: the accuracy of each variant for the report, and for
            ``max_drop``.
        match: how folders of ``eval`` become classes: ``auto`` by the labels' names or by number, ``order`` by sorted
            order.
        explain: rank the layers by what they cost.
        thumbnails: the report shows images of the user's: the golden one, and those that are decided otherwise.
        seed: seed of everything random.
        force: replace an existing bundle.
    """

    architecture: str | None = None
    output: Path
    weights: Path | str | None = None
    weights_key: str | None = None
    sum_channels: bool = False
    labels: Path | None = None
    num_classes: int | None = None
    task: Task | None = None
    threshold: tuple[float, ...] | None = None
    output_name: str | None = None
    input_name: str | None = None
    input_layout: Layout | None = None
    reference: Path | None = None
    activation: Place = "runtime"
    preprocess: Place = "runtime"
    script: Script | None = None
    ort: bool = False
    with_runtime: bool = False
    evidence: bool = False
    features: bool = False
    positions: Positions | None = None
    pooling: Pooling | None = None
    transform_input: bool | None = None
    channels: int | None = None
    image_size: Size | None = None
    color: Color | None = None
    scale: Scale | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    crop_pct: float | None = None
    bits: int | None = None
    pad_color: tuple[int, ...] | None = None
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    golden: Path | None = None
    quantize: tuple[str, ...] | None = None
    target: tuple[Target, ...] = ("cpu",)
    scheme: Scheme | None = None
    calibration: Path | str | None = None
    calibration_method: Method | None = None
    max_drop: float | None = None
    min_agreement: float = 0.98
    eval: Path | None = None
    match: Match = "auto"
    explain: bool = False
    thumbnails: bool = True
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_classes", 1, 1_000_000),
            ("opset", MIN_OPSET, MAX_OPSET),
            ("batch", 1, 1024),
            ("seed", 0, 2**32 - 1),
            ("bits", MIN_BITS, MAX_BITS),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be from {low} to {high}")
        size = None if self.image_size is None else sides_of(self.image_size)
        if size is not None and not all(1 <= side <= 4096 for side in size):
            raise InputError(f"--image-size is {_told(self.image_size)}; it must be from 1 to 4096")
        if size is not None and len(size) != 2:
            raise InputError(f"--image-size is {_told(size)}; give one side, or the height and the width")
        for name, choices in (
            ("task", (None, *TASKS)),
            ("activation", get_args(Place)),
            ("preprocess", get_args(Place)),
            ("script", (None, *get_args(Script))),
            ("match", get_args(Match)),
            ("input_layout", (None, *LAYOUTS)),
        ):
            if getattr(self, name) not in choices:
                known = ", ".join(choice for choice in choices if choice is not None)
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)!r}; choose one of {known}")
        if self.bundle_options.has_in_graph and self.batch not in (None, 1):
            raise InputError("preprocessing in the graph takes one image per call; omit --batch, or set --batch 1")
        self._check_quantization()
        if not all(0 < value < 1 for value in self.threshold or ()):
            raise InputError(f"--threshold is {self.threshold}; every value must be above 0 and below 1")
        if self.channels not in (None, 1, 2, 3, 4):
            raise InputError(f"--channels is {self.channels}; it must be 1 (grey), 2 (la), 3 (rgb or bgr) or 4 (rgba)")
        if not all(0 <= value <= 255 for value in self.pad_color or ()):
            raise InputError(f"--pad-color is {_told(self.pad_color)}; every value must be from 0 to 255")
        if self.weights_key is not None and self.weights is None:
            raise InputError("--weights-key chooses among the entries of a checkpoint; it needs --weights")
        if self.sum_channels and (self.weights is None or self.channels != 1):
            raise InputError("--sum-channels reduces a checkpoint to one channel: it needs --weights and --channels 1")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f"--crop-pct is {self.crop_pct}; it must be above 0 and at most 1")

    def _check_quantization(self) -> None:
        for name, known in (("quantize", KINDS), ("target", TARGETS)):
            values = getattr(self, name) or ()
            for value in values:
                if value not in known:
                    raise InputError(f"--{name} is {value!r}; choose from {', '.join(known)}")
            if len(set(values)) != len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise InputError(f"--{name} lists {twice} more than once")
        for name, choices in (("scheme", SCHEMES), ("calibration_method", METHODS)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"--{name.replace('_', '-')} is {value!r}; choose one of {', '.join(choices)}")
        if not self.target:
            raise InputError(f"--target is empty; choose from {', '.join(TARGETS)}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise InputError(f"--max-drop is {self.max_drop}; it must be from 0 to 100 points")
        if not 0 <= self.min_agreement <= 1:
            raise InputError(f"--min-agreement is {self.min_agreement}; it must be from 0 to 1")
        if self.match != "auto" and self.eval is None:
            raise InputError(f"--match {self.match} is for the folders of --eval; name them with --eval DATA")
        is_quantized = self.quantize is None or bool({"int8", "int8-weights"} & set(self.quantize))
        for name in ("scheme", "calibration_method", "max_drop", "explain"):
            if getattr(self, name) not in (None, False) and not is_quantized:
                raise InputError(f"--{name.replace('_', '-')} is for int8 variants, but --quantize lists none")

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
        """The architecture's options that were set."""
        asked = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in asked.items() if value is not None}


def _told(values: object) -> str:
    """As on the command line."""
    return " ".join(map(str, values)) if isinstance(values, tuple) else str(values)


_View = TypeVar("_View", InputOptions, GraphOptions, QuantizeOptions, BundleOptions)


def _view(kind: type[_View], config: ExportConfig) -> _View:
    return kind(**{name: getattr(config, name) for name in kind._fields})


def find_spec(name: str) -> ModelSpec:
    """The specification of an architecture.

    Raises:
        InputError: with the closest names, if no architecture has that name.
    """
    from edgeport_models import ARCHITECTURES  # brings PyTorch, which takes seconds

    spec = ARCHITECTURES.get(name)
    if spec is None:
        if name.endswith(".py"):
            raise InputError(f"{name!r} names no factory; give {name}:NAME, a function that returns your network")
        if Path(name).is_dir():
            raise InputError(
                f"{name} is a folder; hf:{name} exports a network of transformers or timm that was saved in it, and "
                "run-model runs a bundle"
            )
        closest = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=3, cutoff=0.4)
        hint = f"closest: {', '.join(closest)}; " if closest else ""
        raise InputError(
            f"unknown architecture {name!r}; {hint}export-model --list shows all; a library's network is "
            f"{', '.join(f'{library}:NAME' for library in get_args(Library))} or hf:FOLDER, a module of your own "
            "file.py:factory"
        )
    return spec
