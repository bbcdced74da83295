"""A device: an environment with the runtime's `[cpu]` extra and nothing else runs a bundle made elsewhere."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult


@pytest.fixture
def run(peer: Callable[[str], Path], tmp_path: Path) -> Callable[..., str]:
    scripts = peer("cpu") / "bin"

    def run(program: str, *argv: object) -> str:
        done = subprocess.run(
            [scripts / program, *map(str, argv)], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


def test_the_environment_holds_the_runtime_alone(run: Callable[..., str]) -> None:
    installed = {package["name"].lower() for package in json.loads(run("pip", "list", "--format", "json"))}
    assert {"edgeport", "numpy", "pillow", "onnxruntime"} <= installed
    assert not installed & {"torch", "onnx", "onnxscript", "onnxsim", "rich", "safetensors"}


@pytest.mark.slow
def test_every_command_works(run: Callable[..., str], resnet20: ExportResult, shared: Callable[[str], Path]) -> None:
    images = sorted(shared("data/cifar10/test/ship").glob("*.png"))[:3]
    assert len(json.loads(run("run-model", "predict", resnet20.path, *images, "--json"))) == 3
    assert json.loads(run("run-model", "verify", resnet20.path, "--json"))["passed"] is True
    assert "resnet20" in run("run-model", "info", resnet20.path)
    data = shared("data/cifar10/test")
    assert json.loads(run("run-model", "evaluate", resnet20.path, "--data", data, "--json"))["num_correct"] == 455


def test_exporting_there_names_the_extra(peer: Callable[[str], Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [peer("cpu") / "bin" / "export-model", "lenet5", "-o", tmp_path / "bundle"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    remedy = "pip install '.[export,cpu]' in EdgePort's source folder"
    assert done.stderr == f"error: exporting needs PyTorch and other packages: {remedy}\n"
