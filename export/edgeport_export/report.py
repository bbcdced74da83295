"""What ``export-model`` prints."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edgeport_export.graph.outcome import is_routine
from edgeport_export.progress import Progress
from edgeport_models import ALIASES, ARCHITECTURES
from edgeport_runtime.commands.report import describe_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.status import Status

    from edgeport_export.pipeline import ExportResult
    from edgeport_export.variants import Made

__all__ = [
    "print_architectures",
    "print_costs",
    "print_names",
    "print_result",
    "print_trades",
    "result_document",
    "stage_progress",
]

_NUM_COSTS = 10
_NUM_ANSWERS = 3
_NUM_NAMED = 6  # layers
_PIPE_WIDTH = 120  # a pipe has no width, and a table cut at 80 columns would lose figures


@contextlib.contextmanager
def stage_progress(title: str, *, is_quiet: bool = False, is_verbose: bool = False) -> Iterator[Progress]:
    """Show the running stage, and the finished ones with their seconds, if standard error is a terminal.

    Args:
        title: what is exported.
        is_quiet: show nothing.
        is_verbose: show the finished stages where it is no terminal, too.
    """
    console = _console(sys.stderr)  # this very object: PyTorch's own notes are redirected meanwhile
    if is_quiet or not (console.is_terminal or is_verbose):
        yield Progress()
        return
    with console.status(f"{title} ...") as status:
        shown = _Shown(title, console, status)
        yield shown
        shown.finish()


class _Shown(Progress):
    def __init__(self, title: str, console: Console, status: Status) -> None:
        self._title, self._console, self._status = title, console, status
        self._running: tuple[str, float] | None = None

    def stage(self, name: str) -> None:
        self.finish()
        self._running = (name, time.perf_counter())
        self._status.update(f"{self._title}: {name} ...")

    def count(self, done: int, total: int) -> None:
        name = "" if self._running is None else self._running[0]
        self._status.update(f"{self._title}: {name} {done}/{total} ...")

    def finish(self) -> None:
        if self._running is not None:
            name, start = self._running
            self._console.print(f"{time.perf_counter() - start:6.1f} s  {name}", highlight=False)
            self._running = None


def print_result(result: ExportResult, output: Path, *, is_verbose: bool = False) -> None:
    """Print the parity table, the variants, what a user must know about the weights, and what to run next.

    Args:
        result: what was exported.
        output: the folder, as the user gave it.
        is_verbose: print the routine notes, too.
    """
    weights = result.manifest.weights
    original = f"{weights['file']} as written" if weights["source"] == "onnx" else "PyTorch float32"
    table = Table(title=f"{result.manifest.architecture['name']} against {original}", box=SIMPLE_HEAD, pad_edge=False)
    decision = "top-1" if result.manifest.contract.task == "multiclass" else "decisions"
    for column in ("stage", "inputs", "max abs", "rel. L2", decision, "KL"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for stage in result.parity.stages:
        table.add_row(
            stage.stage if stage.same_bytes_as is None else f"{stage.stage} (= {stage.same_bytes_as})",
            str(stage.num_samples),
            f"{stage.max_abs:.1e}",
            f"{stage.relative_l2:.1e}",
            f"{stage.agreement:.1%}",
            f"{stage.kl:.1e}",
        )
    for skipped in result.parity.skipped:
        table.add_row(skipped.stage, "skipped")
    _print_table(table)
    for skipped in result.parity.skipped:
        print(f"note: stage {skipped.stage} was skipped: {skipped.reason}")
    for made in result.made:
        print_costs(made)
        print_trades(made)
    if result.made:
        _print_variants(result)
    print(f"input: {describe_input(result.manifest.contract)}")
    note = result.manifest.weights.get("note")
    for text in ([note] if note else []) + [text for text in result.notes if is_verbose or not is_routine(text)]:
        print(f"note: {text}")
    if result.manifest.weights["source"] != "random":  # those answers mean nothing
        _print_answers(result)
    size = sum(path.stat().st_size for path in result.path.glob("model.*"))
    print(f"wrote {output} ({size / 1e6:.1f} MB of models)")
    print(f"next: run-model predict {shlex.quote(str(output))} IMAGE")


def _print_answers(result: ExportResult) -> None:
    """What PyTorch's side says of the first golden images, for the eye: labels in the wrong order show here alone."""
    with np.load(result.path / result.manifest.golden.expected) as arrays:
        scores_BC, order_BK = arrays["scores"], arrays["order"]
    told = []
    for row, image in enumerate(result.manifest.golden.images[:_NUM_ANSWERS]):
        best = int(order_BK[row, 0])
        label = result.manifest.contract.label(best)
        told.append(f"{image.file} {label} ({scores_BC[row, best]:.1%})")
    print(f"the first golden images are: {'; '.join(told)}")


