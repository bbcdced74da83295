"""A model that came as an ``.onnx`` file as what every stage is compared with: ONNX Runtime without optimizations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edgeport_export.graph.retype import FLOAT64, retype
from edgeport_export.parity.locate import first_departure
from edgeport_export.parity.rows import check_file_rows
from edgeport_runtime.engine.batches import run_in_batches
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.errors import InputError
from edgeport_runtime.outputs.metrics import sigmoid, softmax

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.engine.foreign import Ports

__all__ = ["OnnxOriginal", "open_plainly"]

_TIMES_ROUNDING, _ROUNDING = 10, 1e-6  # of float32's distance from float64, and of the outputs


class OnnxOriginal:
    """An ``Original``; its methods are described there.

    Args:
        model: in float32, with its weights inside.
        session: of that model, from ``open_plainly``.
        ports: its input and output.
        name: of the file.
        finish: operator behind its output, ``Softmax`` or ``Sigmoid``; None for none.
        runs_alone: an image's ranges must not be those of its neighbours, as in dynamic int8.
    """

    what = "the file"
    is_early_in_float64 = False  # numpy computes it, which takes far longer than the float32

    def __init__(
        self,
        model: onnx.ModelProto,
        session: Any,
        ports: Ports,
        *,
        name: str,
        finish: str | None = None,
        runs_alone: bool = False,
    ) -> None:
        self.name, self.runs_alone = name, runs_alone
        self._model, self._session, self._ports, self._finish = model, session, ports, finish
        self._batch = 1 if runs_alone and ports.batch is None else ports.batch

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """In float32; a batch that the file does not take is cut into those that it does."""
        return run_in_batches(self._run, x_BCHW, self._batch)

    def _run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        ports = self._ports
        (output,) = self._session.run([ports.output_name], {ports.input_name: ports.feed(x_BCHW)})
        outputs_BK = ports.take(output, len(x_BCHW))
        return outputs_BK if self._finish is None else _ACTIVATIONS[self._finish](outputs_BK).astype(np.float32)

    def run_in_float64(self, batches: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float64]]:
        """By onnx's reference implementation, in numpy, as far as that is known to compute what the file does.

        In float32 it may differ from ONNX Runtime no more than float32 explains: of old operator sets it computes some
        operators otherwise (BatchNormalization of opset 9 with the statistics of its input).
        """
        if self._ports.dtype is not np.float32:
            raise TypeError(f"the file takes {self._ports.dtype}")
        single, double = ReferenceEvaluator(self._model), ReferenceEvaluator(retype(self._model, FLOAT64))

        for batch in batches:
            size = self._batch or len(batch)
            parts = [batch[i : i + size] for i in range(0, len(batch), size)]
            exact_BK = np.concatenate([self._evaluate(double, part.astype(np.float64)) for part in parts])
            theirs_BK = np.concatenate([self._evaluate(single, part) for part in parts])
            rounding_B, norm_B = (np.linalg.norm(v, axis=1) for v in (theirs_BK - exact_BK, exact_BK))
            allowed_B = _TIMES_ROUNDING * rounding_B + _ROUNDING * norm_B
            if not (np.linalg.norm(self.run(batch) - theirs_BK, axis=1) <= allowed_B).all():
                raise RuntimeError("onnx's reference implementation computes something else")
            yield exact_BK

    def _evaluate(self, evaluator: ReferenceEvaluator, x_BCHW: NDArray[Any]) -> NDArray[Any]:
        ports = self._ports
        x = x_BCHW.transpose(0, 2, 3, 1) if ports.layout == "nhwc" else x_BCHW
        (output,) = list(evaluator.run([ports.output_name], {ports.input_name: x}))
        outputs_BK: NDArray[Any] = np.asarray(output).reshape(len(x), ports.num_outputs)
        return outputs_BK if self._finish is None else _ACTIVATIONS[self._finish](outputs_BK)

    def check_rows(
        self, batches: Sequence[NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]], contract: Contract
    ) -> None:
        """Names the file."""
        check_file_rows(self.run, batches, outputs, contract, name=self.name)

    def first_departure(self, path: Path, x_BCHW: NDArray[np.float32]) -> str | None:
        """By the file's own values."""
        return first_departure(lambda output: self._values(x_BCHW, output), path, x_BCHW)

    def first_inexact(self, x_BCHW: NDArray[np.float32]) -> str | None:  # noqa: ARG002  another original knows
        """Not known."""
        return None

    def _values(self, x_BCHW: NDArray[np.float32], output: str) -> dict[str, NDArray[Any]]:
        """Every value of floats inside the model, and its outputs under the name that they have in a bundle."""
        probed = onnx.ModelProto()
        probed.CopyFrom(self._model)
        ports, known = self._ports, {value.name for value in probed.graph.output}
        names = [name for node in probed.graph.node for name in node.output if name]
        probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        session = open_plainly(probed, name=self.name)
        size = self._batch or len(x_BCHW)
        parts: dict[str, list[NDArray[Any]]] = {}
        for start in range(0, len(x_BCHW) - size + 1, size):
            values = session.run(names, {ports.input_name: ports.feed(x_BCHW[start : start + size])})
            for name, value in zip(names, values, strict=True):
                if isinstance(value, np.ndarray) and value.ndim and value.dtype == np.float32:
                    parts.setdefault(name, []).append(value)
        result = {name: np.concatenate(values) for name, values in parts.items()}
        return {**result, output: self.run(x_BCHW)}


def open_plainly(model: onnx.ModelProto, *, name: str) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU that computes a model as it is written.

    Args:
        model: with its weights inside.
        name: for messages.

    Raises:
        InputError: if ONNX Runtime does not take it.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  its exceptions share no base class
        told = " ".join(str(error).split())
        raise InputError(
            f"ONNX Runtime {ort.__version__} does not run {name}: {told}; write it with ONNX's own "
            "operators, or update onnxruntime"
        ) from None


_ACTIVATIONS = {"Softmax": softmax, "Sigmoid": sigmoid}
