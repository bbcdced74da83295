"""Models in float16; layers whose values do not fit stay in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from edgeport_export.quantize.graph import check_not_quantized
from edgeport_export.quantize.observe import run_with
from edgeport_export.quantize.quiet import quiet_logging
from edgeport_runtime.engine.session import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["overflowing", "to_half"]

_LARGEST = float(np.finfo(np.float16).max)
_MARGIN = 2.0  # of values that inputs other than those at hand may reach


def overflowing(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> list[str]:
    """Names of nodes that read, hold or give a value within a factor of 2 of float16's largest, 65,504.

    Args:
        model: float, shapes inferred, weights inside.
        batches: inputs to run it on.
    """
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    names = [o for n in model.graph.node for o in n.output if kinds.get(o) == onnx.TensorProto.FLOAT]
    largest: dict[str, float] = {}
    for x_BCHW, values in run_with(model, names, batches):
        for name, value in ((INPUT_NAME, x_BCHW), *values.items()):
            largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max()))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest[tensor.name] = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
    limit = _LARGEST / _MARGIN
    return [
        n.name for n in model.graph.node if any(not largest.get(name, 0.0) <= limit for name in (*n.input, *n.output))
    ]


def to_half(model: onnx.ModelProto, float_nodes: list[str]) -> onnx.ModelProto:
    """The model in float16, its input and output in float32.

    Args:
        model: float, weights inside; left as it is.
        float_nodes: nodes that stay in float32.

    Raises:
        QuantizeError: if the model is quantized already.
    """
    check_not_quantized(model)
    source = onnx.ModelProto()
    source.CopyFrom(model)
    with quiet_logging():
        half: onnx.ModelProto = convert_float_to_float16(
            source, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=float_nodes
        )
    _join_float_nodes(half)
    return half


def _join_float_nodes(model: onnx.ModelProto) -> None:
    """Take away casts to float16 and back between two nodes in float32: what overflows would overflow there."""
    down, up = (
        {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Cast" and n.attribute[0].i == kind}
        for kind in (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    )
    for node in model.graph.node:
        node.input[:] = [down.get(up.get(name, ""), name) for name in node.input]
