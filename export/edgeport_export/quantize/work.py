"""How much each node of a graph computes: multiply-adds of one image, from inferred shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeport_export.graph.shapes import infer_shapes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx

__all__ = ["multiply_adds", "share_of"]


def multiply_adds(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, int]:
    """Multiply-adds of each convolution and each product of matrices by its node's name, those of attention among them.

    Args:
        model: float; weights may be absent.
        shapes: as of :func:`infer_shapes`, if they are known already. Where an output's shape is unknown, each weight
            counts once.
    """
    shapes = infer_shapes(model) if shapes is None else shapes
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        right, out = shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
        if not out:
            counts[node.name] = math.prod(right) if right else 0
        elif node.op_type == "Conv":
            counts[node.name] = math.prod(out) * math.prod(right[1:])
        elif node.op_type == "ConvTranspose":
            counts[node.name] = math.prod(shapes.get(node.input[0], ())) * math.prod(right[1:])
        elif node.op_type == "MatMul":
            depth = right[-2] if len(right) > 1 else (shapes.get(node.input[0]) or (0,))[-1]
            counts[node.name] = math.prod(out) * depth
        else:
            counts[node.name] = math.prod(out) * (math.prod(right) // out[-1])
    return counts


def share_of(nodes: Collection[str], counts: Mapping[str, int]) -> float:
    """Part of a graph's multiply-adds that some of its nodes do; 0 where there are none."""
    return sum(counts.get(name, 0) for name in nodes) / max(1, sum(counts.values()))
