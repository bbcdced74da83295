"""The arguments of ``run-model``."""

from __future__ import annotations

import argparse
from typing import get_args

from edgeport_runtime.accuracy.matching import Match

__all__ = ["make_parser"]

_TUNE = "Find the fastest variant, device and number of threads on this machine, and use them from now on."
_BENCH = "Time the variants on devices of this machine in turn, and measure their memory and their time to start."
_COMPARE = "Show where two models decide otherwise, and which is right more often, smaller and faster."
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
        sub.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote, or one of its .onnx files.")
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
    evaluate = add("evaluate", "Measure a model on labelled images.")
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="Labelled images: one folder per class, or a CSV with the columns path,labels.",
    )
    _add_match(evaluate)
    add("verify", "Run the golden images on this device and compare the outputs with PyTorch's.")
    info = add("info", "Show what the bundle's manifest says.")
    info.add_argument("--assignment", action="store_true", help="Load the bundle and show what runs where, and why.")
    _add_compare(commands)
    _add_machine_commands(commands)
    return parser


def _add_match(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--match",
        choices=get_args(Match),
        default="auto",
        help="How folders become classes: auto (default) by the labels' names, or by number; order takes the folders, "
        "sorted by name, as the classes in their order.",
    )


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser("compare", help=_COMPARE, description=_COMPARE, allow_abbrev=False)
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
    compare.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")


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


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value
