"""A graph with its values of one floating-point type in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, numpy_helper

from edgeport_export.graph.index import graphs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FLOAT64", "WIDENED", "holds", "retype"]

WIDENED: Mapping[int, int] = {TensorProto.FLOAT16: TensorProto.FLOAT}
FLOAT64: Mapping[int, int] = {TensorProto.FLOAT16: TensorProto.DOUBLE, TensorProto.FLOAT: TensorProto.DOUBLE}

_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")


def holds(model: onnx.ModelProto, kind: int) -> bool:
    """Whether a model stores tensors of a type, or casts to it."""
    for graph in graphs_of(model.graph):
        if any(tensor.data_type == kind for tensor in graph.initializer):
            return True
        for node in graph.node:
            for one in node.attribute:
                is_type = one.type == onnx.AttributeProto.INT and one.name in _TYPE_ATTRIBUTES and one.i == kind
                if is_type or (one.HasField("t") and one.t.data_type == kind):
                    return True
    return False


def retype(model: onnx.ModelProto, kinds: Mapping[int, int]) -> onnx.ModelProto:
    """A copy in which everything of the types on the left has those on the right: weights, inputs, outputs, casts.

    Every value is exactly what it was, if the right-hand types are the wider ones; what is computed is not rounded to
    the narrow type in between.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for graph in graphs_of(result.graph):
        for tensor in graph.initializer:
            _retype_tensor(tensor, kinds)
        for value in (*graph.input, *graph.output):
            kind = value.type.tensor_type
            kind.elem_type = kinds.get(kind.elem_type, kind.elem_type)
        del graph.value_info[:]
        for node in graph.node:
            for one in node.attribute:
                if one.type == onnx.AttributeProto.INT and one.name in _TYPE_ATTRIBUTES:
                    one.i = kinds.get(one.i, one.i)
                elif one.HasField("t"):
                    _retype_tensor(one.t, kinds)
    return result


def _retype_tensor(tensor: TensorProto, kinds: Mapping[int, int]) -> None:
    kind = kinds.get(tensor.data_type)
    if kind is not None:
        values = numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
