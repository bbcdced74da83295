"""Nodes that are added to a graph, with names of their own. Written in operators of every opset from 13 on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

__all__ = ["Adder"]


class Adder:
    """Adds nodes and constants; nothing is in the graph before ``finish``.

    Args:
        graph: what they are added to.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output; returns the name of what it makes."""
        name = f"evidence/{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name=f"{name}/{op_type}", **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        name = f"evidence/constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        """Add a float32 constant."""
        return self.constant(np.array(value, np.float32))

    def floats(self, name: str) -> str:
        """A value in float32, whatever it is in."""
        return self.node("Cast", [name], to=TensorProto.FLOAT)

    def reshape(self, name: str, *shape: int) -> str:
        """A value in another shape; 0 keeps an axis, -1 takes what is left."""
        return self.node("Reshape", [name, self.constant(np.array(shape, np.int64))])

    def transposed(self, name: str) -> str:
        """A matrix, turned."""
        return self.node("Transpose", [name], perm=[1, 0])

    def like(self, name: str, other: str) -> str:
        """A value in the shape of another."""
        return self.node("Reshape", [name, self.node("Shape", [other])])

    def finish(self, value: str, output: str) -> None:
        """Put everything into the graph, with ``value`` under the name ``output``."""
        self._nodes.append(helper.make_node("Identity", [value], [output], name=f"evidence/{output}"))
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(self._constants)
