"""Shapes of the values of a graph, for one image."""

from __future__ import annotations

import onnx

__all__ = ["infer_shapes"]


def infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the values of a graph for one image; those that cannot be told are left out.

    Args:
        model: weights may be absent.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1  # the batch is all that is free
    for node in bare.graph.node:
        if node.op_type == "MultiHeadAttention":  # not of ONNX, whose inference ends there: it gives the queries' shape
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name))
    noted = {value.name: value for value in bare.graph.value_info}
    del bare.graph.value_info[:]
    if bare.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:  # beyond it the exporter's notes are all there is
        bare = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in bare.graph.initializer}
    for value in (*noted.values(), *bare.graph.value_info, *bare.graph.input, *bare.graph.output):
        dims = value.type.tensor_type.shape.dim
        known = tuple(d.dim_value if d.HasField("dim_value") else 0 for d in dims)
        if 0 not in known:
            shapes[value.name] = known
        elif value.name in noted and 0 not in known[1:]:
            shapes[value.name] = (1, *known[1:])
    return shapes
