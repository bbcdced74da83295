"""Trained networks, real images, the two commands: the bundle classifies as PyTorch does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from edgeport_export.cli import main as export_model
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import load_checkpoint
from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main as run_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _pytorch_classes(architecture: str, weights: Path, images: list[Path]) -> list[int]:
    """Predicted classes by PyTorch alone, none of our preprocessing: RGB, /255, ImageNet mean and std."""
    module = ARCHITECTURES[architecture].build()
    module.load_state_dict(load_checkpoint(weights))
    module.eval()
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in images]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x_BCHW = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return torch.cat([module(part) for part in x_BCHW.split(100)]).argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ("architecture", "file", "num_correct"),
    [
        ("resnet20", "resnet20-12fca82f.th", 455),
        pytest.param("resnet56", "resnet56-4bfd9763.th", 470, marks=pytest.mark.slow),
    ],
)
def test_trained_resnet(
    architecture: str,
    file: str,
    num_correct: int,
    shared: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights, data = shared(f"weights/{file}"), shared("data/cifar10/test")
    bundle = tmp_path / "build" / architecture
    assert export_model([architecture, "--weights", str(weights), "--golden", str(data), "-o", str(bundle)]) == 0
    capsys.readouterr()
    assert run_model(["evaluate", str(bundle), "--data", str(data), "--match", "order", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["num_correct"], result["num_images"]) == (num_correct, 500)
    assert result["top1"] == num_correct / 500
    images = sorted(data.rglob("*.png"))
    expected = _pytorch_classes(architecture, weights, images)
    folders = sorted({path.parent.name for path in images})
    assert sum(folders[c] == path.parent.name for c, path in zip(expected, images, strict=True)) == num_correct
    with Classifier.load(bundle) as classifier:
        assert [p[0].index for p in classifier.predict_batch(images, top_k=1)] == expected
