"""What ``export-model`` shows on standard output."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edgeport_models import ALIASES, ARCHITECTURES
from edgeport_runtime.report import describe_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgeport_export.pipeline import ExportResult

__all__ = ["print_architectures", "print_result", "stage_progress"]

_PIPE_WIDTH = 120  # a pipe has no width, and a table cut at 80 columns would lose figures


@contextlib.contextmanager
def stage_progress(title: str) -> Iterator[Callable[[str], None] | None]:
    """Shows the running stage, and those done with their seconds, if standard error is a terminal."""
    console = Console(file=sys.stderr)  # this very object: PyTorch's own notes are redirected meanwhile
    if not console.is_terminal:
        yield None
        return
    running: list[tuple[str, float]] = []

    def finish() -> None:
        if running:
            stage, start = running.pop()
            console.print(f"{time.perf_counter() - start:6.1f} s  {stage}", highlight=False)

    with console.status(f"{title} ...") as status:

        def on_stage(stage: str) -> None:
            finish()
            running.append((stage, time.perf_counter()))
            status.update(f"{title}: {stage} ...")

        yield on_stage
        finish()


def print_result(result: ExportResult, output: Path) -> None:
    """The parity table, what a user must know of the weights, and what to run next."""
    table = Table(
        title=f"{result.manifest.architecture['name']} against PyTorch float32", box=SIMPLE_HEAD, pad_edge=False
    )
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
    _print_table(table)
    print(f"input: {describe_input(result.manifest.contract)}")
    note = result.manifest.weights.get("note")
    if note:
        print(f"note: {note}")
    size = sum(variant.total_bytes for variant in result.manifest.variants)
    print(f"wrote {output} ({size / 1e6:.1f} MB of models)")
    print(f"next: run-model predict {output} IMAGE")


def print_architectures(*, as_json: bool) -> None:
    """Every architecture, its friendly names, parameters, input and source."""
    specs = [spec for name, spec in ARCHITECTURES.items() if name not in ALIASES]
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
    table.columns[1].justify = "right"
    for spec in specs:
        names = ", ".join([spec.name, *aliases[spec.name]])
        table.add_row(names, f"{spec.num_params:,}", "x".join(map(str, spec.input_shape)), spec.source)
    _print_table(table)


def _print_table(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table)
