"""Describes this machine, so that measurements from another are not mistaken for its own, and says what it may use."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

__all__ = [
    "available_cpus",
    "describe_machine",
    "instruction_sets",
    "is_x86",
    "peak_memory_bytes",
    "private_memory_bytes",
]

_ROOT = Path("/")
_CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> dict[str, str | int]:
    """Processor, number of processors that this process may use, and operating system."""
    return {"cpu": _cpu_name(), "num_cpus": available_cpus(), "system": platform.system()}


def available_cpus(root: Path = _ROOT) -> int:
    """How many processors this process may use: its affinity, or the limit of its container if that is lower.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    limit = _cgroup_limit(root)
    allowed = _allowed_cpus()
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def peak_memory_bytes() -> int | None:
    """Largest resident size of this process so far; None if the system does not tell."""
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):  # ru_maxrss would begin with the size of the process that started this one
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def private_memory_bytes() -> int | None:
    """Resident memory that this process shares with no file and no other process; None if the system does not tell."""
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def is_x86() -> bool:
    """True on x86-64."""
    return platform.machine().lower() in ("x86_64", "amd64")


def instruction_sets() -> frozenset[str] | None:
    """Linux's names of the processor's extensions, such as ``avx512_vnni``; None if the system does not tell."""
    for line in (_read(_CPUINFO) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return None


def _allowed_cpus() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _cgroup_limit(root: Path) -> float | None:
    """The lowest limit, in processors, of the control groups that this process belongs to (Linux, cgroups 1 and 2)."""
    groups = _read(root / "proc" / "self" / "cgroup")
    limits = []
    for line in (groups or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys" / "fs" / "cgroup"
        if controllers:
            base = next((base / name for name in (controllers, "cpu") if (base / name).is_dir()), base)
        # Within a container the path may be that outside of it: then only the top exists.
        folder = base / path.strip("/")
        limits += [_limit_of(parent) for parent in (folder, *folder.parents) if parent.is_relative_to(base)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit_of(folder: Path) -> float | None:
    text = _read(folder / "cpu.max")
    if text is None:
        text = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    try:
        quota, period = map(float, text.split())
    except ValueError:  # "max": no limit; or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def _cpu_name() -> str:
    parts: list[str] = []  # ARM has numbers instead of a name, and kinds of cores that differ
    for line in (_read(_CPUINFO) or "").splitlines():
        name, _, value = (text.strip() for text in line.partition(":"))
        if name == "model name":
            return value
        if name in ("CPU implementer", "CPU part") and value not in parts:
            parts.append(value)
    return " ".join(parts) or platform.processor()
