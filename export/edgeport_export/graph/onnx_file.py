"""Reads ``.onnx`` files that somebody else wrote: nothing in them is believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.inliner import inline_local_functions

from edgeport_export.graph.index import graphs_of, remove_unused, sort_nodes
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["GivenModel", "opset_of", "read_onnx"]

_MIN_OPSET = 7
_MAX_BYTES = 2**31 - 2**24  # with its weights; protobuf's limit, less what EdgePort adds
_MAX_ELEMENTS = 2**28  # of one value inside the network, 1 GiB in float32
_MAX_NODES = 200_000


@dataclass(frozen=True, slots=True)
class GivenModel:
    """A model that was read.

    Attributes:
        model: as its author wrote it, with its weights inside and its functions inlined.
        path: where it was.
        data: the files of its weights beside it, with their digests.
    """

    model: onnx.ModelProto
    path: Path
    data: dict[str, str]


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operator set; 0 where the model imports none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def read_onnx(path: Path) -> GivenModel:
    """Read a model and the weights beside it.

    Args:
        path: the ``.onnx`` file.

    Raises:
        InputError: if it is no valid ONNX model, too large, of an opset before 7, or its weights lie elsewhere.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file; give an .onnx file")
    _check_size(path.stat().st_size, path)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError:
        raise InputError(f"{path} is not an ONNX model, or is damaged; copy it again") from None
    if not model.graph.node:
        raise InputError(f"{path} is not an ONNX model, or is damaged; copy it again")
    opset = opset_of(model)
    if opset < _MIN_OPSET:
        raise InputError(f"{path} has opset {opset}, and EdgePort takes {_MIN_OPSET} and later; convert it first")
    data = _read_external(model, path)
    try:
        if model.functions:
            model = inline_local_functions(model)
        sort_nodes(model.graph)  # ONNX Runtime takes them in any order, and some tools write them so
        _check(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        _take_constants_from_inputs(model, constants)
        _store_constants(model.graph)
        _check_growth(model, path)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        told = " ".join(str(error).split("\n\n==> Context")[0].split())
        raise InputError(
            f"{path} is not a valid ONNX model: {told}; write it again in the framework it comes from"
        ) from None
    return GivenModel(model, path, data)


def _check(model: onnx.ModelProto) -> None:
    """Let onnx check a model; outputs need no shape here, as in files of some converters."""
    shapes = [value.type.tensor_type for value in model.graph.output if value.type.HasField("tensor_type")]
    without = [kind for kind in shapes if not kind.HasField("shape")]
    for kind in without:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(model.SerializeToString())
    finally:
        for kind in without:
            kind.ClearField("shape")


def _check_size(size: int, path: Path) -> None:
    if size > _MAX_BYTES:
        raise InputError(
            f"{path} has {size:,} bytes with its weights; EdgePort takes files of others up to {_MAX_BYTES:,}"
        )


def _read_external(model: onnx.ModelProto, path: Path) -> dict[str, str]:
    """Put weights from files beside the model into it; the digest of each file by its name."""
    folder = path.parent.resolve()
    digests: dict[str, str] = {}
    total = path.stat().st_size
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        fields = {entry.key: entry.value for entry in tensor.external_data}
        file = _inside(folder, fields.get("location", ""), path)
        size = file.stat().st_size
        try:
            offset, length = (
                int(fields.get("offset", 0)),
                int(fields.get("length", size - int(fields.get("offset", 0)))),
            )
        except ValueError:
            raise InputError(
                f"{path}: the place of the weights {tensor.name} is not a number; write the file again"
            ) from None
        if offset < 0 or length < 0 or offset + length > size:
            raise InputError(
                f"{path}: the weights {tensor.name} lie outside of {file.name}, which has {size:,} bytes; copy both "
                "again"
            )
        total += length
        _check_size(total, path)
        if file.name not in digests:
            digests[file.name] = sha256_of(file)
        with file.open("rb") as opened:
            opened.seek(offset)
            tensor.raw_data = opened.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return digests


def _inside(folder: Path, location: str, path: Path) -> Path:
    """The file of a model's weights; raises InputError if it lies outside of the model's folder."""
    is_plain = location and not PurePosixPath(location).is_absolute() and "\\" not in location and "\0" not in location
    file = (folder / location).resolve() if is_plain else None
    if file is None or not file.is_relative_to(folder):
        raise InputError(
            f"{path}: its weights are said to be in {location!r}, which is outside of its folder; put the file beside "
            "the model, and links as copies"
        )
    if not file.is_file():
        raise InputError(f"{path} lacks the file of its weights, {location}; put it beside the model")
    return file


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor, in subgraphs, functions and attributes as well."""
    nodes = [node for function in model.functions for node in function.node]
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        nodes += graph.node
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _take_constants_from_inputs(model: onnx.ModelProto, constants: set[str]) -> None:
    """Old files list their weights among the inputs, so that a caller could replace them."""
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    lowest = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.ir_version = max(model.ir_version, lowest, 4)
    remove_unused(model)


def _store_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes become stored tensors, which is what passes and quantizers look for."""
    for node in [node for node in graph.node if node.op_type == "Constant" and node.domain in ("", "ai.onnx")]:
        (one,) = node.attribute
        if one.name in ("value_float", "value_floats"):
            values: NDArray[Any] = np.array(one.f if one.name == "value_float" else one.floats, np.float32)
        elif one.name in ("value_int", "value_ints"):
            values = np.array(one.i if one.name == "value_int" else one.ints, np.int64)
        elif one.name == "value":
            values = numpy_helper.to_array(one.t)
        else:
            continue
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)


def _check_growth(model: onnx.ModelProto, path: Path) -> None:
    """Raise InputError if a value is known to be absurdly large before anything is run."""
    if sum(len(graph.node) for graph in graphs_of(model.graph)) > _MAX_NODES:
        raise InputError(f"{path} has more than {_MAX_NODES:,} nodes; EdgePort takes no larger graphs")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        count = 1
        for dim in value.type.tensor_type.shape.dim:
            count *= max(dim.dim_value, 1)
        if count > _MAX_ELEMENTS:
            raise InputError(
                f"{path}: the value {value.name} has {count:,} elements; EdgePort runs up to {_MAX_ELEMENTS:,}"
            )
