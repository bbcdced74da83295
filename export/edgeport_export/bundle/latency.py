"""Measures latencies on the build machine; they are written beside the manifest, not into it."""

from __future__ import annotations

import functools
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeport_runtime.classifier import Classifier

__all__ = ["latencies"]

_ROUNDS, _ENOUGH_S = 5, 30.0
_LEAST_MS = 20.0  # of calls per turn: the median of 15 calls of 40 microseconds was off by 10%
_FASTER = 1.05  # what is not at least 5% faster is not told from noise


def latencies(classifiers: Mapping[str, Classifier]) -> dict[str, dict[str, Any]]:
    """Median time per call of ``outputs`` at the smallest batch that the model takes, for each variant in turn.

    Args:
        classifiers: by the variant's name, ``fp32`` first.

    Returns:
        For each variant ``latency_ms``, ``p90_ms``, ``batch``, ``runs`` and ``device``; for all but the first also
        ``times_fp32``, how many of its calls fit into one of the first, and ``is_faster``, which is false if that
        is under 1.05.
    """
    contract = next(iter(classifiers.values())).contract
    batch = contract.batch or 1
    x_BCHW = np.zeros((batch, *contract.input_shape), np.float32)
    calls = {name: functools.partial(classifier.outputs, x_BCHW) for name, classifier in classifiers.items()}
    rounds = _ROUNDS if len(calls) > 1 else 1
    times = time_in_turn(calls, rounds=rounds, least_ms=_LEAST_MS, enough_s=_ENOUGH_S)
    first = statistics.median(next(iter(times.values())))
    measured: dict[str, dict[str, Any]] = {}
    for name, values in times.items():
        median = statistics.median(values)
        measured[name] = {
            "latency_ms": round(median, 3),
            "p90_ms": round(float(np.percentile(values, 90)), 3),
            "batch": batch,
            "runs": len(values),
            "device": classifiers[name].device,
        }
        if len(measured) > 1:
            measured[name] |= {"times_fp32": round(first / median, 3), "is_faster": first / median >= _FASTER}
    return measured
