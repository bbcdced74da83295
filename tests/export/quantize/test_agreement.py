"""Variants are held to the float model's decisions, on the user's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bundle_facts import details_of
from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import load_checkpoint
from edgeport_runtime import AccuracyError, Classifier
from edgeport_runtime.pixels.decode import find_images
from task_models import make_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 grey images, each of 40 turned three ways."""
    folder = tmp_path_factory.mktemp("many")
    for i, pixels in enumerate(make_images()):
        for turn in range(3):
            Image.fromarray(np.rot90(pixels, turn)).save(folder / f"{i:02}-{turn}.png")
    return folder


def _config(weights: Path, output: Path, calibration: Path, **values: Any) -> ExportConfig:
    return ExportConfig(
        architecture="lenet5",
        weights=weights,
        output=output,
        scheme="static",
        quantize=("int8",),
        calibration=calibration,
        **values,
    )


def test_decisions_are_counted_and_held(
    weights: Path, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = export(_config(weights, tmp_path / "free", many, min_agreement=0.0))
    found = details_of(result, "int8")["agreement"]
    paths = find_images(many)
    with (
        Classifier.load(result.path, variant="fp32") as fp32,
        Classifier.load_exactly(result.path, variant="int8", device="cpu") as int8,
    ):
        pairs = zip(fp32.predict_batch(paths, 1), int8.predict_batch(paths, 1), strict=True)
        num_equal = sum(ours[0].index == theirs[0].index for ours, theirs in pairs)
    assert found["num_images"] == 120
    assert abs(found["num_equal"] - num_equal) <= 1  # a model in memory against the file as the runtime loads it
    share = found["num_equal"] / 120
    low, high = found["interval"]
    assert low < share < high or share == 1.0
    with pytest.raises(
        AccuracyError, match=rf"on {found['num_equal']} of 120 images .*--min-agreement 0\.\d+ accepts it"
    ):
        export(_config(weights, tmp_path / "held", many, min_agreement=min(1.0, share + 0.001)))
    assert not (tmp_path / "held").exists()
    argv = ["lenet5", "--weights", str(weights), "--scheme", "static", "--calibration", str(many), "--quantize", "int8"]
    assert main([*argv, "--min-agreement", "0", "-o", str(tmp_path / "told")]) == 0
    out = capsys.readouterr().out
    assert f"{120 - found['num_equal']} of 120 images decided otherwise than by the float model (95% interval" in out


def test_few_images_are_told_and_hold_nothing(weights: Path, images: Path, tmp_path: Path) -> None:
    result = export(_config(weights, tmp_path / "bundle", images, min_agreement=1.0))
    assert details_of(result, "int8")["agreement"]["num_images"] == 40


def test_synthetic_images_say_nothing_of_decisions(weights: Path, tmp_path: Path) -> None:
    result = export(_config(weights, tmp_path / "bundle", "builtin", min_agreement=1.0))  # type: ignore[arg-type]
    assert "agreement" not in details_of(result, "int8")


class _Shifted(nn.Module):
    """A constant in every logit, which softmax does not see."""

    def __init__(self, network: nn.Module, constant: float) -> None:
        super().__init__()
        self.network, self.constant = network, constant

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(image_BCHW) + self.constant
        return logits


def test_a_constant_in_every_logit_hides_no_error(shared: Callable[[str], Path], tmp_path: Path) -> None:
    spec = ARCHITECTURES["resnet20"]
    distances = []
    for constant in (0.0, 100.0):
        network = spec.build()
        network.load_state_dict(load_checkpoint(shared("weights/resnet20-12fca82f.th")), strict=False)
        config = ExportConfig(
            output=tmp_path / f"plus{constant:g}",
            image_size=32,
            mean=spec.preprocess.mean,
            std=spec.preprocess.std,
            quantize=("int8",),
            calibration="builtin",
            golden=shared("data/cifar10/test"),
        )
        result = export(_Shifted(network, constant), config)
        stages = {stage.stage: stage for stage in result.parity.stages}
        distances.append(stages["variant int8"].relative_l2)
    # Measured: the last quantized layer rounds alike; without the mean taken off the second is 50 times smaller.
    assert distances[1] == pytest.approx(distances[0], rel=0.5)
