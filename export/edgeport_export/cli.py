"""The command ``export-model``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgeport_export.config import KINDS, MAX_OPSET, MIN_OPSET, ExportConfig, Place, Pooling, Positions, Script
from edgeport_export.quantize.histogram import METHODS
from edgeport_export.quantize.recipes import SCHEMES, TARGETS
from edgeport_runtime.bundle.contract import TASKS
from edgeport_runtime.commands.console import DONE, ERROR, USAGE, run_command
from edgeport_runtime.errors import AccuracyError, InputError
from edgeport_runtime.pixels.preprocess import Color, Interpolation, Resize, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    return run_command(lambda: _run(parser, args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="export-model",
        description="Turn a PyTorch image classifier into a bundle of ONNX graphs, each compared with PyTorch.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "architecture",
        metavar="ARCH",
        nargs="?",
        help="its name (--list shows all), or your own: path/to/file.py:factory or package.module:factory",
    )
    parser.add_argument("--list", action="store_true", help="show the architectures")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--force", action="store_true", help="replace the bundle that is there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    _add_model_options(parser.add_argument_group("model"))
    _add_input_options(parser.add_argument_group("input"))
    _add_graph_options(parser.add_argument_group("graph"))
    _add_quantization_options(parser.add_argument_group("quantization"))
    return parser


def _add_model_options(model: argparse._ArgumentGroup) -> None:
    model.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint: a file, a folder as Hugging Face has it, hf://OWNER/NAME[@REVISION], or `digits`, which "
        "EdgePort ships for lenet5 and vit_digits (else random)",
    )
    model.add_argument(
        "--sum-channels",
        action="store_true",
        help="sum the checkpoint's first layer over its 3 channels; with --channels 1",
    )
    model.add_argument("--labels", type=Path, metavar="FILE", help="text, one label a line in the order of the classes")
    model.add_argument("--num-classes", type=int, metavar="N", help="(else of the checkpoint, or the labels)")
    model.add_argument("--task", choices=TASKS, help="what the logits mean (else multiclass)")
    model.add_argument(
        "--threshold", type=float, nargs="+", metavar="P", help="from which probability on, one or one a label (0.5)"
    )
    model.add_argument("--seed", type=int, default=0, metavar="N", help="of random weights and images (default 0)")
    model.add_argument("--positions", choices=get_args(Positions), help="of a ViT (else learned)")
    model.add_argument(
        "--pooling", choices=get_args(Pooling), help="of a ViT: class token (else), or mean of all patches"
    )
    model.add_argument(
        "--transform-input",
        action=argparse.BooleanOptionalAction,
        help="of googlenet: torchvision's change to mean and deviation 0.5 (else as its published weights need it)",
    )


def _add_input_options(shape: argparse._ArgumentGroup) -> None:
    shape.add_argument("--image-size", type=int, metavar="N", help="side of the network's input in pixels")
    shape.add_argument("--channels", type=int, metavar="N", help="1 or 3")
    shape.add_argument("--color", choices=get_args(Color), help="order of the channels")
    shape.add_argument("--scale", choices=get_args(Scale), help="pixels as 0 to 1, or 0 to 255")
    shape.add_argument("--mean", type=float, nargs="+", metavar="V", help="subtracted after scaling, one a channel")
    shape.add_argument("--std", type=float, nargs="+", metavar="V", help="divides after that, one a channel")
    shape.add_argument("--resize", choices=get_args(Resize), help="the shorter side, both sides, or neither")
    shape.add_argument("--interpolation", choices=get_args(Interpolation), help="resampling filter")
    shape.add_argument(
        "--crop-pct", type=float, metavar="P", help="part of the resized side that the crop keeps, 0 to 1"
    )


def _add_graph_options(graph: argparse._ArgumentGroup) -> None:
    graph.add_argument(
        "--opset", type=int, default=20, metavar="N", help=f"ONNX operator set, {MIN_OPSET} to {MAX_OPSET} (default 20)"
    )
    graph.add_argument("--batch", type=_batch, metavar="dynamic|N", help="any batch size (default), or this one only")
    graph.add_argument(
        "--activation",
        choices=get_args(Place),
        default="runtime",
        help="where softmax or sigmoid is applied (default runtime)",
    )
    graph.add_argument(
        "--preprocess",
        choices=get_args(Place),
        default="runtime",
        help="in-graph: each variant once more as a file that takes 8-bit pixels of any size (default runtime alone)",
    )
    graph.add_argument(
        "--ort", action="store_true", help="each model once more as .ort, with the operators for a reduced build"
    )
    graph.add_argument("--script", choices=get_args(Script), help="a C program that runs the bundle, beside infer.py")
    graph.add_argument("--golden", type=Path, metavar="DIR", help="images for the comparison (else synthetic ones)")


def _add_quantization_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--quantize",
        type=_names,
        metavar="KIND[,KIND]",
        help=f"of {', '.join(KINDS)}; none for float32 alone (else int8 where nothing more is needed)",
    )
    group.add_argument(
        "--target",
        type=_names,
        default=("cpu",),
        metavar="T[,T]",
        help=f"what int8 is for, of {', '.join(TARGETS)} (default cpu: x86 with VNNI)",
    )
    group.add_argument("--scheme", choices=SCHEMES, help="(else as the family of networks needs it)")
    group.add_argument(
        "--calibration", metavar="DIR|builtin", help="images for static int8, without labels; builtin: synthetic ones"
    )
    group.add_argument(
        "--calibration-method",
        choices=METHODS,
        help="how ranges are chosen (else what errs least)",
    )
    group.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="budget of int8: layers go back to float until no more is lost (top-1 or macro F1 with --eval, else "
        "disagreement with the float model)",
    )
    group.add_argument(
        "--eval", type=Path, metavar="DATA", help="labelled images: a folder a class, or a CSV with columns path,labels"
    )
    group.add_argument("--explain", action="store_true", help="show what each layer costs in int8, the worst first")


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


def _batch(text: str) -> int | None:
    return None if text == "dynamic" else int(text)


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        print("error: exporting needs PyTorch and more: pip install 'edgeport[export,cpu]'", file=sys.stderr)
        return ERROR
    if args.list:
        if args.architecture is not None or args.output is not None:
            parser.error("--list stands alone (but for --json)")
        from edgeport_export.report import print_architectures

        print_architectures(as_json=args.json)
        return DONE
    if args.architecture is None or args.output is None:
        parser.error("an export needs ARCH and -o DIR, for example: export-model resnet18 -o build/resnet18")
    return _export(args)


def _export(args: argparse.Namespace) -> int:
    from edgeport_export.source.subject import check_options

    values: dict[str, Any] = {key: value for key, value in vars(args).items() if key not in ("list", "json")}
    if values["calibration"] is not None and values["calibration"] != "builtin":
        values["calibration"] = Path(values["calibration"])
    for key in ("mean", "std", "threshold"):
        values[key] = None if values[key] is None else tuple(values[key])
    try:
        config = ExportConfig(**values)
        check_options(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    from edgeport_export.pipeline import export
    from edgeport_export.report import print_costs, print_result, print_trades, result_document, stage_progress

    try:
        with stage_progress(args.architecture) as progress:
            result = export(config, progress=progress)
    except AccuracyError as error:
        if not args.json and error.made is not None:
            print_costs(error.made)
            print_trades(error.made)
        raise
    if args.json:
        json.dump(result_document(result), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        print_result(result, args.output)
    return DONE
