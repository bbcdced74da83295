"""Questions that passes and quantizers ask of a graph, and what holds after each of them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "GraphIndex",
    "attribute",
    "check_graph",
    "graphs_of",
    "has_products",
    "reads_of",
    "remove_unused",
    "sort_nodes",
]


class GraphIndex:
    """Producers, consumers and constants of a graph, as it was when the index was made.

    Args:
        graph: make a new index after its nodes have changed; ``replace_constant`` keeps this one right.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output if output}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            captured = reads_of(node).difference(node.input)
            for name in filter(None, [*node.input, *sorted(captured)]):  # an input that is left out has no name
                self._consumers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}

    def producer(self, name: str, op_type: str | None = None) -> onnx.NodeProto | None:
        """The node that makes a value, if there is one and it is of that type."""
        node = self._producers.get(name)
        return node if node is not None and op_type in (None, node.op_type) else None

    def product(self, name: str) -> onnx.NodeProto | None:
        """The MatMul that makes a value from two others, neither of them a stored constant."""
        node = self.producer(name, "MatMul")
        return node if node is not None and all(self.initializer(source) is None for source in node.input) else None

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a value, in the graph's order; a node stands once for each of its inputs that does."""
        return self._consumers.get(name, [])

    def sole_consumer(self, name: str) -> onnx.NodeProto | None:
        """The node that alone reads a value, by one input; None if something else, or the graph's output, reads it."""
        consumers = self.consumers(name)
        return consumers[0] if consumers and self.is_used_once(name) else None

    def is_output(self, name: str) -> bool:
        """True if the graph gives that value."""
        return name in self._outputs

    def is_used_once(self, name: str) -> bool:
        """True if one node's one input, or the graph's output, is all that reads a value."""
        return len(self.consumers(name)) + self.is_output(name) == 1

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """The stored constant of that name."""
        return self._initializers.get(name)

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a stored constant."""
        tensor = self._initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def replace_constant(self, name: str, values: NDArray[Any]) -> None:
        """Give a stored constant other values, in the graph itself.

        Raises:
            KeyError: if there is no constant of that name.
        """
        self._initializers[name].CopyFrom(numpy_helper.from_array(values, name))


def has_products(graph: onnx.GraphProto) -> bool:
    """Whether a MatMul multiplies two values that are both computed, as attention does."""
    index = GraphIndex(graph)
    return any(index.product(name) is not None for node in graph.node for name in node.output)


def attribute(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    """A node's attribute of one integer or several, as a list; ``default`` where the node does not have it."""
    found = next((a for a in node.attribute if a.name == name), None)
    if found is None:
        return default
    return list(found.ints) or [found.i]


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and all that its nodes hold (branches and bodies of loops)."""
    yield graph
    for node in graph.node:
        for one in node.attribute:
            for inner in (*([one.g] if one.HasField("g") else []), *one.graphs):
                yield from graphs_of(inner)


def reads_of(node: onnx.NodeProto) -> set[str]:
    """Names of the values that a node reads, in the graphs that it holds as well."""
    names = set(node.input)
    for one in node.attribute:
        for inner in (*([one.g] if one.HasField("g") else []), *one.graphs):
            names.update(value.name for value in inner.output)
            names.update(*(reads_of(child) for child in inner.node))
    return names


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those whose values it reads; their order stays where it is right already.

    Raises:
        ValueError: if nodes wait for each other, or for a value that nothing makes.
    """
    known = {""} | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    readers: dict[int, list[int]] = {}
    waits = [0] * len(graph.node)
    for i, node in enumerate(graph.node):
        inner = {name for one in node.attribute for g in (one.g, *one.graphs) for name in _defined(g)}
        for name in reads_of(node) - known - inner:
            if name not in makers:
                raise ValueError(f"node {node.name} ({node.op_type}) reads {name!r}, which no node makes")
            readers.setdefault(makers[name], []).append(i)
            waits[i] += 1
    ready = [i for i, count in enumerate(waits) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers.get(i, []):
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) != len(graph.node):
        raise ValueError("nodes of the graph wait for each other")
    if order != sorted(order):
        nodes = [graph.node[i] for i in order]
        del graph.node[:]
        graph.node.extend(nodes)


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a graph inside a node defines itself, in those inside of it as well."""
    for inner in graphs_of(graph):
        yield from (value.name for value in (*inner.input, *inner.initializer))
        yield from (name for node in inner.node for name in node.output)


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop nodes and constants that no output depends on, and shapes noted for values that are gone."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(output in needed for output in node.output):
            needed.update(reads_of(node))
            kept.append(node)
    if len(kept) != len(graph.node):
        nodes = list(reversed(kept))
        del graph.node[:]
        graph.node.extend(nodes)
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in needed:
            del graph.initializer[i]
    for i in reversed(range(len(graph.value_info))):
        if graph.value_info[i].name not in needed:
            del graph.value_info[i]


def check_graph(model: onnx.ModelProto) -> None:
    """Raise ValueError if a name is used before it is defined, or defined twice."""
    graph = model.graph
    defined = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if name and name not in defined:
                raise ValueError(f"node {node.name} ({node.op_type}) reads {name!r}, which no earlier node makes")
        for name in node.output:
            if name and name in defined:
                raise ValueError(f"node {node.name} ({node.op_type}) makes {name!r} a second time")
            defined.add(name)
    for value in graph.output:
        if value.name not in defined:
            raise ValueError(f"no node makes the output {value.name!r}")
