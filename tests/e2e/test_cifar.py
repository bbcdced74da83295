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


def test_a_trained_resnet_by_way_of_its_onnx(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As somebody has it who was given no more than a file of one image per call, of an old operator set."""
    data, file, bundle = shared("data/cifar10/test"), tmp_path / "net.onnx", tmp_path / "bundle"
    module = ARCHITECTURES["resnet20"].build()
    module.load_state_dict(load_checkpoint(shared("weights/resnet20-12fca82f.th")))
    torch.onnx.export(module.eval(), (torch.zeros(1, 3, 32, 32),), file, dynamo=False, opset_version=11)
    normalization = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]
    assert export_model([str(file), *normalization, "--golden", str(data), "-o", str(bundle)]) == 0
    capsys.readouterr()
    for model, options in ((bundle, ["--variant", "fp32"]), (file, normalization)):
        assert run_model(["evaluate", str(model), "--data", str(data), "--match", "order", "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["num_correct"] == 455
    with Classifier.load(bundle) as classifier:
        assert classifier.contract.batch is None
