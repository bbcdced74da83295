"""Attention rollout, written into a graph (Abnar and Zuidema 2020, "Quantifying attention flow in transformers").

Shapes: B batch, H heads, N tokens, D width, h w of the patches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_export.graph.index import GraphIndex, attribute
from edgeport_export.graph.outcome import Left

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    from edgeport_export.graph.adder import Adder

__all__ = ["Rollout", "roll_out"]

_MAX_OTHERS = 16  # tokens before the patches: of the class, of a teacher, registers


class Rollout(NamedTuple):
    """The map.

    Attributes:
        flow: name of the value (B, h, w): how much of what is classified comes from each patch.
        sides: h, w.
    """

    flow: str
    sides: tuple[int, int]


def roll_out(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], adder: Adder) -> Rollout:
    """Add the rollout of all attention layers, from what is classified down to the patches.

    Each layer mixes the tokens by half its attention, the mean over its heads, and half the identity for the shortcut.

    Args:
        graph: left as it is; what is added goes to ``adder``.
        shapes: of its values, for one image.
        adder: takes the nodes.

    Raises:
        Left: with the reason, if the layers do not all attend from all tokens to all, or the patches are not known.
    """
    index = GraphIndex(graph)
    layers = [*_layers(graph, index, shapes)]
    if not layers:
        raise Left("it has no attention over a sequence of tokens")
    lengths = sorted({layer.num_tokens for layer in layers})
    if len(lengths) != 1:
        raise Left(f"its attention is over {' and '.join(map(str, lengths))} tokens")
    num_tokens = lengths[0]
    sides = _patches(graph, shapes, num_tokens)
    row = adder.constant(_classified(graph, index, shapes, num_tokens).reshape(1, 1, num_tokens))
    for layer in reversed(layers):
        if layer.num_queries == num_tokens:
            mixed = adder.node("MatMul", [row, _mean_of_heads(layer, adder)])
        elif layer is layers[-1]:  # what is not classified was left out of the last layer
            mixed = _mean_of_heads(layer, adder)
        else:
            raise Left(f"an attention layer is of {layer.num_queries} of its {num_tokens} tokens")
        row = adder.node("Mul", [adder.node("Add", [mixed, row]), adder.number(0.5)])
    start, end, axis = (adder.constant(np.array([v], np.int64)) for v in (num_tokens - math.prod(sides), num_tokens, 2))
    patches = adder.node("Slice", [row, start, end, axis])
    return Rollout(adder.reshape(patches, 0, *sides), sides)


class _Layer(NamedTuple):
    """An attention layer: the node that makes its weights or, fused, its sums; Q of N tokens attend to N."""

    node: onnx.NodeProto
    num_heads: int
    num_queries: int
    num_tokens: int


def _layers(graph: onnx.GraphProto, index: GraphIndex, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[_Layer]:
    """In the graph's order."""
    for node in graph.node:
        if node.op_type == "Softmax":
            shape = shapes.get(node.output[0], ())
            is_weights = len(shape) == 4 and shape[0] == 1 and attribute(node, "axis", [-1])[0] in (-1, 3)
            if is_weights and min(shape[2:]) > 0 and _is_summed(node.output[0], index):
                yield _Layer(node, *shape[1:])
        elif node.op_type == "MultiHeadAttention":
            queries, keys = (shapes.get(name, ()) for name in node.input[:2])
            if len(queries) != 3 or len(keys) != 3 or any(node.input[3:]):
                raise Left(f"the {node.op_type} {node.name} has masks, or joined inputs")
            yield _Layer(node, attribute(node, "num_heads", [1])[0], queries[1], keys[1])
        elif node.op_type == "Attention":
            queries, keys = (shapes.get(name, ()) for name in node.input[:2])
            if len(queries) != 4 or len(keys) != 4 or any(node.input[3:]) or any(attribute(node, "is_causal", [0])):
                raise Left(f"the {node.op_type} {node.name} has masks, or joined heads")
            yield _Layer(node, *queries[1:3], keys[2])


def _is_summed(name: str, index: GraphIndex) -> bool:
    """Whether a product weighs values by these weights."""
    for node in index.consumers(name):
        if node.op_type == "MatMul" and node.input[0] == name:
            return True
        # Where: PyTorch puts 0 where a row is masked as a whole.
        if node.op_type in ("Cast", "Dropout", "Identity", "QuantizeLinear", "DequantizeLinear", "Where"):
            return _is_summed(node.output[0], index)
    return False


