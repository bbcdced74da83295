"""The arguments of ``export-model``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from edgeport_export.config import (
    DEFAULT_OPSET,
    KINDS,
    MAX_OPSET,
    MIN_OPSET,
    Library,
    Place,
    Pooling,
    Positions,
    Script,
)
from edgeport_export.quantize.histogram import METHODS
from edgeport_export.quantize.recipes import SCHEMES, TARGETS
from edgeport_runtime.accuracy.matching import Match
from edgeport_runtime.bundle.contract import TASKS
from edgeport_runtime.commands.arguments import Parser, ShowVersion, add_verbosity, part
from edgeport_runtime.engine.foreign import LAYOUTS
from edgeport_runtime.pixels.preprocess import Color, Interpolation, Resize, Scale

__all__ = ["make_parser"]

_START = """\
export-model turns a PyTorch image classifier into a bundle for run-model. What most people need:

  export-model vit -o build/vit                                            a known network, random weights
  export-model resnet18 --weights best.pth --labels labels.txt -o build/mine         one that you trained
  export-model net.py:make --weights best.pth --image-size 224 -o build/mine         a module of your own

export-model --list shows the networks, export-model --help all options."""


def make_parser() -> Parser:
    """The parser of ``export-model``."""
    parser = Parser(
        prog="export-model",
        description="Turn a PyTorch image classifier into a bundle of ONNX graphs, each compared with PyTorch.",
        start=_START,
        examples=(
            "export-model lenet5 --weights digits -o build/digits",
            "export-model net.py:make --weights net.pth --labels labels.txt --image-size 32 -o build/net",
        ),
    )
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument(
        "architecture",
        metavar="ARCH",
        nargs="?",
        help="Name of the architecture (--list shows all); a network of an installed library, as timm:NAME or "
        "torchvision:NAME; an image classifier of transformers or timm with its weights, as hf:FOLDER or "
        "hf://OWNER/NAME[@REVISION]; your own model as path/to/file.py:factory or package.module:factory; or an .onnx "
        "file.",
    )
    parser.add_argument(
        "--list",
        nargs="?",
        const="edgeport",
        choices=("edgeport", *get_args(Library)),
        help="Show the architectures, or those of a library, and exit; ARCH then names a word that they must contain.",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="Folder to write the bundle to.")
    parser.add_argument("--force", action="store_true", help="Replace an existing bundle.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document instead of tables.")
    add_verbosity(parser, verbose="Also show each stage's seconds where that is no terminal, and each graph pass.")
    _add_model_options(parser.add_argument_group("model"))
    _add_input_options(parser.add_argument_group("input"))
    _add_graph_options(parser.add_argument_group("graph"))
    _add_quantization_options(parser.add_argument_group("quantization"))
    return parser


def _add_model_options(model: argparse._ArgumentGroup) -> None:
    model.add_argument(
        "--weights",
        metavar="FILE",
        help="Checkpoint: a file, a folder in the Hugging Face layout, hf://OWNER/NAME[@REVISION], or digits, which "
        "EdgePort ships for lenet5 and vit_digits. Default: random weights.",
    )
    model.add_argument(
        "--weights-key",
        metavar="NAME",
        help="Entry of the checkpoint that holds the weights, where it holds several, such as model_ema. Default: as "
        "timm and torchvision do, averaged weights before the last ones; the report says which were taken.",
    )
    model.add_argument(
        "--sum-channels",
        action="store_true",
        help="Sum the checkpoint's first layer over its 3 input channels; requires --channels 1.",
    )
    model.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="Labels: a text file with one per line in class order, a .csv, or a .json such as class_to_idx.json or "
        "config.json.",
    )
    model.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="Number of classes. Default: that of the checkpoint, the labels, or the architecture.",
    )
    model.add_argument(
        "--task",
        choices=TASKS,
        help="What the logits mean. Default: what the weights were trained for, or multiclass.",
    )
    model.add_argument(
        "--threshold",
        type=float,
        nargs="+",
        metavar="P",
        help="Decision threshold of a binary or multilabel model: one value, or one per label (default 0.5). Of a "
        "multiclass model one value, below which nothing is decided (default: none).",
    )
    model.add_argument(
        "--output-name",
        metavar="NAME",
        help="Which output of your own module, or of an .onnx file, holds the logits: its key, field, index or name. "
        "Default: the one named logits, or the only one of shape (batch, K).",
    )
    model.add_argument(
        "--input-name",
        metavar="NAME",
        help="Which input of an .onnx file takes the images. Default: the only one that is read.",
    )
    model.add_argument(
        "--input-layout",
        choices=LAYOUTS,
        help="Order of the axes of an .onnx file's input. Default: as its shape tells.",
    )
    model.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="An .npz from the framework that an .onnx file comes from: the array outputs, for inputs as the file "
        "takes them, or for images (uint8). The file is compared with it first.",
    )
    model.add_argument(
        "--seed", type=int, default=0, metavar="N", help="Seed of random weights and synthetic images (default 0)."
    )
    model.add_argument("--positions", choices=get_args(Positions), help="Position encoding of a ViT (default learned).")
    model.add_argument(
        "--pooling",
        choices=get_args(Pooling),
        help="What a ViT classifies: its class token (default), or the mean of all patches.",
    )
    model.add_argument(
        "--transform-input",
        action=argparse.BooleanOptionalAction,
        help="Let googlenet change its input from ImageNet's normalization to mean and deviation 0.5, as torchvision "
        "does. Default: on for torchvision's published weights, otherwise off.",
    )


def _add_input_options(shape: argparse._ArgumentGroup) -> None:
    shape.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="N",
        help="Side of the network's square input, in pixels; or its height and width, in this order.",
    )
    shape.add_argument(
        "--channels",
        type=int,
        metavar="N",
        help="Number of input channels: 1, 2 (grey and alpha), 3, or 4 (with alpha).",
    )
    shape.add_argument("--color", choices=get_args(Color), help="Order of the input channels; la is grey and alpha.")
    shape.add_argument(
        "--scale", choices=get_args(Scale), help="Range of the pixels before --mean and --std: 0 to 1, or 0 to 255."
    )
    shape.add_argument(
        "--mean", type=float, nargs="+", metavar="V", help="Mean to subtract after scaling, one value per channel."
    )
    shape.add_argument(
        "--std", type=float, nargs="+", metavar="V", help="Deviation to divide by after that, one value per channel."
    )
    shape.add_argument(
        "--resize",
        choices=get_args(Resize),
        help="What to resize before the crop: the shorter side, both sides, or nothing; pad makes the image fit in "
        "whole, and fills the rest.",
    )
    shape.add_argument(
        "--pad-color",
        type=int,
        nargs="+",
        metavar="V",
        help="What --resize pad fills with, from 0 to 255: one value, or one per channel (default 114, and opaque).",
    )
    shape.add_argument("--interpolation", choices=get_args(Interpolation), help="Resampling filter of the resize.")
    shape.add_argument(
        "--crop-pct",
        type=part,
        metavar="P",
        help="Part of the resized side that the centre crop keeps, above 0 and at most 1: 0.875, or the two sides as a "
        "fraction, 224/256, which is exact.",
    )
    shape.add_argument(
        "--bits",
        type=int,
        metavar="N",
        help="Bits in use of images with more than 8 bits per value, where the file does not say: 12 for 12-bit data "
        "in files of 16 bits. Default: 16.",
    )


def _add_graph_options(graph: argparse._ArgumentGroup) -> None:
    graph.add_argument(
        "--opset",
        type=int,
        default=DEFAULT_OPSET,
        metavar="N",
        help=f"ONNX operator set, {MIN_OPSET} to {MAX_OPSET} (default {DEFAULT_OPSET}).",
    )
    graph.add_argument(
        "--batch",
        type=_batch,
        metavar="dynamic|N",
        help="Batch size of the graph: dynamic accepts any (default), a number fixes it.",
    )
    graph.add_argument(
        "--activation",
        choices=get_args(Place),
        default="runtime",
        help="Where the softmax or sigmoid is applied (default runtime).",
    )
    graph.add_argument(
        "--preprocess",
        choices=get_args(Place),
        default="runtime",
        help="Where images are preprocessed (default runtime). in-graph also writes each variant as a file that takes "
        "8-bit RGB pixels of any size, for browsers and other languages.",
    )
    graph.add_argument(
        "--ort",
        action="store_true",
        help="Also write each model in ONNX Runtime's own format, and list the operators for a reduced build.",
    )
    graph.add_argument(
        "--evidence",
        action="store_true",
        help="Also write each variant with the region that speaks for an answer, for run-model heatmap.",
    )
    graph.add_argument(
        "--features",
        action="store_true",
        help="Also write each variant up to its last linear layer, whose input is an image's embedding, for "
        "Classifier.features.",
    )
    graph.add_argument(
        "--script", choices=get_args(Script), help="Also write a C program that runs the bundle, beside infer.py."
    )
    graph.add_argument(
        "--no-thumbnails",
        dest="thumbnails",
        action="store_false",
        help="Leave your images out of the report; the golden ones are in the bundle all the same.",
    )
    graph.add_argument(
        "--with-runtime",
        action="store_true",
        help="Also write the runtime as a wheel, so that a device without a package index can install it: pip install "
        "--no-index --find-links DIR/runtime edgeport. It does not hold numpy, Pillow and ONNX Runtime.",
    )
    graph.add_argument(
        "--golden",
        type=Path,
        metavar="DIR",
        help="Your own images for the comparison with PyTorch: up to 64 are compared, and 8 go into the bundle. "
        "Default: synthetic images.",
    )


def _add_quantization_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--quantize",
        type=_names,
        metavar="KIND[,KIND]",
        help=f"Variants to make besides fp32: {', '.join(KINDS)}, or none. Default: int8, unless that "
        "needs calibration images that were not given.",
    )
    group.add_argument(
        "--target",
        type=_names,
        default=("cpu",),
        metavar="T[,T]",
        help=f"What int8 variants are made for: {', '.join(TARGETS)} (default cpu: x86 with VNNI).",
    )
    group.add_argument(
        "--scheme", choices=SCHEMES, help="Quantization scheme of int8. Default: what suits the network."
    )
    group.add_argument(
        "--calibration",
        metavar="DIR|builtin",
        help="Folder of a few hundred images for static int8, without labels; builtin makes synthetic ones.",
    )
    group.add_argument(
        "--calibration-method",
        choices=METHODS,
        help="How the ranges of static int8 are chosen. Default: the method with the smallest error.",
    )
    group.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="Largest loss that int8 may cost, in points of top-1 or macro F1 with --eval, otherwise of disagreement "
        "with the float model. Layers go back to float until it is met; if it cannot be met, nothing is written.",
    )
    group.add_argument(
        "--min-agreement",
        type=float,
        default=0.98,
        metavar="FRACTION",
        help="Fraction of the float model's decisions that int8 and fp16 must keep without --max-drop, measured where "
        "there are at least 100 images of yours: of --eval, --calibration or --golden (default 0.98).",
    )
    group.add_argument(
        "--eval",
        type=Path,
        metavar="DATA",
        help="Labelled images, for --max-drop and for the accuracy in the report: one folder per class, or a CSV with "
        "the columns path,labels.",
    )
    group.add_argument(
        "--match",
        choices=get_args(Match),
        default="auto",
        help="How folders of --eval become classes: auto (default) by the labels' names, or by number; order takes "
        "them, sorted by name, as the classes in their order.",
    )
    group.add_argument("--explain", action="store_true", help="Show what each layer costs in int8, the worst first.")


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither dynamic nor a whole number") from None
