"""How a model that came quantized was quantized, as its graph shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import TensorProto, numpy_helper

from edgeport_export.graph.index import GraphIndex, attribute

if TYPE_CHECKING:
    import onnx

__all__ = ["Quantized", "describe_quantized"]

_LAYERS = ("Conv", "Gemm", "MatMul")
_DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
_INTEGER_LAYERS = {  # and which input holds the weight
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulIntegerToFloat": 1,
    "MatMulNBits": 1,
}
_4_BITS = (TensorProto.INT4, TensorProto.UINT4)
_LARGEST_OF_7_BITS = 64


class Quantized(NamedTuple):
    """What a bundle says of such a model.

    Attributes:
        name: of its variant.
        precision: what it asks for.
        details: the manifest's ``quantization``.
    """

    name: str
    precision: str
    details: dict[str, Any]

    @property
    def runs_alone(self) -> bool:
        """Whether ranges are taken from each call's input."""
        return bool(self.details["scheme"] == "dynamic")


def describe_quantized(model: onnx.ModelProto) -> Quantized | None:
    """Scheme, target and layers of a quantized model; None for a model in floats.

    The target is told by what processors could saturate: weights of 8 bits need VNNI, of 7 bits they do not.
    """
    operators = {node.op_type for node in model.graph.node}
    is_dynamic = bool(operators & set(_DYNAMIC))
    is_static = "QuantizeLinear" in operators or any(operator.startswith("QLinear") for operator in operators)
    if not (is_dynamic or is_static or operators & {"DequantizeLinear", *_INTEGER_LAYERS}):
        return None
    index = GraphIndex(model.graph)
    quantized, floats, weights = [], [], []
    for node in model.graph.node:
        if node.op_type in _INTEGER_LAYERS:
            quantized.append(node)
            weights.append(index.initializer(node.input[_INTEGER_LAYERS[node.op_type]]))
        elif node.op_type in _LAYERS:
            restored = index.producer(node.input[1], "DequantizeLinear")
            if restored is not None and index.initializer(restored.input[0]) is not None:
                quantized.append(node)
                weights.append(index.initializer(restored.input[0]))
            elif index.initializer(node.input[1]) is not None:
                floats.append(node)
    bits = 4 if any(_has_4_bits(tensor) for tensor in weights) or _num_bits(model) == 4 else 8
    scheme = "dynamic" if is_dynamic else "static" if is_static else "weights only"
    details = {
        "scheme": scheme,
        "target": None if scheme == "weights only" else "cpu" if any(map(_needs_8_bits, weights)) else "cpu-avx2",
        "reason": "the file came quantized, and was left as it is",
        "num_layers": len(quantized) + len(floats),
        "float_layers": [node.name or node.output[0] for node in floats],
    }
    if scheme == "weights only":
        return Quantized(f"int{bits}-weights", f"int{bits} weights, float32", details)
    return Quantized(f"int{bits}", f"int{bits}", details)


def _has_4_bits(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type in _4_BITS


def _num_bits(model: onnx.ModelProto) -> int | None:
    """Of weights that ONNX Runtime packs itself."""
    packed = next((node for node in model.graph.node if node.op_type == "MatMulNBits"), None)
    return None if packed is None else attribute(packed, "bits", [4])[0]


def _needs_8_bits(tensor: onnx.TensorProto | None) -> bool:
    if tensor is None or tensor.data_type != TensorProto.INT8:
        return False
    return bool(np.abs(numpy_helper.to_array(tensor).astype(np.int16)).max(initial=0) > _LARGEST_OF_7_BITS)
