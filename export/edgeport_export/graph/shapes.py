"""Shapes and types of the values of a graph, for one image."""

from __future__ import annotations

import onnx

__all__ = ["infer_shapes", "infer_values"]

_KEPT_BYTES = 1024  # of a constant: shapes and indices, which shapes follow from


def infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the values of a graph for one image; those that cannot be told are left out.

    Args:
        model: weights may be absent.
    """
    return {name: shape for name, (_, shape) in infer_values(model).items()}


def infer_values(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Type (of ``onnx.TensorProto``) and shape of each value; as ``infer_shapes``."""
    bare = _without_weights(model)
    for value in bare.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1  # the batch is all that is free
    for node in bare.graph.node:
        if node.op_type == "MultiHeadAttention":  # not of ONNX, whose inference ends there: it gives the queries' shape
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name))
    noted = {value.name: value for value in bare.graph.value_info}
    del bare.graph.value_info[:]
    bare = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    found = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in bare.graph.initializer}
    for value in (*noted.values(), *bare.graph.value_info, *bare.graph.input, *bare.graph.output):
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            continue
        known = tuple(dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim)
        if min(known, default=1) > 0:
            found[value.name] = kind.elem_type, known
        elif value.name in noted and min(known[1:], default=1) > 0:
            found[value.name] = kind.elem_type, (1, *known[1:])
    return found


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large constants have a type and a shape alone: with them it may be more than protobuf holds."""
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = model.graph
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(bare.graph, name).extend(getattr(graph, name))
    bare.graph.name = graph.name
    for tensor in graph.initializer:
        is_large = len(tensor.raw_data) > _KEPT_BYTES
        kept = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims) if is_large else tensor
        bare.graph.initializer.append(kept)
    return bare
