"""Inputs and outputs in the memory of a device, allocated once for each batch size and used again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BoundRun"]

_MAX_BATCH_SIZES = 4


class _Buffers(NamedTuple):
    binding: Any
    x: Any
    y: Any


class BoundRun:
    """Runs a session on buffers that stay where they are, as CUDA graphs need; one call at a time.

    Args:
        ort: the ``onnxruntime`` module.
        session: with one input and one output.
        memory: ONNX Runtime's name of the device's memory, such as ``cuda``.
    """

    def __init__(self, ort: Any, session: Any, memory: str) -> None:
        self._ort, self._session, self._memory = ort, session, memory
        self._buffers: dict[tuple[int, ...], _Buffers] = {}
        self._lock = threading.Lock()

    def __call__(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output (B, K) float32; its errors are ONNX Runtime's."""
        x_BCHW = np.ascontiguousarray(x_BCHW)
        with self._lock:
            buffers = self._buffers.pop(x_BCHW.shape, None) or self._allocate(x_BCHW)
            self._buffers[x_BCHW.shape] = buffers  # the last one used is the last one dropped
            if len(self._buffers) > _MAX_BATCH_SIZES:
                del self._buffers[next(iter(self._buffers))]
            buffers.x.update_inplace(x_BCHW)
            self._session.run_with_iobinding(buffers.binding)
            return np.array(buffers.y.numpy())  # of the process's own memory that is a view

    def _allocate(self, x_BCHW: NDArray[np.float32]) -> _Buffers:
        image, output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        shape = [len(x_BCHW), *output.shape[1:]]
        x = self._ort.OrtValue.ortvalue_from_shape_and_type(list(x_BCHW.shape), np.float32, self._memory, 0)
        y = self._ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._memory, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(image.name, x)
        binding.bind_ortvalue_output(output.name, y)
        return _Buffers(binding, x, y)
