"""The default export on machines of other kinds than this one, and what is loaded there."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_runtime import Classifier, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIGITS: dict[str, Any] = {"architecture": "lenet5", "weights": "digits"}


def _variant(bundle: Path, **options: Any) -> str:
    with Classifier.load(bundle, **options) as classifier:
        assert classifier.variant is not None
        return classifier.variant.name


@pytest.mark.parametrize("instructions", ["avx2", None])
def test_without_vnni_int8_is_made_and_not_run(
    instructions: str | None, tmp_path: Path, processor: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    processor(instructions, is_exact=False)
    bundle = tmp_path / "bundle"
    assert main(["lenet5", "--weights", "digits", "-o", str(bundle)]) == 0
    assert "note: stage runtime int8 was skipped: the int8 arithmetic" in capsys.readouterr().out
    assert _variant(bundle) == "fp32"
    processor("avx2 avx_vnni")
    assert _variant(bundle, variant="int8", verify=True) == "int8"  # what was not run here is right where it can be


def test_each_target_is_measured_by_its_own_file(tmp_path: Path, processor: Callable[..., None]) -> None:
    processor("avx2")
    result = export(ExportConfig(**_DIGITS, output=tmp_path / "bundle", target=("cpu", "cpu-avx2")))
    stages = {stage["stage"]: stage for stage in result.manifest.parity}
    assert "skipped" in stages["runtime int8"]
    assert stages["runtime int8-avx2"]["passed"]
    assert set(result.measured) == {"fp32", "int8-avx2"}
    assert _variant(result.path, variant="int8") == "int8-avx2"


def test_without_vnni_no_variant_with_weights_of_8_bits_runs(tmp_path: Path, processor: Callable[..., None]) -> None:
    processor("avx2")
    result = export(ExportConfig(**_DIGITS, output=tmp_path / "bundle", target=("cpu", "arm64")))
    stages = {stage["stage"]: stage for stage in result.manifest.parity}
    assert "skipped" in stages["runtime int8"]
    assert "skipped" in stages["runtime int8-arm64"]
    for path, variant in (
        (result.path, "int8"),
        (result.path, "int8-arm64"),
        (result.path / "model.int8-arm64.onnx", "auto"),
    ):
        with pytest.raises(InputError, match="could saturate on this processor"):
            Classifier.load(path, variant=variant)


def test_preprocessing_in_the_graph_is_made_and_not_run(tmp_path: Path, processor: Callable[..., None]) -> None:
    processor("avx2")
    result = export(ExportConfig(**_DIGITS, output=tmp_path / "bundle", preprocess="in-graph"))
    stages = {stage["stage"]: stage for stage in result.manifest.parity}
    assert stages["in-graph fp32"]["passed"]
    assert "skipped" in stages["in-graph int8"]
    assert (result.path / "model.int8.in-graph.onnx").is_file()


def test_off_x86_every_file_is_checked_by_its_own_name(
    tmp_path: Path, processor: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor("asimddp", architecture="aarch64")
    loaded: list[str] = []
    load_exactly = Classifier.load_exactly

    def record(path: Path, *, variant: str, **options: Any) -> Classifier:
        classifier = load_exactly(path, variant=variant, **options)
        assert classifier.variant is not None
        loaded.append(classifier.variant.file)
        return classifier

    monkeypatch.setattr(Classifier, "load_exactly", record)
    result = export(ExportConfig(**_DIGITS, output=tmp_path / "bundle", target=("cpu", "arm64")))
    assert loaded == ["model.fp32.onnx", "model.int8.onnx", "model.int8-arm64.onnx"]
    assert _variant(result.path, variant="int8") == "int8-arm64"


def test_an_unknown_processor_whose_products_are_exact_runs_int8(
    tmp_path: Path, processor: Callable[..., None]
) -> None:
    processor(None, is_exact=True)
    result = export(ExportConfig(**_DIGITS, output=tmp_path / "bundle"))
    assert all("skipped" not in stage for stage in result.manifest.parity)
    assert _variant(result.path, variant="int8") == "int8"


def test_onnxruntime_gpu_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def only_gpu(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.32.0" if name == "onnxruntime-gpu" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", only_gpu)
    result = export(ExportConfig(**_DIGITS, output=tmp_path / "bundle"))
    assert result.manifest.provenance["onnxruntime-gpu"] == "1.32.0"
    assert "onnxruntime" not in result.manifest.provenance
    with Classifier.load(result.path, device="cpu") as classifier:
        assert len(classifier.predict(np.zeros((8, 8, 3), np.uint8))) == 5
