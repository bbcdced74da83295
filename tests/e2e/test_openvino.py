"""OpenVINO for real: a distribution of ONNX Runtime that has it built in runs trained networks, and says how."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime.engine.machine import instruction_sets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ExportConfig(
        architecture="resnet20",
        output=tmp_path_factory.mktemp("openvino") / "resnet20",
        weights=shared("weights/resnet20-12fca82f.th"),
        golden=shared("data/cifar10/test"),
        calibration=shared("data/cifar10/calibration"),
        quantize=("int8",),
        target=("cpu", "openvino"),
    )
    return export(config).path


@pytest.fixture
def run(peer: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    scripts = peer("openvino-builtin") / "bin"
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))

    def run(*argv: object) -> Any:
        command = [scripts / "run-model", *map(str, argv), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_auto_takes_openvino_and_what_was_made_for_it(run: Callable[..., Any], bundle: Path) -> None:
    sets = instruction_sets()
    if sets is None or not sets & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        pytest.skip("this processor has no instructions for int8")
    told = run("info", bundle, "--assignment")
    assert (told["device"], told["variant"]) == ("openvino", "int8-openvino")
    assert told["reasons"][-1] == "int8-openvino: made for OpenVINO and this processor's instructions"
    assert told["precision"].startswith("int8, the rest in ")
    assert list(told["assignment"]) == ["OpenVINOExecutionProvider"]


def test_float32_stays_float32(run: Callable[..., Any], bundle: Path) -> None:
    """By itself OpenVINO would run it in bfloat16 where the processor has that: 6e-3 away here, measured."""
    told = run("info", bundle, "--assignment", "--device", "openvino", "--variant", "fp32")
    assert told["precision"] == "float32"
    report = run("verify", bundle, "--device", "openvino", "--variant", "fp32")
    assert report["passed"] is True
    assert report["relative_l2"] < 1e-4


def test_int8_is_as_accurate_there(run: Callable[..., Any], bundle: Path, shared: Callable[[str], Path]) -> None:
    report = run("verify", bundle, "--device", "openvino", "--variant", "int8-openvino")
    assert report["passed"] is True
    data = shared("data/cifar10/test")
    result = run(
        "evaluate", bundle, "--device", "openvino", "--variant", "int8-openvino", "--data", data, "--match", "order"
    )
    assert result["num_correct"] >= 452  # float32 has 455 of the 500


@pytest.mark.slow
def test_tune_measures_both_devices(run: Callable[..., Any], bundle: Path) -> None:
    found = run("tune", bundle)
    assert {entry["device"] for entry in found["contenders"]} == {"cpu", "openvino"}
    told = run("info", bundle, "--assignment")
    assert (told["device"], told["variant"]) == (found["winner"]["device"], found["winner"]["variant"])
    assert told["reasons"] == ["run-model tune found this to be the fastest here"]
