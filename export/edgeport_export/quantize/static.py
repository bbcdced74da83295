"""Static quantization: QuantizeLinear and DequantizeLinear around what is to run in int8.

onnxruntime.quantization places the pairs; the ranges, the weights' rounding, and which values are quantized are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import get_qmin_qmax_for_qType

from edgeport_export.graph.index import GraphIndex, attribute, remove_unused
from edgeport_export.quantize.equalize import equalize, find_pairs
from edgeport_export.quantize.graph import FLOAT_ONLY, activations_of, layers_of
from edgeport_export.quantize.observe import observe
from edgeport_export.quantize.plan import Planner
from edgeport_export.quantize.quiet import quiet_logging
from edgeport_export.quantize.rounding import round_weight
from edgeport_export.quantize.spell import GATE, add_instead, spell_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from edgeport_export.quantize.calibration import CalibrationImages
    from edgeport_export.quantize.histogram import Histogram, Method
    from edgeport_export.quantize.recipes import Recipe

__all__ = ["StaticQuantizer"]

_MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity")
_FREE_OUTPUTS = ("Gemm", "MatMul")  # their kernels give float values as readily as int8


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticQuantizer:
    """A float model made ready, from which any choice of its layers can be quantized.

    Attributes:
        model: the float model, equalized; the function is that of the original.
        recipe: how.
        ranges: (low, high) of each quantized value.
        histograms: of each quantized value.
        rounded: weights by name, rounded with regard to their inputs.
        equalized: layers whose channels were scaled.
        planner: chooses what runs in int8 between the layers; None where the recipe's own rule does.
        planned: the nodes that run in int8 where every layer does that pays for it.
    """

    model: onnx.ModelProto
    recipe: Recipe
    ranges: dict[str, tuple[float, float]]
    histograms: dict[str, Histogram]
    rounded: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    equalized: tuple[str, ...] = ()
    planner: Planner | None = None
    planned: frozenset[str] = frozenset()

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, recipe: Recipe, images: CalibrationImages, *, is_asked: bool = True
    ) -> StaticQuantizer:
        """Observe the model on images, equalize its channels and round its weights; ranges are ``mse``.

        Args:
            model: float, with its weights inside; it is changed.
            recipe: how to quantize.
            images: what activations are like.
            is_asked: quantize all layers where that does not pay.

        Raises:
            InputError: if the images cannot be used.
            QuantizeError: if an activation is NaN or infinite, or int8 does not pay and is not asked for.
        """
        planner = Planner.of(model, recipe) if recipe.is_planned else None
        planned = frozenset() if planner is None else planner.plan(is_asked=is_asked)
        if planner is not None and planner.is_plain and planned.issuperset(planner.layers):
            planner = None
        layers = [node for node in layers_of(model, recipe) if planner is None or node.name in planned]
        names = activations_of(model, recipe, None if planner is None else planned)
        pairs = find_pairs(model, layers)
        wanted = list(dict.fromkeys([*names, *(pair.between for pair in pairs)]))
        # Weights fitted to synthetic images would be worse on real ones.
        sampled = [] if images.is_builtin else layers
        seen = observe(model, wanted, sampled, images)
        equalized = equalize(model, pairs, seen)
        if equalized:
            seen.moments.clear()  # they are the larger part of the memory
            seen = observe(model, names, sampled, images)
        histograms = {name: seen.histograms[name] for name in names}
        return cls(
            model=model,
            recipe=recipe,
            ranges=_ranges(model, recipe, histograms, "mse", is_planned=planner is not None),
            histograms=histograms,
            rounded=_round_all(model, layers, seen.moments, last=_last_level(recipe)),
            equalized=tuple(equalized),
            planner=planner,
            planned=planned,
        )

    def with_method(self, method: Method) -> StaticQuantizer:
        """The same with ranges by another method."""
        is_planned = self.planner is not None
        return replace(self, ranges=_ranges(self.model, self.recipe, self.histograms, method, is_planned=is_planned))

    def layers(self) -> list[str]:
        """Names of the nodes that can be quantized, in the graph's order; those that do not pay are not among them."""
        names = [node.name for node in layers_of(self.model, self.recipe)]
        return names if self.planner is None else [name for name in names if name in self.planned]

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """The model with these of its layers in int8, and what lies between them."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        index = GraphIndex(model.graph)
        for node in layers_of(model, self.recipe):
            name = node.input[1]
            if node.name in layers and name in self.rounded:
                if not index.is_used_once(name):
                    continue
                index.replace_constant(name, self.rounded[name])
        if self.planner is None:
            between = _between(model, index, self.recipe, set(layers))
            makers = set(layers)
        else:
            makers = set(self.planner.choose(fixed=layers, among=self.planned))
            between = spell_out(model, makers - set(layers), self.ranges)
        ends = _after(model, index, self.ranges, makers)
        is_planned = self.planner is not None
        return _with_pairs(model, self.recipe, self.ranges, [*layers, *ends, *between], is_planned=is_planned)


def _with_pairs(
    model: onnx.ModelProto,
    recipe: Recipe,
    ranges: dict[str, tuple[float, float]],
    nodes: list[str],
    *,
    is_planned: bool,
) -> onnx.ModelProto:
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    # Values that are quantized by the way and dropped again below: before a ReLU, and the outputs of the graph.
    for node in model.graph.node:
        for name in node.output:
            data.setdefault(name, (np.float32(0), np.float32(1)))
    options: dict[str, Any] = {
        "ActivationSymmetric": recipe.is_symmetric,
        "QDQKeepRemovableActivations": True,
        "ForceQuantizeNoInputCheck": True,  # a pool's input comes from a ReLU, which is not quantized by itself
        "OpTypesToExcludeOutputQuantization": list(recipe.layers) if recipe.has_float_outputs else [],
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }
    quantizer = QDQQuantizer(
        model,
        True,  # per channel
        recipe.num_weight_bits == 7,
        QuantType.QInt8,
        QuantType.QUInt8 if recipe.activations == "uint8" else QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, data),
        nodes,
        [],
        [*recipe.layers, *recipe.others, *FLOAT_ONLY],
        options,
    )
    with quiet_logging():
        quantizer.quantize_model()
    quantizer.model.topological_sort()  # pairs are appended
    quantized: onnx.ModelProto = quantizer.model.model
    _drop_pairs(quantized)
    if is_planned:
        _read_float(quantized, set(nodes))
        add_instead(quantized)
    return quantized


def _drop_pairs(model: onnx.ModelProto) -> None:
    """Take away the pairs between a layer and the ReLU after it, and those at the graph's outputs."""
    graph = model.graph
    index = GraphIndex(graph)

    def before(name: str) -> str | None:
        restored = index.producer(name, "DequantizeLinear")
        stored = None if restored is None else index.producer(restored.input[0], "QuantizeLinear")
        return None if stored is None else stored.input[0]

    gone = []
    for node in graph.node:
        if node.op_type in FLOAT_ONLY and (source := before(node.input[0])) is not None:
            node.input[0] = source
        elif node.op_type == "DequantizeLinear" and index.is_output(node.output[0]):
            source = before(node.output[0])
            maker = None if source is None else index.producer(source)
            if maker is not None:
                stored = index.producer(node.input[0])
                maker.output[0] = node.output[0]
                gone += [node, stored]
                for reader in graph.node:
                    reader.input[:] = [node.output[0] if name == source else name for name in reader.input]
    for node in gone:
        if node is not None:
            graph.node.remove(node)
    remove_unused(model)


