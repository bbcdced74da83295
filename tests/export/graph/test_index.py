"""What passes and quantizers ask of a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeport_export.graph.index import GraphIndex, attribute

_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
graph (float[B, 4] x) => (float[B, 4] y, float[B, 4] z)
<float[1] low = {-1.0}, float[1] high = {1.0}>
{
    a = Relu (x)
    b = Add (a, a)
    y = Mul (b, low)
    c = Sin (x)
    z = Concat <axis = -1> (y, c)
    d = Clip (c, , high)
}
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(_GRAPH)


def test_who_makes_and_who_reads_a_value(model: onnx.ModelProto) -> None:
    index = GraphIndex(model.graph)
    readers = {name: [node.op_type for node in index.consumers(name)] for name in ("x", "a", "b", "y", "c", "z", "low")}
    assert readers == {
        "x": ["Relu", "Sin"],
        "a": ["Add", "Add"],
        "b": ["Mul"],
        "y": ["Concat"],
        "c": ["Concat", "Clip"],
        "z": [],
        "low": ["Mul"],
    }
    assert index.consumers("") == []  # the input that Clip leaves out
    alone = {name: node.op_type for name in readers if (node := index.sole_consumer(name)) is not None}
    assert alone == {"b": "Mul", "low": "Mul"}  # not y, which the graph gives as well
    assert [name for name in readers if index.is_used_once(name)] == ["b", "z", "low"]
    assert [name for name in readers if index.is_output(name)] == ["y", "z"]
    maker = index.producer("c")
    assert maker is not None
    assert maker.op_type == "Sin"
    assert index.producer("c", "Cos") is None
    assert index.producer("x") is None


def test_a_constant_gets_other_values_in_the_graph(model: onnx.ModelProto) -> None:
    index = GraphIndex(model.graph)
    index.replace_constant("low", np.float32([3.0]))
    assert index.constant("low") == GraphIndex(model.graph).constant("low") == [3.0]
    assert index.constant("high") == [1.0]
    with pytest.raises(KeyError):
        index.replace_constant("x", np.float32([3.0]))


def test_attributes_are_lists_of_integers(model: onnx.ModelProto) -> None:
    concat = model.graph.node[4]
    assert attribute(concat, "axis", [1]) == [-1]
    assert attribute(concat, "perm", [0, 1]) == [0, 1]
    transpose = onnx.helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    assert attribute(transpose, "perm", []) == [1, 0]
