"""Shapes of the values of a graph."""

from __future__ import annotations

import onnx
import pytest
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper

from edgeport_export.quantize.work import multiply_adds


@pytest.mark.slow
def test_a_graph_with_more_weights_than_protobuf_holds_has_shapes_and_costs() -> None:
    side, count = 8192, 9  # nine matrices of 256 MiB
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"n{i}") for i in range(count)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, side]) for name in ("x0", f"x{count}")]
    model = helper.make_model(helper.make_graph(nodes, "large", ends[:1], ends[1:]))
    for i in range(count):
        tensor = model.graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=(side, side))
        tensor.raw_data = bytes(side * side * 4)
    with pytest.raises(EncodeError):
        model.ByteSize()
    assert multiply_adds(model) == {f"n{i}": 3 * side * side for i in range(count)}
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).shape == (side, side)  # the model is left as it is
