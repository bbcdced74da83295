"""Buffers that stay on a device, on the CPU everywhere; and CUDA itself where there is one (`-m gpu`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier, SessionError
from edgeport_runtime.engine import providers
from edgeport_runtime.engine.binding import BoundRun
from edgeport_runtime.engine.providers import CPU, PROVIDERS, find_provider, options_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult

NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.fixture
def bound(lenet5: ExportResult, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """LeNet-5 on buffers of its own, in the CPU's memory."""
    device = CPU._replace(device="bound", memory="cpu")
    monkeypatch.setattr(providers, "PROVIDERS", (*PROVIDERS, device))
    return Classifier.load(lenet5.path, device="bound", variant="fp32")


def test_buffers_are_used_again_and_outputs_stay(bound: Classifier, lenet5: ExportResult) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((size, 1, 32, 32), np.float32) for size in (2, 1, 2, 3, 4, 5, 6, 2, 1)]
    outputs = [bound.logits(x) for x in inputs]
    with Classifier.load(lenet5.path, device="cpu", variant="fp32") as plain:
        for x, y in zip(inputs, outputs, strict=True):
            np.testing.assert_array_equal(y, plain.logits(x))


def test_no_more_than_four_sizes_are_kept(lenet5: ExportResult) -> None:
    session = onnxruntime.InferenceSession(lenet5.path / "model.fp32.onnx", providers=["CPUExecutionProvider"])
    run = BoundRun(onnxruntime, session, "cpu")
    for size in (1, 2, 3, 4, 1, 5):
        assert run(np.zeros((size, 1, 32, 32), np.float32)).shape == (size, 10)
    assert [shape[0] for shape in run._buffers] == [3, 4, 1, 5]


def test_a_failure_on_buffers_is_an_error_of_ours(bound: Classifier) -> None:
    assert bound._session is not None
    with pytest.raises(SessionError, match=r"the model failed on an input of shape \(1, 1, 8, 8\)"):
        bound._session.run(np.zeros((1, 1, 8, 8), np.float32))


@pytest.mark.parametrize(("device", "option"), [("cuda", "enable_cuda_graph"), ("tensorrt", "trt_cuda_graph_enable")])
def test_work_is_replayed_for_a_fixed_batch_alone(device: str, option: str) -> None:
    provider = find_provider(device)
    assert options_of(provider, None, is_replayed=True)[option] == "1"
    assert option not in options_of(provider, None)


@pytest.mark.gpu
@pytest.mark.skipif(NO_CUDA, reason="this onnxruntime is built without CUDA")
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("architecture", ["resnet18", "vit_ti_16"])
def test_cuda_gives_the_outputs_of_the_cpu(architecture: str, batch: int | None, tmp_path: Path) -> None:
    config = ExportConfig(architecture=architecture, output=tmp_path / "bundle", quantize=("fp16",), batch=batch)
    bundle = export(config).path
    x_BCHW = np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32)
    with Classifier.load(bundle, device="cpu", variant="fp32") as classifier:
        expected = classifier.logits(x_BCHW)
    for variant, tolerance in (("fp32", 1e-4), ("fp16", 2e-2)):
        with Classifier.load(bundle, device="cuda", variant=variant, strict=True, verify=True) as classifier:
            for _ in range(4):  # a recorded graph is replayed from the third call on
                outputs = classifier.logits(x_BCHW)
        assert np.linalg.norm(outputs - expected) <= tolerance * np.linalg.norm(expected)
