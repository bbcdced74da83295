"""Passes on tiny graphs in ONNX text syntax, and what is left in the graphs of real networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.graph.outcome import Outcome, is_routine
from edgeport_export.graph.passes import PASSES, run_passes
from edgeport_export.graph.passes.fold_attention_scale import fold_attention_scale
from edgeport_export.graph.passes.fuse_attention import fuse_attention
from edgeport_export.graph.passes.strip_metadata import strip_metadata
from edgeport_export.report import print_result, result_document
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
    assert run_passes(model, (fold_attention_scale,)) == ["pass fold_attention_scale: changed 1 of 1"]
    assert [node.op_type for node in model.graph.node].count("Div") == 0
    assert len(model.graph.initializer) == 3
    # A power of two moves without rounding; other scales round once more (measured: 6e-8).
    np.testing.assert_allclose(_run(model), expected, rtol=0, atol=0 if scale == 8.0 else 1e-6)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("scaled = Div (scores, s)", "scaled = Identity (scores)\nz = Softmax (scores)", "nothing scales its scores"),
        ("scaled = Div (scores, s)", "scaled = Div (s, scores)", "its scale is the first operand"),
        ("scaled = Div (scores, s)", "t = Exp (s)\nscaled = Div (scores, t)", "its scale is not a constant"),
        ("scaled = Div (scores, s)", "scaled = Mul (scores, wide)", "its scale is not one number"),
        ("scaled = Div (scores, s)", "scaled = Mul (scores, zero)", "its scale is 0 or not finite"),
        ("scaled = Div (scores, s)", "scaled = Div (scores, endless)", "its scale is 0 or not finite"),
        ("float[B, 3, 3] y)", "float[B, 3, 3] y, float[B, 3, 3] scores)", "something else reads its scores"),
        ("float[B, 3, 3] y)", "float[B, 3, 3] y, float[B, 3, 4] query)", "something else reads its queries"),
        ("query = Add (product, b)", "query = Sub (product, b)", "its queries have no bias"),
        (
            "query = Add (product, b)",
            "c = Exp (b)\nquery = Add (product, c)",
            "its queries are not one value plus a constant bias",
        ),
        ("product = MatMul (x, w)", "product = Exp (x)", "its queries are not a product before their bias"),
        (
            "float[B, 3, 3] y)",
            "float[B, 3, 3] y, float[B, 3, 4] product)",
            "something else reads its queries before their bias",
        ),
        (
            "product = MatMul (x, w)",
            "v = Exp (w)\nproduct = MatMul (x, v)",
            "the weight of its queries is not a constant",
        ),
        ("key = MatMul (x, keys)", "key = MatMul (x, w)", "something else reads the weight of its queries"),
    ],
)
def test_attention_scale_stays_where_the_pattern_differs(old: str, new: str, reason: str) -> None:
    assert old in _ATTENTION
    model = _attention(_ATTENTION.replace(old, new))
    for name, values in {"wide": [2.0, 3.0, 4.0], "zero": [0.0], "endless": [np.inf]}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(values), name))
    before = model.SerializeToString()
    assert run_passes(model, (fold_attention_scale,)) == [f"pass fold_attention_scale: left 1 of 1: {reason}"]
    assert model.SerializeToString() == before


_LAYERS = """
<ir_version: 10, opset_import: ["" : 20]>
layers (float[B, 3, 4] x) => (float[B, 3, 4] y)
<float[4, 4] w, float[4] b, float[4, 4] keys, float s>
{
    product = MatMul (x, w)
    scaled = Mul (product, s)
    y = Softmax <axis = -1> (scaled)
}
"""


def test_a_scaled_layer_does_not_look_like_attention() -> None:
    notes = run_passes(_attention(_LAYERS), (fold_attention_scale,))
    assert notes == [
        "pass fold_attention_scale: nothing to do: no product of two values is scaled or goes into a softmax"
    ]


def test_places_with_the_same_reason_are_counted() -> None:
    outcome = Outcome(num_changed=2, left=("one", "other", "one"), absent="nothing")
    assert outcome.notes("p") == ["pass p: changed 2 of 5", "pass p: left 2 of 5: one", "pass p: left 1 of 5: other"]
    assert [is_routine(f"int8: {note}") for note in outcome.notes("p")] == [True, False, False]
    assert [is_routine(note) for note in Outcome(num_changed=0).notes("p")] == [True]
    assert not is_routine("no int8: the model passes nothing")


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


_NO_ATTENTION = "no softmax reads a product of two values, or goes into one"


def test_attention_becomes_one_node() -> None:
    model = onnx.parser.parse_model(_HEADS)
    before = _run(model)
    assert fuse_attention(model) == Outcome(num_changed=1, absent=_NO_ATTENTION)
    assert [node.op_type for node in model.graph.node] == ["Sin", "Cos", "MultiHeadAttention"]
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 20, "com.microsoft": 1}
    onnx.checker.check_model(model)
    np.testing.assert_allclose(_run(model), before, rtol=1e-5, atol=1e-6)
    assert fuse_attention(model) == Outcome(num_changed=0, absent=_NO_ATTENTION)


_SOFTMAX = "weights = Softmax <axis = -1> (scores)"
_SUMS = "joined = Transpose <perm = [0, 2, 1, 3]> (summed)"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Softmax <axis = -1>", "Softmax <axis = 2>", "its softmax is not over the keys"),
        (_SOFTMAX, "half = Mul (scores, s)\nweights = Softmax (half)", "no MatMul makes its scores"),
        (_SOFTMAX, "half = Exp (scores)\nweights = Softmax (half)", "no MatMul makes its scores"),
        ("(float[B, 3, 4] y)", "(float[B, 3, 4] y, float[B, A, N, N] scores)", "something else reads its scores"),
        ("perm = [0, 2, 3, 1]", "perm = [0, 2, 1, 3]", "the axes of its keys are in another order"),
        ("value = Transpose <perm = [0, 2, 1, 3]> (v_split)", "value = Exp (v_split)", "no Transpose makes its values"),
        ("(float[B, 3, 4] y)", "(float[B, 3, 4] y, float[B, A, N, D] q_split)", "something else reads its queries"),
        ("q_split = Reshape (q, split)", "q_split = Unsqueeze (q, last)", "no Reshape makes its queries"),
        ("(k, split)", "(k, computed)", "its keys are not split by a constant shape of 4 axes"),
        ("(k, split)", "(k, join)", "its keys are not split by a constant shape of 4 axes"),
        ("(k, split)", "(k, other)", "its queries, keys and values differ in their number of heads"),
        ("(float[B, 3, 4] y)", "(float[B, 3, 4] y, float[B, A, N, N] weights)", "something else reads its weights"),
        (_SOFTMAX, "w = Softmax (scores)\nweights = Identity (w)", "no MatMul reads its weights"),
        ("MatMul (weights, value)", "MatMul (value, weights)", "its weights are the second factor"),
        ("(float[B, 3, 4] y)", "(float[B, 3, 4] y, float[B, A, N, D] summed)", "something else reads its sums"),
        (_SUMS, "joined = Identity (summed)", "no Transpose reads its sums"),
        (_SUMS, "joined = Transpose <perm = [0, 1, 2, 3]> (summed)", "the axes of its sums are in another order"),
        ("y = Reshape (joined, join)", "y = Identity (joined)", "no Reshape reads its sums"),
        ("(joined, join)", "(joined, split)", "its heads are not joined by a constant shape of 3 axes"),
    ],
)
def test_attention_stays_where_the_pattern_differs(old: str, new: str, reason: str) -> None:
    assert old in _HEADS
    constants = "float s = {0.5}, int64[1] last = {3}, int64[4] other = {0, 0, 4, 1}, int64[3] join"
    text = (
        _HEADS.replace(old, new)
        .replace("int64[3] join", constants)
        .replace("q = Sin", "computed = Abs (split)\nq = Sin")
    )
    model = onnx.parser.parse_model(text)
    before = model.SerializeToString()
    assert fuse_attention(model).notes("fuse_attention") == [f"pass fuse_attention: left 1 of 1: {reason}"]
    assert model.SerializeToString() == before


def test_without_a_softmax_there_is_no_attention_to_fuse() -> None:
    model = onnx.parser.parse_model(_HEADS.replace("Softmax <axis = -1>", "Sigmoid"))
    assert fuse_attention(model) == Outcome(num_changed=0, absent=_NO_ATTENTION)


def test_strip_metadata_leaves_no_notes() -> None:
    model = _attention()
    model.doc_string = "made on a build machine"
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/model.py")
    model.graph.node[1].doc_string = "a comment"
    assert strip_metadata(model).num_changed == 3 + len(model.graph.node)  # none had a name
    text = model.SerializeToString()
    assert b"build machine" not in text
    assert b"somebody" not in text
    assert b"a comment" not in text
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert strip_metadata(model).notes("strip_metadata") == [
        "pass strip_metadata: nothing to do: every node has a name, and nothing has notes"
    ]


def _dangling(model: onnx.ModelProto) -> Outcome:
    model.graph.node[1].input[0] = "nowhere"
    return Outcome(num_changed=1)


def _other_output(model: onnx.ModelProto) -> Outcome:
    model.graph.output[0].name = "scaled"
    return Outcome(num_changed=1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (_dangling, "reads 'nowhere', which no earlier node makes"),
        (_other_output, "changed the graph's inputs, outputs or opset"),
    ],
)
def test_a_pass_that_breaks_the_graph_is_named(broken: Callable[[onnx.ModelProto], Outcome], reason: str) -> None:
    with pytest.raises(SimplifyError, match=rf"the pass {broken.__name__} .*{reason}"):
        run_passes(_attention(), (*PASSES, broken))


_GONE = {"BatchNormalization", "Dropout", "Identity", "Constant", "Shape", "Split", "Div"}


@pytest.mark.parametrize(
    ("architecture", "counts", "note"),
    [
        ("resnet20", {"Conv": 19, "Relu": 19, "Add": 9, "Gemm": 1}, "nothing to do: no product of two"),
        pytest.param(
            "vit_ti_16",
            {"MatMul": 96, "Softmax": 12, "LayerNormalization": 25, "Gelu": 12, "Gemm": 1},
            "changed 12 of 12",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_graphs_hold_what_computes_and_nothing_else(
    architecture: str, counts: dict[str, int], note: str, tmp_path: Path
) -> None:
    result = export(ExportConfig(architecture=architecture, output=tmp_path / "bundle", quantize=()))
    assert [text for text in result.notes if not is_routine(text)] == []
    assert any(text.startswith(f"pass fold_attention_scale: {note}") for text in result.notes)
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


class _WithoutBias(nn.Module):
    """Attention over the rows of an image, whose queries have no bias to fold a scale into."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)
        self.query, self.key = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        x_BND = self.norm(image_BCHW.flatten(1, 2))
        scores_BNN = self.query(x_BND) @ self.key(x_BND).transpose(1, 2) / 3
        logits: torch.Tensor = self.head((scores_BNN.softmax(dim=-1) @ x_BND).mean(dim=1))
        return logits


def test_a_place_that_is_left_is_told_and_what_is_routine_is_in_the_json_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = ExportConfig(output=tmp_path / "bundle", image_size=8, channels=1, quantize=("int8",))
    result = export(_WithoutBias(), config)
    left = [
        "pass fold_attention_scale: left 1 of 1: its queries have no bias",
        "int8: pass fuse_attention: left 1 of 1: no MatMul makes its scores",
    ]
    told = [note for note in result.notes if "pass " in note and not note.startswith("pass strip_metadata: changed ")]
    assert told == left
    assert result_document(result)["notes"] == list(result.notes)
    print_result(result, config.output)
    assert [line for line in capsys.readouterr().out.splitlines() if "pass " in line] == [f"note: {n}" for n in left]
