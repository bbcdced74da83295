"""Gives a model of somebody else EdgePort's input and output, and a batch of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeport_export.graph.index import GraphIndex, attribute, graphs_of, remove_unused
from edgeport_runtime.engine.session import INPUT_NAME

if TYPE_CHECKING:
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.engine.foreign import Ports

__all__ = ["adapt", "convert_opset", "free_batch"]

_PREFIX = "given/"
_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def adapt(model: onnx.ModelProto, ports: Ports, contract: Contract, *, finish: str | None) -> onnx.ModelProto:
    """A copy with the input ``image``, float32 (batch, C, H, W), and the contract's output, float32 (batch, K).

    What lies between the two is left as it is: NHWC is transposed once, another type is cast to, further axes of the
    output are taken away.

    Args:
        model: with one input.
        ports: its input and output.
        contract: names the output, and tells the batch.
        finish: operator that is put behind the output, ``Softmax`` or ``Sigmoid``; None for none.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    ends = {ports.input_name: f"{_PREFIX}input", ports.output_name: f"{_PREFIX}output"}
    taken = {name: f"{_PREFIX}{name}" for name in (INPUT_NAME, contract.output)}
    _rename(graph, taken | ends)
    source, target = ends[ports.input_name], ends[ports.output_name]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*_before(ports, source), *nodes, *_after(graph, ports, contract, target, finish)])
    size, batch = ports.image_size, contract.batch or "batch"
    ins = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [batch, ports.channels, size, size])
    outs = helper.make_tensor_value_info(contract.output, TensorProto.FLOAT, [batch, contract.num_outputs])
    for values, value in ((graph.input, ins), (graph.output, outs)):
        del values[:]
        values.append(value)
    del graph.value_info[:]
    _join_transposes(graph)
    _skip_identities(graph)
    remove_unused(result)
    return result


def free_batch(model: onnx.ModelProto, ports: Ports) -> onnx.ModelProto:
    """A copy whose batch is symbolic, where the shapes of its Reshape nodes held a fixed one.

    What it then gives for other batches has to be compared: constants elsewhere may hold the batch as well.

    Args:
        model: with one input.
        ports: its input; a batch that is fixed there is fixed in the model.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    shape = fixed.graph.input[0].type.tensor_type.shape
    size = [ports.image_size] * 2
    sides = [ports.channels, *size] if ports.layout == "nchw" else [*size, ports.channels]
    for dim, side in zip(shape.dim, [ports.batch or 1, *sides], strict=True):
        dim.dim_value = side
    known = _shapes(onnx.shape_inference.infer_shapes(fixed, data_prop=True))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    index = GraphIndex(graph)
    depends = {graph.input[0].name}
    for node in graph.node:
        if not depends.intersection(node.input):
            continue
        depends.update(node.output)
        after = known.get(node.output[0], [])
        if node.op_type == "Reshape" and after and all(after) and _constant(index, node.input[1]) is not None:
            name = f"{_PREFIX}shape/{node.output[0]}"
            graph.initializer.append(numpy_helper.from_array(np.array([-1, *after[1:]], np.int64), name))
            node.input[1] = name
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in graph.output:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    return result


def convert_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """A copy in another opset; None where onnx cannot convert it."""
    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(model, opset)
    except Exception:  # noqa: BLE001  its C++ core raises bare RuntimeError and more
        return None
    lowest = helper.find_min_ir_version_for(list(converted.opset_import), ignore_unknown=True)
    converted.ir_version = max(converted.ir_version, lowest)
    return converted


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for inner in graphs_of(graph):
        for node in inner.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*inner.initializer, *inner.output, *inner.input):
            value.name = names.get(value.name, value.name)


def _before(ports: Ports, target: str) -> list[onnx.NodeProto]:
    """From ``image`` to what the model takes."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    if ports.layout == "nhwc":
        steps.append(("Transpose", [], {"perm": _TO_NHWC}))
    if ports.dtype is np.uint8:
        steps += [("Max", [f"{_PREFIX}0"], {}), ("Min", [f"{_PREFIX}255"], {})]
    if ports.dtype is not np.float32:
        steps.append(("Cast", [], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(ports.dtype))}))
    return _chain(steps or [("Identity", [], {})], INPUT_NAME, target, "input")


def _after(
    graph: onnx.GraphProto, ports: Ports, contract: Contract, source: str, finish: str | None
) -> list[onnx.NodeProto]:
    """From what the model gives to the contract's output."""
    if ports.dtype is np.uint8:
        for value in (0, 255):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{_PREFIX}{value}"))
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    if ports.output_dtype is not np.float32:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if ports.output_rank > 2:
        steps.append(("Flatten", [], {"axis": 1}))
    elif ports.output_rank == 1:
        shape = np.array([-1, contract.num_outputs], np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, f"{_PREFIX}rows"))
        steps.append(("Reshape", [f"{_PREFIX}rows"], {}))
    if finish is not None:
        steps.append((finish, [], {"axis": 1} if finish == "Softmax" else {}))
    return _chain(steps or [("Identity", [], {})], source, contract.output, "output")


def _chain(
    steps: list[tuple[str, list[str], dict[str, Any]]], source: str, target: str, what: str
) -> list[onnx.NodeProto]:
    nodes = []
    for i, (operator, others, attributes) in enumerate(steps):
        made = target if i == len(steps) - 1 else f"{_PREFIX}{what}{i}"
        nodes.append(helper.make_node(operator, [source, *others], [made], name=f"{_PREFIX}{what}{i}", **attributes))
        source = made
    return nodes


def _join_transposes(graph: onnx.GraphProto) -> None:
    """NHWC that the model turns to NCHW at once, as converters of TensorFlow have it, needs neither of the two."""
    index = GraphIndex(graph)
    for node in graph.node:
        if node.op_type != "Transpose" or attribute(node, "perm", []) != _TO_NCHW:
            continue
        before = index.producer(node.input[0], "Transpose")
        if before is not None and before.input[0] == INPUT_NAME and attribute(before, "perm", []) == _TO_NHWC:
            node.op_type = "Identity"
            node.input[0] = INPUT_NAME
            del node.attribute[:]


def _skip_identities(graph: onnx.GraphProto) -> None:
    """Take away the nodes that only give a name to the input and the output."""
    index = GraphIndex(graph)
    outputs = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        source, target = node.input[0], node.output[0]
        maker = index.producer(source)
        if target not in outputs:
            if any(one.HasField("g") for reader in index.consumers(target) for one in reader.attribute):
                continue  # a graph inside reads it by its name
            for reader in index.consumers(target):
                reader.input[:] = [source if name == target else name for name in reader.input]
            graph.node.remove(node)
        elif maker is not None and index.is_used_once(source):
            maker.output[:] = [target if name == source else name for name in maker.output]
            graph.node.remove(node)
        index = GraphIndex(graph)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Sides of every value whose shape is known; 0 for one that is not."""
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }


def _constant(index: GraphIndex, name: str) -> Any:
    """What a stored constant or a Constant node holds; None for a value that is computed."""
    node = index.producer(name, "Constant")
    return index.constant(name) if node is None else True
