"""What `onnxruntime.quantization` makes of a graph on its own, for comparison."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgeport_export.quantize.quiet import quiet_logging

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

CALIBRATORS = {
    "min-max": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Iterable[NDArray[np.float32]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        x_BCHW = next(self._batches, None)
        return None if x_BCHW is None else {"image": x_BCHW}


@contextlib.contextmanager
def _quiet() -> Any:
    with quiet_logging(), contextlib.redirect_stdout(io.StringIO()):
        yield


def static(
    source: Path,
    path: Path,
    batches: Iterable[NDArray[np.float32]],
    *,
    activations: str,
    per_channel: bool,
    calibrator: str = "min-max",
) -> Path:
    """`quantize_static` over all operators that it knows, after its own pre-processing.

    Args:
        source: the float graph.
        path: where to write.
        batches: calibration images, preprocessed.
        activations: ``uint8`` or ``int8``; weights are int8.
        per_channel: of the weights.
        calibrator: of ``CALIBRATORS``.
    """
    prepared = path.with_name(f"{path.stem}.prepared.onnx")
    with _quiet():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _Reader(batches),
            per_channel=per_channel,
            activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CALIBRATORS[calibrator],
        )
    prepared.unlink()
    return path


def dynamic(source: Path, path: Path) -> Path:
    """`quantize_dynamic` of the linear layers, weights int8 per channel."""
    with _quiet():
        quantize_dynamic(
            str(source),
            str(path),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    return path


def session(path: Path) -> ort.InferenceSession:
    """On stock ONNX Runtime's CPU provider, with its own number of threads."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
