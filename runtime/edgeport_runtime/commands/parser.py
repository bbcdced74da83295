"""The arguments of ``run-model``."""

from __future__ import annotations

import argparse
from typing import TypeAlias, get_args

from edgeport_runtime.accuracy.matching import Match
from edgeport_runtime.commands.arguments import Parser, ShowVersion, add_verbosity, part
from edgeport_runtime.commands.inspection import TARGETS

__all__ = ["CONTRACT_OPTIONS", "make_parser"]

CONTRACT_OPTIONS = (
    *("image_size", "color", "scale", "mean", "std", "resize", "interpolation", "crop_pct", "task", "threshold"),
    *("output", "input_name", "output_name", "input_layout", "labels", "pad_color"),
)
"""Options that tell the contract of a model that EdgePort did not write, as they are called in Python and JSON."""

_HEATMAP = "Show the region of an image that speaks for the answer."
_INSPECT = "Show operators, parameters, multiply-adds and activations, by layer and in all. Needs the package onnx."
_TUNE = "Find the fastest variant, device and number of threads on this machine, and use them from now on."
_BENCH = "Time the variants on devices of this machine in turn, and measure their memory and their time to start."
_COMPARE = "Show where two models decide otherwise, and which is right more often, smaller and faster."
_REPORT = "Measure a bundle on this machine and write the page that shows what it does and how far it was tested."
_IMAGES = "Images: a folder, one folder per class, or a CSV with the columns path,labels"
_WEB = "Write a static page that runs a bundle in the browser."
_PUSH = "Push a bundle that verifies on this machine to a repository of the Hugging Face hub."
_DOCTOR = "Show the packages, devices, instructions and threads of this machine, and what is wrong with them."


_FOLDER = "Folder that export-model wrote, hf://OWNER/NAME[@REVISION] for one on the Hugging Face hub"
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
        sub.add_argument("bundle", metavar="BUNDLE", help=f"{_FOLDER}, or an .onnx file.")
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
    heatmap = add(
        "heatmap",
        _HEATMAP,
        "build/digits digit.png -o heat.png",
        "build/digits digit.png --label 7 --method occlusion --json",
    )
    heatmap.add_argument("images", metavar="IMAGE", nargs="+", help="Image files, or folders of them.")
    heatmap.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="Picture to write, such as heat.png; of several images, heat-1.png, heat-2.png and so on.",
    )
    heatmap.add_argument("--label", metavar="NAME", help="Class by its name or number (default: the one predicted).")
    heatmap.add_argument(
        "--method",
        choices=("auto", "occlusion"),
        default="auto",
        help="auto (default): what export-model --evidence wrote, or else occlusion, which hides one part of the image "
        "after the other and runs the network each time.",
    )
    _add_compare(commands)
    _add_report(commands)
    _add_inspect(commands)
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
        (
            "threshold",
            _number,
            "Decision threshold of a binary or multilabel model (default 0.5); of a multiclass model that below which "
            "nothing is decided (default: none).",
        ),
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
            help=f"{_FOLDER}, either with @VARIANT behind it for one of its variants, or a lone .onnx.",
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
        help=f"{_IMAGES} (default: the golden images).",
    )
    _add_match(compare)
    compare.add_argument(
        "--min-agreement",
        type=_fraction,
        metavar="FRACTION",
        help="End with status 3 if fewer of the decisions are the same.",
    )
    compare.add_argument("--csv", metavar="FILE", help="Also write the images that are decided otherwise to FILE.")
    compare.add_argument("-o", "--output", metavar="FILE", help="Also write a page that shows them to FILE (HTML).")
    _add_no_thumbnails(compare)
    _add_json(compare)
    add_verbosity(compare, verbose=_VERBOSE)


