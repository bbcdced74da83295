"""What tests read out of a bundle."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult


def operators_of(path: Path) -> Counter[str]:
    """How many nodes of which operator a model has."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def details_of(result: ExportResult, name: str) -> dict[str, Any]:
    """What the manifest says of a variant's quantization."""
    variant = next(v for v in result.manifest.variants if v.name == name)
    assert variant.quantization is not None
    return dict(variant.quantization)
