"""What is checked between a path and a loaded model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import edgeport_runtime
from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier, InputError, ManifestError, SessionError, load_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_export import ExportResult

    EditManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def _accept_file(edit_manifest: EditManifest, bundle: Path) -> None:
    """Make the manifest vouch for whatever model file is there now."""
    content = (bundle / "model.fp32.onnx").read_bytes()

    def alter(data: dict[str, Any]) -> None:
        data["variants"][0]["sha256"] = hashlib.sha256(content).hexdigest()
        data["variants"][0]["size_bytes"] = len(content)

    edit_manifest(bundle, alter)


def test_bundle_and_lone_file_give_the_same(lenet5: ExportResult) -> None:
    x_BCHW = np.random.default_rng(0).standard_normal((3, 1, 32, 32), dtype=np.float32)
    with (
        Classifier.load(lenet5.path) as whole,
        Classifier.load(str(lenet5.path / "model.fp32.onnx")) as lone,
        Classifier.load(lenet5.path, device="cpu", variant="fp32") as named,
    ):
        np.testing.assert_array_equal(lone.logits(x_BCHW), whole.logits(x_BCHW))
        np.testing.assert_array_equal(named.logits(x_BCHW), whole.logits(x_BCHW))
        assert lone.contract == whole.contract == lenet5.manifest.contract
        assert whole.manifest == lenet5.manifest
        assert whole.variant == named.variant == lenet5.manifest.variants[0]
        assert lone.manifest is None
        assert lone.variant is None
        assert {whole.device, lone.device, named.device} == {"cpu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; choose one of auto, cpu"),
        ({"variant": "int3"}, "unknown variant 'int3'; this bundle has fp32"),
        ({"threads": 0}, "threads is 0; it must be a whole number of at least 1, or None"),
        ({"threads": True}, "threads is True"),
        ({"threads": 1.5}, "threads is 1.5"),
    ],
)
def test_impossible_option_is_refused(lenet5: ExportResult, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classifier.load(lenet5.path, **options)


def test_path_without_a_model_is_named(lenet5: ExportResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; give a bundle"):
        Classifier.load(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"is not an EdgePort bundle: it has no manifest\.json"):
        Classifier.load(tmp_path)
    with pytest.raises(InputError, match="variant='fp32' needs the bundle's folder"):
        Classifier.load(lenet5.path / "model.fp32.onnx", variant="fp32")


def test_altered_model_file_is_refused(bundle: Path) -> None:
    path = bundle / "model.fp32.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ManifestError, match=r"model\.fp32\.onnx is not the file that was exported .its SHA-256 differs"
    ):
        Classifier.load(bundle)


def test_missing_model_file_is_named(bundle: Path) -> None:
    (bundle / "model.fp32.onnx").unlink()
    with pytest.raises(ManifestError, match=r"lacks the file model\.fp32\.onnx, which its manifest lists"):
        Classifier.load(bundle)


def test_later_schema_is_refused_with_the_remedy(bundle: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(bundle, lambda data: data.update(schema_version=99))
    with pytest.raises(ManifestError, match=r"schema_version: 99 is later than .*install a later EdgePort"):
        Classifier.load(bundle)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x0a" * 1000])
def test_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError, match=r"model\.onnx is not an ONNX model, or is damaged; copy it again"):
        Classifier.load(path)


def test_model_of_somebody_else_is_refused(bundle: Path, edit_manifest: EditManifest) -> None:
    path = bundle / "model.fp32.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(ManifestError, match=r"was not written by EdgePort: its metadata has no edgeport\.contract"):
        Classifier.load(path)
    model.graph.node[0].input[0] = model.graph.input[0].name = "pixels"
    onnx.save(model, path)
    _accept_file(edit_manifest, bundle)
    for source in (path, bundle):
        with pytest.raises(
            ManifestError, match="no input 'image' and output logits or probabilities; EdgePort did not"
        ):
            Classifier.load(source)


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "multiclass"}'])
def test_lone_file_with_a_broken_contract_is_refused(text: str, bundle: Path) -> None:
    path = bundle / "model.fp32.onnx"
    model = onnx.load(path)
    model.metadata_props[0].value = text
    onnx.save(model, path)
    with pytest.raises(ManifestError, match="contract"):
        Classifier.load(path)


def test_graph_that_contradicts_the_contract_is_refused(bundle: Path, edit_manifest: EditManifest) -> None:
    path = bundle / "model.fp32.onnx"
    model = onnx.load(path)
    contract = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps(contract | {"num_classes": 11})
    onnx.save(model, path)
    _accept_file(edit_manifest, bundle)
    edit_manifest(bundle, lambda data: data["contract"].update(num_classes=11))
    for source in (path, bundle):
        with pytest.raises(ManifestError, match=r"which is not what the contract says: .* to 11 logits"):
            Classifier.load(source)
    edit_manifest(bundle, lambda data: data["contract"].update(num_classes=10, batch=4))
    with pytest.raises(ManifestError, match=r"the contract in model.fp32.onnx is not the manifest's"):
        Classifier.load(bundle)


def test_without_onnxruntime_the_extras_are_named(lenet5: ExportResult) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from edgeport_runtime.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    packages = Path(edgeport_runtime.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", str(lenet5.path)],
        env=os.environ | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: ONNX Runtime is not installed; choose one: pip install onnxruntime (any processor), pip install "
        "onnxruntime-gpu (NVIDIA), or pip install onnxruntime onnxruntime-ep-openvino (Intel)\n"
    )


@pytest.fixture(scope="module")
def quantized_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("quantized") / "bundle"
    return export(ExportConfig(architecture="lenet5", output=output)).path


@pytest.fixture
def quantized(quantized_once: Path, tmp_path: Path) -> Path:
    """A bundle with an int8 variant, to be altered."""
    return shutil.copytree(quantized_once, tmp_path / "quantized")


def _measure(bundle: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "measurements.json"
    data = json.loads(path.read_text())
    alter(data)
    path.write_text(json.dumps(data))


def _chosen(bundle: Path) -> str:
    with Classifier.load(bundle) as classifier:
        assert classifier.variant is not None
        return classifier.variant.name


def test_auto_is_the_fastest_variant_measured_on_this_machine(quantized: Path, processor: Callable[..., None]) -> None:
    names = [variant.name for variant in load_manifest(quantized).variants]
    assert names == ["fp32", "int8"]

    def set_faster(is_faster: bool) -> Callable[[dict[str, Any]], object]:
        return lambda data: data["variants"]["int8"].update(is_faster=is_faster)

    _measure(quantized, set_faster(True))
    assert _chosen(quantized) == "int8"
    _measure(quantized, set_faster(False))
    assert _chosen(quantized) == "fp32"
    _measure(quantized, set_faster(True))
    _measure(quantized, lambda data: data["machine"].update(cpu="another"))
    processor("avx2 avx_vnni")
    assert _chosen(quantized) == "int8"  # made for these instructions, and faster where it was measured
    _measure(quantized, set_faster(False))
    assert _chosen(quantized) == "fp32"
    _measure(quantized, set_faster(True))
    processor(None, is_exact=True)
    assert _chosen(quantized) == "int8"  # the system does not tell, and products are exact
    processor(None, is_exact=False)
    assert _chosen(quantized) == "fp32"
    processor(None, is_exact=True)
    with Classifier.load(quantized, variant="int8") as classifier:
        assert classifier.variant is not None
        assert classifier.variant.name == "int8"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"machine": {}, "variants": {"int8": 3}}', "[" * 100_000])
def test_measurements_that_are_broken_or_gone_are_survived(text: str, quantized: Path) -> None:
    (quantized / "measurements.json").write_text(text)
    assert _chosen(quantized) == "fp32"
    (quantized / "measurements.json").unlink()
    assert _chosen(quantized) == "fp32"