def _add_report(commands: _Commands) -> None:
    report = _add_command(
        commands, "report", _REPORT, "build/digits -o report.html", "build/digits --data photos -o report.html"
    )
    report.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    report.add_argument("-o", "--output", required=True, metavar="FILE", help="HTML file to write.")
    report.add_argument("--data", metavar="PATH", help=f"{_IMAGES} (default: the golden images).")
    _add_match(report)
    report.add_argument("--device", default="auto", metavar="NAME", help="Device to measure on (default auto).")
    _add_no_thumbnails(report)
    _add_json(report)
    report.add_argument("--quiet", action="store_true", help="Show no progress.")


def _add_no_thumbnails(command: Parser) -> None:
    command.add_argument(
        "--no-thumbnails", dest="thumbnails", action="store_false", help="Leave the images out of the page."
    )


def _add_inspect(commands: _Commands) -> None:
    inspect = _add_command(
        commands, "inspect", _INSPECT, "build/digits", "build/digits --variant int8 --target tensorrt"
    )
    inspect.add_argument("model", metavar="FILE|BUNDLE", help="An .onnx file, or a folder that export-model wrote.")
    inspect.add_argument("--variant", metavar="NAME", help="Variant of a bundle (default: its first, fp32).")
    inspect.add_argument(
        "--target",
        choices=TARGETS,
        help="Also show what is known to keep it from a target: ort-mobile is ONNX Runtime on Android and iOS, tflite "
        "goes by onnx2tf, coreml and webgpu by ONNX Runtime's providers.",
    )
    _add_json(inspect)


def _add_machine_commands(commands: _Commands) -> None:
    """Those that are about this machine, or write for another."""
    tune = _add_command(commands, "tune", _TUNE, "build/digits", "build/digits --batch 8")
    tune.add_argument("bundle", metavar="BUNDLE", help=f"{_FOLDER}.")
    tune.add_argument("--batch", type=_positive, default=1, metavar="N", help="Images per call (default 1).")
    _add_json(tune)
    tune.add_argument("--quiet", action="store_true", help="Show no progress.")
    bench = _add_command(
        commands, "bench", _BENCH, "build/digits", "build/digits --variant int8 --batch 1 --plot bench.svg"
    )
    bench.add_argument("bundle", metavar="BUNDLE", help=f"{_FOLDER}.")
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
    bench.add_argument("--plot", metavar="FILE", help="Also write a plot of all calls (SVG) to FILE.")
    _add_json(bench)
    bench.add_argument("--quiet", action="store_true", help="Show no progress.")
    web = _add_command(
        commands, "web", _WEB, "build/digits -o site", "build/digits -o site --variant int8 --title 'Which digit?'"
    )
    web.add_argument("bundle", metavar="BUNDLE", help=f"{_FOLDER}; made with --preprocess in-graph.")
    web.add_argument("-o", "--output", required=True, metavar="DIR", help="Folder to write the page to.")
    web.add_argument("--variant", default="fp32", metavar="NAME", help="Variant that the page runs (default fp32).")
    web.add_argument(
        "--onnxruntime-web",
        default="node_modules/onnxruntime-web",
        metavar="DIR",
        help="Folder of the npm package onnxruntime-web (default node_modules/onnxruntime-web).",
    )
    web.add_argument("--title", metavar="TEXT", help="What the page is called (default: the architecture's name).")
    web.add_argument(
        "--serve",
        type=_positive,
        nargs="?",
        const=8000,
        metavar="PORT",
        help="Then serve the page on this machine alone, until interrupted (default port 8000).",
    )
    _add_json(web)
    push = _add_command(
        commands, "push", _PUSH, "build/digits hf://OWNER/NAME", "build/digits hf://OWNER/NAME --private --json"
    )
    push.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    push.add_argument("address", metavar="hf://OWNER/NAME", help="The repository, which is made if there is none.")
    push.add_argument(
        "--thumbnails", action="store_true", help="Also push a report that has images embedded (default: leave it out)."
    )
    push.add_argument("--private", action="store_true", help="If the repository is made, make it private.")
    _add_json(push)
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