def _read_float(model: onnx.ModelProto, nodes: set[str]) -> None:
    """Let nodes in float read values that were made in float, and not what int8 made of them."""
    index = GraphIndex(model.graph)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        stored = index.producer(node.input[0], "QuantizeLinear")
        if stored is None:
            continue
        source, readers = stored.input[0], index.consumers(node.output[0])
        maker = index.producer(source)
        while maker is not None and maker.op_type in FLOAT_ONLY:
            maker = index.producer(maker.input[0])
        is_free = maker is not None and maker.op_type in _FREE_OUTPUTS and not any(r.name in nodes for r in readers)
        if maker is None or (maker.name in nodes and not is_free):
            continue
        for reader in readers:
            if reader.name not in nodes:
                reader.input[:] = [source if name == node.output[0] else name for name in reader.input]
    remove_unused(model)


def _after(
    model: onnx.ModelProto, index: GraphIndex, ranges: dict[str, tuple[float, float]], layers: set[str]
) -> list[str]:
    """The activations that quantized layers end with: what they give is quantized, whoever reads it."""

    def ends_layer(node: onnx.NodeProto) -> bool:
        maker = index.producer(node.input[0])
        return maker is not None and maker.name in layers

    return [n.name for n in model.graph.node if n.op_type in FLOAT_ONLY and n.output[0] in ranges and ends_layer(n)]


