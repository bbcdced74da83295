"""Each stage broken on purpose: the export ends with status 3, names the stage and the node, and leaves nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgeport_export import ExportConfig, cli, export, pipeline, stages
from edgeport_export.bundle.script import write_infer
from edgeport_export.graph import simplify as simplify_module
from edgeport_export.graph.outcome import Outcome
from edgeport_export.graph.passes import PASSES
from edgeport_export.parity.chain import Chain
from edgeport_export.parity.compare import Limits, StageReport
from edgeport_export.parity.torch_original import TorchOriginal
from edgeport_runtime import ParityError
from speed import slow_but

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export.graph.trace import Traced


def _alter_weight(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Double one output channel of a node's weight."""
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values[0] *= 2
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _nth(model: onnx.ModelProto, op_type: str, number: int) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == op_type][number]


def _export_fails(architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run the command, expect status 3 and an empty disk, and give its message."""
    status = cli.main([architecture, "-o", str(tmp_path / "out" / "bundle"), *options])
    captured = capsys.readouterr()
    assert status == 3, captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("op_type", "number"),
    [
        ("Conv", 0),
        *(pytest.param("Conv", number, marks=pytest.mark.slow) for number in (7, 18)),
        ("Gemm", 0),
    ],
)
def test_altered_weight_in_trace_names_stage_and_node(
    op_type: str, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = []

    def trace(*args: Any, path: Path, **kwargs: Any) -> Traced:
        traced = pipeline_trace(*args, path=path, **kwargs)
        model = onnx.load(path)
        node = _nth(model, op_type, number)
        _alter_weight(model, node)
        onnx.save(model, path)
        altered.append(node.name)
        return traced

    pipeline_trace = stages.trace
    monkeypatch.setattr(stages, "trace", trace)
    message = _export_fails("resnet20", tmp_path, capsys)
    assert f"stage exported departs from PyTorch at node {altered[0]} ({op_type})" in message


@pytest.mark.parametrize("architecture", slow_but(["resnet20"], ["resnet20", "vit_ti_16"]))
def test_altered_weight_in_a_pass_names_stage_and_node(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = []

    def alter(model: onnx.ModelProto) -> Outcome:
        node = _nth(model, "Conv", 5) if architecture == "resnet20" else _nth(model, "MatMul", 21)
        _alter_weight(model, node)
        altered.append(f"{node.name} ({node.op_type})")
        return Outcome(num_changed=1)

    monkeypatch.setattr("edgeport_export.graph.passes.PASSES", (*PASSES, alter))
    message = _export_fails(architecture, tmp_path, capsys)
    assert f"stage simplified departs from PyTorch at node {altered[0]}" in message


def test_altered_weight_in_a_variant_names_stage_and_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = []

    def move(simplified: Path, folder: Path) -> Path:
        model = onnx.load(simplified)
        node = _nth(model, "Conv", 1)
        _alter_weight(model, node)
        path = folder / simplified.name
        onnx.save(model, path)
        altered.append(node.name)
        return path

    monkeypatch.setattr(stages, "move_model", move)
    message = _export_fails("lenet5", tmp_path, capsys)
    assert f"stage variant fp32 departs from PyTorch at node {altered[0]} (Conv)" in message


@pytest.mark.parametrize("architecture", slow_but(["lenet5"], ["lenet5", "vit_ti_16"]))
def test_frozen_batch_in_a_reshape_names_stage_and_node(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = []

    def freeze(model: onnx.ModelProto) -> Outcome:
        node = _nth(model, "Reshape", 0)
        tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
        shape = numpy_helper.to_array(tensor).copy()
        known = shape[1:]
        shape[0] = 8
        shape[1:] = np.where(known == -1, 1, known) if architecture == "lenet5" else known
        tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
        frozen.append(node.name)
        return Outcome(num_changed=1)

    monkeypatch.setattr("edgeport_export.graph.passes.PASSES", (*PASSES, freeze))
    message = _export_fails(architecture, tmp_path, capsys)
    assert f"stage simplified fails at node {frozen[0]} (Reshape)" in message


def test_frozen_batch_of_the_input_names_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def simplify(traced: Traced, contract: Any, path: Path) -> list[str]:
        notes = simplify_module.simplify(traced, contract, path)
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        onnx.save(model, path)
        return notes

    monkeypatch.setattr(stages, "simplify", simplify)
    assert "stage simplified fails" in _export_fails("lenet5", tmp_path, capsys)


def test_wrong_mean_in_the_bundle_does_not_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifest(subject: Any, *args: Any, **kwargs: Any) -> Any:
        spec = replace(subject.contract.preprocess, mean=(0.5,))
        return make_manifest(replace(subject, contract=replace(subject.contract, preprocess=spec)), *args, **kwargs)

    make_manifest = pipeline.manifest_of
    monkeypatch.setattr(pipeline, "manifest_of", manifest)
    assert cli.main(["lenet5", "-o", str(tmp_path / "out" / "bundle")]) == 1
    assert "the contract in model.fp32.onnx is not the manifest's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_wrong_mean_in_the_runtime_names_the_preprocessing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def table(*_: Any) -> Any:
        return (np.arange(256, dtype=np.float32)[np.newaxis] / 255 - 0.5) / 0.3081

    monkeypatch.setattr("edgeport_runtime.pixels.preprocess._normalization_table", table)
    assert "preprocessing: the step normalize departs" in _export_fails("lenet5", tmp_path, capsys)


def test_failed_forced_export_keeps_the_old_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    assert cli.main(["lenet5", "-o", str(target)]) == 0
    before = {path: path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}

    def alter(model: onnx.ModelProto) -> Outcome:
        _alter_weight(model, _nth(model, "Conv", 0))
        return Outcome(num_changed=1)

    monkeypatch.setattr("edgeport_export.graph.passes.PASSES", (*PASSES, alter))
    assert cli.main(["lenet5", "-o", str(target), "--force", "--seed", "1"]) == 3
    assert {path: path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_comparison_that_always_passes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageReport, "passed", property(lambda _: True))
    with pytest.raises(ParityError, match="stage self-test: the comparison passes noise of a thousandth"):
        export(ExportConfig(architecture="lenet5", output=tmp_path / "bundle", quantize=()))


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_a_comparison_blind_to_decisions_is_found(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgeport_export.parity.compare.decisions", lambda outputs_BK, _: np.zeros(outputs_BK.shape, np.int64)
    )
    with pytest.raises(ParityError, match="stage self-test: the comparison passes other decisions"):
        export(ExportConfig(architecture="lenet5", output=tmp_path / "bundle", quantize=(), task=task))


def test_a_wrong_script_stops_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(bundle: Path, manifest: Any) -> None:
        write_infer(bundle, manifest)
        text = (bundle / "infer.py").read_text(encoding="utf-8")
        (bundle / "infer.py").write_text(text.replace("x /= np.float32(255)", "x /= np.float32(250)"), encoding="utf-8")

    monkeypatch.setattr("edgeport_export.bundle.formats.write_infer", write)
    with pytest.raises(ParityError, match=r"stage infer.py: of golden/0.png it says .*, but PyTorch's side"):
        export(ExportConfig(architecture="lenet5", output=tmp_path / "bundle", quantize=()))
    assert list(tmp_path.iterdir()) == []


def test_a_stage_of_the_same_bytes_meets_its_own_limits(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)).eval()
    result = export(module, ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=()))
    model = result.path / "model.fp32.onnx"
    inputs = [np.random.default_rng(0).standard_normal((3, 3, 8, 8), np.float32)]
    chain = Chain(TorchOriginal(module), inputs, contract=result.manifest.contract)
    chain.check_graph("loose", model, limits=Limits(relative_l2=1.0, agreement=0.0, over="images"))
    chain.reference_BK[0] += 1.0 + np.arange(4, dtype=np.float32)
    with pytest.raises(ParityError, match="stage strict departs"):
        chain.check_graph("strict", model)
    assert chain.report.stages[-1].same_bytes_as == "loose"
