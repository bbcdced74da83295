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
from edgeport_runtime.metrics import relative_l2

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = Path(__file__).with_name("torchvision_reference.py")
FILES = {"resnet18": "resnet18.pth", "resnet50": "resnet50.safetensors", "vit_b_16": "vit_b_16.safetensors"}


@pytest.fixture(scope="module")
def references(
    shared: Callable[[str], Path], peer: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder with torchvision's weights, inputs and logits; torchvision has loaded our state dicts by then."""
    folder = tmp_path_factory.mktemp("torchvision")
    for name in FILES:
        torch.save(ARCHITECTURES[name].build().state_dict(), folder / f"{name}.edgeport.pth")
    search = os.pathsep.join(map(str, (peer("torchvision"), shared("peers"))))
    done = subprocess.run(
        [sys.executable, REFERENCE, folder],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", FILES)
def test_state_dict_layout_is_torchvisions(name: str, references: Path) -> None:
    state = load_checkpoint(references / FILES[name])
    module = ARCHITECTURES[name].build()
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    module.load_state_dict(state, strict=True)


def assert_bundle_gives_torchvisions_logits(name: str, references: Path, bundle: Path) -> None:
    reference = np.load(references / f"{name}.npz")
    expected_BK = reference["logits"]
    export(ExportConfig(architecture=name, weights=references / FILES[name], output=bundle))
    with Classifier.load(bundle, device="cpu") as classifier:
        logits_BK = classifier.logits(reference["input"])
    assert expected_BK.std(axis=1).min() > 0.1
    assert expected_BK.std(axis=0).mean() > 0.1
    # Measured: 1.6e-6 (resnet18), 2.8e-6 (resnet50) and 1.2e-6 (vit_b_16). float32 against float64 gives as much.
    assert relative_l2(logits_BK, expected_BK).max() <= 1e-5
    assert (logits_BK.argmax(axis=1) == expected_BK.argmax(axis=1)).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet(name: str, references: Path, tmp_path: Path) -> None:
    assert_bundle_gives_torchvisions_logits(name, references, tmp_path / name)


def test_vit(references: Path, tmp_path: Path) -> None:
    assert_bundle_gives_torchvisions_logits("vit_b_16", references, tmp_path / "vit_b_16")
