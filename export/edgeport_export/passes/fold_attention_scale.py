"""Fold the 1/sqrt(d_k) of attention into the weights of the queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from edgeport_export.passes.graph import GraphIndex

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["fold_attention_scale"]

_MOVES = ("Transpose", "Reshape")


def fold_attention_scale(model: onnx.ModelProto) -> bool:
    """Rewrite ``Softmax((x W + b) K / s)`` to ``Softmax((x W/s + b/s) K)``.

    One multiplication of every attention score is saved. Nothing happens where the scale is not one constant, the
    queries do not come from constant weights and bias, or something else reads the queries or their weights.
    """
    graph = model.graph
    index = GraphIndex(graph)
    gone = []
    for scale_node in graph.node:
        found = _match(scale_node, index)
        if found is None:
            continue
        scores, weight, bias, divisor = found
        for tensor in (weight, bias):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values / divisor).astype(values.dtype), tensor.name))
        scores.output[0] = scale_node.output[0]
        gone.append(scale_node)
    for node in gone:
        graph.node.remove(node)
    return bool(gone)


def _match(
    node: onnx.NodeProto, index: GraphIndex
) -> tuple[onnx.NodeProto, onnx.TensorProto, onnx.TensorProto, NDArray[Any]] | None:
    """The product of queries and keys, the queries' weight and bias, and the divisor; None where it does not apply."""
    if node.op_type not in ("Div", "Mul"):
        return None
    scale = index.constant(node.input[1])
    if scale is None or scale.size != 1 or not np.isfinite(scale).all() or not scale.any():
        return None
    scores = index.producer(node.input[0], "MatMul")
    if scores is None or not index.is_used_once(scores.output[0]):
        return None
    name = scores.input[0]
    while (move := index.producer(name)) is not None and move.op_type in _MOVES and index.is_used_once(name):
        name = move.input[0]
    add = index.producer(name, "Add")
    if add is None or not index.is_used_once(name):
        return None
    for product_name, bias_name in (tuple(add.input), tuple(reversed(add.input))):
        product, bias = index.producer(product_name, "MatMul"), index.initializer(bias_name)
        if product is None or bias is None or not index.is_used_once(product_name):
            continue
        weight = index.initializer(product.input[1])
        if weight is None or not index.is_used_once(weight.name) or not index.is_used_once(bias.name):
            continue
        divisor = scale.reshape(()) if node.op_type == "Div" else 1 / scale.reshape(())
        return scores, weight, bias, divisor
    return None
