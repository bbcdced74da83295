"""The float32 file of a convolutional network in OpenCV's own reader: PyTorch's answers, without ONNX Runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import load_manifest
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_export import ExportResult

SCRIPT = Path(__file__).with_name("opencv_reference.py")


@pytest.fixture(params=["opencv4", "opencv5"])
def opencv(request: pytest.FixtureRequest, peer: Callable[[str], Path], tmp_path: Path) -> Callable[[Path, str], Any]:
    packages, version = peer(request.param), {"opencv4": "4.11.", "opencv5": "5."}[request.param]

    def run(bundle: Path, file: str) -> Any:
        manifest = load_manifest(bundle)
        images = [preprocess(bundle / image.file, manifest.contract.preprocess) for image in manifest.golden.images]
        np.save(tmp_path / "x.npy", np.stack(images))
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(tmp_path / "x.npy"), str(bundle / file)],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=True,
        )
        told, outputs = json.loads(done.stdout.splitlines()[-1])
        assert told.startswith(version)
        return np.array(outputs)

    return run


def _expected(bundle: Path) -> Any:
    return np.load(bundle / "golden" / "expected.npz")["logits"]


def _distance(outputs: Any, expected: Any) -> float:
    return float(np.linalg.norm(outputs - expected) / np.linalg.norm(expected))


def test_a_trained_network(opencv: Callable[[Path, str], Any], resnet20: ExportResult) -> None:
    outputs, expected = opencv(resnet20.path, "model.fp32.onnx"), _expected(resnet20.path)
    assert outputs.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
    assert _distance(outputs, expected) <= 1e-5  # measured: 8.3e-7 at most


@pytest.mark.parametrize("opset", [13, 20])
def test_an_input_that_is_not_square_in_old_and_new_opsets(
    opset: int,
    opencv: Callable[[Path, str], Any],
    exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult],
) -> None:
    def make(folder: Path) -> ExportResult:
        config = ExportConfig(
            architecture="lenet5", output=folder / "bundle", opset=opset, image_size=(24, 40), quantize=()
        )
        return export(config)

    bundle = exported_once(f"opencv-{opset}", make).path
    outputs, expected = opencv(bundle, "model.fp32.onnx"), _expected(bundle)
    assert outputs.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
    assert _distance(outputs, expected) <= 1e-5
