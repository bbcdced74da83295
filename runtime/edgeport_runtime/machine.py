"""The machine in words, by which measurements are told from those of another one."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe_machine"]


def describe_machine() -> dict[str, str | int]:
    """Processor, number of processors that this process may use, and operating system."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    num_cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return {"cpu": _cpu_name(), "num_cpus": num_cpus, "system": platform.system()}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # no /proc outside Linux
        return platform.processor()
    return platform.processor()
