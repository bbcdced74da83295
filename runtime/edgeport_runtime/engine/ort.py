"""The ``onnxruntime`` module, imported in one place, with its telemetry off.

ONNX Runtime 1.29 and later collect usage data unless the environment forbids it at their first import. ``import
edgeport_runtime`` sees to that, so that it holds for the user's own ``import onnxruntime`` as well.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from edgeport_runtime.errors import SessionError

__all__ = ["import_onnxruntime", "telemetry"]

_SWITCH = "ORT_DISABLE_TELEMETRY"
_MEANS_OFF = ("1", "true", "yes", "on", "y")
_FIRST_WITH_TELEMETRY = (1, 29)

# An ONNX Runtime that has been imported already can no longer be told.
_IS_LATE = "onnxruntime" in sys.modules and _SWITCH not in os.environ
os.environ.setdefault(_SWITCH, "1")  # what the user set stands


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module.

    Raises:
        SessionError: naming the packages to choose from, if it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise SessionError(
            "ONNX Runtime is not installed; choose one: pip install onnxruntime (any processor), pip install "
            "onnxruntime-gpu (NVIDIA), or pip install onnxruntime onnxruntime-ep-openvino (Intel)"
        ) from None
    return onnxruntime


def telemetry() -> str:
    """Whether ONNX Runtime collects usage data in this process: ``off``, or ``none`` or ``on`` and why.

    Raises:
        SessionError: if it is not installed.
    """
    version: str = import_onnxruntime().__version__
    if tuple(map(int, version.split(".")[:2])) < _FIRST_WITH_TELEMETRY:
        return f"none: ONNX Runtime {version} has none"
    if _IS_LATE:
        return "on: onnxruntime was imported before edgeport_runtime could turn it off"
    value = os.environ.get(_SWITCH, "")
    return "off" if value.strip().lower() in _MEANS_OFF else f"on: {_SWITCH}={value} is set"
