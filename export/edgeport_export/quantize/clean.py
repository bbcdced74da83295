"""Tidies up after a quantizer, so that the same inputs give the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxruntime.quantization.onnx_model import ONNXModel

from edgeport_export.graph.index import check_graph, remove_unused
from edgeport_export.graph.passes.strip_metadata import strip_metadata
from edgeport_runtime.errors import QuantizeError

if TYPE_CHECKING:
    import onnx

__all__ = ["clean"]


def clean(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Give a quantized model the IR version, opset, producer and contract of its original, and nothing unused.

    Args:
        model: changed in place.
        original: the float model it was made from.

    Raises:
        QuantizeError: if the opset differs, or a name is used before it is defined.
    """
    ONNXModel(model).topological_sort()  # converters append what they insert
    remove_unused(model)
    strip_metadata(model)
    del model.graph.value_info[:]  # shapes noted for the float graph
    _shorten_names(model, original)
    used = {node.domain for node in model.graph.node}
    kept = [(opset.domain, opset.version) for opset in model.opset_import if opset.domain in used]
    versions = {opset.domain: opset.version for opset in original.opset_import}
    if dict(kept).get("") != versions[""]:
        raise QuantizeError(f"quantization changed the opset from {versions['']} to {dict(kept).get('')}")
    del model.opset_import[:]
    for domain, version in kept:
        model.opset_import.add(domain=domain, version=version)
    model.ir_version = original.ir_version
    model.producer_name = original.producer_name
    model.ClearField("producer_version")
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    try:
        check_graph(model)
    except ValueError as error:
        raise QuantizeError(f"quantization left an invalid graph: {error}") from None


def _shorten_names(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Number what the quantizer added: its names are a tenth of the file of a small network."""
    known = {n.name for n in original.graph.node} | {o for n in original.graph.node for o in n.output}
    known |= {v.name for v in (*original.graph.input, *original.graph.output)}
    short: dict[str, str] = {}

    def renamed(name: str) -> str:
        if name in known or not name:
            return name
        return short.setdefault(name, f"q{len(short)}")

    for node in model.graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = renamed(node.name)
    for tensor in model.graph.initializer:
        tensor.name = renamed(tensor.name)