def _between(model: onnx.ModelProto, index: GraphIndex, recipe: Recipe, layers: set[str]) -> list[str]:
    """Pools, concatenations and additions all of whose inputs come from quantized layers."""
    quantized = set(layers)
    names = []
    for node in model.graph.node:
        if node.op_type not in recipe.others:
            continue
        makers = [index.producer(name) for name in node.input]
        makers = [index.producer(m.input[0]) if m is not None and m.op_type in FLOAT_ONLY else m for m in makers]
        if all(maker is not None and maker.name in quantized for maker in makers):
            quantized.add(node.name)
            names.append(node.name)
    return names


def _ranges(
    model: onnx.ModelProto, recipe: Recipe, histograms: dict[str, Histogram], method: Method, *, is_planned: bool
) -> dict[str, tuple[float, float]]:
    ranges = {name: seen.range(method, is_symmetric=recipe.is_symmetric) for name, seen in histograms.items()}
    if is_planned:
        ranges.update(_kept(model, ranges))
        gates = [node.output[0] for node in model.graph.node if node.op_type == "HardSigmoid"]
        ranges.update((name, GATE) for name in gates if name in ranges)
    for node in reversed(model.graph.node):
        source, result = node.input[0] if node.input else "", node.output[0]
        if node.op_type not in recipe.others or not {source, result} & set(ranges):
            continue
        if node.op_type == "Concat" and result in ranges:  # inputs on the levels of the output are not rounded twice
            ranges.update((name, ranges[result]) for name in node.input if name in ranges)
        elif node.op_type == "Split" and source in ranges:  # it keeps its input's levels
            ranges.update((name, ranges[source]) for name in node.output if name in ranges)
        elif node.op_type == "MaxPool" and {source, result} <= set(ranges):  # so does it
            ranges[source] = ranges[result] = _union(ranges[source], ranges[result])
    return ranges


def _kept(model: onnx.ModelProto, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """For values that were quantized and then only moved, the range that they had: nothing is rounded twice."""
    index = GraphIndex(model.graph)
    kept = {}
    for name in ranges:
        node = index.producer(name)
        while node is not None and node.op_type in _MOVES:
            if node.input[0] in ranges:
                kept[name] = ranges[node.input[0]]
            node = index.producer(node.input[0])
    return kept


def _union(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _round_all(
    model: onnx.ModelProto, layers: list[onnx.NodeProto], moments: dict[str, NDArray[np.float32]], *, last: int
) -> dict[str, NDArray[np.float32]]:
    index = GraphIndex(model.graph)
    rounded = {}
    for node in layers:
        tensor = index.initializer(node.input[1])
        if node.name not in moments or tensor is None:
            continue
        weight = numpy_helper.to_array(tensor)
        is_transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and attribute(node, "transB", [0]) == [0])
        rows = weight.T if is_transposed else weight.reshape(weight.shape[0], -1)
        result = round_weight(np.ascontiguousarray(rows), moments.pop(node.name), last=last)
        if result is not None:
            shaped = result.T if is_transposed else result.reshape(weight.shape)
            rounded[node.input[1]] = np.ascontiguousarray(shaped)
    return rounded


def _last_level(recipe: Recipe) -> int:
    _, high = get_qmin_qmax_for_qType(onnx.TensorProto.INT8, reduce_range=recipe.num_weight_bits == 7, symmetric=True)
    return int(high)
