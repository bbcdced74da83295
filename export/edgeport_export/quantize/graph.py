"""Questions that quantization asks of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from edgeport_runtime.errors import QuantizeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_export.graph.index import GraphIndex
    from edgeport_export.quantize.recipes import Recipe

__all__ = [
    "FLOAT_ONLY",
    "activations_of",
    "attribute",
    "check_not_quantized",
    "consumers_of",
    "layers_of",
    "mark_inferred",
    "replace_constant",
    "weight_of",
]

FLOAT_ONLY = ("Relu", "Clip")
"""Activations that a quantizer of their input would cut in half: the value after them is quantized, not before."""

_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearConv",
)


def check_not_quantized(model: onnx.ModelProto) -> None:
    """Raise QuantizeError if the graph holds quantized operators."""
    for node in model.graph.node:
        if node.op_type in _QUANTIZED:
            raise QuantizeError(
                f"the model is already quantized (node {node.name} is {node.op_type}); "
                "give the float model, or export it as it is with --quantize none"
            )


def mark_inferred(model: onnx.ModelProto) -> None:
    """Tell onnxruntime.quantization that shapes are known, or it goes through a file to find them, for every layer."""
    model.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")


def layers_of(model: onnx.ModelProto, recipe: Recipe) -> list[onnx.NodeProto]:
    """Nodes of the recipe's layer operators with a constant float weight, in the graph's order."""
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    return [n for n in model.graph.node if n.op_type in recipe.layers and n.input[1] in constants]


def weight_of(node: onnx.NodeProto, index: GraphIndex) -> onnx.TensorProto:
    """The weight of a layer that :func:`layers_of` gave."""
    tensor = index.initializer(node.input[1])
    assert tensor is not None
    return tensor


def consumers_of(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each value."""
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return consumers


def activations_of(model: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Names of the values that a static recipe quantizes, in the graph's order."""
    layers = {node.name for node in layers_of(model, recipe)}
    consumers = consumers_of(model)
    outputs = {value.name for value in model.graph.output}
    names: dict[str, None] = {}
    for node in model.graph.node:
        is_layer = node.name in layers
        if not is_layer and node.op_type not in recipe.others:
            continue
        inputs = node.input[:1] if is_layer else node.input
        names.update(dict.fromkeys(inputs))
        output = node.output[0]
        readers = consumers.get(output, [])
        if len(readers) == 1 and readers[0].op_type in FLOAT_ONLY:
            output = readers[0].output[0]
        if not (is_layer and recipe.has_float_outputs) and output not in outputs:
            names[output] = None
    constants = {tensor.name for tensor in model.graph.initializer}
    return [name for name in names if name not in constants]


def attribute(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    """A node's attribute of integers."""
    found = next((a for a in node.attribute if a.name == name), None)
    if found is None:
        return default
    return list(found.ints) or [found.i]


def replace_constant(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    """Give a stored constant other values of the same shape."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
