"""Which nodes run in int8: those that pay for the way there and back, found for all of a graph at once.

A node costs something in float and something else in int8, and a value costs something where its maker is on one side
and a reader on the other. The cheapest choice is a minimum cut (Boykov and Kolmogorov 2004, "An experimental comparison
of min-cut/max-flow algorithms for energy minimization in vision", Section 2: two labels, pairwise costs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from edgeport_export.graph.index import GraphIndex, attribute
from edgeport_export.graph.shapes import infer_shapes
from edgeport_export.quantize.costs import ELEMENTWISE, TRANSPARENT, Cost, change, costs_of
from edgeport_export.quantize.cut import Network
from edgeport_export.quantize.graph import layers_of
from edgeport_export.quantize.recipes import BETWEEN
from edgeport_export.quantize.work import multiply_adds, share_of
from edgeport_runtime.errors import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from edgeport_export.quantize.recipes import Recipe

__all__ = ["Planner"]

_LAYERS = ("Conv", "Gemm", "MatMul")
_AS_GOOD, _WORTHWHILE = 0.95, 1.05  # the table is no more exact than that
_FREE_OUTPUTS = ("Gemm", "MatMul")  # their kernels give float values as readily as int8


@dataclass(frozen=True, slots=True)
class Planner:
    """Chooses the nodes of one graph that run in int8.

    Attributes:
        model: float; weights may be absent.
        layers: names of the layers that an engine can run in int8.
        able: names of all nodes that it can run in int8.
        multiply_adds: of each layer, and of products of activations.
        shapes: of values, for one image.
        costs: of nodes.
        min_share: part of the multiply-adds that must run in int8.
    """

    model: onnx.ModelProto
    layers: tuple[str, ...]
    able: frozenset[str]
    multiply_adds: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    costs: Mapping[str, Cost] = field(repr=False)
    min_share: float

    @classmethod
    def of(cls, model: onnx.ModelProto, recipe: Recipe) -> Planner:
        """A planner of a graph with the types and shapes of its values."""
        shapes = infer_shapes(model)
        layers = tuple(node.name for node in layers_of(model, recipe))
        index = GraphIndex(model.graph)
        floats = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        able = set(layers)
        for node in model.graph.node:
            if node.op_type in recipe.others and node.output[0] in floats and _has_kernel(node, index, shapes):
                able.add(node.name)
        counts = multiply_adds(model, shapes)
        return cls(model, layers, frozenset(able), counts, shapes, costs_of(model, shapes, counts), recipe.min_share)

    @property
    def is_plain(self) -> bool:
        """True where nothing stands between layers but what keeps values in a byte by itself: pools, sums, joins."""
        names = {node.op_type for node in self.model.graph.node if node.name in self.able}
        return names <= {*_LAYERS, *BETWEEN}

    def plan(self, *, is_asked: bool) -> frozenset[str]:
        """The nodes that run in int8: all layers where the best choice is hardly faster than that, else the best.

        Args:
            is_asked: take all layers where neither pays.

        Raises:
            QuantizeError: if that is not asked for, and int8 saves no time, or does less than its share of the work.
        """
        best, whole = self.choose(), self.choose(fixed=self.layers)
        if self.gain(whole) >= _AS_GOOD * self.gain(best):
            best = whole
        share, gain = share_of(best, self.multiply_adds), self.gain(best)
        if share >= self.min_share and gain >= _WORTHWHILE:
            return best
        if is_asked and self.layers:
            return whole
        raise QuantizeError(
            f"int8 would not be faster: at best {share:.0%} of the multiply-adds would run in it, and that {gain:.2f} "
            f"times as fast as in float32, by what such operators cost elsewhere (at least {self.min_share:.0%}, and "
            f"{_WORTHWHILE:g} times); --quantize int8 makes it all the same"
        )

    def choose(self, fixed: Collection[str] | None = None, among: Collection[str] | None = None) -> frozenset[str]:
        """The nodes that run in int8, those of ``TRANSPARENT`` left out.

        Args:
            fixed: the layers that are in int8, whatever they cost; None lets costs decide on layers as well.
            among: nodes that may be in int8; None takes all that can be.
        """
        network = Network()
        able = self.able if among is None else self.able & frozenset(among)
        numbers: list[int] = []
        for node in self.model.graph.node:
            as_float, as_int8 = self.costs[node.name]
            is_layer = node.name in self.layers
            if node.name not in able and node.op_type not in TRANSPARENT:
                as_int8 = math.inf
            elif is_layer and fixed is not None:
                as_float, as_int8 = (math.inf, 0.0) if node.name in fixed else (0.0, math.inf)
            numbers.append(network.add_node(source=as_int8, sink=as_float))
        self._join(network, numbers)
        chosen = network.sink_side()
        return frozenset(
            node.name
            for node, number in zip(self.model.graph.node, numbers, strict=True)
            if number in chosen and node.name in able
        )

    def gain(self, nodes: Collection[str]) -> float:
        """How many times faster the graph is with those nodes in int8, by the table of costs."""
        in_int8, free = set(nodes), set[str]()
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        sides: dict[str, bool] = {}
        for node in self.model.graph.node:  # what costs nothing is on the side of what it reads
            sides[node.name] = node.name in in_int8
            if node.op_type in TRANSPARENT and node.input[0] in free:
                sides[node.name] = True
            if sides[node.name]:
                free.update(node.output)
        before = sum(cost.as_float for cost in self.costs.values())
        after = sum(c.as_int8 if name in in_int8 else c.as_float for name, c in self.costs.items())
        for node in self.model.graph.node:
            for name in node.output:
                others = [reader for reader in readers.get(name, []) if sides[reader.name] != sides[node.name]]
                is_free = sides[node.name] and node.op_type in _FREE_OUTPUTS
                after += change(name, self.shapes) if others and not is_free else 0.0
        return before / after

    def _join(self, network: Network, numbers: list[int]) -> None:
        """Add what it costs to have a value's maker on one side and its readers on the other."""
        readers: dict[str, list[int]] = {}
        for node, number in zip(self.model.graph.node, numbers, strict=True):
            for name in node.input:
                readers.setdefault(name, []).append(number)
        made = [(value.name, network.add_node(source=math.inf), "") for value in self.model.graph.input]
        for node, number in zip(self.model.graph.node, numbers, strict=True):
            made += [(name, number, node.op_type) for name in node.output]
        outputs = {value.name for value in self.model.graph.output}
        for name, maker, op_type in made:
            if name not in readers and name not in outputs:
                continue
            enter = network.add_node()
            network.add_edge(maker, enter, change(name, self.shapes))
            leave = network.add_node()
            network.add_edge(leave, maker, 0.0 if op_type in _FREE_OUTPUTS else change(name, self.shapes))
            for reader in readers.get(name, []):
                network.add_edge(enter, reader, math.inf)
                network.add_edge(reader, leave, math.inf)
            if name in outputs:  # whoever reads it takes float values
                network.add_edge(0, leave, math.inf)


def _has_kernel(node: onnx.NodeProto, index: GraphIndex, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether int8 can run a node that is no layer: constants would be rounded to the levels of one range."""
    if node.op_type not in ELEMENTWISE:
        return False
    if node.op_type == "ReduceMean":  # as GlobalAveragePool
        axes = index.constant(node.input[1]) if len(node.input) > 1 else None
        is_spatial = axes is not None and sorted(int(axis) % 4 for axis in axes) == [2, 3]
        is_pool = is_spatial and len(shapes.get(node.input[0], ())) == 4 and attribute(node, "keepdims", [1]) == [1]
        # The mean that the classifier reads stays in float: rounded, it would be felt in every logit.
        return is_pool and all(reader.op_type not in TRANSPARENT for reader in index.consumers(node.output[0]))
    if node.op_type == "Split":
        return index.initializer(node.input[0]) is None
    return all(index.initializer(name) is None for name in node.input)
