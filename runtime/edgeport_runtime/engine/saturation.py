"""Whether this processor computes 8-bit products exactly, or adds pairs of them in 16 bits, where they saturate."""

from __future__ import annotations

import base64
import functools

import numpy as np

from edgeport_runtime.engine.machine import instruction_sets, is_x86
from edgeport_runtime.engine.ort import import_onnxruntime

__all__ = ["adds_in_16_bits", "has_vnni"]

_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})

# MatMulInteger of an input (1, 8) uint8 with a constant (8, 16) int8 in which every value is 127.
_PROBE = base64.b64decode(
    "CAQ61gEKGAoBYQoBYhIBeSINTWF0TXVsSW50ZWdlchIBcCqMAQgICBAQA0IBYkqAAX9/f39/f39/f39/f39/f39/f39/f39/f39/"
    "f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/"
    "f39/f39/f39/f39/f39/f39/f39/f39/f39/WhMKAWESDgoMCAISCAoCCAEKAggIYhMKAXkSDgoMCAYSCAoCCAEKAggQQgQKABAK"
)
_SIZE, _LARGEST, _WEIGHT = 8, 255, 127


def adds_in_16_bits() -> bool:
    """True on x86 processors without VNNI and AMX, whose instructions add two products of 8 bits in 16.

    Two products of 255 and 127 need 17 bits. Where the system does not tell the processor's instructions (Windows,
    macOS on Intel), a product whose exact answer is known decides.

    Raises:
        SessionError: if the product is needed, and ONNX Runtime is not installed.
    """
    if not is_x86():
        return False
    sets = instruction_sets()
    return _probe_saturates() if sets is None else not sets & _VNNI


def has_vnni() -> bool:
    """True on x86 processors that are known, or were found, to add products of 8 bits in 32."""
    return is_x86() and not adds_in_16_bits()


@functools.cache
def _probe_saturates() -> bool:
    session = import_onnxruntime().InferenceSession(_PROBE, providers=["CPUExecutionProvider"])
    (products,) = session.run(None, {"a": np.full((1, _SIZE), _LARGEST, np.uint8)})
    return not bool((products == _SIZE * _LARGEST * _WEIGHT).all())
