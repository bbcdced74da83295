"""ONNX Runtime behind the smallest seam: a file in, float32 arrays in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_runtime.contract import OUTPUTS
from edgeport_runtime.errors import ManifestError, SessionError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgeport_runtime.providers import Provider

__all__ = ["INPUT_NAME", "Session", "import_onnxruntime"]

INPUT_NAME = "image"
_LOG_FATAL = 4  # errors reach the caller as exceptions; ONNX Runtime need not print them as well


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module.

    Raises:
        SessionError: naming the extras to choose from, if it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise SessionError(
            "ONNX Runtime is not installed; choose one: pip install 'edgeport[cpu]', "
            "'edgeport[gpu]' (NVIDIA) or 'edgeport[openvino]' (Intel)"
        ) from None
    return onnxruntime


class Session:
    """One loaded model. ``run`` may be called from several threads at once.

    Args:
        path: the ``.onnx`` file.
        provider: what to run it on.
        threads: threads within an operator, None for ONNX Runtime's choice.
        unpack_weights: turn weights that are stored in int8 into floats once, when the model is loaded; otherwise
            ONNX Runtime does it on every call.

    Raises:
        SessionError: if ONNX Runtime is missing or refuses the file.
        ManifestError: if the graph does not have EdgePort's input and output.
    """

    def __init__(self, path: Path, *, provider: Provider, threads: int | None, unpack_weights: bool = False) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_FATAL
        if unpack_weights:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[provider.ort_name])
        except Exception as error:  # noqa: BLE001  its exceptions share no base class
            version = ort.__version__
            raise SessionError(f"{path} is not a model that ONNX Runtime {version} loads: {_one_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != [INPUT_NAME] or len(outputs) != 1 or outputs[0].name not in OUTPUTS:
            raise ManifestError(
                f"{path} has no input {INPUT_NAME!r} and output {' or '.join(OUTPUTS)}; it is not EdgePort's"
            )
        self.input_shape: list[int | str] = inputs[0].shape
        self.output_name: str = outputs[0].name
        self.output_shape: list[int | str] = outputs[0].shape
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The graph's output (B, K) float32.

        Raises:
            SessionError: if the run fails, for want of memory for example.
        """
        try:
            outputs_BK: NDArray[np.float32] = self._session.run([self.output_name], {INPUT_NAME: x_BCHW})[0]
        except Exception as error:  # noqa: BLE001  its exceptions share no base class
            raise SessionError(f"the model failed on an input of shape {x_BCHW.shape}: {_one_line(error)}") from None
        return outputs_BK


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
