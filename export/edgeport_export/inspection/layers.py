"""Layers of an ``.onnx`` file: operators, parameters, multiply-adds, memory, and what is quantized. For one image.

Files are not trusted: nothing is run, no weights are read, and no other file is opened.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.inliner import inline_local_functions

from edgeport_export.graph.index import GraphIndex, reads_of, sort_nodes
from edgeport_export.graph.onnx_file import opset_of
from edgeport_export.graph.shapes import infer_values
from edgeport_export.quantize.work import multiply_adds_of
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Inspection", "Layer", "inspect_model", "read_graph"]

_MAX_BYTES, _MAX_NODES = 2**31, 200_000
_BITS: dict[int, int] = {
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64, TensorProto.COMPLEX64), 64),
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32), 32),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16), 16),
    **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4), 4),
    TensorProto.COMPLEX128: 128,
}  # the others have 8
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_INTEGER_LAYERS = (
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A node of the graph.

    Attributes:
        name: of the node.
        operator: its type, with the domain before it unless it is ONNX's own.
        shape: of its first output, for one image; None where it cannot be told.
        multiply_adds: of one image.
        num_parameters: numbers in float or of at most 8 bits that are stored and that it is the first to read.
        parameter_bytes: what they take.
        activation_bytes: what its outputs take, 0 where they do not depend on the image; None where that cannot be
            told.
        is_quantized: it multiplies integers of at most 8 bits.
    """

    name: str
    operator: str
    shape: tuple[int, ...] | None
    multiply_adds: int
    num_parameters: int
    parameter_bytes: int
    activation_bytes: int | None
    is_quantized: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """A graph.

    Attributes:
        layers: its nodes, in their order.
        operators: how many of each there are, the most frequent first.
        opset: of ONNX's own operators.
        domains: version of every other domain.
        ir_version: of the file.
        producer: who wrote it.
        multiply_adds: of one image.
        num_parameters: stored numbers, as of ``Layer``.
        parameter_bytes: what they take.
        activation_bytes: of all values together.
        peak_activation_bytes: the most that is alive at one time, if nodes run in their order and each value is kept
            until its last reader has run.
        quantized_share: part of the multiply-adds that is done with integers of at most 8 bits.
        quantized_parameters_share: part of the parameters stored in at most 8 bits.
        num_unknown: values whose shape cannot be told, which are not counted.
    """

    layers: tuple[Layer, ...]
    operators: dict[str, int]
    opset: int
    domains: dict[str, int]
    ir_version: int
    producer: str
    multiply_adds: int
    num_parameters: int
    parameter_bytes: int
    activation_bytes: int
    peak_activation_bytes: int
    quantized_share: float
    quantized_parameters_share: float
    num_unknown: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        data = asdict(self)
        data["layers"] = [{**layer, "shape": layer["shape"] and list(layer["shape"])} for layer in data["layers"]]
        return data


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a model without the weights that lie beside it.

    Raises:
        InputError: if it is no ONNX model, or too large.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file; give a bundle or an .onnx file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes; an .onnx file has at most {_MAX_BYTES:,}")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError:
        raise InputError(f"{path} is not an ONNX model, or is damaged; copy it again") from None
    if any(size < 0 for tensor in model.graph.initializer for size in tensor.dims):
        raise InputError(f"{path} holds a tensor of negative size; it is damaged: copy it again")
    if not 0 < len(model.graph.node) <= _MAX_NODES:
        raise InputError(f"{path} has {len(model.graph.node):,} nodes, not 1 to {_MAX_NODES:,}; is it an ONNX model?")
    try:
        if model.functions:
            model = inline_local_functions(model)
        sort_nodes(model.graph)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is not a valid ONNX model: {' '.join(str(error).split())}; write it again where it comes from"
        ) from None
    return model


