"""The arguments of ``run-model``."""

from __future__ import annotations

import argparse
from typing import TypeAlias, get_args

from edgeport_runtime.accuracy.matching import Match
from edgeport_runtime.commands.arguments import Parser, ShowVersion, add_verbosity, part

__all__ = ["CONTRACT_OPTIONS", "make_parser"]

CONTRACT_OPTIONS = (
    *("image_size", "color", "scale", "mean", "std", "resize", "interpolation", "crop_pct", "task", "threshold"),
    *("output", "input_name", "output_name", "input_layout", "labels", "pad_color"),
)
"""Options that tell the contract of a model that EdgePort did not write, as they are called in Python and JSON."""

_TUNE = "Find the fastest variant, device and number of threads on this machine, and use them from now on."
_BENCH = "Time the variants on devices of this machine in turn, and measure their memory and their time to start."
_COMPARE = "Show where two models decide otherwise, and which is right more often, smaller and faster."
_WEB = "Write a static page that runs a bundle in the browser."
_DOCTOR = "Show the packages, devices, instructions and threads of this machine, and what is wrong with them."


_VERBOSE = "Also show why the device and the variant were chosen."
_START = """\
run-model runs a bundle that export-model made. What most people need:

  run-model predict BUNDLE photo.jpg          which class an image shows
  run-model evaluate BUNDLE --data photos     how often that is right, on labelled images
  run-model verify BUNDLE                     whether this device computes what PyTorch does

run-model --help lists all commands, run-model COMMAND --help the options of one."""


