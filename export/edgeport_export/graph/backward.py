"""How a gradient passes an operator on its way back: rules that write it in operators, and give its new name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_export.graph.index import attribute
from edgeport_export.graph.outcome import Left

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    from edgeport_export.graph.adder import Adder

__all__ = ["CURVED", "MOVES", "SAME", "STEPS", "At"]

SAME = ("Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear")
"""Give what they are given; of a quantizer's rounding the slope is taken to be 1 (the straight-through estimator)."""
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_FIRST_WITH_SUMS = 16  # opset, of ScatterElements


class At(NamedTuple):
    """A node on the way back, the gradient at its output, and the name of its input."""

    node: onnx.NodeProto
    gradient: str
    name: str
    shapes: Mapping[str, tuple[int, ...]]
    opset: int
    adder: Adder


def _same(at: At) -> str:
    return at.gradient


def _moved(at: At) -> str:
    return at.adder.like(at.gradient, at.name)


def _turned(at: At) -> str:
    order = attribute(at.node, "perm", [])
    return at.adder.node("Transpose", [at.gradient], perm=[order.index(i) for i in range(len(order))])


def _gathered(at: At) -> str:
    """Of a list of numbers: to each place what its readers give. PyTorch writes ``flatten`` so after ``permute``."""
    if len(at.shapes.get(at.name, ())) != 1 or any(attribute(at.node, "axis", [0])) or at.opset < _FIRST_WITH_SUMS:
        raise Left(f"the Gather {at.node.name} stands between its last feature map and its outputs")
    zeros = at.adder.node("Mul", [at.adder.floats(at.name), at.adder.number(0)])
    places, given = (at.adder.reshape(one, -1) for one in (at.node.input[1], at.gradient))
    return at.adder.node("ScatterElements", [zeros, places, given], axis=0, reduction="add")


def _gemm(at: At) -> str:
    if at.name != at.node.input[0] or any(attribute(at.node, "transA", [0])):
        raise Left(f"the Gemm {at.node.name} reads its weights first")
    weight = at.adder.floats(at.node.input[1])
    alpha = next((a.f for a in at.node.attribute if a.name == "alpha"), 1.0)
    turned = weight if any(attribute(at.node, "transB", [0])) else at.adder.transposed(weight)
    scaled = at.gradient if alpha == 1 else at.adder.node("Mul", [at.gradient, at.adder.number(alpha)])
    return at.adder.node("MatMul", [scaled, turned])


def _matmul(at: At) -> str:
    if at.name != at.node.input[0] or len(at.shapes.get(at.node.input[1], ())) != 2:
        raise Left(f"the MatMul {at.node.name} reads its weights first")
    return at.adder.node("MatMul", [at.gradient, at.adder.transposed(at.adder.floats(at.node.input[1]))])


def _added(at: At) -> str:
    if at.shapes.get(at.name) != at.shapes.get(at.node.output[0]):
        raise Left(f"the {at.node.op_type} {at.node.name} repeats what it reads")
    if at.node.op_type == "Sub" and at.name != at.node.input[0]:
        return at.adder.node("Neg", [at.gradient])
    return at.gradient


def _scaled(at: At) -> str:
    _added(at)
    if at.node.op_type == "Div" and at.name != at.node.input[0]:
        raise Left(f"the Div {at.node.name} divides by what it reads")
    other = next(one for one in at.node.input if one != at.name)
    return at.adder.node(at.node.op_type, [at.gradient, at.adder.floats(other)])


def _relu(at: At) -> str:
    positive = at.adder.node("Greater", [at.adder.floats(at.name), at.adder.number(0)])
    return at.adder.node("Mul", [at.gradient, at.adder.floats(positive)])


def _clip(at: At) -> str:
    gradient = at.gradient
    for bound, test in zip(at.node.input[1:], ("Greater", "Less"), strict=False):
        if bound:
            inside = at.adder.node(test, [at.adder.floats(at.name), at.adder.floats(bound)])
            gradient = at.adder.node("Mul", [gradient, at.adder.floats(inside)])
    return gradient


