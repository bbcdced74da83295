"""Variants of an export: what is made, what they must meet, what the report says, and what is refused."""

from __future__ import annotations

import csv
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators of a quantized module

from edgeport_export import ExportConfig, ExportResult, export
from edgeport_export.cli import main
from edgeport_export.quantize.drop import Drop
from edgeport_runtime import Classifier, QuantizeError, load_manifest
from edgeport_runtime.commands.verify import verify
from task_models import make_images, make_module

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = {"multiclass": "a\nb\nc\nd\n", "binary": "no\nyes\n", "multilabel": "a\nb\nc\nd\n"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 grey images of 32x32."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(make_images()):
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lenet5.pth"
    torch.save(make_module("multiclass").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def every(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """LeNet-5 in every variant."""
    config = ExportConfig(
        architecture="lenet5",
        weights=weights,
        output=tmp_path_factory.mktemp("every") / "bundle",
        quantize=("int8", "fp16", "int8-weights"),
        target=("cpu", "cpu-avx2", "arm64", "openvino"),
        scheme="static",
        calibration=images,
    )
    return export(config)


def _ops(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def _details(result: ExportResult, name: str) -> dict[str, Any]:
    variant = next(v for v in result.manifest.variants if v.name == name)
    assert variant.quantization is not None
    return dict(variant.quantization)


def test_every_variant_is_made_checked_and_replayed(every: ExportResult) -> None:
    names = ["fp32", "int8", "int8-avx2", "int8-arm64", "int8-openvino", "fp16", "int8-weights"]
    assert [variant.name for variant in every.manifest.variants] == names
    stages = [stage.stage for stage in every.parity.stages]
    assert stages == ["exported", "simplified", *(f"variant {n}" for n in names), *(f"runtime {n}" for n in names)]
    assert load_manifest(every.path) == every.manifest
    whole = every.manifest.variants[0].size_bytes
    for variant in every.manifest.variants[1:]:
        assert verify(every.path, variant=variant.name).passed
        details = variant.quantization
        assert details is not None
        # Measured: at most 4.1e-2 for int8 of every target and 2.9e-4 for fp16.
        assert 0 < details["relative_l2"] <= {"fp16": 1e-3}.get(variant.name, 0.06)
        assert variant.size_bytes / whole <= (0.55 if variant.name == "fp16" else 0.3)
        with Classifier.load(every.path, variant=variant.name) as classifier:
            assert classifier.variant == variant
            assert classifier.logits(np.zeros((3, 1, 32, 32), np.float32)).shape == (3, 4)


def test_types_of_activations_and_weights_are_the_targets(every: ExportResult) -> None:
    expected = {"int8": ("uint8", 127), "int8-avx2": ("uint8", 64), "int8-arm64": ("int8", 127)}
    for name, (activations, last) in expected.items():
        graph = onnx.load(every.path / f"model.{name}.onnx").graph
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        zero_points = {constants[n.input[2]].dtype.name for n in graph.node if n.op_type == "QuantizeLinear"}
        assert zero_points == {activations}
        stored = [
            constants[n.input[0]] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants
        ]
        weights = [values for values in stored if values.dtype == np.int8]
        assert len(weights) == 5
        assert all(np.abs(values.astype(int)).max() == last for values in weights)


def test_values_are_quantized_after_an_activation_and_logits_are_not(every: ExportResult) -> None:
    graph = onnx.load(every.path / "model.int8.onnx").graph
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Relu":
            assert producers[node.input[0]].op_type in ("Conv", "Gemm")
    assert producers["logits"].op_type == "Gemm"


def test_only_needed_opsets_are_imported(every: ExportResult, tmp_path: Path) -> None:
    for variant in every.manifest.variants:
        model = onnx.load(every.path / variant.file)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
        assert model.ir_version == 10
        told = [] if variant.quantization is None else ["edgeport.quantization"]
        assert [p.key for p in model.metadata_props] == ["edgeport.contract", *told]
        onnx.checker.check_model(model, full_check=True)
    for opset in (18, 23):
        for architecture in ("vit_digits", "lenet5"):
            output = tmp_path / f"{architecture}{opset}"
            result = export(ExportConfig(architecture=architecture, output=output, opset=opset))
            model = onnx.load(output / "model.int8.onnx")
            domains = {node.domain for node in model.graph.node}
            assert {o.domain for o in model.opset_import} == domains
            assert {o.version for o in model.opset_import if not o.domain} == {opset}
            assert verify(result.path, variant="int8").passed


def test_a_vit_is_dynamic_and_attention_is_one_node_in_float(tmp_path: Path) -> None:
    result = export(ExportConfig(architecture="vit_digits", output=tmp_path / "bundle"))
    floats, ints = (_ops(result.path / f"model.{name}.onnx") for name in ("fp32", "int8"))
    assert _details(result, "int8")["scheme"] == "dynamic"
    assert ints["MatMulInteger"] == _details(result, "int8")["num_layers"]
    for op in ("LayerNormalization", "Gelu"):
        assert ints[op] == floats[op] > 0
    assert ints["MultiHeadAttention"] == floats["Softmax"] > 0
    assert ints["MatMul"] == ints["Softmax"] == 0
    every = f"changed {floats['Softmax']} of {floats['Softmax']}"
    assert f"pass fold_attention_scale: {every}" in result.notes
    assert f"int8: pass fuse_attention: {every}" in result.notes
    assert not any("left" in note for note in result.notes)


def test_small_networks_with_tanh_keep_their_convolutions_in_float(weights: Path, tmp_path: Path) -> None:
    result = export(
        ExportConfig(architecture="lenet5", weights=weights, output=tmp_path / "bundle", quantize=("int8",))
    )
    ops = _ops(result.path / "model.int8.onnx")
    assert (ops["MatMulInteger"], ops["Conv"], ops["Gemm"]) == (3, 2, 0)
    assert _details(result, "int8")["scheme"] == "dynamic"


def test_scheme_static_quantizes_the_inputs_of_linear_layers(images: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        architecture="vit_digits", output=tmp_path / "bundle", scheme="static", calibration=images, quantize=("int8",)
    )
    result = export(config)
    ops = _ops(result.path / "model.int8.onnx")
    assert "MatMulInteger" not in ops
    assert (ops["MatMul"], ops["Gemm"], ops["Softmax"]) == tuple(
        _ops(result.path / "model.fp32.onnx")[op] for op in ("MatMul", "Gemm", "Softmax")
    )
    graph = onnx.load(result.path / "model.int8.onnx").graph
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":  # never what a linear layer gives
            assert producers[node.input[0]].op_type not in ("MatMul", "Gemm")


def test_without_asking_int8_is_made_where_nothing_is_missing(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = export(ExportConfig(architecture="lenet5", output=tmp_path / "random", scheme="static"))
    assert [v.name for v in random.manifest.variants] == ["fp32", "int8"]
    assert _details(random, "int8")["calibration"]["source"] == "synthetic"
    trained = ["lenet5", "--weights", str(weights)]
    assert main([*trained, "-o", str(tmp_path / "small")]) == 0
    assert [v.name for v in load_manifest(tmp_path / "small").variants] == ["fp32", "int8"]
    trained += ["--scheme", "static"]
    assert main([*trained, "-o", str(tmp_path / "trained")]) == 0
    assert "note: no int8 variant: add --calibration DIR" in capsys.readouterr().out
    assert [v.name for v in load_manifest(tmp_path / "trained").variants] == ["fp32"]
    assert main([*trained, "-o", str(tmp_path / "folder"), "--calibration", str(images)]) == 0
    assert "40 images" in capsys.readouterr().out
    assert [v.name for v in load_manifest(tmp_path / "folder").variants] == ["fp32", "int8"]
    assert main(["lenet5", "-o", str(tmp_path / "none"), "--quantize", "none"]) == 0
    assert [v.name for v in load_manifest(tmp_path / "none").variants] == ["fp32"]


def test_the_same_images_give_the_same_bytes(every: ExportResult, images: Path, weights: Path, tmp_path: Path) -> None:
    again = export(
        ExportConfig(
            architecture="lenet5",
            weights=weights,
            output=tmp_path / "again",
            quantize=("int8", "fp16", "int8-weights"),
            target=("cpu", "cpu-avx2", "arm64", "openvino"),
            scheme="static",
            calibration=images,
        )
    )
    assert again.manifest == every.manifest


@pytest.mark.parametrize("method", ["mse", "min-max", "percentile", "entropy"])
def test_calibration_method_is_honoured(method: str, weights: Path, images: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "bundle")
    argv = ["lenet5", "--weights", str(weights), "--calibration", str(images), "--scheme", "static", "-o", output]
    assert main([*argv, "--calibration-method", method]) == 0
    details = load_manifest(output).variants[1].quantization
    assert details is not None
    assert details["calibration"] == {"source": "images", "num_images": 40, "num_unreadable": 0, "method": method}


def test_a_fixed_batch_can_be_calibrated(weights: Path, images: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        architecture="lenet5", weights=weights, output=tmp_path / "b", calibration=images, scheme="static", batch=3
    )
    result = export(config)
    assert verify(result.path, variant="int8").passed


def _labelled(task: str, images: Path, weights: Path, folder: Path) -> tuple[Path, NDArray[np.int64]]:
    """A CSV whose labels are what the float model decides, so that it is always right."""
    labels = folder / "labels.txt"
    labels.write_text(LABELS[task])
    result = export(
        ExportConfig(
            architecture="lenet5",
            weights=weights,
            output=folder / "float",
            labels=labels,
            task=task,
            quantize=(),  # type: ignore[arg-type]
        )
    )
    names = LABELS[task].split()
    paths = sorted(images.glob("*.png"))
    rows, targets = [], []
    with Classifier.load(result.path) as classifier:
        for path, predictions in zip(paths, classifier.predict_batch(paths, 4), strict=True):
            decided = sorted(p.index for p in predictions if p.is_decided)
            targets.append([int(i in decided) for i in range(len(names))])
            rows.append((str(path), ";".join(names[i] for i in decided)))
    data = folder / "data.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "labels"), *rows])
    return data, np.array(targets)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_the_loss_and_flips_of_each_task_are_measured(task: str, images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(make_module(task).state_dict(), weights)  # type: ignore[arg-type]
    data, targets = _labelled(task, images, weights, tmp_path)
    config = ExportConfig(
        architecture="lenet5",
        weights=weights,
        output=tmp_path / "bundle",
        labels=tmp_path / "labels.txt",
        task=task,  # type: ignore[arg-type]
        quantize=("int8",),
        scheme="static",
        calibration=images,
        max_drop=50.0,
        eval=data,
    )
    result = export(config)
    drop = _details(result, "int8")["drop"]
    assert (drop["num_images"], drop["float_score"]) == (40, 100.0)
    with Classifier.load(result.path, variant="int8") as classifier:
        predictions = classifier.predict_batch(sorted(images.glob("*.png")), 4)
    decided = np.zeros_like(targets)
    for row, best in enumerate(predictions):
        decided[row, [p.index for p in best if p.is_decided]] = 1
    flips = (decided != targets).sum(axis=0)
    if task == "multiclass":
        assert drop["metric"] == "top-1"
        assert drop["flips"] is None
        assert drop["points"] == pytest.approx(100 * (decided != targets).any(axis=1).mean())
        return
    assert drop["metric"] == "macro F1"
    assert drop["points"] == pytest.approx(100 - 100 * f1_score(targets, decided, average="macro"), abs=1e-4)
    assert drop["flips"] == (flips[1:] if task == "binary" else flips).tolist()


FRAGILE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 4),
    )
    with torch.no_grad():
        net[0].weight[2] *= 1000
        net[0].bias[2] *= 1000
        net[2].weight[:, 2] /= 1000
    return net
"""
FIRST, SECOND = "node_conv2d", "node_conv2d_1"


@pytest.fixture(scope="module")
def fragile(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command for a network whose second layer reads one channel a thousand times larger than the others."""
    path = tmp_path_factory.mktemp("fragile") / "fragile.py"
    path.write_text(FRAGILE)
    shape = ["--image-size", "32", "--channels", "1", "--color", "grey", "--mean", "0.5", "--std", "0.25"]
    return [f"{path}:make", *shape, "--quantize", "int8", "--calibration", str(images)]


def test_channels_out_of_balance_are_equalized(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*fragile, "-o", str(tmp_path / "bundle")]) == 0
    assert f"channels equalized after {FIRST};" in capsys.readouterr().out
    details = load_manifest(tmp_path / "bundle").variants[1].quantization
    assert details is not None
    assert details["relative_l2"] < 0.03


def test_without_equalization_the_layer_goes_back_to_float(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    output = str(tmp_path / "bundle")
    assert main([*fragile, "-o", output]) == 3
    captured = capsys.readouterr()
    assert "error: variant int8: its outputs differ from the float model's by a relative L2" in captured.err
    assert "--max-drop" in captured.err
    assert not (tmp_path / "bundle").exists()
    assert main([*fragile, "-o", output, "--max-drop", "3"]) == 0
    text = capsys.readouterr().out
    assert "(all in int8)" in text
    details = load_manifest(output).variants[1].quantization
    assert details is not None
    assert {FIRST, SECOND} <= set(details["float_layers"])
    assert f"layers in float: {', '.join(details['float_layers'])}" in text
    assert details["drop"]["points"] <= 3
    ops = _ops(tmp_path / "bundle" / "model.int8.onnx")
    assert ops["QuantizeLinear"] > 0


def test_a_budget_that_cannot_be_met_is_status_3_and_no_bundle(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Drop(metric="disagreement", num_images=40, float_score=None, points=7.5, interval=(2.0, 15.0), flips=None)
    monkeypatch.setattr("edgeport_export.quantize.judge.Judge.drop", lambda *_: lost)
    assert main([*fragile, "-o", str(tmp_path / "bundle"), "--max-drop", "1"]) == 3
    message = capsys.readouterr().err
    assert "no choice of layers keeps the loss within 1 points" in message
    assert "accept it with --max-drop 7.5" in message
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_asked_for_is_left_out_where_it_loses_too_much(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    argv = [word for word in fragile if word not in ("--quantize", "int8")]
    assert main([*argv, "-o", str(tmp_path / "bundle")]) == 0
    assert (
        "note: no int8 variant: variant int8: its outputs differ from the float model's by a relative L2"
        in capsys.readouterr().out
    )
    assert [v.name for v in load_manifest(tmp_path / "bundle").variants] == ["fp32"]


def test_explain_shows_each_layer_and_the_worst_first(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    assert main([*fragile, "-o", str(tmp_path / "bundle"), "--explain"]) == 3
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if "output SNR" in line) + 2
    assert {lines[first].split()[0], lines[first + 1].split()[0]} == {FIRST, SECOND}
    assert sum(" dB" in line for line in lines) == 4
    argv = [*fragile, "-o", str(tmp_path / "bundle"), "--explain", "--max-drop", "100", "--json"]
    assert main(argv) == 0
    layers = json.loads(capsys.readouterr().out)["variants"]["int8"]["layers"]
    costs = [layer["cost_db"] for layer in layers]
    assert costs == sorted(costs)
    assert {layer["node"] for layer in layers[:2]} == {FIRST, SECOND}
    assert layers[0]["clipped"] < 0.01
    assert all(layer["low"] <= 0 < layer["high"] for layer in layers)


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
    details = _details(result, "fp16")
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
        (["--quantize", "int8", "--opset", "12"], 2, "--opset is 12; it must be from 18 to 23"),
        (["--quantize", "int8", "--max-drop", "-1"], 2, "--max-drop is -1.0; it must be from 0 to 100 points"),
        (["--quantize", "fp16", "--max-drop", "1"], 2, "--max-drop is for int8 variants"),
        (["--quantize", "none", "--scheme", "static"], 2, "--scheme is for int8 variants"),
        (["--eval", "DATA"], 2, "set one with --max-drop POINTS"),
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
