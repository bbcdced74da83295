"""Models in older operator sets than PyTorch writes, for runtimes that know no newer ones.

What an operator has gained since is taken away where it is not used, or written with older operators; the parity chain
compares the result as any other graph.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeport_export.graph.index import remove_unused
from edgeport_export.graph.model_file import save_model
from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["OLDEST_TRACED", "lower", "matching_ir_version"]

OLDEST_TRACED = 18
"""The oldest operator set in which PyTorch writes a graph by itself."""

_LATEST_IR, _FIRST_WITH_LATEST_IR = 10, 20  # what runtimes in the field take; later ones are refused by some
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


class _NeedsNewerError(Exception):
    """An operator that the older set cannot express."""

    def __init__(self, opset: int) -> None:
        super().__init__(opset)
        self.opset = opset


def matching_ir_version(opset: int) -> int:
    """The IR version of a file in that operator set: below 20 the one that came with it, as old runtimes need it."""
    if opset >= _FIRST_WITH_LATEST_IR:
        return _LATEST_IR
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


def lower(source: Path, path: Path, opset: int) -> None:
    """Write a model once more, in an operator set older than ``OLDEST_TRACED``.

    Args:
        source: the model, in that set.
        path: where to write; may be the same.
        opset: from 13.

    Raises:
        ExportError: naming the operators that the older set cannot express, and the set that they need.
    """
    model = onnx.load(source)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(source, load_external_data=False)).graph
    writer = _Writer(model, [*inferred.input, *inferred.value_info, *inferred.output], opset)
    nodes, needed = [], {}
    for node in model.graph.node:
        try:
            nodes += writer.rewritten(node)
        except _NeedsNewerError as error:
            needed[node.op_type] = error.opset
    if needed:
        told = ", ".join(f"{name} needs opset {version}" for name, version in sorted(needed.items()))
        raise ExportError(
            f"this network cannot be written in opset {opset}: {told}; use --opset {max(needed.values())} or later"
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(writer.constants)
    remove_unused(model)
    next(entry for entry in model.opset_import if not entry.domain).version = opset
    model.ir_version = matching_ir_version(opset)
    save_model(model, path, check=True)


class _Writer:
    """Rewrites one node after another; ``constants`` are those that the new ones read."""

    def __init__(self, model: onnx.ModelProto, values: Sequence[onnx.ValueInfoProto], opset: int) -> None:
        self.constants: list[onnx.TensorProto] = []
        self._numbers = itertools.count()
        self._opset = opset
        self._known = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values = {value.name: value.type.tensor_type for value in values}
        self._rules: dict[str, Callable[[onnx.NodeProto], list[onnx.NodeProto]]] = {
            "HardSwish": self._hard_swish,
            "LayerNormalization": self._layer_normalization,
            "Mish": self._mish,
            "Pad": self._pad,
            "Reshape": self._reshape,
            "Shape": self._shape,
            "Split": self._split,
            **{f"Reduce{name}": self._reduce for name in _REDUCTIONS},
        }

    def rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that stand for one."""
        if node.domain:
            return [node]
        new, old = (_schema(node.op_type, opset) for opset in (OLDEST_TRACED, self._opset))
        if old is not None and new is not None and old.since_version == new.since_version:
            return [node]
        if node.op_type in self._rules:
            return self._rules[node.op_type](node)
        if old is None or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
            raise _NeedsNewerError(_first_version(node.op_type) if old is None else OLDEST_TRACED)
        return [self._plain(node)]

    def _plain(
        self, node: onnx.NodeProto, *, without: Sequence[str] = (), num_inputs: int | None = None
    ) -> onnx.NodeProto:
        """The same node without the attributes that the older operator lacks, if they have no effect.

        ``without`` names attributes, and ``num_inputs`` tells inputs, that the caller has written in another way.
        """
        new, old = (_schema(node.op_type, opset) for opset in (OLDEST_TRACED, self._opset))
        assert new is not None
        assert old is not None
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        del kept.attribute[:]
        if num_inputs is not None:
            del kept.input[num_inputs:]
        for attribute in node.attribute:
            if attribute.name in without:
                continue
            if attribute.name in old.attributes:
                kept.attribute.append(attribute)
                continue
            default = new.attributes[attribute.name].default_value
            value = helper.get_attribute_value(attribute)
            if default.type == onnx.AttributeProto.UNDEFINED or value != helper.get_attribute_value(default):
                raise _NeedsNewerError(new.since_version)
        if len(kept.input) > old.max_input:
            raise _NeedsNewerError(new.since_version)
        return kept

    def _hard_swish(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        gate = self._node("HardSigmoid", node.input[:1], node, alpha=1 / 6, beta=0.5)
        return [gate, self._last("Mul", [node.input[0], gate.output[0]], node)]

    def _mish(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        soft = self._node("Softplus", node.input[:1], node)
        gate = self._node("Tanh", soft.output, node)
        return [soft, gate, self._last("Mul", [node.input[0], gate.output[0]], node)]

    def _layer_normalization(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        x, scale, *bias = node.input
        if len(node.output) > 1:
            raise _NeedsNewerError(17)
        axis = _attribute(node, "axis", -1)
        axes = list(range(axis, 0 if axis < 0 else self._rank(x)))
        dtype = helper.tensor_dtype_to_np_dtype(self._values[x].elem_type)
        constants = [self._constant(np.array(v, dtype), node) for v in (2, _attribute(node, "epsilon", 1e-5))]
        mean = self._node("ReduceMean", [x], node, axes=axes, keepdims=1)
        centred = self._node("Sub", [x, mean.output[0]], node)
        square = self._node("Pow", [centred.output[0], constants[0]], node)
        variance = self._node("ReduceMean", square.output, node, axes=axes, keepdims=1)
        raised = self._node("Add", [variance.output[0], constants[1]], node)
        deviation = self._node("Sqrt", raised.output, node)
        normal = self._node("Div", [centred.output[0], deviation.output[0]], node)
        nodes = [mean, centred, square, variance, raised, deviation, normal]
        if not bias:
            return [*nodes, self._last("Mul", [normal.output[0], scale], node)]
        scaled = self._node("Mul", [normal.output[0], scale], node)
        return [*nodes, scaled, self._last("Add", [scaled.output[0], bias[0]], node)]

    def _pad(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The axes as an input became possible with 18."""
        if len(node.input) < 4 or not node.input[3]:
            return [self._plain(node, num_inputs=3)]
        axes, pads = (self._values_of(node.input[i]) for i in (3, 1))
        if axes is None or pads is None:
            raise _NeedsNewerError(OLDEST_TRACED)
        whole = np.zeros((2, self._rank(node.input[0])), np.int64)
        whole[:, axes] = pads.reshape(2, -1)
        kept = self._plain(node, num_inputs=3)
        kept.input[1] = self._constant(whole.ravel(), node)
        return [kept]

    def _reshape(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Without ``allowzero``, a 0 in the shape is another thing."""
        shape = self._values_of(node.input[1])
        if _attribute(node, "allowzero", 0) and shape is not None and not shape.all():
            raise _NeedsNewerError(14)
        return [self._plain(node, without=("allowzero",))]

    def _shape(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        start, end = _attribute(node, "start", 0), _attribute(node, "end", 2**31 - 1)
        whole = self._node("Shape", node.input, node)
        bounds = [self._constant(np.array([side], np.int64), node) for side in (start, end)]
        return [whole, self._last("Slice", [whole.output[0], *bounds], node)]

    def _split(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The number of parts became an attribute with 18; before, their sizes are given."""
        kept = self._plain(node, without=("num_outputs",))
        if len(node.input) > 1:
            return [kept]
        length = self._values[node.input[0]].shape.dim[_attribute(node, "axis", 0)].dim_value
        size = -(-length // len(node.output))
        if not length:
            raise _NeedsNewerError(OLDEST_TRACED)
        sizes = [size] * (len(node.output) - 1)
        kept.input.append(self._constant(np.array([*sizes, length - sum(sizes)], np.int64), node))
        return [kept]

    def _reduce(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The axes became an input with 18."""
        kept = self._plain(node, without=("noop_with_empty_axes",), num_inputs=1)
        if len(node.input) < 2 or not node.input[1]:
            if _attribute(node, "noop_with_empty_axes", 0):
                raise _NeedsNewerError(OLDEST_TRACED)
            return [kept]
        axes = self._values_of(node.input[1])
        if axes is None:
            raise _NeedsNewerError(OLDEST_TRACED)
        kept.attribute.append(helper.make_attribute("axes", axes.tolist()))
        return [kept]

    def _rank(self, name: str) -> int:
        return len(self._values[name].shape.dim)

    def _values_of(self, name: str) -> Any:
        """Of a constant; None for what the graph computes."""
        tensor = self._known.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _constant(self, value: np.ndarray[Any, Any], of: onnx.NodeProto) -> str:
        name = f"{of.output[0]}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, operator: str, inputs: Sequence[str], of: onnx.NodeProto, **attributes: Any) -> onnx.NodeProto:
        name = f"{of.output[0]}/{next(self._numbers)}_{operator}"
        return helper.make_node(operator, inputs, [name], name=name, **attributes)

    def _last(self, operator: str, inputs: Sequence[str], of: onnx.NodeProto) -> onnx.NodeProto:
        """The node that gives what the original gave."""
        return helper.make_node(operator, inputs, of.output, name=of.name)


def _schema(operator: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, opset)
    except onnx.defs.SchemaError:
        return None


def _first_version(operator: str) -> int:
    history = onnx.defs.get_all_schemas_with_history()
    return min(schema.since_version for schema in history if schema.name == operator and not schema.domain)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