def inspect_model(model: onnx.ModelProto, *, name: str) -> Inspection:
    """Count what a graph holds.

    Args:
        model: as ``read_graph`` gives it.
        name: of the file, for messages.

    Raises:
        InputError: if the graph is not valid.
    """
    try:
        values = infer_values(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}: its shapes cannot be told: {' '.join(str(error).split())}; write it again where it comes from"
        ) from None
    shapes = {value: shape for value, (_, shape) in values.items()}
    index = GraphIndex(model.graph)
    constants, fixed = _constants(model.graph), _fixed(model.graph)
    counted: set[str] = set()
    layers = []
    for node in model.graph.node:
        new = [constants[value] for value in sorted(reads_of(node) & constants.keys() - counted)]
        counted |= reads_of(node) & constants.keys()
        sizes = [_bytes(values.get(value)) for value in node.output if value and value not in fixed]
        layers.append(
            Layer(
                name=node.name,
                operator=_operator(node),
                shape=next((shapes[value] for value in node.output if value in shapes), None),
                multiply_adds=multiply_adds_of(node, shapes),
                num_parameters=sum(count for count, _ in new),
                parameter_bytes=sum(_of_bits(count, bits) for count, bits in new),
                activation_bytes=None if None in sizes else sum(size or 0 for size in sizes),
                is_quantized=_is_quantized(node, index),
            )
        )
    total = sum(layer.multiply_adds for layer in layers)
    num_parameters = sum(layer.num_parameters for layer in layers)
    used = [constants[value] for value in counted]
    return Inspection(
        layers=tuple(layers),
        operators=dict(Counter(layer.operator for layer in layers).most_common()),
        opset=opset_of(model),
        domains={one.domain: one.version for one in model.opset_import if one.domain not in ("", "ai.onnx")},
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        multiply_adds=total,
        num_parameters=num_parameters,
        parameter_bytes=sum(layer.parameter_bytes for layer in layers),
        activation_bytes=sum(layer.activation_bytes or 0 for layer in layers),
        peak_activation_bytes=_peak(model.graph, values, fixed),
        quantized_share=_share(sum(layer.multiply_adds for layer in layers if layer.is_quantized), total),
        quantized_parameters_share=_share(sum(count for count, bits in used if bits <= 8), num_parameters),
        num_unknown=sum(value not in values for node in model.graph.node for value in node.output if value),
    )


def _constants(graph: onnx.GraphProto) -> dict[str, tuple[int, int]]:
    """How many numbers each parameter has, and of how many bits; shapes and axes, in integers, are none."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            stored[node.output[0]] = node.attribute[0].t
    return {
        name: (math.prod(tensor.dims), _bits(tensor.data_type))
        for name, tensor in stored.items()
        if tensor.data_type in _FLOATS or _bits(tensor.data_type) <= 8
    }


def _fixed(graph: onnx.GraphProto) -> set[str]:
    """Values that do not depend on the image, such as weights that are given back their floats: engines keep them."""
    names = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if reads_of(node) <= names and not node.op_type.startswith("Random"):
            names.update(node.output)
    return names


def _peak(graph: onnx.GraphProto, values: Mapping[str, tuple[int, tuple[int, ...]]], fixed: set[str]) -> int:
    last = {value: i for i, node in enumerate(graph.node) for value in reads_of(node)}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name: _bytes(values.get(value.name)) or 0 for value in graph.input if value.name not in fixed}
    now = peak = sum(alive.values())
    ends: dict[int, list[str]] = {}
    for value, i in last.items():
        ends.setdefault(i, []).append(value)
    for i, node in enumerate(graph.node):
        for value in node.output:
            if value not in fixed:
                alive[value] = _bytes(values.get(value)) or 0
                now += alive[value]
        peak = max(peak, now)
        for value in [*ends.get(i, []), *(value for value in node.output if value not in last)]:
            now -= alive.pop(value, 0)
    return peak


def _is_quantized(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """An integer operator, or a layer between quantizers, which an engine runs as one."""
    if node.op_type in _INTEGER_LAYERS:
        return True
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.input) < 2:
        return False
    makers = [index.producer(name, "DequantizeLinear") for name in node.input[:2]]
    return all(maker is not None for maker in makers)


def _operator(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def _bits(data_type: int) -> int:
    return _BITS.get(data_type, 8)


def _of_bits(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def _bytes(value: tuple[int, tuple[int, ...]] | None) -> int | None:
    return None if value is None else _of_bits(math.prod(value[1]), _bits(value[0]))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
