"""Replay of the golden images: what `run-model verify` tells."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_runtime import InputError, ManifestError
from edgeport_runtime.accuracy.golden import GoldenReport
from edgeport_runtime.commands.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export import ExportResult

    EditManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def _rewrite_expected(bundle: Path, edit_manifest: EditManifest, logits: NDArray[Any]) -> None:
    """Other expected logits, and a manifest that vouches for them."""
    path = bundle / "golden" / "expected.npz"
    with np.load(path) as arrays:
        others = {name: arrays[name] for name in arrays.files if name != "logits"}
    np.savez(path, logits=logits, **others)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(bundle, lambda data: data["golden"].update(sha256=digest))


def _expected(bundle: Path) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = np.load(bundle / "golden" / "expected.npz")["logits"]
    return logits


def test_sound_bundle_passes(resnet20: ExportResult) -> None:
    report = verify(resnet20.path)
    assert (report.variant, report.device, report.num_images, report.num_equal) == ("fp32", "cpu", 8, 8)
    # Measured on the machine that exported: 2e-7
    assert report.relative_l2 <= 1e-5
    assert report.passed
    assert report.to_dict()["passed"] is True


def test_other_logits_fail(bundle: Path, edit_manifest: EditManifest) -> None:
    logits = _expected(bundle)
    logits[3] *= 1.01
    _rewrite_expected(bundle, edit_manifest, logits)
    report = verify(bundle)
    assert report.relative_l2 == pytest.approx(0.01 / 1.01, rel=1e-2)
    assert report.num_equal == 8
    assert not report.passed


@pytest.mark.parametrize(("departure", "passed"), [(0.8e-4, True), (1.25e-4, False)])
def test_the_tolerance_of_float32_is_a_ten_thousandth(
    departure: float, passed: bool, bundle: Path, edit_manifest: EditManifest
) -> None:
    logits = _expected(bundle)
    logits[3] *= 1 + departure
    _rewrite_expected(bundle, edit_manifest, logits)
    report = verify(bundle)
    assert report.tolerance == 1e-4
    assert report.relative_l2 == pytest.approx(departure, rel=0.05)
    assert report.num_equal == 8
    assert report.passed is passed


def test_no_manifest_widens_the_tolerance_of_float32(bundle: Path, edit_manifest: EditManifest) -> None:
    logits = _expected(bundle)
    _rewrite_expected(bundle, edit_manifest, np.float32(1.02) * logits)
    edit_manifest(bundle, lambda data: data["variants"][0].update(tolerance=2.0))
    report = verify(bundle)
    assert report.tolerance == 1e-2
    assert report.num_equal == 8
    assert not report.passed


def test_answers_that_were_taken_out_are_missed(bundle: Path, edit_manifest: EditManifest) -> None:
    path = bundle / "golden" / "expected.npz"
    np.savez(path, logits=_expected(bundle))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(bundle, lambda data: data["golden"].update(sha256=digest))
    with pytest.raises(ManifestError, match=r"golden/expected\.npz holds no answers, but the manifest"):
        verify(bundle)


def test_another_class_fails_within_the_tolerance() -> None:
    values = {"device": "cpu", "num_images": 8, "relative_l2": 1e-6, "num_equal": 7, "tolerance": 1e-4}
    assert not GoldenReport(variant="fp32", **values, num_equal_needed=8).passed
    assert GoldenReport(variant="int8", **values, num_equal_needed=7).passed


def test_logits_of_zero_never_pass(bundle: Path, edit_manifest: EditManifest) -> None:
    _rewrite_expected(bundle, edit_manifest, np.zeros_like(_expected(bundle)))
    report = verify(bundle)
    assert not report.passed
    assert report.to_dict()["relative_l2"] is None


@pytest.mark.parametrize("name", ["0.png", "7.png", "expected.npz"])
def test_altered_or_missing_golden_file_is_named(name: str, bundle: Path) -> None:
    path = bundle / "golden" / name
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ManifestError, match=rf"golden/{name} is not the file that was exported"):
        verify(bundle)
    path.unlink()
    with pytest.raises(ManifestError, match=f"lacks the file golden/{name}"):
        verify(bundle)


@pytest.mark.parametrize("field", ["in_graph", "ort", "in_graph_ort"])
def test_altered_model_for_places_without_edgeport_is_named(
    field: str, bundle: Path, edit_manifest: EditManifest
) -> None:
    path = bundle / "model.other"
    path.write_bytes(b"a model")
    entry = {"file": path.name, "sha256": hashlib.sha256(b"a model").hexdigest(), "size_bytes": 7}
    edit_manifest(bundle, lambda data: data["variants"][0].update({field: entry}))
    assert verify(bundle).passed
    path.write_bytes(b"another")
    with pytest.raises(ManifestError, match=r"model\.other is not the file that was exported"):
        verify(bundle)
    path.unlink()
    assert verify(bundle).passed


def test_expected_logits_of_another_shape_or_kind_are_refused(bundle: Path, edit_manifest: EditManifest) -> None:
    logits = _expected(bundle)
    for other, message in (
        (logits[:7], r"holds float32 \(7, 10\) as logits, not float32 \(8, 10\)"),
        (logits.astype(np.float64), "holds float64"),
        (np.array([{"a": 1}]), "cannot be read: Object arrays cannot be loaded"),
    ):
        _rewrite_expected(bundle, edit_manifest, other)
        with pytest.raises(ManifestError, match=message):
            verify(bundle)


def test_expected_file_that_is_no_npz_is_refused(bundle: Path, edit_manifest: EditManifest) -> None:
    path = bundle / "golden" / "expected.npz"
    for content in (b"hello", b""):
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        edit_manifest(bundle, lambda data, digest=digest: data["golden"].update(sha256=digest))
        with pytest.raises(ManifestError, match=r"expected\.npz cannot be read"):
            verify(bundle)


def test_lone_file_has_nothing_to_replay(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"verify needs golden images .*, which a bundle holds: give its folder"):
        verify(bundle / "model.fp32.onnx")