def result_document(result: ExportResult) -> dict[str, Any]:
    """The document that ``--json`` prints."""
    return {
        "bundle": str(result.path),
        "manifest": result.manifest.to_dict(),
        "variants": {
            made.plan.name: {
                "trades": [trade.to_dict() for trade in made.trades],
                "layers": [cost.to_dict() for cost in made.costs],
            }
            for made in result.made
        },
        "measured": result.measured,
        "notes": list(result.notes),
    }


def _print_variants(result: ExportResult) -> None:
    """Print size, error and speed of each variant, and how it was made."""
    table = Table(title="variants, against fp32 on this machine", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("variant", "MB", "size", "in int8", "rel. L2", "flips", "loss", "speed", ""):
        table.add_column(column, justify="left" if column in ("variant", "") else "right", no_wrap=True)
    whole = result.manifest.variants[0].total_bytes
    for variant in result.manifest.variants:
        details, measured = variant.quantization or {}, result.measured.get(variant.name, {})
        drop = details.get("drop")
        speed = measured.get("times_fp32")
        table.add_row(
            variant.name,
            f"{variant.total_bytes / 1e6:.2f}",
            f"{variant.total_bytes / whole:.2f}",
            f"{details['share']:.0%}" if "share" in details else "",
            f"{details['relative_l2']:.1e}" if details else "",
            _flips(details.get("agreement")),
            "" if drop is None else f"{drop['points']:g}",
            "" if speed is None else f"{speed:.2f}x",
            "" if measured.get("is_faster", True) else "not faster here",
        )
    _print_table(table)
    for variant in result.manifest.variants:
        if variant.quantization is not None:
            print(f"{variant.name}: {_describe(variant.quantization)}")


def _flips(agreement: Mapping[str, Any] | None) -> str:
    if agreement is None:
        return ""
    return f"{agreement['num_images'] - agreement['num_equal']} of {agreement['num_images']}"


def _describe(details: Mapping[str, Any]) -> str:
    """How a variant was quantized, in one line."""
    parts = [str(details["scheme"])]
    calibration = details.get("calibration")
    if calibration is not None:
        kind = "synthetic images" if calibration["source"] == "synthetic" else "images"
        unreadable = f" ({calibration['num_unreadable']} unreadable)" if calibration["num_unreadable"] else ""
        parts.append(f"{calibration['num_images']} {kind}{unreadable}, {calibration['method']} ranges")
    if details.get("equalized"):
        parts.append(f"channels equalized after {', '.join(details['equalized'])}")
    if "share" in details:
        parts.append(f"{details['share']:.1%} of the multiply-adds in int8")
    floats = details["float_layers"]
    named = ", ".join(floats[:_NUM_NAMED]) + (f" and {more} more" if (more := len(floats) - _NUM_NAMED) > 0 else "")
    parts.append(
        f"{len(floats)} of {details['num_layers']} layers in float: {named}" if floats else "no layer in float"
    )
    agreement = details.get("agreement")
    if agreement is not None:
        low, high = agreement["interval"]
        parts.append(
            f"{_flips(agreement)} images decided otherwise than by the float model "
            f"(95% interval of the agreement {low:.1%} to {high:.1%})"
        )
    drop = details.get("drop")
    if drop is not None:
        low, high = drop["interval"]
        noise = ", which is within the noise" if drop["is_noise"] else ""
        parts.append(
            f"{'gains' if drop['points'] < 0 else 'loses'} {abs(drop['points']):g} points of {drop['metric']} on "
            f"{drop['num_images']} images "
            f"(95% interval of the loss {low:g} to {high:g}{noise})"
        )
        if drop["flips"] is not None:
            parts.append(f"decisions that flip, per label: {' '.join(map(str, drop['flips']))}")
    return "; ".join(parts)


def print_costs(made: Made) -> None:
    """Print what each layer of a variant costs: the ten worst ones, and the number of the others."""
    if not made.costs:
        return
    table = Table(title=f"{made.plan.name}: what each layer costs alone", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("node", "operator", "input range", "clipped", "input SNR", "output SNR"):
        table.add_column(column, justify="left" if column in ("node", "operator") else "right", no_wrap=True)
    for cost in made.costs[:_NUM_COSTS]:
        is_static = cost.low is not None
        table.add_row(
            cost.node,
            cost.op_type,
            f"{cost.low:.3g} to {cost.high:.3g}" if is_static else "per input",
            f"{cost.clipped:.3%}" if is_static else "",
            f"{cost.input_noise_db:.1f} dB" if is_static else "",
            f"{cost.cost_db:.1f} dB",
        )
    _print_table(table)
    num_others = len(made.costs) - _NUM_COSTS
    if num_others > 0:
        others = "1 other layer costs" if num_others == 1 else f"{num_others} other layers cost"
        print(f"{others} less; --json lists all of them")


def print_trades(made: Made) -> None:
    """Print the layers that went back to float, and the loss that remained after each."""
    if len(made.trades) < 2:
        return
    table = Table(title=f"{made.plan.name}: layers back to float", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "output SNR", "loss", "95% interval"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for trade in made.trades:
        low, high = trade.drop.interval
        noise = trade.signal_to_noise_db
        table.add_row(
            trade.layer or "(all in int8)",
            "" if noise is None else f"{noise:.1f} dB",
            f"{trade.drop.points:g}",
            f"{low:g} to {high:g}",
        )
    _print_table(table)


def print_names(names: list[str], *, as_json: bool) -> None:
    """Print names, one per line or as one JSON document."""
    if as_json:
        json.dump(names, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for name in names:
        print(name)


def print_architectures(word: str = "", *, as_json: bool) -> None:
    """Print every architecture whose name contains a word, with its friendly names, parameters, input and source."""
    specs = [spec for name, spec in ARCHITECTURES.items() if name not in ALIASES and word in name]
    aliases = {spec.name: [alias for alias, name in ALIASES.items() if name == spec.name] for spec in specs}
    if as_json:
        rows = [
            {
                "name": spec.name,
                "aliases": aliases[spec.name],
                "num_params": spec.num_params,
                "input": list(spec.input_shape),
                "source": spec.source,
            }
            for spec in specs
        ]
        json.dump(rows, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    table = Table("name", "parameters", "input", "source", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # nothing is cut on a narrow terminal
    table.columns[0].no_wrap = True
    table.columns[1].justify = "right"
    for spec in specs:
        names = ", ".join([spec.name, *aliases[spec.name]])
        table.add_row(names, f"{spec.num_params:,}", "x".join(map(str, spec.input_shape)), spec.source)
    _print_table(table)


def _console(file: TextIO) -> Console:
    """A console without escapes, for bold as for colour, where NO_COLOR is set (https://no-color.org)."""
    return Console(file=file, color_system=None if os.environ.get("NO_COLOR") else "auto")


def _print_table(table: Table) -> None:
    console = _console(sys.stdout)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table)
