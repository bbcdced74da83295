"""What is measured on the build machine and written beside the manifest, not into it."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_runtime.classifier import Classifier

__all__ = ["latency_ms", "machine", "peak_memory_bytes"]

_WARM_UPS, _RUNS = 2, 5


def latency_ms(classifier: Classifier) -> dict[str, Any]:
    """Median time of a call of ``outputs`` at the smallest batch the model takes."""
    contract = classifier.contract
    spec, batch = contract.preprocess, contract.batch or 1
    x_BCHW = np.zeros((batch, spec.num_channels, spec.image_size, spec.image_size), np.float32)
    times = [_time_ms(lambda: classifier.outputs(x_BCHW)) for _ in range(_WARM_UPS + _RUNS)][_WARM_UPS:]
    return {
        "latency_ms": round(statistics.median(times), 3),
        "batch": batch,
        "runs": _RUNS,
        "device": classifier.device,
    }


def machine() -> dict[str, Any]:
    """The machine in words."""
    return {"cpu": _cpu_name(), "num_cpus": len(os.sched_getaffinity(0)), "system": platform.system()}


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _time_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # no /proc outside Linux
        return platform.processor()
    return platform.processor()
