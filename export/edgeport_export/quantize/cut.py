"""The cheapest way to divide nodes into two sides: a minimum cut, found by networkx, which PyTorch brings.

Boykov and Kolmogorov 2004, "An experimental comparison of min-cut/max-flow algorithms for energy minimization in
vision", Section 3.
"""

from __future__ import annotations

import math

import networkx
from networkx.algorithms.flow import boykov_kolmogorov

__all__ = ["Network"]

_SOURCE, _SINK = 0, 1


class Network:
    """A directed graph with capacities; nodes are numbered as they are added, 0 is the source and 1 the sink."""

    def __init__(self) -> None:
        self._num_nodes = 2
        self._capacities: dict[tuple[int, int], float] = {}

    def add_node(self, *, source: float = 0.0, sink: float = 0.0) -> int:
        """Add a node that costs ``source`` on the sink's side, and ``sink`` on the source's."""
        node = self._num_nodes
        self._num_nodes += 1
        self.add_edge(_SOURCE, node, source)
        self.add_edge(node, _SINK, sink)
        return node

    def add_edge(self, tail: int, head: int, capacity: float) -> None:
        """Let it cost so much to have ``tail`` on the source's side and ``head`` on the sink's."""
        if capacity > 0:
            self._capacities[tail, head] = self._capacities.get((tail, head), 0.0) + capacity

    def sink_side(self) -> set[int]:
        """The nodes on the sink's side of a cheapest cut; of several the one with the most nodes there."""
        # networkx makes the second part as small as it can: that is to be the source's, so the edges are turned round.
        graph = networkx.DiGraph()
        graph.add_nodes_from(range(self._num_nodes))
        for (tail, head), capacity in self._capacities.items():
            graph.add_edge(head, tail, **({} if math.isinf(capacity) else {"capacity": capacity}))
        _, (sink_side, _) = networkx.minimum_cut(graph, _SINK, _SOURCE, flow_func=boykov_kolmogorov)
        return set(sink_side)
