"""What nodes of a graph cost in float and in int8, and what it costs to go from one to the other.

Nanoseconds of one thread of ONNX Runtime 1.32 on an AMD EPYC with VNNI, as the smallest of many calls: of chains of
layers with what may stand between them, at 64x56x56, 128x28x28 and 256x14x14, and of the nodes of MobileNetV3-small,
RegNetY-200MF and the small RegNetY of `tools/training`. It is a table, not a measurement at each export, so that the
same inputs give the same bytes. It decides by ratios, which differ less from one processor to another than times do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edgeport_export.graph.index import GraphIndex, attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["ELEMENTWISE", "TRANSPARENT", "Cost", "change", "costs_of"]


class Cost(NamedTuple):
    """Nanoseconds in float and in int8."""

    as_float: float
    as_int8: float


# A multiply-add.
_DENSE = Cost(0.020, 0.005)
_GROUPED = Cost(0.094, 0.078)  # measured with 8 channels in a group
_DEPTHWISE = Cost(0.040, 0.065)
_MIN_GROUP = 16
# A layer in int8 also brings its sums back to 8 bits, and gathers the input of each place of its kernel.
_ROUNDED, _PLACE = 0.10, 2.0
# A node, however small.
_LAYER, _NODE = Cost(3000.0, 4000.0), Cost(2500.0, 3000.0)
# A float value that a convolution has in blocks of channels, and another operator in planes.
_REORDERED, _REORDER = 0.13, 2000.0
_BLOCKED = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Add")
# A value, of the output or of the input, whichever has more.
ELEMENTWISE: dict[str, Cost] = {
    "Add": Cost(0.37, 0.26),
    "Mul": Cost(0.12, 0.20),
    "Sigmoid": Cost(0.25, 0.35),
    "HardSigmoid": Cost(0.20, 0.20),
    "HardSwish": Cost(0.40, 0.40),
    "LeakyRelu": Cost(0.10, 0.30),
    "MaxPool": Cost(0.20, 0.10),
    "AveragePool": Cost(0.30, 0.25),
    "GlobalAveragePool": Cost(0.05, 0.05),
    "ReduceMean": Cost(0.05, 0.05),
    "Concat": Cost(0.10, 0.05),
    "Split": Cost(0.10, 0.05),
}
_FLOAT_ALONE = {"Gelu": 0.75, "LayerNormalization": 0.85, "Softmax": 1.0, "BatchNormalization": 0.12}
_OTHER = 0.3
_FUSED = ("Add", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu")  # into the float convolution before them
TRANSPARENT = ("Relu", "Clip", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity")
"""Operators that cost as good as nothing in either, and take their place by their neighbours."""
_CHANGED, _CHANGE = 0.2, 1000.0  # a value that is quantized or restored, and the node that does it


def costs_of(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], multiply_adds: Mapping[str, int]
) -> dict[str, Cost]:
    """Of each node by its name, for one image."""
    index = GraphIndex(model.graph)
    return {node.name: _cost(node, index, shapes, multiply_adds) for node in model.graph.node}


def change(name: str, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Of quantizing a value, or of restoring it."""
    return _CHANGE + _CHANGED * math.prod(shapes.get(name, ()))


def _cost(
    node: onnx.NodeProto, index: GraphIndex, shapes: Mapping[str, tuple[int, ...]], multiply_adds: Mapping[str, int]
) -> Cost:
    out = shapes.get(node.output[0], ())
    size = max(math.prod(shapes.get(name, ())) for name in (node.output[0], *node.input[:1]))
    if node.name in multiply_adds:
        each, count = _kind(node, shapes), multiply_adds[node.name]
        places = 0
        if node.op_type == "Conv" and each is not _DEPTHWISE and len(out) > 2:
            kernel = math.prod(shapes.get(node.input[1], ())[2:])
            places = 0 if kernel == 1 else kernel * math.prod(out[2:])
        as_int8 = each.as_int8 * count + _ROUNDED * math.prod(out) + _PLACE * places + _LAYER.as_int8
        return Cost(each.as_float * count + _LAYER.as_float, as_int8)
    if node.op_type in TRANSPARENT:
        return Cost(0.0, 0.0)
    as_float, as_int8 = ELEMENTWISE.get(node.op_type, Cost(_FLOAT_ALONE.get(node.op_type, _OTHER), math.inf))
    as_int8 = as_int8 * size + _NODE.as_int8
    if node.op_type in _FUSED and any(_is_convolution(name, index) for name in node.input):
        return Cost(0.05 * size, as_int8)
    return Cost(as_float * size + _NODE.as_float + _reordering(node, index, shapes), as_int8)


def _reordering(node: onnx.NodeProto, index: GraphIndex, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """What it costs in float that the neighbours of a node are convolutions."""
    if node.op_type in _BLOCKED:
        return 0.0
    made = [name for name in node.input if _maker(name, index) == "Conv"]
    read = [name for name in node.output if any(reader.op_type == "Conv" for reader in index.consumers(name))]
    return sum(_REORDER + _REORDERED * math.prod(shapes.get(name, ())) for name in (*made, *read))


def _maker(name: str, index: GraphIndex) -> str:
    node = index.producer(name)
    while node is not None and node.op_type in ("Relu", "Clip"):
        node = index.producer(node.input[0])
    return "" if node is None else node.op_type


def _is_convolution(name: str, index: GraphIndex) -> bool:
    """Whether a value is a convolution's, and nothing else reads it."""
    return index.producer(name, "Conv") is not None and index.is_used_once(name)


def _kind(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    (groups,) = attribute(node, "group", [1])
    if node.op_type != "Conv" or groups == 1:
        return _DENSE
    per_group = shapes.get(node.input[1], (0, 0))[1]
    return _DEPTHWISE if per_group == 1 else _GROUPED if per_group < _MIN_GROUP else _DENSE
