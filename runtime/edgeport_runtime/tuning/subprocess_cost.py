"""Runs one model in a process of its own: measures the time to its first prediction, and its memory.

python -m edgeport_runtime.tuning.subprocess_cost BUNDLE VARIANT DEVICE BATCH
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["measure_process"]


def measure_process(bundle: Path, *, variant: str, device: str, batch: int, low_memory: bool = False) -> dict[str, Any]:
    """Start a process that loads a variant and runs it once.

    Returns:
        ``start_ms``, from the start of the process to its first outputs, and ``peak_bytes``, its largest resident size
        and ``private_bytes``, what it holds then that is no file's (None where the system does not tell).

    Raises:
        SessionError: if the process fails.
    """
    from edgeport_runtime.errors import SessionError

    command = [sys.executable, "-m", "edgeport_runtime.tuning.subprocess_cost", str(bundle), variant, device]
    command += [str(batch), str(int(low_memory))]
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own module
    if done.returncode != 0:
        raise SessionError(
            f"{variant} on {device} fails when it runs in a process of its own: {done.stderr.strip()[-500:]}"
        )
    told = json.loads(done.stdout)
    return {"start_ms": round((told.pop("done") - start) * 1e3, 1), **told}


def _main(bundle: str, variant: str, device: str, batch: str, low_memory: str) -> None:
    import numpy as np

    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.engine.machine import peak_memory_bytes, private_memory_bytes

    is_low = low_memory == "1"
    with Classifier.load_exactly(
        Path(bundle), variant=variant, device=device, spin=False, low_memory=is_low
    ) as classifier:
        classifier.outputs(np.zeros((int(batch), *classifier.contract.input_shape), np.float32))
        told = {"done": time.time(), "peak_bytes": peak_memory_bytes(), "private_bytes": private_memory_bytes()}
        json.dump(told, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
