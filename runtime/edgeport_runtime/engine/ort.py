"""The ``onnxruntime`` module, imported in one place."""

from __future__ import annotations

from typing import Any

from edgeport_runtime.errors import SessionError

__all__ = ["import_onnxruntime"]


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module.

    Raises:
        SessionError: naming the extras to choose from, if it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise SessionError(
            "ONNX Runtime is not installed; choose one: pip install 'edgeport[cpu]', "
            "'edgeport[gpu]' (NVIDIA) or 'edgeport[openvino]' (Intel)"
        ) from None
    return onnxruntime
