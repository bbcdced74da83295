"""Variants in ONNX Runtime's own format, and the list of operators that a reduced build of it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeport_export.quantize.quiet import quiet_logging
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["OPERATORS_NAME", "write_operators", "write_ort"]

OPERATORS_NAME = "required_operators.config"


def write_ort(path: Path, target: Path) -> None:
    """Convert a model, with ONNX Runtime's optimizations, except those for the processor that it is made on.

    A file in this format is not optimized when it is loaded: without the fusions here, int8 would be computed in float.

    Args:
        path: an ``.onnx`` file with its weights in it.
        target: the ``.ort`` file.

    Raises:
        ExportError: if ONNX Runtime cannot write it.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise ExportError(f"cannot write {path.name} in ONNX Runtime's own format: {error}") from error


def write_operators(bundle: Path, models: Iterable[Path]) -> None:
    """Write ``required_operators.config`` for ``.ort`` files of a bundle, as ONNX Runtime's build script takes it."""
    target = bundle / OPERATORS_NAME
    with quiet_logging():  # it sets up logging when it is imported, and tells of every file that it writes
        from onnxruntime.tools.ort_format_model import create_config_from_models

        create_config_from_models(sorted(models), target, enable_type_reduction=False)
    lines = [line for line in target.read_text().splitlines() if not line.startswith("#")]  # they name its folder
    target.write_text("\n".join(lines) + "\n")
