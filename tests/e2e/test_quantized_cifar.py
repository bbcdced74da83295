"""Trained ResNets in int8, on real images: as accurate as float32, and nearer to it than `quantize_static`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from bench_calibration import main as bench_calibration
from edgeport_export.cli import main as export_model
from edgeport_models.weights import load_checkpoint
from edgeport_runtime import load_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet20", "resnet56"])
def test_int8_is_as_accurate_and_nearer_than_quantize_static(
    architecture: str,
    shared: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = shared("data/cifar10")
    argv = ["--weights", str(shared(f"weights/{WEIGHTS[architecture]}")), "--calibration", str(data / "calibration")]
    monkeypatch.setattr("sys.argv", ["bench", architecture, *argv, "--eval", str(data / "test"), "--json"])
    assert bench_calibration() == 0
    floats, *theirs, ours = json.loads(capsys.readouterr().out)["rows"]
    assert len(theirs) == 12
    assert floats["top1"] - ours["top1"] <= 0.006
    assert ours["agreement"] >= 0.99
    assert ours["relative_l2"] < min(row["relative_l2"] for row in theirs)


@pytest.mark.slow
def test_a_channel_out_of_balance_is_repaired_within_the_budget(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_checkpoint(shared(f"weights/{WEIGHTS['resnet20']}"))
    for name in ("bn1.weight", "bn1.bias"):  # of the convolution before it: the function stays the same
        state[f"layer1.0.{name}"][3] *= 100
    state["layer1.0.conv2.weight"][:, 3] /= 100
    torch.save(state, tmp_path / "weights.pth")
    data = shared("data/cifar10")
    argv = ["--calibration", str(data / "calibration"), "--max-drop", "0.5"]
    argv += ["--eval", str(data / "test"), "--match", "order"]  # the weights come without labels
    bundle = tmp_path / "bundle"
    assert (
        export_model(
            ["resnet20", "--weights", str(tmp_path / "weights.pth"), "--quantize", "int8", *argv, "-o", str(bundle)]
        )
        == 0
    )
    details = load_manifest(bundle).variants[1].quantization
    assert details is not None
    assert details["drop"]["points"] <= 0.5
    assert details["equalized"] == ["node_Conv_376"]
    assert "channels equalized after node_Conv_376" in capsys.readouterr().out
