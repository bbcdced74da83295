"""Passes on tiny graphs in ONNX text syntax, and what is left in the graphs of real networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeport_export import ExportConfig, export
from edgeport_export.graph.passes import PASSES, run_passes
from edgeport_export.graph.passes.fold_attention_scale import fold_attention_scale
from edgeport_export.graph.passes.fuse_attention import fuse_attention
from edgeport_export.graph.passes.strip_metadata import strip_metadata
from edgeport_runtime import SimplifyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_ATTENTION = """
<ir_version: 10, opset_import: ["" : 20]>
attention (float[B, 3, 4] x) => (float[B, 3, 3] y)
<float[4, 4] w, float[4] b, float[4, 4] keys, float s>
{
    product = MatMul (x, w)
    query = Add (product, b)
    key = MatMul (x, keys)
    key_t = Transpose <perm = [0, 2, 1]> (key)
    scores = MatMul (query, key_t)
    scaled = Div (scores, s)
    y = Softmax <axis = -1> (scaled)
}
"""


def _attention(text: str = _ATTENTION, *, scale: float = 8.0) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    shapes = {"w": (4, 4), "b": (4,), "keys": (4, 4)}
    del model.graph.initializer[:]
    for name, shape in shapes.items():
        values = generator.standard_normal(shape, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(scale), "s"))
    return model


def _run(model: onnx.ModelProto) -> NDArray[np.float32]:
    x = np.random.default_rng(1).standard_normal((2, 3, 4), dtype=np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("scale", [8.0, 5.0])
def test_attention_scale_moves_into_the_queries(scale: float) -> None:
    model = _attention(scale=scale)
    expected = _run(model)
    assert run_passes(model, (fold_attention_scale,)) == ["fold_attention_scale"]
    assert [node.op_type for node in model.graph.node].count("Div") == 0
    assert len(model.graph.initializer) == 3
    # A power of two moves without rounding; other scales round once more (measured: 6e-8).
    np.testing.assert_allclose(_run(model), expected, rtol=0, atol=0 if scale == 8.0 else 1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("float[B, 3, 3] y)", "float[B, 3, 3] y, float[B, 3, 4] query)"),
        ("key = MatMul (x, keys)", "key = MatMul (x, w)"),
        ("query = Add (product, b)", "query = Sub (product, b)"),
        ("scaled = Div (scores, s)", "scaled = Div (s, scores)"),
    ],
    ids=["queries are an output", "weights are shared", "no bias", "scale is the dividend"],
)
def test_attention_scale_stays_where_the_pattern_differs(old: str, new: str) -> None:
    assert old in _ATTENTION
    assert run_passes(_attention(_ATTENTION.replace(old, new)), (fold_attention_scale,)) == []


_HEADS = """
<ir_version: 10, opset_import: ["" : 20]>
heads (float[B, 3, 4] x) => (float[B, 3, 4] y)
<int64[4] split = {0, 0, 2, 2}, int64[3] join = {0, 0, 4}>
{
    q = Sin (x)
    k = Cos (x)
    q_split = Reshape (q, split)
    k_split = Reshape (k, split)
    v_split = Reshape (x, split)
    query = Transpose <perm = [0, 2, 1, 3]> (q_split)
    key = Transpose <perm = [0, 2, 3, 1]> (k_split)
    value = Transpose <perm = [0, 2, 1, 3]> (v_split)
    scores = MatMul (query, key)
    weights = Softmax <axis = -1> (scores)
    summed = MatMul (weights, value)
    joined = Transpose <perm = [0, 2, 1, 3]> (summed)
    y = Reshape (joined, join)
}
"""


def test_attention_becomes_one_node() -> None:
    model = onnx.parser.parse_model(_HEADS)
    before = _run(model)
    assert fuse_attention(model)
    assert [node.op_type for node in model.graph.node] == ["Sin", "Cos", "MultiHeadAttention"]
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 20, "com.microsoft": 1}
    onnx.checker.check_model(model)
    np.testing.assert_allclose(_run(model), before, rtol=1e-5, atol=1e-6)
    assert not fuse_attention(model)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("(float[B, 3, 4] y)", "(float[B, 3, 4] y, float[B, A, N, N] weights)", id="weights are read"),
        pytest.param("Softmax <axis = -1>", "Softmax <axis = 2>", id="over the queries"),
        pytest.param("perm = [0, 2, 3, 1]", "perm = [0, 2, 1, 3]", id="keys as they are"),
        pytest.param("joined = Transpose <perm = [0, 2, 1, 3]>", "joined = Identity", id="heads not joined"),
        pytest.param("k_split = Reshape (k, split)", "k_split = Reshape (k, other)", id="another split of the keys"),
        pytest.param("weights = Softmax <axis = -1>", "weights = Sigmoid", id="not a softmax"),
    ],
)
def test_attention_stays_where_the_pattern_differs(old: str, new: str) -> None:
    assert old in _HEADS
    text = _HEADS.replace(old, new).replace("int64[3] join", "int64[4] other = {0, 0, 4, 1}, int64[3] join")
    model = onnx.parser.parse_model(text)
    before = model.SerializeToString()
    assert not fuse_attention(model)
    assert model.SerializeToString() == before


def test_strip_metadata_leaves_no_notes() -> None:
    model = _attention()
    model.doc_string = "made on a build machine"
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/model.py")
    model.graph.node[1].doc_string = "a comment"
    assert strip_metadata(model)
    text = model.SerializeToString()
    assert b"build machine" not in text
    assert b"somebody" not in text
    assert b"a comment" not in text
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert not strip_metadata(model)


def _dangling(model: onnx.ModelProto) -> bool:
    model.graph.node[1].input[0] = "nowhere"
    return True


def _other_output(model: onnx.ModelProto) -> bool:
    model.graph.output[0].name = "scaled"
    return True


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (_dangling, "reads 'nowhere', which no earlier node makes"),
        (_other_output, "changed the graph's inputs, outputs or opset"),
    ],
)
def test_a_pass_that_breaks_the_graph_is_named(broken: Callable[[onnx.ModelProto], bool], reason: str) -> None:
    with pytest.raises(SimplifyError, match=rf"the pass {broken.__name__} .*{reason}"):
        run_passes(_attention(), (*PASSES, broken))


_GONE = {"BatchNormalization", "Dropout", "Identity", "Constant", "Shape", "Split", "Div"}


@pytest.mark.parametrize(
    ("architecture", "counts"),
    [
        ("resnet18", {"Conv": 20, "Relu": 17, "Add": 8, "MaxPool": 1, "Gemm": 1}),
        pytest.param(
            "vit_ti_16",
            {"MatMul": 96, "Softmax": 12, "LayerNormalization": 25, "Gelu": 12, "Gemm": 1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_graphs_hold_what_computes_and_nothing_else(architecture: str, counts: dict[str, int], tmp_path: Path) -> None:
    result = export(ExportConfig(architecture=architecture, output=tmp_path / "bundle"))
    model = onnx.load(result.path / "model.fp32.onnx")
    op_types = [node.op_type for node in model.graph.node]
    allowed = {"Shape"} if architecture.startswith("vit") else set()  # the class token is repeated to the batch
    assert set(op_types) & (_GONE - allowed) == set()
    assert {op_type: op_types.count(op_type) for op_type in counts} == counts
    assert [output.name for output in model.graph.output] == ["logits"]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert model.ir_version == 10
    assert str(tmp_path).encode() not in model.SerializeToString()
    assert b"stack_trace" not in model.SerializeToString()
