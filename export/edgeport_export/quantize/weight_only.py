"""Stores weights in int8 and computes in float32: a quarter of the size, and nothing else changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeport_export.graph.index import GraphIndex, attribute, remove_unused
from edgeport_export.quantize.graph import check_not_quantized, weight_of

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["WeightQuantizer"]

_LAYERS = ("Conv", "Gemm", "MatMul")
_LAST = 127
_MIN_VALUES = 1024  # smaller weights are not worth a node


class WeightQuantizer:
    """A float model from which the weights of any choice of its layers can be quantized: symmetric, a scale per output.

    Args:
        model: float, with its weights inside.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        check_not_quantized(model)
        self.model = model

    def layers(self) -> list[str]:
        """Names of the nodes whose weights can be quantized, in the graph's order."""
        sizes = {t.name: int(np.prod(t.dims)) for t in self.model.graph.initializer if t.data_type == 1}
        return [
            n.name for n in self.model.graph.node if n.op_type in _LAYERS and sizes.get(n.input[1], 0) >= _MIN_VALUES
        ]

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """The model with the weights of these layers behind a DequantizeLinear."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        index = GraphIndex(model.graph)
        restored: dict[tuple[str, int], onnx.NodeProto] = {}
        for node in model.graph.node:
            if node.name not in layers:
                continue
            axis = 0 if node.op_type == "Conv" or attribute(node, "transB", [0]) == [1] else 1
            key = (node.input[1], axis)
            if key not in restored:
                restored[key] = _store(model, weight_of(node, index), axis)
            node.input[1] = restored[key].output[0]
        nodes = [*restored.values(), *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        remove_unused(model)
        return model


def _store(model: onnx.ModelProto, tensor: onnx.TensorProto, axis: int) -> onnx.NodeProto:
    weight = numpy_helper.to_array(tensor)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / _LAST, np.finfo(np.float32).tiny)
    levels = np.clip(np.rint(weight / scale), -_LAST, _LAST).astype(np.int8)
    name = f"{tensor.name}/{axis}"
    model.graph.initializer.append(numpy_helper.from_array(levels, f"{name}/int8"))
    model.graph.initializer.append(numpy_helper.from_array(scale.ravel().astype(np.float32), f"{name}/scale"))
    return helper.make_node(
        "DequantizeLinear", [f"{name}/int8", f"{name}/scale"], [f"{name}/float"], name=f"{name}/dequantize", axis=axis
    )
