"""Run an EdgePort bundle with numpy, Pillow and ONNX Runtime.

from edgeport_runtime import Classifier

with Classifier.load("bundle") as classifier:
    print(classifier.predict("photo.jpg"))
"""

from edgeport_runtime.classifier import Classifier, Prediction
from edgeport_runtime.errors import (
    EdgeportError,
    ExportError,
    InputError,
    ManifestError,
    ParityError,
    QuantizeError,
    SessionError,
    SimplifyError,
    TraceError,
    WeightsError,
)
from edgeport_runtime.manifest import Manifest, load_manifest
from edgeport_runtime.preprocess import PreprocessSpec, preprocess

__all__ = [
    "Classifier",
    "EdgeportError",
    "ExportError",
    "InputError",
    "Manifest",
    "ManifestError",
    "ParityError",
    "Prediction",
    "PreprocessSpec",
    "QuantizeError",
    "SessionError",
    "SimplifyError",
    "TraceError",
    "WeightsError",
    "load_manifest",
    "preprocess",
]
