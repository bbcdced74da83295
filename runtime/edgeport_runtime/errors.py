"""Every error that EdgePort raises on purpose.

EdgeportError
├── ManifestError     a bundle's manifest or files are not what the specification says (.context: where)
├── InputError        what the caller passed in cannot be used (also a ValueError)
├── SessionError      the model cannot be loaded or run on this machine
└── ExportError       an export stopped; no bundle was written
    ├── TraceError    PyTorch could not turn the module into a graph
    ├── SimplifyError a graph pass failed or left an invalid graph
    ├── QuantizeError a quantized variant could not be made
    ├── ParityError   a stage departs from the PyTorch module (.report: the chain so far)
    │   └── AccuracyError  a quantized variant loses too much (.made: the best that was found)
    └── WeightsError  a checkpoint cannot be read, or does not fit the architecture

ImageWarning (a UserWarning) stands beside the tree: an image is used, and not as its owner may expect.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AccuracyError",
    "EdgeportError",
    "ExportError",
    "ImageWarning",
    "InputError",
    "ManifestError",
    "ParityError",
    "QuantizeError",
    "SessionError",
    "SimplifyError",
    "TraceError",
    "WeightsError",
]


class EdgeportError(Exception):
    """Base of all errors raised on purpose; the message names the cause and the remedy."""


class ManifestError(EdgeportError):
    """A bundle that does not follow ``docs/bundle.md``.

    Attributes:
        context: path of the offending value inside the manifest, such as ``variants[1].sha256``; empty for the whole.
    """

    def __init__(self, message: str, *, context: str = "") -> None:
        super().__init__(f"{context}: {message}" if context else message)
        self.context = context


class InputError(EdgeportError, ValueError):
    """An argument, image or option that cannot be used."""


class ImageWarning(UserWarning):
    """An image is used, and not as its owner may expect.

    The message is the same for every image, so that Python's filter of warnings shows it once.

    Attributes:
        image: what messages call the image.
    """

    def __init__(self, message: str, *, image: str) -> None:
        super().__init__(message)
        self.image = image


class SessionError(EdgeportError):
    """A model that cannot be loaded or run here."""


class DeviceError(SessionError):
    """A device that ONNX Runtime lists but cannot load."""


class ExportError(EdgeportError):
    """An export that stopped."""


class TraceError(ExportError):
    """PyTorch could not capture the module as a graph."""


class SimplifyError(ExportError):
    """A graph pass failed, or left a graph that is not valid."""


class QuantizeError(ExportError):
    """A quantized variant could not be made."""


class ParityError(ExportError):
    """A stage whose numbers depart from the PyTorch module.

    Attributes:
        report: the parity chain up to and including the failed stage (``edgeport_export.parity.compare.ParityReport``).
    """

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class AccuracyError(ParityError):
    """A quantized variant that loses more than its limit or the budget.

    Attributes:
        made: the best that was found (``edgeport_export.variants.Made``).
    """

    def __init__(self, message: str, *, made: Any = None) -> None:
        super().__init__(message)
        self.made = made


class WeightsError(ExportError):
    """A checkpoint that cannot be read, or does not fit the architecture."""
