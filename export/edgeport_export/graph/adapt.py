"""Gives a model of somebody else EdgePort's input and output, and a batch of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxsim
from onnx import TensorProto, helper, numpy_helper

from edgeport_export.graph.index import GraphIndex, attribute, graphs_of, reads_of, remove_unused
from edgeport_runtime.engine.session import INPUT_NAME
from edgeport_runtime.pixels.preprocess import sides_of

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
    batch, shape = contract.batch or "batch", contract.input_shape
    ins = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [batch, *shape])
    outs = helper.make_tensor_value_info(contract.output, TensorProto.FLOAT, [batch, contract.num_outputs])
    for values, value in ((graph.input, ins), (graph.output, outs)):
        del values[:]
        values.append(value)
    del graph.value_info[:]
    _join_transposes(graph)
    _skip_identities(graph)
    remove_unused(result)
    return result


def free_batch(model: onnx.ModelProto, ports: Ports, *, folds: bool) -> onnx.ModelProto | None:
    """A copy whose batch is symbolic, where shapes of Reshape nodes and constants beside the images held a fixed one.

    Such constants are class tokens, which are joined to the tokens of each image. What the copy then gives for other
    batches has to be compared: the batch may be held elsewhere as well.

    Args:
        model: with one input.
        ports: its input; a batch that is fixed there is fixed in the model.
        folds: compute what follows from the fixed shapes first, so that more of them are constants.

    Returns:
        The copy; None where onnxsim cannot fold.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    shape = fixed.graph.input[0].type.tensor_type.shape
    size = list(sides_of(ports.image_size))
    sides = [ports.channels, *size] if ports.layout == "nchw" else [*size, ports.channels]
    for dim, side in zip(shape.dim, [ports.batch or 1, *sides], strict=True):
        dim.dim_value = side
    if folds:
        try:
            fixed, _ = onnxsim.simplify(fixed, certify=False, perform_optimization=False)
        except Exception:  # noqa: BLE001  its C++ core raises bare RuntimeError and more
            return None
    known = _shapes(onnx.shape_inference.infer_shapes(fixed, data_prop=True))
    result = onnx.ModelProto()
    result.CopyFrom(fixed if folds else model)
    graph = result.graph
    index = GraphIndex(graph)
    depends = {graph.input[0].name}
    for node in list(graph.node):
        if node.op_type == "Shape" or not depends.intersection(reads_of(node)):
            continue  # what follows from a fixed shape is as good as a constant
        depends.update(node.output)
        if node.op_type == "Concat" and attribute(node, "axis", [0]) != [0]:
            for i, name in enumerate(node.input):
                if name not in depends and known.get(name, [0])[0] == (ports.batch or 1):
                    node.input[i] = _for_each(graph, name, known[name], before=node)
        after = known.get(node.output[0], [])
        if node.op_type == "Reshape" and after and all(after) and index.initializer(node.input[1]) is not None:
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
    """Take away the nodes that only give another name: to the input and the output, or to weights that are shared."""
    index = GraphIndex(graph)
    captured = {name for node in graph.node for name in reads_of(node).difference(node.input)}
    sources: dict[str, str] = {}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        source, target = sources.get(node.input[0], node.input[0]), node.output[0]
        maker = index.producer(source)
        if not index.is_output(target) and target not in captured:
            sources[target] = source
            graph.node.remove(node)
        elif index.is_output(target) and maker is not None and index.is_used_once(source):
            maker.output[:] = [target if name == source else name for name in maker.output]
            graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]


def _for_each(graph: onnx.GraphProto, name: str, shape: list[int], *, before: onnx.NodeProto) -> str:
    """The first row of a value, once for each image."""
    prefix = f"{_PREFIX}each/{before.output[0]}/{name}"
    constants = {"first": [0], "rest": shape[1:]}
    for key, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"{prefix}/{key}"))
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", [name, f"{prefix}/first"], "row", {"axis": 0}),
        ("Shape", [graph.input[0].name], "shape", {}),
        ("Gather", [f"{prefix}/shape", f"{prefix}/first"], "count", {"axis": 0}),
        ("Concat", [f"{prefix}/count", f"{prefix}/rest"], "sides", {"axis": 0}),
        ("Expand", [f"{prefix}/row", f"{prefix}/sides"], "rows", {}),
    ]
    place = list(graph.node).index(before)
    for i, (operator, inputs, output, attributes) in enumerate(steps):
        made = f"{prefix}/{output}"
        graph.node.insert(place + i, helper.make_node(operator, inputs, [made], name=made, **attributes))
    return f"{prefix}/rows"


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Sides of every value whose shape is known; 0 for one that is not."""
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