def _mean_of_heads(layer: _Layer, adder: Adder) -> str:
    """Add the mean (B, Q, N) of a layer's weights, which a fused layer does not give."""
    weights = layer.node.output[0]
    if layer.node.op_type != "Softmax":
        queries, keys = (adder.floats(name) for name in layer.node.input[:2])
        if layer.node.op_type == "MultiHeadAttention":
            queries, keys = (
                adder.node("Transpose", [adder.reshape(one, 0, 0, layer.num_heads, -1)], perm=[0, 2, 1, 3])
                for one in (queries, keys)
            )
        scores = adder.node("MatMul", [queries, adder.node("Transpose", [keys], perm=[0, 1, 3, 2])])
        scale = next((a.f for a in layer.node.attribute if a.name == "scale"), 0.0)
        factor = adder.number(scale) if scale else _default_scale(queries, adder)
        weights = adder.node("Softmax", [adder.node("Mul", [scores, factor])], axis=-1)
    summed = adder.node("ReduceSum", [adder.floats(weights), adder.constant(np.array([1], np.int64))], keepdims=0)
    return adder.node("Div", [summed, adder.number(layer.num_heads)])


def _default_scale(queries: str, adder: Adder) -> str:
    """Add 1 / sqrt(D) of queries (B, H, N, D)."""
    width = adder.node("Gather", [adder.node("Shape", [queries]), adder.constant(np.array(3, np.int64))])
    return adder.node("Reciprocal", [adder.node("Sqrt", [adder.floats(width)])])


def _patches(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], num_tokens: int) -> tuple[int, int]:
    """Height and width in patches, of the last convolution that makes as many; other tokens come before them."""
    for node in reversed(graph.node):
        shape = shapes.get(node.output[0], ()) if node.op_type == "Conv" else ()
        if len(shape) == 4 and 0 <= num_tokens - math.prod(shape[2:]) <= _MAX_OTHERS and min(shape[2:]) > 1:
            return shape[2], shape[3]
    raise Left(f"no convolution makes patches for its {num_tokens} tokens")


def _classified(
    graph: onnx.GraphProto, index: GraphIndex, shapes: Mapping[str, tuple[int, ...]], num_tokens: int
) -> NDArray[np.float32]:
    """What each token weighs in what is classified (N,): one token, or the mean of some."""
    found: list[NDArray[np.float32]] = []
    for node in graph.node:
        shape = shapes.get(node.input[0], ()) if node.input else ()
        if len(shape) == 3 and shape[:2] == (1, num_tokens):
            weights = _chosen(node, index, num_tokens)
            if weights is not None and not any(np.array_equal(weights, one) for one in found):
                found.append(weights)
    if len(found) != 1:
        raise Left(f"{len(found)} kinds of its tokens are classified, not one")
    return found[0]


def _chosen(node: onnx.NodeProto, index: GraphIndex, num_tokens: int) -> NDArray[np.float32] | None:
    """What each token weighs in the node's output, if it takes some of them or their mean."""
    weights = np.zeros(num_tokens, np.float32)
    constants = [index.constant(name) for name in node.input[1:]]
    if node.op_type == "Gather" and attribute(node, "axis", [0])[0] == 1 and constants[0] is not None:
        if constants[0].size == 1:
            weights[int(constants[0].reshape(()))] = 1
            return weights
    elif node.op_type == "ReduceMean":
        axes = attribute(node, "axes", []) if not constants else [] if constants[0] is None else list(constants[0])
        if axes in ([1], [-2]):
            return np.full(num_tokens, 1 / num_tokens, np.float32)
    elif node.op_type == "Slice" and all(one is not None and one.size == 1 for one in constants[:3]):
        start, end, axis = (int(one.reshape(())) for one in constants[:3] if one is not None)
        if axis in (1, -2) and (len(constants) < 4 or constants[3] is None or constants[3].item() == 1):
            taken = np.arange(num_tokens)[start:end]
            readers = index.consumers(node.output[0])
            is_mean = [reader.op_type for reader in readers] == ["ReduceMean"]
            if len(taken) == 1 or is_mean:
                weights[taken] = 1 / len(taken)
                return weights
    return None
