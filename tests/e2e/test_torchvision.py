"""torchvision's weights, exported: its layouts load strictly, and the bundle gives its logits.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgeport_export import ExportConfig, export
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import load_checkpoint
from edgeport_runtime import Classifier
from edgeport_runtime.outputs.metrics import relative_l2
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).with_name("torchvision_reference.py")
FILES = {
    "resnet18": "resnet18.pth",
    "resnet50": "resnet50.safetensors",
    "vit_b_16": "vit_b_16.safetensors",
    "alexnet": "alexnet.pth",
    "vgg11_bn": "vgg11_bn.safetensors",
    "googlenet": "googlenet.pth",
}
AUXILIARY = ("aux1.", "aux2.")


@pytest.fixture
def references(name: str, peer: Callable[[str], Path], once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Folder with torchvision's weights, inputs and logits; torchvision has loaded our state dict by then."""

    def run(folder: Path) -> None:
        torch.save(ARCHITECTURES[name].build().state_dict(), folder / f"{name}.edgeport.pth")
        done = subprocess.run(
            [sys.executable, REFERENCE, folder, name],
            env={**os.environ, "PYTHONPATH": str(peer("torchvision"))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return once(f"torchvision-{name}", run)


@pytest.mark.parametrize("name", slow_but(["resnet18"], FILES))
def test_state_dict_layout_is_torchvisions(name: str, references: Path) -> None:
    state = load_checkpoint(references / FILES[name])
    state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
    module = ARCHITECTURES[name].build()
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    module.load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", slow_but(["resnet18"], FILES))
def test_bundle_gives_torchvisions_logits(name: str, references: Path, photo_folder: Path, tmp_path: Path) -> None:
    reference = np.load(references / f"{name}.npz")
    expected_BK = reference["logits"]
    config = ExportConfig(
        architecture=name,
        weights=references / FILES[name],
        output=tmp_path / "bundle",
        golden=photo_folder,
        quantize=(),
    )
    result = export(config)
    told = result.manifest.weights.get("note")
    assert told == ("left out of the graph, for training only: aux1, aux2" if name == "googlenet" else None)
    with Classifier.load(result.path, device="cpu", variant="fp32") as classifier:
        logits_BK = classifier.logits(reference["input"])
    assert expected_BK.std(axis=1).min() > 0.1
    assert expected_BK.std(axis=0).mean() > 0.1
    # Measured: 1.2e-6 (vit_b_16), 1.6e-6 (resnet18), 1.9e-6 (alexnet), 2.8e-6 (resnet50), 3.1e-6 (googlenet) and
    # 4.1e-6 (vgg11_bn). float32 against float64 gives as much.
    assert relative_l2(logits_BK, expected_BK).max() <= 1e-5
    assert (logits_BK.argmax(axis=1) == expected_BK.argmax(axis=1)).all()
