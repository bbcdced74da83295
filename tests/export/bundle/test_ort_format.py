"""`--ort`: each model in ONNX Runtime's own format, with the operators for a build that has no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier, ParityError

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    output = tmp_path_factory.mktemp("ort") / "bundle"
    config = ExportConfig(
        architecture="resnet20",
        output=output,
        quantize=("int8",),
        calibration="builtin",
        ort=True,
        preprocess="in-graph",
    )
    return export(config)


def test_each_model_gives_what_its_original_gives(result: ExportResult) -> None:
    x_BCHW = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    stages = {stage.stage for stage in result.parity.stages}
    for variant in result.manifest.variants:
        assert {f"ort {variant.name}", f"in-graph {variant.name} ort"} <= stages
        assert variant.ort is not None
        assert variant.in_graph is not None
        assert variant.in_graph_ort is not None
        with (
            Classifier.load(result.path / variant.ort.file, device="cpu") as ort,
            Classifier.load(result.path, variant=variant.name, device="cpu") as onnx,
        ):
            assert ort.contract == onnx.contract
            expected = onnx.logits(x_BCHW)
            # Measured: 0 for int8, 4e-7 for fp32, whose channels are laid out otherwise here.
            assert np.linalg.norm(ort.logits(x_BCHW) - expected) <= 1e-5 * np.linalg.norm(expected)
        outputs = [
            onnxruntime.InferenceSession(result.path / file, providers=["CPUExecutionProvider"]).run(
                None, {"image": pixels}
            )[0]
            for file in (variant.in_graph.file, variant.in_graph_ort.file)
        ]
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5 * np.abs(outputs[0]).max())


def test_the_operators_are_listed(result: ExportResult) -> None:
    lines = (result.path / "required_operators.config").read_text().splitlines()
    listed = {name for line in lines for name in line.split(";")[2].split(",")}
    assert {"Conv", "Gemm", "Resize", "QLinearConv"} <= listed
    assert "LSTM" not in listed
    assert not any(str(result.path.parent) in line for line in lines)


def test_a_departure_stops_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    from edgeport_export.bundle.ort_format import write_ort

    def spoiled(path: Path, target: Path) -> None:
        model = onnx.load(path)
        weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
        model.graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(weights * np.float32(1.01), model.graph.initializer[0].name)
        )
        onnx.save(model, tmp_path / "spoiled.onnx")
        write_ort(tmp_path / "spoiled.onnx", target)
        (tmp_path / "spoiled.onnx").unlink()

    monkeypatch.setattr("edgeport_export.bundle.formats.write_ort", spoiled)
    with pytest.raises(ParityError, match="stage ort fp32 departs"):
        export(ExportConfig(architecture="lenet5", output=tmp_path / "bundle", quantize=(), ort=True))
    assert list(tmp_path.iterdir()) == []
