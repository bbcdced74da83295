"""Questions that passes ask of a graph, and what holds after each of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GraphIndex", "check_graph", "remove_unused"]


class GraphIndex:
    """Producers, consumers and constants of a graph, as it was when the index was made."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}
        self._num_uses = Counter(name for node in graph.node for name in node.input)
        self._num_uses.update(value.name for value in graph.output)

    def producer(self, name: str, op_type: str | None = None) -> onnx.NodeProto | None:
        """The node that makes a value, if there is one and it is of that type."""
        node = self._producers.get(name)
        return node if node is not None and op_type in (None, node.op_type) else None

    def is_used_once(self, name: str) -> bool:
        """True if one node's one input, or the graph's output, is all that reads a value."""
        return self._num_uses[name] == 1

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """The stored constant of that name."""
        return self._initializers.get(name)

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a stored constant."""
        tensor = self._initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop nodes and constants that no output depends on, and shapes noted for values that are gone."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(output in needed for output in node.output):
            needed.update(node.input)
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
                raise ValueError(f"node {node.name} ({node.op_type}) reads {name!r}, which nothing before it makes")
        for name in node.output:
            if name and name in defined:
                raise ValueError(f"node {node.name} ({node.op_type}) makes {name!r} a second time")
            defined.add(name)
    for value in graph.output:
        if value.name not in defined:
            raise ValueError(f"nothing makes the output {value.name!r}")
