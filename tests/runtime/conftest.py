"""Fixtures of the runtime's tests: photos, and bundles that may be altered."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edgeport_export import ExportConfig, export
from task_models import TASKS, make_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export import ExportResult
    from edgeport_export.config import Place
    from edgeport_runtime.bundle.contract import Task


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


@pytest.fixture(scope="session")
def task_bundles(
    exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult],
) -> dict[tuple[Task, str], ExportResult]:
    """LeNet-5 for every task, with its activation in the runtime and in the graph, of the same weights."""

    def make(folder: Path, task: Task, place: Place) -> ExportResult:
        weights, labels = folder / f"{task}.pth", folder / f"{task}.txt"
        torch.save(make_module(task).state_dict(), weights)
        labels.write_text("no\nyes\n" if task == "binary" else "a\nb\nc\nd\n")
        config = ExportConfig(
            architecture="lenet5",
            output=folder / "bundle",
            weights=weights,
            labels=labels,
            task=task,
            activation=place,
            quantize=(),
        )
        return export(config)

    places: tuple[Place, ...] = ("runtime", "in-graph")
    return {
        (task, place): exported_once(f"{task}-{place}", lambda folder: make(folder, task, place))  # noqa: B023
        for task in TASKS
        for place in places
    }
