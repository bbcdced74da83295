"""Fold the 1/sqrt(d_k) of attention into the weights of the queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import numpy_helper

from edgeport_export.graph.index import GraphIndex
from edgeport_export.graph.outcome import Left, Outcome, find_matches

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["fold_attention_scale"]

_MOVES = ("Transpose", "Reshape")


class _Match(NamedTuple):
    """The product of queries and keys, what scales it and by how much, and the two nodes that make the queries."""

    scores: onnx.NodeProto
    scaled: onnx.NodeProto
    divisor: NDArray[Any]
    product: onnx.NodeProto
    add: onnx.NodeProto


def fold_attention_scale(model: onnx.ModelProto) -> Outcome:
    """Rewrite ``Softmax((x W + b) K / s)`` to ``Softmax((x W/s + b/s) K)``.

    One operation on every attention score is saved. A place is left where the scale is not one constant, the queries
    do not come from a constant weight and bias, or something else reads the queries or their weight.

    Args:
        model: changed in place.

    Returns:
        How many places were rewritten, and why others were left.
    """
    graph = model.graph
    index = GraphIndex(graph)
    matches, left = find_matches(graph.node, lambda node: _match(node, index))
    for match in matches:
        for reader in (match.product, match.add):
            _divide_constant(graph, reader, index, match.divisor)
        match.scores.output[0] = match.scaled.output[0]
        graph.node.remove(match.scaled)
    absent = "no product of two values is scaled or goes into a softmax"
    return Outcome(num_changed=len(matches), left=left, absent=absent)


def _divide_constant(graph: onnx.GraphProto, reader: onnx.NodeProto, index: GraphIndex, divisor: NDArray[Any]) -> None:
    """Replace a node's constant by a divided copy; others may read the constant too (equal biases are stored once)."""
    place = next(i for i, name in enumerate(reader.input) if index.initializer(name) is not None)
    values = index.constant(reader.input[place])
    assert values is not None
    name = f"{reader.input[place]}/{reader.name}"
    graph.initializer.append(numpy_helper.from_array((values / divisor).astype(values.dtype), name))
    reader.input[place] = name


def _match(node: onnx.NodeProto, index: GraphIndex) -> _Match | None:
    """The place where the node scales a product; None where it scales none. Raises Left where the place has to stay."""
    if node.op_type == "Softmax" and index.product(node.input[0]) is not None:
        raise Left("nothing scales its scores")
    if node.op_type not in ("Div", "Mul"):
        return None
    if index.product(node.input[1]) is not None:
        raise Left("its scale is the first operand")
    scores = index.producer(node.input[0], "MatMul")
    if scores is None:
        return None
    try:
        return _Match(scores, node, _divisor(node, scores, index), *_queries(scores.input[0], index))
    except Left:
        if index.product(node.input[0]) is None:  # a product with a weight is a layer, not attention
            return None
        raise


def _divisor(node: onnx.NodeProto, scores: onnx.NodeProto, index: GraphIndex) -> NDArray[Any]:
    """What the scores are divided by."""
    scale = index.constant(node.input[1])
    if scale is None:
        raise Left("its scale is not a constant")
    if scale.size != 1:
        raise Left("its scale is not one number")
    if not np.isfinite(scale).all() or not scale.any():
        raise Left("its scale is 0 or not finite")
    if not index.is_used_once(scores.output[0]):
        raise Left("something else reads its scores")
    return scale.reshape(()) if node.op_type == "Div" else 1 / scale.reshape(())


def _queries(name: str, index: GraphIndex) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """The product and the addition of the bias that make the queries."""
    while (move := index.producer(name)) is not None and move.op_type in _MOVES and index.is_used_once(name):
        name = move.input[0]
    if not index.is_used_once(name):
        raise Left("something else reads its queries")
    add = index.producer(name, "Add")
    if add is None:
        raise Left("its queries have no bias")
    computed = [source for source in add.input if index.initializer(source) is None]
    if len(computed) != 1:
        raise Left("its queries are not one value plus a constant bias")
    product = index.producer(computed[0], "MatMul")
    if product is None:
        raise Left("its queries are not a product before their bias")
    if not index.is_used_once(computed[0]):
        raise Left("something else reads its queries before their bias")
    if index.initializer(product.input[1]) is None:
        raise Left("the weight of its queries is not a constant")
    if not index.is_used_once(product.input[1]):
        raise Left("something else reads the weight of its queries")
    return product, add
