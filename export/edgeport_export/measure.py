"""What is measured on the build machine and written beside the manifest, not into it."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgeport_runtime.classifier import Classifier

__all__ = ["latencies", "peak_memory_bytes"]

_WARM_UPS, _RUNS, _ROUNDS = 2, 3, 5
_MIN_ROUNDS, _ENOUGH_S = 2, 30.0
_REST_S = 0.08  # ONNX Runtime's threads spin after a call and would take the cores from the next contender
_FASTER = 1.05  # what is not at least 5% faster is not told from noise


def latencies(classifiers: Mapping[str, Classifier]) -> dict[str, dict[str, Any]]:
    """Median time of a call of ``outputs`` at the smallest batch the model takes, each variant in turn.

    Every turn begins with a rest of 80 ms and two calls that do not count.

    Args:
        classifiers: by the variant's name, ``fp32`` first.

    Returns:
        Of each variant ``latency_ms``, ``batch``, ``runs``, ``device``, and of all but the first ``times_fp32``, how
        many of its calls fit into one of the first, and ``is_faster``, false where that is under 1.05.
    """
    contract = next(iter(classifiers.values())).contract
    spec, batch = contract.preprocess, contract.batch or 1
    x_BCHW = np.zeros((batch, spec.num_channels, spec.image_size, spec.image_size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    start = time.perf_counter()
    num_rounds = _ROUNDS if len(classifiers) > 1 else 1
    for done in range(num_rounds):
        if done >= _MIN_ROUNDS and time.perf_counter() - start > _ENOUGH_S:
            break
        for name, classifier in classifiers.items():
            time.sleep(_REST_S)
            turn = [_time_ms(classifier.outputs, x_BCHW) for _ in range(_WARM_UPS + _RUNS)]
            times[name] += turn[_WARM_UPS:]
    first = statistics.median(next(iter(times.values())))
    measured: dict[str, dict[str, Any]] = {}
    for name, values in times.items():
        median = statistics.median(values)
        measured[name] = {
            "latency_ms": round(median, 3),
            "batch": batch,
            "runs": len(values),
            "device": classifiers[name].device,
        }
        if len(measured) > 1:
            measured[name] |= {"times_fp32": round(first / median, 3), "is_faster": first / median >= _FASTER}
    return measured


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _time_ms(call: Callable[[NDArray[np.float32]], object], x_BCHW: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    call(x_BCHW)
    return (time.perf_counter() - start) * 1e3
