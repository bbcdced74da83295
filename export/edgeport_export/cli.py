"""The command ``export-model``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_export.config import ExportConfig
from edgeport_export.parser import make_parser
from edgeport_runtime.commands.arguments import complete
from edgeport_runtime.commands.console import DONE, ERROR, USAGE, run_command
from edgeport_runtime.errors import AccuracyError, InputError
from edgeport_runtime.pixels.preprocess import as_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from edgeport_runtime.commands.arguments import Parser
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["main"]

_OF_THE_COMMAND = ("list", "json", "quiet", "verbose")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = make_parser()
    complete(parser)
    args = parser.parse_args(_with_size_last(sys.argv[1:] if argv is None else argv))
    return run_command(lambda: _run(parser, args), is_quiet=args.quiet)


def _with_size_last(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--image-size`` behind the others: an option of one or two values would take ARCH as well."""
    told = list(argv)
    if "--image-size" not in told:
        return told
    start = told.index("--image-size")
    end = start + 1
    while end < len(told) and told[end].isdigit():
        end += 1
    return [*told[:start], *told[end:], *told[start:end]] if end > start + 1 else told


def _run(parser: Parser, args: argparse.Namespace) -> int:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        remedy = "pip install '.[export,cpu]' in EdgePort's source folder"
        print(f"error: exporting needs PyTorch and other packages: {remedy}", file=sys.stderr)
        return ERROR
    if args.list is not None:
        if args.output is not None:
            parser.error("--list takes no other option than --json")
        return _list(args)
    if args.architecture is None or args.output is None:
        parser.error("an export needs ARCH and -o DIR, for example: export-model resnet18 -o build/resnet18")
    return _export(args)


def _list(args: argparse.Namespace) -> int:
    from edgeport_export.report import print_architectures, print_names
    from edgeport_export.source.libraries import known_names

    word = args.architecture or ""
    if args.list == "edgeport":
        print_architectures(word, as_json=args.json)
    else:
        print_names([f"{args.list}:{name}" for name in known_names(args.list) if word in name], as_json=args.json)
    return DONE


def _size(values: list[int] | None) -> Size | None:
    if values is None:
        return None
    return as_size(values[0], values[-1]) if len(values) <= 2 else tuple(values)  # type: ignore[return-value]


def _export(args: argparse.Namespace) -> int:
    from edgeport_export.source.subject import check_options

    values: dict[str, Any] = {key: value for key, value in vars(args).items() if key not in _OF_THE_COMMAND}
    if values["calibration"] is not None and values["calibration"] != "builtin":
        values["calibration"] = Path(values["calibration"])
    for key in ("mean", "std", "threshold", "pad_color"):
        values[key] = None if values[key] is None else tuple(values[key])
    try:
        values["image_size"] = _size(values["image_size"])
        config = ExportConfig(**values)
        check_options(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    from edgeport_export.pipeline import export
    from edgeport_export.report import print_costs, print_result, print_trades, result_document, stage_progress

    try:
        with stage_progress(args.architecture, is_quiet=args.quiet, is_verbose=args.verbose) as progress:
            result = export(config, progress=progress)
    except AccuracyError as error:
        if not args.json and not args.quiet and error.made is not None:
            print_costs(error.made)
            print_trades(error.made)
        raise
    if args.json:
        json.dump(result_document(result), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    elif not args.quiet:
        print_result(result, args.output, is_verbose=args.verbose)
    return DONE
