"""How much each node of a graph computes: multiply-adds of one image, from inferred shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeport_export.graph.shapes import infer_shapes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx

__all__ = ["multiply_adds", "multiply_adds_of", "share_of"]

_CONVOLUTIONS = ("Conv", "ConvInteger", "FusedConv", "QLinearConv")
_WEIGHTS = {
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger"), 1),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), 1),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), 3),
}
"""Which input holds the weight, or the second factor."""
_ATTENTION = ("Attention", "MultiHeadAttention")


def multiply_adds(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, int]:
    """Multiply-adds of each convolution and each product of matrices by its node's name, those of attention among them.

    Args:
        model: float; weights may be absent.
        shapes: as of ``infer_shapes``, if they are known already. Where an output's shape is unknown, each weight
            counts once.
    """
    shapes = infer_shapes(model) if shapes is None else shapes
    layers = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return {node.name: multiply_adds_of(node, shapes) for node in model.graph.node if node.op_type in layers}


def multiply_adds_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds of a node, of integers as well; 0 for what multiplies no matrices.

    Args:
        node: of a graph.
        shapes: of its values. Where the output's is unknown, each weight counts once.
    """
    if node.op_type in _ATTENTION:
        query, key = (shapes.get(name, ()) for name in node.input[:2])
        return 2 * math.prod(query) * key[-2] if len(key) > 2 else 0
    place = _WEIGHTS.get(node.op_type)
    if place is None or len(node.input) <= place:
        return 0
    left, right, out = (shapes.get(name, ()) for name in (node.input[0], node.input[place], node.output[0]))
    if not out:
        return math.prod(right) if right else 0
    if node.op_type in _CONVOLUTIONS:
        return math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if node.op_type in ("Gemm", "QGemm"):
        return math.prod(out) * (math.prod(right) // max(1, out[-1]))
    depth = right[-2] if len(right) > 1 else (left or (0,))[-1]
    return math.prod(out) * depth


def share_of(nodes: Collection[str], counts: Mapping[str, int]) -> float:
    """Part of a graph's multiply-adds that some of its nodes do; 0 where there are none."""
    return sum(counts.get(name, 0) for name in nodes) / max(1, sum(counts.values()))
