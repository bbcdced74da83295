"""Run an EdgePort bundle with numpy, Pillow and ONNX Runtime.

from edgeport_runtime import Classifier

with Classifier.load("bundle") as classifier:
    print(classifier.predict("photo.jpg"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import edgeport_runtime.engine.ort  # noqa: F401 - turns off ONNX Runtime's telemetry
from edgeport_runtime.classifier import Classifier, Prediction, StreamResult
from edgeport_runtime.errors import (
    AccuracyError,
    EdgeportError,
    ExportError,
    ImageWarning,
    InputError,
    ManifestError,
    ParityError,
    QuantizeError,
    SessionError,
    SimplifyError,
    TraceError,
    WeightsError,
)

if TYPE_CHECKING:
    from edgeport_runtime.bundle.manifest import Manifest, load_manifest
    from edgeport_runtime.outputs.heat import Heatmap
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = [
    "AccuracyError",
    "Classifier",
    "EdgeportError",
    "ExportError",
    "Heatmap",
    "ImageWarning",
    "InputError",
    "Manifest",
    "ManifestError",
    "ParityError",
    "Prediction",
    "PreprocessSpec",
    "QuantizeError",
    "SessionError",
    "SimplifyError",
    "StreamResult",
    "TraceError",
    "WeightsError",
    "load_manifest",
]

_LAZY = {
    "Heatmap": "outputs.heat",
    "Manifest": "bundle.manifest",
    "PreprocessSpec": "pixels.preprocess",
    "load_manifest": "bundle.manifest",
}


def __getattr__(name: str) -> Any:
    # What most programs never name is imported when it is.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
