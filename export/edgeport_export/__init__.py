"""Exports a PyTorch classifier to a bundle, and compares every stage with PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import edgeport_runtime  # noqa: F401 - turns off ONNX Runtime's telemetry

if TYPE_CHECKING:
    from edgeport_export.config import ExportConfig
    from edgeport_export.parity.compare import ParityReport, StageReport
    from edgeport_export.pipeline import ExportResult, export

__all__ = ["ExportConfig", "ExportResult", "ParityReport", "StageReport", "export"]

_MODULES = {
    "ExportConfig": "config",
    "ExportResult": "pipeline",
    "ParityReport": "parity.compare",
    "StageReport": "parity.compare",
    "export": "pipeline",
}


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import; the command line must be able to answer, or be interrupted, before.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
