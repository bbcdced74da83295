"""Variants of an export: what is made, how, and what the manifest says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from bundle_facts import details_of, operators_of
from edgeport_export import ExportConfig, ExportResult, export
from edgeport_export.cli import main
from edgeport_runtime import Classifier, load_manifest
from edgeport_runtime.commands.verify import verify
from speed import slow_but

if TYPE_CHECKING:
    from pathlib import Path


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
        # Measured: at most 4.1e-2 for int8 of every target and 1.2e-3 for fp16.
        assert 0 < details["relative_l2"] <= {"fp16": 2e-3}.get(variant.name, 0.06)
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


def test_only_needed_opsets_are_imported(every: ExportResult) -> None:
    for variant in every.manifest.variants:
        model = onnx.load(every.path / variant.file)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
        assert model.ir_version == 10
        told = [] if variant.quantization is None else ["edgeport.quantization"]
        assert [p.key for p in model.metadata_props] == ["edgeport.contract", *told]
        onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("architecture", "opset"),
    [
        ("lenet5", 18),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("vit_digits", 18), ("vit_digits", 23), ("lenet5", 23)]
        ),
    ],
)
def test_only_needed_opsets_are_imported_at_other_versions(architecture: str, opset: int, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    result = export(ExportConfig(architecture=architecture, output=output, opset=opset))
    model = onnx.load(output / "model.int8.onnx")
    domains = {node.domain for node in model.graph.node}
    assert {o.domain for o in model.opset_import} == domains
    assert {o.version for o in model.opset_import if not o.domain} == {opset}
    assert verify(result.path, variant="int8").passed


def test_a_vit_is_dynamic_and_attention_is_one_node_in_float(tmp_path: Path) -> None:
    result = export(ExportConfig(architecture="vit_digits", output=tmp_path / "bundle"))
    floats, ints = (operators_of(result.path / f"model.{name}.onnx") for name in ("fp32", "int8"))
    assert details_of(result, "int8")["scheme"] == "dynamic"
    assert ints["MatMulInteger"] == details_of(result, "int8")["num_layers"]
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
    ops = operators_of(result.path / "model.int8.onnx")
    assert (ops["MatMulInteger"], ops["Conv"], ops["Gemm"]) == (3, 2, 0)
    assert details_of(result, "int8")["scheme"] == "dynamic"


@pytest.mark.slow
def test_scheme_static_quantizes_the_inputs_of_linear_layers(images: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        architecture="vit_digits", output=tmp_path / "bundle", scheme="static", calibration=images, quantize=("int8",)
    )
    result = export(config)
    ops = operators_of(result.path / "model.int8.onnx")
    assert "MatMulInteger" not in ops
    assert (ops["MatMul"], ops["Gemm"], ops["Softmax"]) == tuple(
        operators_of(result.path / "model.fp32.onnx")[op] for op in ("MatMul", "Gemm", "Softmax")
    )
    graph = onnx.load(result.path / "model.int8.onnx").graph
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":  # never what a linear layer gives
            assert producers[node.input[0]].op_type not in ("MatMul", "Gemm")


@pytest.mark.slow
def test_without_asking_int8_is_made_where_nothing_is_missing(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = export(ExportConfig(architecture="lenet5", output=tmp_path / "random", scheme="static"))
    assert [v.name for v in random.manifest.variants] == ["fp32", "int8"]
    assert details_of(random, "int8")["calibration"]["source"] == "synthetic"
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


@pytest.mark.slow
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


@pytest.mark.parametrize("method", slow_but(["mse", "min-max"], ["mse", "min-max", "percentile", "entropy"]))
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
