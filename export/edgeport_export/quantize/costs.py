"""What nodes of a graph cost in float and in int8, and what it costs to go from one to the other.

Nanoseconds of one thread of ONNX Runtime 1.32 on an AMD EPYC with VNNI, as the smallest of many calls: of chains of
layers with what may stand between them, at 64x56x56, 128x28x28 and 256x14x14, and of the nodes of MobileNetV3-small. It
is a table, not a measurement at each export, so that the same inputs give the same bytes. It decides by ratios, which
differ less from one processor to another than times do.
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
_GROUPED = Cost(0.068, 0.070)  # measured with 8 channels in a group
_DEPTHWISE = Cost(0.040, 0.065)
_MIN_GROUP = 16
# A layer in int8 also brings its sums back to 8 bits, and gathers the input of each place of its kernel.
_ROUNDED, _PLACE, _LAYER = 0.10, 2.0, 1000.0
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
_CHANGED, _NODE = 0.2, 1000.0  # a value that is quantized or restored, and the node that does it


def costs_of(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], multiply_adds: Mapping[str, int]
) -> dict[str, Cost]:
    """Of each node by its name, for one image."""
    index = GraphIndex(model.graph)
    return {node.name: _cost(node, index, shapes, multiply_adds) for node in model.graph.node}


def change(name: str, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Of quantizing a value, or of restoring it."""
    return _NODE + _CHANGED * math.prod(shapes.get(name, ()))


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
        as_int8 = each.as_int8 * count + _ROUNDED * math.prod(out) + _PLACE * places + _LAYER
        return Cost(each.as_float * count, as_int8)
    if node.op_type in TRANSPARENT:
        return Cost(0.0, 0.0)
    as_float, as_int8 = ELEMENTWISE.get(node.op_type, Cost(_FLOAT_ALONE.get(node.op_type, _OTHER), math.inf))
    if node.op_type in _FUSED and any(_is_convolution(name, index) for name in node.input):
        as_float = 0.05
    return Cost(as_float * size, as_int8 * size)


def _is_convolution(name: str, index: GraphIndex) -> bool:
    """Whether a value is a convolution's, and nothing else reads it."""
    return index.producer(name, "Conv") is not None and index.is_used_once(name)


def _kind(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    (groups,) = attribute(node, "group", [1])
    if node.op_type != "Conv" or groups == 1:
        return _DENSE
    per_group = shapes.get(node.input[1], (0, 0))[1]
    return _DEPTHWISE if per_group == 1 else _GROUPED if per_group < _MIN_GROUP else _DENSE