def make_parser() -> Parser:
    """The parser; ``command`` of what it parses is the name of the command."""
    parser = Parser(
        prog="run-model",
        description="Run a bundle that export-model made, without PyTorch.",
        start=_START,
        examples=("run-model predict build/digits digit.png", "run-model evaluate build/digits --data photos"),
    )
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    def add(name: str, text: str, *examples: str) -> Parser:
        sub = _add_command(commands, name, text, *examples)
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
        _add_json(sub)
        if name != "info":
            add_verbosity(sub, verbose=_VERBOSE)
        return sub

    predict = add("predict", "Classify images.", "build/digits digit.png", "build/digits photos --top-k 3 --json")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="Image files, or folders of them.")
    predict.add_argument("--top-k", type=_positive, default=5, metavar="K", help="Classes to print (default 5).")
    _add_contract_options(predict)
    evaluate = add(
        "evaluate",
        "Measure a model on labelled images.",
        "build/digits --data photos",
        "build/digits --data photos --variant int8 --json",
    )
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="Labelled images: one folder per class, or a CSV with the columns path,labels.",
    )
    _add_match(evaluate)
    _add_contract_options(evaluate)
    add(
        "verify",
        "Run the golden images on this device and compare the outputs with PyTorch's.",
        "build/digits",
        "build/digits --variant int8 --device cpu",
    )
    info = add("info", "Show what the bundle's manifest says.", "build/digits", "build/digits --assignment")
    info.add_argument("--assignment", action="store_true", help="Load the bundle and show what runs where, and why.")
    _add_compare(commands)
    _add_machine_commands(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def _add_command(commands: _Commands, name: str, text: str, *examples: str) -> Parser:
    """A command whose help ends with examples, given by their arguments."""
    lines = [f"run-model {name} {arguments}".rstrip() for arguments in examples]
    command: Parser = commands.add_parser(name, help=text, description=text, examples=lines)
    return command


def _add_json(command: Parser) -> None:
    command.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")


def _add_match(command: Parser) -> None:
    command.add_argument(
        "--match",
        choices=get_args(Match),
        default="auto",
        help="How folders become classes: auto (default) by the labels' names, or by number; order takes the folders, "
        "sorted by name, as the classes in their order.",
    )


def _add_contract_options(command: Parser) -> None:
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
        ("color", str, "C", "Order of the channels: rgb (default), bgr or grey."),
        ("scale", str, "S", "Range of the pixels before --mean and --std: unit, 0 to 1 (default), or byte, 0 to 255."),
        (
            "resize",
            str,
            "R",
            "What to resize before the crop: shorter (default) side, both sides exact, or none; or pad.",
        ),
        ("interpolation", str, "I", "Filter of the resize (default bilinear)."),
        (
            "crop-pct",
            part,
            "P",
            "Part of the resized side that the crop keeps, as 0.875 or 224/256 (default 1).",
        ),
        ("task", str, "T", "multiclass, binary or multilabel."),
        ("output", str, "O", "What the model gives: logits or probabilities. Default: as its values look."),
        ("input-name", str, "NAME", "Its input, where there are several."),
        ("output-name", str, "NAME", "The output that holds the classes, where several could."),
        ("input-layout", str, "L", "Order of the input's axes, nchw or nhwc, where its shape does not tell."),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    for name, kind, text in (
        ("image-size", _whole, "Side of the input, or its height and width, where the file leaves them open."),
        ("pad-color", _whole, "What --resize pad fills with, 0 to 255: one value, or one per channel (default 114)."),
        ("mean", _number, "Subtracted after scaling, one value per channel (default 0)."),
        ("std", _number, "Divides after that, one value per channel (default 1)."),
        ("threshold", _number, "Decision threshold of a binary or multilabel model (default 0.5)."),
    ):
        group.add_argument(f"--{name}", type=kind, nargs="+", metavar="V", help=text)
    group.add_argument("--labels", metavar="FILE", help="Labels, one per line in the order of the classes.")


def _add_compare(commands: _Commands) -> None:
    compare = _add_command(
        commands,
        "compare",
        _COMPARE,
        "build/digits@fp32 build/digits@int8 --data photos",
        "build/digits build/digits/model.fp32.onnx --min-agreement 0.95",
    )
    for name in ("A", "B"):
        compare.add_argument(
            name.lower(),
            metavar=name,
            help="Folder that export-model wrote, with @VARIANT after it for one of its variants, or a lone .onnx.",
        )
    compare.add_argument(
        "--variant", default="auto", metavar="NAME", help="Variant of a folder that names none (default auto)."
    )
    compare.add_argument(
        "--device",
        nargs="+",
        default=["auto"],
        metavar="NAME",
        help="Device to run both on (default auto), or one for A and one for B.",
    )
    compare.add_argument(
        "--data",
        metavar="PATH",
        help="Images: a folder, one folder per class, or a CSV with the columns path,labels (default: the golden "
        "images).",
    )
    _add_match(compare)
    compare.add_argument(
        "--min-agreement",
        type=_fraction,
        metavar="FRACTION",
        help="End with status 3 if fewer of the decisions are the same.",
    )
    compare.add_argument("--csv", metavar="FILE", help="Also write the images that are decided otherwise to FILE.")
    _add_json(compare)
    add_verbosity(compare, verbose=_VERBOSE)


def _add_machine_commands(commands: _Commands) -> None:
    """Those that are about this machine, or write for another."""
    tune = _add_command(commands, "tune", _TUNE, "build/digits", "build/digits --batch 8")
    tune.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    tune.add_argument("--batch", type=_positive, default=1, metavar="N", help="Images per call (default 1).")
    _add_json(tune)
    tune.add_argument("--quiet", action="store_true", help="Show no progress.")
    bench = _add_command(
        commands, "bench", _BENCH, "build/digits", "build/digits --variant int8 --batch 1 --plot bench.svg"
    )
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
    _add_json(bench)
    bench.add_argument("--quiet", action="store_true", help="Show no progress.")
    web = _add_command(commands, "web", _WEB, "build/digits -o site", "build/digits -o site --variant int8")
    web.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model --preprocess in-graph wrote.")
    web.add_argument("-o", "--output", required=True, metavar="DIR", help="Folder to write the page to.")
    web.add_argument("--variant", default="fp32", metavar="NAME", help="Variant that the page runs (default fp32).")
    web.add_argument(
        "--onnxruntime-web",
        default="node_modules/onnxruntime-web",
        metavar="DIR",
        help="Folder of the npm package onnxruntime-web (default node_modules/onnxruntime-web).",
    )
    _add_json(web)
    doctor = _add_command(commands, "doctor", _DOCTOR, "", "--json")
    _add_json(doctor)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        told = f"{text!r} is not a whole number; write the images before the options"
        raise argparse.ArgumentTypeError(told) from None


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
