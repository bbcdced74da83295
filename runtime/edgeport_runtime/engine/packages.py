"""The packages that ONNX Runtime comes in: one list for the cache, the doctor and the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DISTRIBUTIONS", "ENGINES", "versions_of"]

DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)
"""Packages that hold the module ``onnxruntime``; two of them in one environment overwrite each other."""

ENGINES = (*DISTRIBUTIONS, "onnxruntime-ep-openvino", "onnxruntime-ep-webgpu", "onnxruntime-ep-qnn", "openvino")
"""Everything that computes: the above, the plugins that ONNX Runtime loads, and the engines within them."""


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed, in the order of their names."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and rarely needed

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
