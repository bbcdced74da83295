"""Half precision, modules that are quantized already, and what quantization refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators of a quantized module

from bundle_facts import details_of
from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_runtime import Classifier, QuantizeError

if TYPE_CHECKING:
    from pathlib import Path


class _Overflowing(nn.Module):
    """A layer whose values pass 65,504, and one that brings them back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.large, self.last = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 3)
        with torch.no_grad():
            self.large.weight *= 1e6
            self.last.weight /= 1e6

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.first(image_BCHW.flatten(1)).relu()
        logits: torch.Tensor = self.last(self.large(hidden).relu())
        return logits


def test_fp16_leaves_layers_that_overflow_in_float32(tmp_path: Path) -> None:
    config = ExportConfig(output=tmp_path / "bundle", image_size=8, channels=1, quantize=("fp16",))
    result = export(_Overflowing(), config)
    details = details_of(result, "fp16")
    model = onnx.load(result.path / "model.fp32.onnx")
    large = [n.name for n in model.graph.node if n.op_type == "Gemm"][1]
    assert large in details["float_layers"]
    assert len(details["float_layers"]) < details["num_layers"]
    assert details["relative_l2"] <= 5e-3
    half = onnx.load(result.path / "model.fp16.onnx").graph
    kinds = {t.name: t.data_type for t in half.initializer}
    weights = [kinds[n.input[1]] for n in half.node if n.op_type == "Gemm"]
    assert weights[0] == onnx.TensorProto.FLOAT16
    assert weights[1] == onnx.TensorProto.FLOAT
    with Classifier.load(result.path, variant="fp16") as classifier:
        assert np.isfinite(classifier.logits(np.ones((2, 1, 8, 8), np.float32))).all()


class _Quantized(nn.Module):
    """Values rounded by the user, as after training with quantization in mind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        levels = (0.05, 128, 0, 255, torch.uint8)
        stored = torch.ops.quantized_decomposed.quantize_per_tensor(image_BCHW.flatten(1), *levels)
        logits: torch.Tensor = self.layer(torch.ops.quantized_decomposed.dequantize_per_tensor(stored, *levels))
        return logits


def test_an_already_quantized_model_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ExportConfig(output=tmp_path / "bundle", image_size=8, channels=1, quantize=("int8",), scheme="dynamic")
    with pytest.raises(QuantizeError, match=r"is already quantized .*--quantize none"):
        export(_Quantized(), config)
    assert not config.output.exists()


def test_unreadable_images_are_counted_and_at_most_one_in_twenty(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    argv = ["lenet5", "--weights", str(weights), "--scheme", "static", "--calibration", str(folder), "-o"]
    for name in ("00", "20"):
        (folder / f"{name}.png").write_bytes(b"not an image")
    assert main([*argv, str(tmp_path / "two")]) == 0
    assert "38 images (2 unreadable)" in capsys.readouterr().out
    (folder / "30.png").write_bytes(b"")
    assert main([*argv, str(tmp_path / "three")]) == 1
    message = capsys.readouterr().err
    assert "--calibration: 3 of 40 images cannot be read, more than 5%" in message
    assert "30.png is empty" in message
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["--quantize", "int4"], 2, "--quantize is 'int4'; choose from int8, fp16, int8-weights"),
        (["--quantize", "int8", "--target", "tpu"], 2, "--target is 'tpu'; choose from cpu, cpu-avx2, arm64, openvino"),
        (["--quantize", "int8,int8"], 2, "--quantize lists int8 more than once"),
        (["--quantize", "int8", "--opset", "12"], 2, "--opset is 12; it must be from 13 to 23"),
        (["--quantize", "int8", "--max-drop", "-1"], 2, "--max-drop is -1.0; it must be from 0 to 100 points"),
        (["--quantize", "fp16", "--max-drop", "1"], 2, "--max-drop is for int8 variants"),
        (["--quantize", "none", "--scheme", "static"], 2, "--scheme is for int8 variants"),
        (["--quantize", "none", "--eval", "EMPTY"], 1, "EMPTY contains no folders"),
        (["--quantize", "int8", "--scheme", "static"], 1, "static and needs --calibration DIR"),
        (["--quantize", "int8", "--calibration", "EMPTY"], 1, "contains no image"),
        (["--quantize", "int8", "--calibration", "MISSING"], 1, "is not a folder of images"),
        (["--quantize", "int8", "--scheme", "dynamic", "--max-drop", "1"], 1, "--max-drop needs real images"),
        (["--quantize", "int8", "--calibration", "builtin", "--max-drop", "1"], 1, "--max-drop needs real images"),
        (["--quantize", "int8", "--scheme", "dynamic", "--target", "openvino"], 1, "needs static ranges"),
        (["--quantize", "int8", "--calibration-method", "mse"], 1, "--calibration-method is for static int8"),
    ],
)
def test_bad_input_names_the_option_and_the_remedy(
    argv: list[str], status: int, message: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    argv = [str(tmp_path / word) if word in ("EMPTY", "MISSING", "DATA") else word for word in argv]
    assert main(["lenet5", "--weights", str(weights), "-o", str(tmp_path / "bundle"), *argv]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["EMPTY"]
