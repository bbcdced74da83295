"""The three floors: what importing and using each package brings in, in fresh interpreters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edgeport_models
import edgeport_runtime

if TYPE_CHECKING:
    from edgeport_export import ExportResult

ROOTS = os.pathsep.join(str(Path(package.__file__).parent.parent) for package in (edgeport_runtime, edgeport_models))
BUILD_MACHINE = {"torch", "onnx", "onnxscript", "onnxsim", "safetensors", "rich", "edgeport_models", "edgeport_export"}


def _modules_after(code: str, *argv: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported after some code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    environment = os.environ | {"PYTHONPATH": ROOTS}
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_importing_the_runtime_brings_in_nothing_of_the_build_machine() -> None:
    modules = _modules_after(
        "import edgeport_runtime.commands.cli, edgeport_runtime.accuracy.evaluate, edgeport_runtime.accuracy.golden"
    )
    assert "numpy" in modules
    assert not modules & (BUILD_MACHINE | {"onnxruntime"})


def test_public_names_are_there() -> None:
    for name in edgeport_runtime.__all__:
        assert getattr(edgeport_runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = edgeport_runtime.nothing


def test_using_the_runtime_brings_in_nothing_of_the_build_machine(lenet5: ExportResult, tmp_path: Path) -> None:
    code = """
import sys
from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main
bundle, image, page = sys.argv[1:]
with Classifier.load(bundle) as classifier:
    assert len(classifier.predict(image)) == 5
assert main(["predict", bundle, image]) == main(["verify", bundle]) == main(["info", bundle]) == 0
assert main(["report", bundle, "-o", page]) == 0
"""
    page = tmp_path / "report.html"
    modules = _modules_after(code, str(lenet5.path), str(lenet5.path / "golden" / "0.png"), str(page))
    assert page.stat().st_size > 10_000
    assert "onnxruntime" in modules
    assert not modules & BUILD_MACHINE


def test_importing_the_models_brings_in_no_inference_engine() -> None:
    modules = _modules_after("import edgeport_models, edgeport_models.weights")
    assert "torch" in modules
    assert not modules & {"onnx", "onnxruntime", "onnxscript", "onnxsim", "edgeport_export"}
