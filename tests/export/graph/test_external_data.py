"""Models too large for one file: their weights lie beside them, are vouched for, and never lead out of the bundle."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeport_export import ExportConfig, ExportResult, export
from edgeport_export.cli import main
from edgeport_export.graph.outcome import Outcome
from edgeport_export.graph.passes import PASSES
from edgeport_runtime import Classifier, ManifestError, ParityError, SessionError, load_manifest
from edgeport_runtime.commands.cli import main as run_model
from edgeport_runtime.commands.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

MODEL, DATA = "model.fp32.onnx", "model.fp32.onnx.data"


@pytest.fixture(scope="module")
def small_limit() -> Iterator[None]:
    """The limit of 2 GB, for a network of 300 KB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeport_export.graph.model_file.MAX_INLINE_BYTES", 10_000)
        yield


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(
        ExportConfig(architecture="vit_digits", output=tmp_path_factory.mktemp("inline") / "bundle", quantize=())
    )


@pytest.fixture(scope="module")
def exported(inline: ExportResult, small_limit: None, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(
        ExportConfig(architecture="vit_digits", output=tmp_path_factory.mktemp("external") / "bundle", quantize=())
    )


@pytest.fixture
def bundle(exported: ExportResult, tmp_path: Path) -> Path:
    return shutil.copytree(exported.path, tmp_path / "bundle")


def _logits(path: Path) -> np.ndarray:
    x_BCHW = np.random.default_rng(0).standard_normal((3, 1, 16, 16), dtype=np.float32)
    with Classifier.load(path) as classifier:
        return classifier.logits(x_BCHW)


def test_weights_lie_beside_the_model_and_give_the_same_logits(
    exported: ExportResult, inline: ExportResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(path.name for path in exported.path.iterdir()) == sorted(
        [
            "README.md",
            "golden",
            "infer.py",
            "manifest.json",
            "measurements.json",
            "report.html",
            "report.json",
            MODEL,
            DATA,
        ]
    )
    variant = exported.manifest.variants[0]
    assert variant.data is not None
    assert (variant.data.file, variant.data.size_bytes) == (DATA, (exported.path / DATA).stat().st_size)
    assert variant.size_bytes < 100_000 < variant.data.size_bytes
    assert (exported.path / DATA).stat().st_mode == (exported.path / MODEL).stat().st_mode
    assert variant.total_bytes == variant.size_bytes + variant.data.size_bytes
    assert load_manifest(exported.path) == exported.manifest
    assert run_model(["info", str(exported.path)]) == 0
    assert f"{variant.total_bytes:,} bytes" in capsys.readouterr().out
    assert inline.manifest.variants[0].data is None
    np.testing.assert_array_equal(_logits(exported.path), _logits(inline.path))
    assert verify(exported.path).passed
    assert exported.parity.stages[2].same_bytes_as == "simplified"


def test_moved_bundle_and_lone_file_find_their_weights(bundle: Path, exported: ExportResult, tmp_path: Path) -> None:
    expected = _logits(exported.path)
    moved = bundle.rename(tmp_path / "moved")
    np.testing.assert_array_equal(_logits(moved), expected)
    np.testing.assert_array_equal(_logits(moved / MODEL), expected)


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(exported: ExportResult, tmp_path: Path) -> None:
    again = export(ExportConfig(architecture="vit_digits", output=tmp_path / "again", quantize=()))
    assert again.manifest == exported.manifest


@pytest.mark.slow
def test_a_forced_export_replaces_both_files(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeport_export.graph.model_file.MAX_INLINE_BYTES", 2**31)
    assert main(["vit_digits", "-o", str(bundle), "--force"]) == 0
    assert not (bundle / DATA).exists()
    assert verify(bundle).passed


def test_weights_that_are_altered_or_missing_are_named(bundle: Path) -> None:
    data = bundle / DATA
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ManifestError, match=rf"{DATA} is not the file that was exported"):
        Classifier.load(bundle)
    data.unlink()
    with pytest.raises(ManifestError, match=f"lacks the file {DATA}"):
        Classifier.load(bundle)
    with pytest.raises(SessionError, match=r"cannot be loaded by ONNX Runtime"):
        Classifier.load(bundle / MODEL)


def test_weights_that_are_a_link_out_of_the_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / DATA).rename(tmp_path / "elsewhere")
    (bundle / DATA).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match=f"{DATA} is a link that leads out of the bundle"):
        Classifier.load(bundle)


@pytest.mark.parametrize("is_absolute", [False, True])
def test_model_that_names_weights_outside_its_folder_reads_nothing_of_them(
    is_absolute: bool, bundle: Path, tmp_path: Path
) -> None:
    (bundle / DATA).rename(tmp_path / "elsewhere")
    model = onnx.load(bundle / MODEL, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(tmp_path / "elsewhere") if is_absolute else "../elsewhere"
    (bundle / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(SessionError, match=r"cannot be loaded by ONNX Runtime"):
        Classifier.load(bundle / MODEL)


def test_manifest_that_names_other_weights_is_refused(exported: ExportResult) -> None:
    data = exported.manifest.to_dict()
    data["variants"][0]["data"]["file"] = "golden/expected.npz"
    with pytest.raises(ManifestError, match=r"variants\[0\]\.data\.file: 'golden/expected\.npz' is not the"):
        type(exported.manifest).from_dict(data)


def test_a_pass_that_alters_a_weight_is_still_found(
    small_limit: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []

    def alter(model: onnx.ModelProto) -> Outcome:
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        node = next(n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights)
        tensor = weights[node.input[1]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))
        names.append(node.name)
        return Outcome(num_changed=1)

    passes: tuple[Any, ...] = (*PASSES, alter)
    monkeypatch.setattr("edgeport_export.graph.passes.PASSES", passes)
    with pytest.raises(ParityError) as caught:
        export(ExportConfig(architecture="vit_digits", output=tmp_path / "bundle"))
    assert f"stage simplified departs from PyTorch at node {names[0]} (MatMul)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_quantized_variants_of_large_models_have_their_weights_beside_them(small_limit: None, tmp_path: Path) -> None:
    config = ExportConfig(architecture="vit_digits", output=tmp_path / "bundle", quantize=("int8", "fp16"))
    result = export(config)
    for variant in result.manifest.variants:
        assert variant.data is not None
        assert (result.path / variant.data.file).stat().st_size == variant.data.size_bytes
        assert verify(result.path, variant=variant.name).passed
    fp32, int8, fp16 = (variant.total_bytes for variant in result.manifest.variants)
    assert int8 < fp16 < fp32
