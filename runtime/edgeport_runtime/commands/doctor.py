"""What a machine has to run models with, and what is wrong with it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import packages_distributions
from typing import Any

from edgeport_runtime.engine.machine import available_cpus, describe_machine, instruction_sets
from edgeport_runtime.engine.ort import telemetry
from edgeport_runtime.engine.packages import ENGINES, versions_of
from edgeport_runtime.engine.providers import PROVIDERS, unusable
from edgeport_runtime.errors import SessionError
from edgeport_runtime.loading.cache import cache_folder

__all__ = ["diagnose"]

_EXTENSIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")


def diagnose() -> dict[str, Any]:
    """Describe this machine, as JSON types.

    Returns:
        ``machine``, ``instruction_sets`` (those that matter here, None where the system does not tell), ``cpus`` (of
        the machine, and allowed to this process), ``packages`` with their versions, ``devices`` with None or why one
        cannot be used, ``telemetry`` (``off``, or ``on`` or ``none`` and why), ``cache`` (its ``folder`` and
        ``size_bytes``), and ``problems``, each with its remedy.
    """
    sets = instruction_sets()
    problems = _clashes()
    devices: dict[str, str | None] = {}
    told = "not known: ONNX Runtime is not installed"
    try:
        devices = {provider.device: unusable(provider) for provider in PROVIDERS}
        told = telemetry()
    except SessionError as error:
        problems.append(str(error))
    return {
        "machine": describe_machine(),
        "python": platform.python_version(),
        "instruction_sets": None if sets is None else [name for name in _EXTENSIONS if name in sets],
        "cpus": {"machine": os.cpu_count(), "allowed": available_cpus()},
        "packages": versions_of(("edgeport", "numpy", "pillow", *ENGINES)),
        "devices": devices,
        "telemetry": told,
        "cache": {"folder": str(cache_folder()), "size_bytes": _size_of_cache()},
        "problems": problems,
    }


def _clashes() -> list[str]:
    """Distributions that write into one folder: the last one installed wins, in parts."""
    names = sorted(set(packages_distributions().get("onnxruntime", ())))
    if len(names) < 2:
        return []
    return [
        f"{' and '.join(names)} overwrite each other; pip uninstall {' '.join(names)}, then install the one you need"
    ]


def _size_of_cache() -> int:
    return sum(path.lstat().st_size for path in cache_folder().rglob("*"))
