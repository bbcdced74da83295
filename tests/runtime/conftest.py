"""Fixtures of the runtime's tests: photos, and bundles that may be altered."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export import ExportResult


@pytest.fixture(scope="session")
def photos(shared: Callable[[str], Path]) -> list[Path]:
    """100 JPEG photos of about 500x375 pixels."""
    found = sorted(shared("data/cats-dogs/test").rglob("*.jpg"))
    assert len(found) == 100
    return found


@pytest.fixture(scope="session")
def arrays() -> list[NDArray[np.uint8]]:
    """21 different images of several shapes, HWC: enough for two full batches and a rest."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + i, 60 - i, 3), dtype=np.uint8) for i in range(21)]


@pytest.fixture
def bundle(lenet5: ExportResult, tmp_path: Path) -> Path:
    """A copy of the LeNet-5 bundle, to be altered."""
    return shutil.copytree(lenet5.path, tmp_path / "bundle")


@pytest.fixture
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Rewrite a bundle's manifest after a function has altered its JSON."""

    def edit(bundle: Path, alter: Callable[[dict[str, Any]], object]) -> None:
        path = bundle / "manifest.json"
        data = json.loads(path.read_text("utf-8"))
        alter(data)
        path.write_text(json.dumps(data), "utf-8")

    return edit
