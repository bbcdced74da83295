"""Fold the 1/sqrt(d_k) of attention into the weights of the queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import numpy_helper

from edgeport_export.graph.index import GraphIndex

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["fold_attention_scale"]

_MOVES = ("Transpose", "Reshape")


class _Match(NamedTuple):
    """The product of queries and keys, the two nodes that make the queries, and what the scores are divided by."""

    scores: onnx.NodeProto
    product: onnx.NodeProto
    add: onnx.NodeProto
    divisor: NDArray[Any]


def fold_attention_scale(model: onnx.ModelProto) -> bool:
    """Rewrite ``Softmax((x W + b) K / s)`` to ``Softmax((x W/s + b/s) K)``.

    One operation on every attention score is saved. Nothing happens where the scale is not one constant, the queries
    do not come from a constant weight and bias, or something else reads the queries or their weight.
    """
    graph = model.graph
    index = GraphIndex(graph)
    gone = []
    for node in graph.node:
        match = _match(node, index)
        if match is None:
            continue
        for reader in (match.product, match.add):
            _divide_constant(graph, reader, index, match.divisor)
        match.scores.output[0] = node.output[0]
        gone.append(node)
    for node in gone:
        graph.node.remove(node)
    return bool(gone)


def _divide_constant(graph: onnx.GraphProto, reader: onnx.NodeProto, index: GraphIndex, divisor: NDArray[Any]) -> None:
    """Replace a node's constant by a divided copy; others may read the constant too (equal biases are stored once)."""
    place = next(i for i, name in enumerate(reader.input) if index.initializer(name) is not None)
    values = index.constant(reader.input[place])
    assert values is not None
    name = f"{reader.input[place]}/{reader.name}"
    graph.initializer.append(numpy_helper.from_array((values / divisor).astype(values.dtype), name))
    reader.input[place] = name


def _match(node: onnx.NodeProto, index: GraphIndex) -> _Match | None:
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
        product = index.producer(product_name, "MatMul")
        if product is None or index.initializer(bias_name) is None or not index.is_used_once(product_name):
            continue
        weight = index.initializer(product.input[1])
        if weight is not None and index.is_used_once(weight.name):
            divisor = scale.reshape(()) if node.op_type == "Div" else 1 / scale.reshape(())
            return _Match(scores, product, add, divisor)
    return None
