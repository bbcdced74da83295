"""The head of a classifier's graph: what it reads, and how a class's output changes with the last feature map.

Shapes: B batch, C channels, h w of the last feature map, D features, K outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_export.graph.backward import CURVED, MOVES, SAME, STEPS, At
from edgeport_export.graph.index import GraphIndex, attribute
from edgeport_export.graph.outcome import Left

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from edgeport_export.graph.adder import Adder

__all__ = ["Gradient", "find_features", "gradient_of_head"]

_ACTIVATIONS = ("Softmax", "Sigmoid")
_MAX_STEPS = 64


class Gradient(NamedTuple):
    """How a weighted sum of the outputs changes with the last feature map.

    Attributes:
        features: the last feature map, of shape ``(B, C, h, w)``, or ``(B, h, w, C)`` if ``is_last``.
        weights: what each channel weighs, float32 of B times C values: the gradient summed over the positions.
        is_last: whether the channels are the last axis.
        is_exact: whether the map is pooled by its mean and everything behind that is linear (Zhou et al. 2016).
        sides: h, w.
        num_channels: C.
    """

    features: str
    weights: str
    is_last: bool
    is_exact: bool
    sides: tuple[int, int]
    num_channels: int


def _data_input(node: onnx.NodeProto, index: GraphIndex) -> str:
    """The one input of a node that is computed from the image.

    Raises:
        Left: if there are several, or none.
    """
    computed = [name for name in node.input if name and not _is_constant(name, index)]
    if node.op_type in (*MOVES, "QuantizeLinear", "DequantizeLinear", "ReduceMean", "Gather"):
        computed = computed[:1]  # a shape may be computed as well
    if len(computed) != 1:
        raise Left(f"the {node.op_type} {node.name} joins {len(computed)} values")
    return str(computed[0])


def find_features(graph: onnx.GraphProto) -> str:
    """The value that the last linear layer reads.

    Raises:
        Left: if the graph does not end in one.
    """
    index = GraphIndex(graph)
    name = graph.output[0].name
    for _ in range(_MAX_STEPS):
        node = index.producer(name)
        if node is None:
            break
        layer = _dynamic_layer(node, index)
        if layer is not None:
            return layer.input
        if node.op_type == "Gemm" or (node.op_type == "MatMul" and _is_constant(node.input[1], index)):
            return _before_rounding(_data_input(node, index), index)
        if node.op_type not in (*SAME, *MOVES, *_ACTIVATIONS, "Add"):
            raise Left(f"it ends in the {node.op_type} {node.name}, not in a linear layer")
        name = _data_input(node, index)
    raise Left("it does not end in a linear layer")


def gradient_of_head(
    graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], seed: str, opset: int, adder: Adder
) -> Gradient:
    """Add the gradient of ``sum_k seed_k output_k`` with respect to the last feature map.

    It is written out node by node, from the outputs back to where the map is pooled or flattened. A softmax or sigmoid
    at the graph's end is left out: the gradient is that of the logits.

    Args:
        graph: left as it is; what is added goes to ``adder``.
        shapes: of its values, for one image.
        seed: name of the value (B, K) float32.
        opset: of the graph.
        adder: takes the nodes.

    Raises:
        Left: with the reason, if there is no such map, or an operator behind it has no closed form here.
    """
    index = GraphIndex(graph)
    name, gradient = graph.output[0].name, seed
    if (node := index.producer(name)) is not None and node.op_type in _ACTIVATIONS:
        name = node.input[0]
    is_linear = True
    for _ in range(_MAX_STEPS):
        node = index.producer(name)
        if node is None:
            break
        end = _end(node, gradient, index, shapes, adder)
        if end is not None:
            return end._replace(is_exact=end.is_exact and is_linear)
        layer = _dynamic_layer(node, index)
        if layer is not None:
            name, gradient = layer.input, adder.node("MatMul", [gradient, adder.transposed(layer.weight(adder))])
            continue
        step = STEPS.get(node.op_type)
        if step is None:
            raise Left(f"the {node.op_type} {node.name} stands between its last feature map and its outputs")
        name = _data_input(node, index)
        gradient = step(At(node, gradient, name, shapes, opset, adder))
        is_linear = is_linear and node.op_type not in CURVED
    raise Left("no feature map is pooled or flattened before its outputs")


def _end(
    node: onnx.NodeProto, gradient: str, index: GraphIndex, shapes: Mapping[str, tuple[int, ...]], adder: Adder
) -> Gradient | None:
    """The feature map, if the node pools or flattens one."""
    shape = shapes.get(node.input[0], ()) if node.input else ()
    if len(shape) != 4:
        return None
    is_last = is_pooled = False
    if node.op_type == "ReduceMean":
        axes = sorted(axis % 4 for axis in _axes(node, index))
        is_pooled, is_last = axes in ([1, 2], [2, 3]), axes == [1, 2]
    elif node.op_type == "AveragePool":
        is_pooled = attribute(node, "kernel_shape", []) == list(shape[2:]) and not any(attribute(node, "pads", [0]))
    elif node.op_type == "GlobalAveragePool":
        is_pooled = True
    # What is turned before it is flattened may have its channels last.
    is_turned = index.producer(node.input[0], "Transpose") is not None
    is_flattened = node.op_type in ("Reshape", "Flatten") and min(shape[2:]) > 1 and not is_turned
    if not is_pooled and not is_flattened:
        return None
    height, width, channels = shape[1:] if is_last else (*shape[2:], shape[1])
    if min(height, width) < 2:
        raise Left(f"its last feature map has {height}x{width} positions")
    if is_flattened:
        whole = adder.reshape(adder.like(gradient, node.input[0]), 0, 0, -1)
        ones = adder.constant(np.ones((height * width, 1), np.float32))
        gradient = adder.node("MatMul", [whole, ones])
    maps = _before_rounding(node.input[0], index)
    return Gradient(maps, gradient, is_last, is_pooled, (height, width), channels)


class _DynamicLayer(NamedTuple):
    """A linear layer whose input is quantized as it comes: its input, 8-bit weights, their zero point and scale."""

    input: str
    quantized: str
    zero_point: str
    scale: str

    def weight(self, adder: Adder) -> str:
        """Add the weights in float32 (D, K)."""
        whole = adder.floats(self.quantized)
        if self.zero_point:
            whole = adder.node("Sub", [whole, adder.floats(self.zero_point)])
        return adder.node("Mul", [whole, self.scale])


def _dynamic_layer(node: onnx.NodeProto, index: GraphIndex) -> _DynamicLayer | None:
    """The layer that ends in this node: DynamicQuantizeLinear, MatMulInteger, Cast, Mul."""
    if node.op_type != "Mul":
        return None
    for whole, scale in (node.input[:2], node.input[1::-1]):
        cast, scales = index.producer(whole, "Cast"), index.producer(scale, "Mul")
        product = None if cast is None else index.producer(cast.input[0], "MatMulInteger")
        if product is None or scales is None:
            continue
        quantizer = index.producer(product.input[0], "DynamicQuantizeLinear")
        stored = [name for name in scales.input if index.initializer(name) is not None]
        if quantizer is None or len(stored) != 1:
            continue
        return _DynamicLayer(
            quantizer.input[0], product.input[1], product.input[3] if len(product.input) > 3 else "", stored[0]
        )
    return None


def _is_constant(name: str, index: GraphIndex) -> bool:
    """Whether a value is stored, as it is or quantized."""
    for _ in range(_MAX_STEPS):
        if index.initializer(name) is not None:
            return True
        node = index.producer(name)
        if node is None or node.op_type not in ("DequantizeLinear", "Cast", "Transpose", "Constant"):
            return False
        if node.op_type == "Constant":
            return True
        name = node.input[0]
    return False


def _before_rounding(name: str, index: GraphIndex) -> str:
    """A value before it is quantized and given back, if it is."""
    back = index.producer(name, "DequantizeLinear")
    there = None if back is None else index.producer(back.input[0], "QuantizeLinear")
    return name if there is None else there.input[0]


def _axes(node: onnx.NodeProto, index: GraphIndex) -> list[int]:
    """Axes of a reduction, which are an attribute or, from opset 18 on, an input."""
    stored = index.constant(node.input[1]) if len(node.input) > 1 else None
    return attribute(node, "axes", []) if stored is None else [int(axis) for axis in stored]
