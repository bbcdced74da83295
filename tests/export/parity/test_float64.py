"""Limits that know what PyTorch's own float32 can do: its distance from float64."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.parity.compare import FLOAT32_LIMITS, MAX_RELATIVE_L2, compare
from edgeport_export.parity.float64 import OwnDistance
from edgeport_runtime import ParityError
from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CONTRACT = Contract(
    task="multiclass",
    num_classes=4,
    labels=None,
    thresholds=None,
    output="logits",
    batch=None,
    preprocess=PreprocessSpec(
        color="rgb", resize="exact", resize_size=8, interpolation="bilinear", image_size=8, scale="unit",
        mean=(0.0,) * 3, std=(1.0,) * 3,
    ),
)  # fmt: skip


class _Cancels(nn.Module):
    """Adds a constant to every feature and takes it away in the next layer, which costs float32 its last digits."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.constant = constant
        self.mix = nn.Linear(192, 512)
        self.head = nn.Linear(512, 4, bias=False)
        with torch.no_grad():
            self.head.weight -= self.head.weight.mean(dim=1, keepdim=True)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix(image_BCHW.flatten(1)) + self.constant)
        return logits


def test_a_network_is_held_to_what_its_own_float32_can_do(tmp_path: Path) -> None:
    result = export(_Cancels(100.0), ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=()))
    stages = {stage.stage: stage for stage in result.parity.stages}
    exported = stages["exported"]
    assert exported.passed
    assert 1e-5 < exported.relative_l2 <= exported.limits.relative_l2 <= MAX_RELATIVE_L2
    told = dict(result.manifest.parity[0])
    assert exported.relative_l2 <= 10 * told["float64_l2"]


def test_a_network_whose_float32_says_nothing_is_refused_with_its_node(tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        export(_Cancels(1e6), ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=()))
    message = str(caught.value)
    assert re.search(r"the network is ill-conditioned: on (golden image \d|a constant image|random values) ", message)
    assert "first at node" in message
    assert "no float32 runtime can be held to its answers; no bundle was written" in message
    assert list(tmp_path.iterdir()) == []


def test_each_sample_has_its_own_limit() -> None:
    reference = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    off = reference.astype(np.float64)
    off[1] += [5e-5, -5e-5, 0, 0]
    outputs = off.astype(np.float32)

    def passes(*own: float) -> bool:
        report = compare(
            "stage", outputs, reference, limits=FLOAT32_LIMITS, contract=CONTRACT, own_B=np.array(own, np.float64)
        )
        return report.passed

    assert not passes(0.0, 0.0, 0.0)
    assert passes(0.0, 1e-4, 0.0)
    assert not passes(1e-4, 0.0, 1e-4)  # another sample's distance allows nothing
    off[1] += 1.0 * np.array([1, -1, 0, 0])
    outputs = off.astype(np.float32)
    assert not passes(0.0, 1.0, 0.0)  # the ceiling


class _Known:
    """An original whose float64 outputs are given."""

    def __init__(self, exact_BK: NDArray[np.float64]) -> None:
        self.exact_BK = exact_BK

    def run_in_float64(self, batches: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float64]]:
        del batches
        yield self.exact_BK


def test_an_error_that_is_tiny_by_chance_is_no_limit() -> None:
    contract = replace(CONTRACT, num_classes=2)
    exact = np.array([[0.5e-2, -0.5e-2], [1, -1], [2, -2], [-1, 1]])
    errors = np.array([[0, 0], [1, -1], [2, -2], [-1, 1]]) * 1e-6
    reference = (exact + errors).astype(np.float32)
    own = OwnDistance(_Known(exact), [np.zeros((4, 3, 8, 8), np.float32)], reference, contract)  # type: ignore[arg-type]
    own.run_all()
    outputs = reference.astype(np.float64)
    outputs[0] += [5e-7, -5e-7]  # half of the usual error, and 1e-4 of this sample
    limits: dict[str, Any] = {"limits": FLOAT32_LIMITS, "contract": contract}
    assert not compare("stage", outputs.astype(np.float32), reference, own_B=own.distances(), **limits).passed
    assert compare("stage", outputs.astype(np.float32), reference, own_B=own.noise(), **limits).passed
    outputs[0] += [2e-5, -2e-5]  # twenty times the usual error
    assert not compare("stage", outputs.astype(np.float32), reference, own_B=own.noise(), **limits).passed


def test_the_module_is_in_float32_again(tmp_path: Path) -> None:
    module = _Cancels(100.0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    export(module, ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=()))
    after = module.state_dict()
    assert all(value.dtype == torch.float32 and torch.equal(value, before[key]) for key, value in after.items())
