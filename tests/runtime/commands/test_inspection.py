"""The command run-model inspect, against counts by PyTorch and by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeport_export.inspection.limits import TARGETS as KNOWN_TARGETS
from edgeport_export.inspection.limits import find_limits
from edgeport_models import ARCHITECTURES
from edgeport_runtime.commands.cli import main
from edgeport_runtime.commands.inspection import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult


def inspected(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["inspect", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def by_hooks(module: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds of convolutions and linear layers, from the shapes that PyTorch sees."""
    counts: list[int] = []

    def count(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        weight = layer.weight
        counts.append(out[0].numel() * weight[0].numel())

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        module(x)
    return sum(counts)


def test_a_bundle_is_counted_as_pytorch_counts(lenet5: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, lenet5.path)
    spec = ARCHITECTURES["lenet5"]
    module = spec.build(num_classes=10).eval()
    assert found["multiply_adds"] == by_hooks(module, torch.zeros(1, *spec.input_shape))
    assert found["num_parameters"] == sum(p.numel() for p in module.parameters())
    assert found["parameter_bytes"] == 4 * found["num_parameters"]
    assert (found["opset"], found["ir_version"], found["producer"]) == (20, 10, "edgeport")
    assert (found["quantized_share"], found["num_unknown"]) == (0, 0)
    layers = found["layers"]
    assert sum(layer["multiply_adds"] for layer in layers) == found["multiply_adds"]
    first = next(layer for layer in layers if layer["operator"] == "Conv")
    assert (first["shape"], first["activation_bytes"]) == ([1, 6, 28, 28], 4 * 6 * 28 * 28)
    assert found["operators"]["Conv"] == 2
    # The first convolution's output beside that of its activation is what takes most.
    assert found["peak_activation_bytes"] == 2 * 4 * 6 * 28 * 28


def tiny(*, zero_point: int = 0, domain: str = "", free: bool = True) -> onnx.ModelProto:
    """A convolution between quantizers, and an operator of somebody's own."""
    zero = numpy_helper.from_array(np.array(zero_point, np.int8), "zero")
    weights = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.int8), "w8")
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["x8"], "quantize"),
        helper.make_node("DequantizeLinear", ["x8", "scale", "zero"], ["x"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"], "weights"),
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
        helper.make_node("Relu" if not domain else "Own", ["y"], ["out"], "last", domain=domain),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch" if free else 1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [zero, weights, scale],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_a_file_of_somebody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(tiny(domain="own"), path)
    found = inspected(capsys, path)
    assert found["multiply_adds"] == 4 * 8 * 8 * 3
    assert found["quantized_share"] == 1
    assert found["domains"] == {"own": 1}
    assert found["operators"]["own:Own"] == 1
    assert found["num_unknown"] == 1  # what an unknown operator gives
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["conv"]["is_quantized"]
    assert (layers["quantize"]["num_parameters"], layers["quantize"]["parameter_bytes"]) == (2, 5)  # scale, zero point
    assert layers["weights"]["num_parameters"] == layers["weights"]["parameter_bytes"] == 12  # the scale was counted
    assert layers["weights"]["activation_bytes"] == 0  # it does not depend on the image
    assert layers["last"]["activation_bytes"] is None
    assert main(["inspect", str(path)]) == 0
    told = capsys.readouterr().out
    assert "not counted    1 values whose shape the file does not tell" in told
    assert "multiply-adds  768 an image, 100% of them in integers" in told


def test_the_targets_are_the_same_on_both_sides() -> None:
    assert TARGETS == KNOWN_TARGETS


@pytest.mark.parametrize(
    ("target", "model", "whats"),
    [
        ("tensorrt", tiny(), []),
        ("tensorrt", tiny(zero_point=3), ["quantizers with a zero point that is not 0, or unsigned"]),
        ("tensorrt", tiny(domain="own"), ["operator own:Own"]),
        ("openvino", tiny(), []),
        ("coreml", tiny(free=False), ["operator DequantizeLinear", "operator QuantizeLinear"]),
        (
            "coreml",
            tiny(),
            ["operator DequantizeLinear", "operator QuantizeLinear", "an axis of the input is free"],
        ),
        ("tflite", tiny(free=False), []),
        ("ort-mobile", tiny(), []),
        ("webgpu", tiny(), ["operator QuantizeLinear"]),
        ("opencv", tiny(domain="own"), ["operator own:Own", "quantizers"]),
    ],
)
def test_what_keeps_a_file_from_a_target(target: Any, model: onnx.ModelProto, whats: list[str]) -> None:
    limits = find_limits(model, target)
    assert [limit.what for limit in limits] == whats
    assert all(limit.source.startswith("https://") for limit in limits)


def test_a_target_is_told_with_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(tiny(), path)
    assert main(["inspect", str(path), "--target", "webgpu"]) == 0
    assert "webgpu: operator QuantizeLinear (1 nodes): ONNX Runtime runs" in capsys.readouterr().out
    assert main(["inspect", str(path), "--target", "openvino"]) == 0
    assert "openvino: nothing is known that keeps it from there" in capsys.readouterr().out
    assert inspected(capsys, path, "--target", "webgpu")["limits"][0]["count"] == 1


def negative() -> bytes:
    model = tiny()
    model.graph.initializer[1].dims[0] = -4
    return model.SerializeToString()


def undeclared() -> bytes:
    model = tiny(domain="own")
    del model.opset_import[1]
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a model", "is not an ONNX model, or is damaged"),
        (b"", "has 0 nodes, not 1 to 200,000"),
        (negative(), "holds a tensor of negative size"),
        (undeclared(), "its shapes cannot be told"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_a_line(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_beside_a_file_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    weights = model.graph.initializer[1]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert inspected(capsys, path, "--target", "tensorrt")["num_parameters"] == 14


def test_an_altered_variant_is_refused(
    lenet5: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_bytes((lenet5.path / "manifest.json").read_bytes())
    (tmp_path / "model.fp32.onnx").write_bytes(b"altered")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err
    assert main(["inspect", str(lenet5.path), "--variant", "int9"]) == 1
    assert "unknown variant 'int9'" in capsys.readouterr().err


def test_without_onnx_the_remedy_is_a_line(lenet5: ExportResult) -> None:
    code = """
import sys
sys.modules["onnx"] = None
from edgeport_runtime.commands.cli import main
sys.exit(main(["inspect", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(lenet5.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("pip install onnx\n")
    assert done.stderr.count("\n") == 1
