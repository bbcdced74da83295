"""The arguments of ``run-model``."""

from __future__ import annotations

import argparse
from typing import get_args

from edgeport_runtime.accuracy.matching import Match

__all__ = ["CONTRACT_OPTIONS", "make_parser"]

CONTRACT_OPTIONS = (
    *("image_size", "color", "scale", "mean", "std", "resize", "interpolation", "crop_pct", "task", "threshold"),
    *("output", "input_name", "output_name", "input_layout", "labels"),
)
"""Options that tell the contract of a model that EdgePort did not write, as they are called in Python and JSON."""

_TUNE = "Find the fastest variant, device and number of threads on this machine, and use them from now on."
_BENCH = "Time the variants on devices of this machine in turn, and measure their memory and their time to start."
_WEB = "Write a static page that runs a bundle in the browser."
_DOCTOR = "Show the packages, devices, instructions and threads of this machine, and what is wrong with them."


def make_parser() -> argparse.ArgumentParser:
    """The parser; ``command`` of what it parses is the name of the command."""
    parser = argparse.ArgumentParser(
        prog="run-model", description="Run a bundle that export-model made, without PyTorch.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote, or an .onnx file.")
        sub.add_argument(
            "--variant",
            default="auto",
            metavar="NAME",
            help="Variant to run; int8 stands for the int8 variant for the device. Default: the fastest one that was "
            "measured, otherwise fp32.",
        )
        sub.add_argument(
            "--device",
            default="auto",
            metavar="NAME",
            help="Device to run on: auto (default), cpu, cuda, openvino, ...; doctor lists them all.",
        )
        sub.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
        return sub

    predict = add("predict", "Classify images.")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="Image files, or folders of them.")
    predict.add_argument("--top-k", type=_positive, default=5, metavar="K", help="Classes to print (default 5).")
    _add_contract_options(predict)
    evaluate = add("evaluate", "Measure a model on labelled images.")
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="Labelled images: one folder per class, or a CSV with the columns path,labels.",
    )
    evaluate.add_argument(
        "--match",
        choices=get_args(Match),
        default="auto",
        help="How folders become classes: auto (default) by the labels' names, or by number; order takes the folders, "
        "sorted by name, as the classes in their order.",
    )
    _add_contract_options(evaluate)
    add("verify", "Run the golden images on this device and compare the outputs with PyTorch's.")
    info = add("info", "Show what the bundle's manifest says.")
    info.add_argument("--assignment", action="store_true", help="Load the bundle and show what runs where, and why.")
    _add_machine_commands(commands)
    return parser


def _add_contract_options(command: argparse.ArgumentParser) -> None:
    """What a model file that EdgePort did not write cannot tell; ``CONTRACT_OPTIONS`` names them."""
    group = command.add_argument_group(
        "an .onnx file that EdgePort did not write",
        "How an image becomes its input, and what its output means. The file itself tells the rest.",
    )
    group.add_argument(
        "--contract",
        metavar="FILE",
        help='JSON object of the options below, such as {"image_size": 224, "mean": [0.5, 0.5, 0.5]}, or a bundle\'s '
        "manifest.json. Options of the command line come before it.",
    )
    for name, kind, metavar, text in (
        ("image-size", int, "N", "Side of the square input, where the file leaves it open."),
        ("color", str, "C", "Order of the channels: rgb (default), bgr or grey."),
        ("scale", str, "S", "Range of the pixels before --mean and --std: unit, 0 to 1 (default), or byte, 0 to 255."),
        ("resize", str, "R", "What to resize before the crop: shorter (default) side, both sides exact, or none."),
        ("interpolation", str, "I", "Filter of the resize (default bilinear)."),
        ("crop-pct", float, "P", "Part of the resized side that the centre crop keeps (default 1)."),
        ("task", str, "T", "multiclass, binary or multilabel."),
        ("output", str, "O", "What the model gives: logits or probabilities. Default: as its values look."),
        ("input-name", str, "NAME", "Its input, where there are several."),
        ("output-name", str, "NAME", "The output that holds the classes, where several could."),
        ("input-layout", str, "L", "Order of the input's axes, nchw or nhwc, where its shape does not tell."),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    for name, text in (
        ("mean", "Subtracted after scaling, one value per channel (default 0)."),
        ("std", "Divides after that, one value per channel (default 1)."),
        ("threshold", "Decision threshold of a binary or multilabel model (default 0.5)."),
    ):
        group.add_argument(f"--{name}", type=_number, nargs="+", metavar="V", help=text)
    group.add_argument("--labels", metavar="FILE", help="Labels, one per line in the order of the classes.")


def _add_machine_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Those that are about this machine, or write for another."""
    tune = commands.add_parser("tune", help=_TUNE, description=_TUNE, allow_abbrev=False)
    tune.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    tune.add_argument("--batch", type=_positive, default=1, metavar="N", help="Images per call (default 1).")
    tune.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
    bench = commands.add_parser("bench", help=_BENCH, description=_BENCH, allow_abbrev=False)
    bench.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    bench.add_argument("--variant", nargs="+", metavar="NAME", help="Variants to time (default: all).")
    bench.add_argument(
        "--device", nargs="+", default=["auto"], metavar="NAME", help="Devices to time them on (default auto)."
    )
    bench.add_argument(
        "--batch", nargs="+", type=_positive, default=[1, 8], metavar="N", help="Batch sizes to time (default 1 8)."
    )
    bench.add_argument(
        "--rounds", type=_positive, default=10, metavar="N", help="Turns of each, with 3 calls per turn (default 10)."
    )
    bench.add_argument("--plot", metavar="FILE", help="Also write a bar chart (SVG) to FILE.")
    bench.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
    web = commands.add_parser("web", help=_WEB, description=_WEB, allow_abbrev=False)
    web.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model --preprocess in-graph wrote.")
    web.add_argument("-o", "--output", required=True, metavar="DIR", help="Folder to write the page to.")
    web.add_argument("--variant", default="fp32", metavar="NAME", help="Variant that the page runs (default fp32).")
    web.add_argument(
        "--onnxruntime-web",
        default="node_modules/onnxruntime-web",
        metavar="DIR",
        help="Folder of the npm package onnxruntime-web (default node_modules/onnxruntime-web).",
    )
    doctor = commands.add_parser("doctor", help=_DOCTOR, description=_DOCTOR, allow_abbrev=False)
    doctor.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; write the images before the options") from None


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value
