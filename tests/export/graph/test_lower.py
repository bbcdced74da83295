"""Graphs in older operator sets: the same values as before, from operators that the older set has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgeport_export import ExportConfig, export
from edgeport_export.graph.lower import lower
from edgeport_runtime import ExportError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = '<ir_version: 10, opset_import: ["" : 18]> g (float[batch, 4, 6] image) => '
GRAPHS: dict[str, tuple[str, dict[str, Any]]] = {
    "LayerNormalization": (
        "(float[batch, 4, 6] y) { y = LayerNormalization <axis = -1, epsilon = 1e-6> (image, scale, bias) }",
        {"scale": np.linspace(0.5, 2, 6, dtype=np.float32), "bias": np.linspace(-1, 1, 6, dtype=np.float32)},
    ),
    "LayerNormalization over two axes": (
        "(float[batch, 4, 6] y) { y = LayerNormalization <axis = 1> (image, scale) }",
        {"scale": np.linspace(0.5, 2, 24, dtype=np.float32).reshape(4, 6)},
    ),
    "HardSwish and Mish": ("(float[batch, 4, 6] y) { x = HardSwish (image) y = Mish (x) }", {}),
    "Split": (
        "(float[batch, 4, 2] c) { a, b, c = Split <axis = -1, num_outputs = 3> (image) }",
        {},
    ),
    "Split with a rest": (
        "(float[batch, 1, 6] b) { odd = Slice (image, from, to, axis) a, b = Split <axis = 1, num_outputs = 2> (odd) }",
        {"from": np.array([0]), "to": np.array([3]), "axis": np.array([1])},
    ),
    "ReduceMean": (
        "(float[batch, 4] y) { y = ReduceMean <keepdims = 0, noop_with_empty_axes = 0> (image, axes) }",
        {"axes": np.array([2])},
    ),
    "Reshape to a part of a Shape": (
        "(float[batch, 24] y) { n = Shape <start = 0, end = 1> (image) s = Concat <axis = 0> (n, rest) "
        "y = Reshape <allowzero = 1> (image, s) }",
        {"rest": np.array([24])},
    ),
    "Pad of some axes": (
        "(float[batch, 7, 6] y) { y = Pad (image, pads, value, axes) }",
        {"pads": np.array([1, 2]), "value": np.float32(3), "axes": np.array([1])},
    ),
}


def _write(name: str, folder: Path) -> Path:
    text, constants = GRAPHS[name]
    model = onnx.parser.parse_model(HEADER + text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _run(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((2, 4, 6), dtype=np.float32)
    return session.run(None, {"image": image})[0]


@pytest.mark.parametrize("opset", [13, 16, 17])
@pytest.mark.parametrize("name", GRAPHS)
def test_an_older_graph_gives_the_same(name: str, opset: int, tmp_path: Path) -> None:
    path = _write(name, tmp_path)
    expected = _run(path)
    lower(path, tmp_path / "old.onnx", opset)
    model = onnx.load(tmp_path / "old.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == (7 if opset == 13 else 8)
    # Measured: 0, but for the layer norms and gates 5e-7.
    np.testing.assert_allclose(_run(tmp_path / "old.onnx"), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("nodes", "opset", "message"),
    [
        ("y = Trilu (image)", 13, "opset 13: Trilu needs opset 14; use --opset 14 or later"),
        (
            "x = Trilu (image) y = BitwiseNot (x)",
            13,
            "opset 13: BitwiseNot needs opset 18, Trilu needs opset 14; use --opset 18 or later",
        ),
        ("sizes = Shape (image) y = ReduceMax (image, sizes)", 17, "ReduceMax needs opset 18; use --opset 18 or later"),
    ],
)
def test_what_an_older_set_lacks_is_named(nodes: str, opset: int, message: str, tmp_path: Path) -> None:
    kind = "int32" if "Bitwise" in nodes else "float"
    text = f'<ir_version: 10, opset_import: ["" : 18]> g ({kind}[batch, 4] image) => ({kind}[batch, 4] y) {{ {nodes} }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    with pytest.raises(ExportError) as caught:
        lower(tmp_path / "model.onnx", tmp_path / "old.onnx", opset)
    assert message in str(caught.value)
    assert not (tmp_path / "old.onnx").exists()


def test_an_export_in_an_older_opset(tmp_path: Path) -> None:
    """All variants, in a ViT: it has the operators that changed most."""
    config = ExportConfig(
        architecture="vit_digits",
        weights="digits",
        output=tmp_path / "bundle",
        opset=13,
        quantize=("int8", "fp16"),
        preprocess="in-graph",
        interpolation="lanczos",
    )
    result = export(config)
    for variant in result.manifest.variants:
        assert variant.opset == 13
        assert variant.in_graph is not None
        for file in (variant.file, variant.in_graph.file):
            model = onnx.load(result.path / file)
            assert {entry.domain: entry.version for entry in model.opset_import}[""] == 13
            assert model.ir_version == 7
            assert "LayerNormalization" not in {node.op_type for node in model.graph.node}
    assert "MatMulInteger" in {node.op_type for node in onnx.load(result.path / "model.int8.onnx").graph.node}
