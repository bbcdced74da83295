"""What the tests of quantization share: images and weights of a LeNet-5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from edgeport_export.quantize.costs import Cost
from task_models import make_images, make_module

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 grey images of 32x32."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(make_images()):
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lenet5.pth"
    torch.save(make_module("multiclass").state_dict(), path)
    return path


@pytest.fixture
def int8_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the way into int8 and back cost nothing, so that it pays for the layers of networks as small as a test's."""
    for name in ("_CHANGED", "_CHANGE", "_PLACE", "_ROUNDED"):
        monkeypatch.setattr(f"edgeport_export.quantize.costs.{name}", 0.0)
    for name in ("_LAYER", "_NODE"):
        monkeypatch.setattr(f"edgeport_export.quantize.costs.{name}", Cost(1.0, 0.0))
