"""The cheapest way to divide nodes into two sides: a minimum cut (Ford and Fulkerson 1956), found by Dinic's algorithm.

Dinic 1970, "Algorithm for solution of a problem of maximum flow in networks with power estimation".
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Network"]


class Network:
    """A directed graph with capacities; nodes are numbered as they are added, 0 is the source and 1 the sink."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]  # of each node, numbers of edges; an edge and its reverse are a pair
        self._heads: list[int] = []
        self._room: list[float] = []

    def add_node(self, *, source: float = 0.0, sink: float = 0.0) -> int:
        """Add a node that costs ``source`` on the sink's side, and ``sink`` on the source's."""
        self._edges.append([])
        node = len(self._edges) - 1
        self.add_edge(0, node, source)
        self.add_edge(node, 1, sink)
        return node

    def add_edge(self, tail: int, head: int, capacity: float) -> None:
        """Let it cost so much to have ``tail`` on the source's side and ``head`` on the sink's."""
        if capacity <= 0:
            return
        for node, other, room in ((tail, head, capacity), (head, tail, 0.0)):
            self._edges[node].append(len(self._heads))
            self._heads.append(other)
            self._room.append(room)

    def sink_side(self) -> set[int]:
        """The nodes on the sink's side of a cheapest cut: those from which the source can no longer be reached."""
        while True:
            levels = self._levels()
            if levels[1] < 0:
                return {node for node, level in enumerate(levels) if level < 0}
            nexts = [0] * len(self._edges)
            while self._push(levels, nexts) > 0:
                pass

    def _levels(self) -> list[int]:
        levels = [-1] * len(self._edges)
        levels[0] = 0
        queue = deque([0])
        while queue:
            node = queue.popleft()
            for edge in self._edges[node]:
                head = self._heads[edge]
                if self._room[edge] > 1e-9 and levels[head] < 0:
                    levels[head] = levels[node] + 1
                    queue.append(head)
        return levels

    def _push(self, levels: list[int], nexts: list[int]) -> float:
        """Send what one path of rising levels takes; 0 where there is none left. Graphs are too deep for recursion."""
        path: list[int] = []
        node = 0
        while node != 1:
            edges = self._edges[node]
            while nexts[node] < len(edges):
                edge = edges[nexts[node]]
                if self._room[edge] > 1e-9 and levels[self._heads[edge]] == levels[node] + 1:
                    break
                nexts[node] += 1
            if nexts[node] < len(edges):
                path.append(edges[nexts[node]])
                node = self._heads[path[-1]]
            elif path:
                node = self._heads[path.pop() ^ 1]
                nexts[node] += 1
            else:
                return 0.0
        sent = min((self._room[edge] for edge in path), default=math.inf)
        for edge in path:
            self._room[edge] -= sent
            self._room[edge ^ 1] += sent
        return sent
