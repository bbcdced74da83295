"""Which nodes and values of a graph are quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from edgeport_export.graph.index import GraphIndex
from edgeport_runtime.errors import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgeport_export.quantize.recipes import Recipe

__all__ = [
    "FLOAT_ONLY",
    "activations_of",
    "check_not_quantized",
    "layers_of",
    "mark_inferred",
    "weight_of",
]

FLOAT_ONLY = ("Relu", "Clip")
"""Activations that a quantizer of their input would cut in half: the value after them is quantized, not before."""

_FIRST_INPUT = ("ReduceMean", "Split")  # the others are axes and sizes

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
                "give the float model, or export this one unchanged with --quantize none"
            )


def mark_inferred(model: onnx.ModelProto) -> None:
    """Tell onnxruntime.quantization that shapes are known, or it goes through a file to find them, for every layer."""
    model.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")


def layers_of(model: onnx.ModelProto, recipe: Recipe) -> list[onnx.NodeProto]:
    """Nodes of the recipe's layer operators with a constant float weight, in the graph's order."""
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    return [n for n in model.graph.node if n.op_type in recipe.layers and n.input[1] in constants]


def weight_of(node: onnx.NodeProto, index: GraphIndex) -> onnx.TensorProto:
    """The weight of a layer that ``layers_of`` gave."""
    tensor = index.initializer(node.input[1])
    assert tensor is not None
    return tensor


def activations_of(model: onnx.ModelProto, recipe: Recipe, nodes: Collection[str] | None = None) -> list[str]:
    """Names of the values that a static recipe quantizes, in the graph's order.

    Args:
        model: float.
        recipe: how it is quantized.
        nodes: what runs in int8; None takes every layer, and whatever the recipe has between them.
    """
    layers = {node.name for node in layers_of(model, recipe)}
    index = GraphIndex(model.graph)
    names: dict[str, None] = {}
    for node in model.graph.node:
        is_layer = node.name in layers
        if (not is_layer and node.op_type not in recipe.others) or (nodes is not None and node.name not in nodes):
            continue
        inputs = node.input[:1] if is_layer or node.op_type in _FIRST_INPUT else node.input
        names.update(dict.fromkeys(inputs))
        for output in node.output:
            readers = index.consumers(output)
            if len(readers) == 1 and readers[0].op_type in FLOAT_ONLY:
                output = readers[0].output[0]
            if not (is_layer and recipe.has_float_outputs) and not index.is_output(output):
                names[output] = None
    return [name for name in names if index.initializer(name) is None]