def _hard_swish(at: At) -> str:
    """0 below -3, 1 above 3, and x / 3 + 1/2 between."""
    add, x = at.adder, at.adder.floats(at.name)
    between = add.node("Add", [add.node("Div", [x, add.number(3)]), add.number(0.5)])
    below = add.node("Less", [x, add.number(-3)])
    above = add.node("Greater", [x, add.number(3)])
    slope = add.node("Where", [below, add.number(0), add.node("Where", [above, add.number(1), between])])
    return add.node("Mul", [at.gradient, slope])


def _tanh(at: At) -> str:
    add, y = at.adder, at.adder.floats(at.node.output[0])
    return add.node("Mul", [at.gradient, add.node("Sub", [add.number(1), add.node("Mul", [y, y])])])


def _gelu(at: At) -> str:
    """The normal distribution at x, and x times its density."""
    if any(a.name == "approximate" and a.s != b"none" for a in at.node.attribute):
        raise Left(f"the Gelu {at.node.name} is an approximation")
    add, x = at.adder, at.adder.floats(at.name)
    erf = add.node("Erf", [add.node("Mul", [x, add.number(math.sqrt(0.5))])])
    below = add.node("Mul", [add.node("Add", [erf, add.number(1)]), add.number(0.5)])
    exponent = add.node("Mul", [add.node("Mul", [x, x]), add.number(-0.5)])
    density = add.node("Mul", [add.node("Exp", [exponent]), add.number(1 / math.sqrt(2 * math.pi))])
    slope = add.node("Add", [below, add.node("Mul", [x, density])])
    return add.node("Mul", [at.gradient, slope])


def _layer_norm(at: At) -> str:
    """With y the normalized x and g the gradient there: (g - mean(g) - y mean(g y)) / deviation."""
    shape = at.shapes.get(at.name, ())
    if not shape or attribute(at.node, "axis", [-1])[0] % len(shape) != len(shape) - 1:
        raise Left(f"the LayerNormalization {at.node.name} is over several axes")
    add = at.adder
    mean_of = add.constant(np.full((shape[-1], 1), 1 / shape[-1], np.float32))

    def mean(value: str) -> str:
        return add.node("MatMul", [value, mean_of])

    x = add.floats(at.name)
    centred = add.node("Sub", [x, mean(x)])
    epsilon = next((a.f for a in at.node.attribute if a.name == "epsilon"), 1e-5)
    variance = add.node("Add", [mean(add.node("Mul", [centred, centred])), add.number(epsilon)])
    deviation = add.node("Sqrt", [variance])
    y = add.node("Div", [centred, deviation])
    g = add.node("Mul", [at.gradient, add.floats(at.node.input[1])])
    inner = add.node("Add", [mean(g), add.node("Mul", [y, mean(add.node("Mul", [g, y]))])])
    return add.node("Div", [add.node("Sub", [g, inner]), deviation])


def _conv(at: At) -> str:
    """Of a single position, where it is a linear layer."""
    is_linear = at.shapes.get(at.name, ())[2:] == (1, 1) == at.shapes.get(at.node.input[1], ())[2:]
    if not is_linear or attribute(at.node, "group", [1]) != [1]:
        raise Left(f"the Conv {at.node.name} stands between its last feature map and its outputs")
    return at.adder.node("ConvTranspose", [at.gradient, at.adder.floats(at.node.input[1])])


CURVED = ("Relu", "Clip", "HardSwish", "Tanh", "Gelu", "LayerNormalization")
STEPS: dict[str, Callable[[At], str]] = {
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(MOVES, _moved),
    "Transpose": _turned,
    "Gather": _gathered,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _added,
    "Sub": _added,
    "Mul": _scaled,
    "Div": _scaled,
    "Relu": _relu,
    "Clip": _clip,
    "HardSwish": _hard_swish,
    "Tanh": _tanh,
    "Gelu": _gelu,
    "LayerNormalization": _layer_norm,
    "Conv": _conv,
}
