"""The fastest way to run a bundle on this machine: measured once, remembered, and used by ``Classifier.load``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.choice import read_json, saturates
from edgeport_runtime.errors import EdgeportError, InputError
from edgeport_runtime.machine import available_cpus, describe_machine
from edgeport_runtime.manifest import MANIFEST_NAME, load_manifest
from edgeport_runtime.providers import CPU, PROVIDERS, unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_runtime.classifier import Classifier

__all__ = ["Tuned", "cache_folder", "find_tuned", "tune"]

_PACKAGES = (
    "edgeport",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "onnxruntime-ep-openvino",
    "onnxruntime-ep-webgpu",
)
_MAX_THREADS = 4096
_ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What ran fastest on this machine.

    Attributes:
        variant: by name.
        device: by name.
        threads: None for ONNX Runtime's choice.
    """

    variant: str
    device: str
    threads: int | None


def tune(
    bundle: Path, *, batch: int = 1, on_progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], Path | None]:
    """Time every variant on every usable device with several numbers of threads, and remember the fastest.

    Only what gives PyTorch's decisions and outputs for the golden images on this device takes part.

    Args:
        bundle: the folder.
        batch: images a call by which the fastest is chosen; a bundle with a fixed batch is timed with that.
        on_progress: called with (done, all) turns.

    Returns:
        The findings as JSON types (``winner``, ``contenders`` with ``latency_ms`` at that batch, fastest first,
        ``excluded`` with the reasons), and the file they are remembered in, None if it cannot be written.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        SessionError: if nothing can be run here.
    """
    from edgeport_runtime.timing import time_in_turn

    manifest = load_manifest(bundle)
    excluded: dict[str, str] = {}
    contenders = _load_contenders(bundle, excluded)
    spec, batch = manifest.contract.preprocess, manifest.contract.batch or batch
    x_BCHW = np.zeros((batch, spec.num_channels, spec.image_size, spec.image_size), np.float32)
    names = {_name(tuned): tuned for tuned in contenders}
    calls = {_name(tuned): (lambda c=classifier: c.outputs(x_BCHW)) for tuned, classifier in contenders.items()}
    times = time_in_turn(calls, rounds=_ROUNDS, on_progress=on_progress)
    for classifier in contenders.values():
        classifier.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    order = sorted(medians, key=lambda name: medians[name])
    findings = {
        "batch": batch,
        "winner": _fields(names[order[0]]),
        "contenders": [{**_fields(names[name]), "latency_ms": round(medians[name], 4)} for name in order],
        "excluded": excluded,
        "machine": describe_machine(),
    }
    return findings, _remember(bundle, findings)


def find_tuned(bundle: Path) -> Tuned | None:
    """What :func:`tune` found for this bundle, this machine and these package versions, if it was ever asked."""
    folder = cache_folder()
    if not folder.is_dir():
        return None
    found = read_json(folder / _file_name(bundle))
    try:
        winner = Tuned(**found["winner"])
    except (KeyError, TypeError):
        return None  # never tuned, or damaged
    threads = winner.threads
    is_number = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= _MAX_THREADS
    are_names = isinstance(winner.variant, str) and isinstance(winner.device, str)
    return winner if are_names and (threads is None or is_number) else None


def cache_folder() -> Path:
    """Where findings are kept: ``EDGEPORT_CACHE``, or the user's cache folder. It may vanish."""
    own = os.environ.get("EDGEPORT_CACHE")
    if own:
        return Path(own) / "tuned"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "edgeport" / "tuned"


def _load_contenders(bundle: Path, excluded: dict[str, str]) -> dict[Tuned, Classifier]:
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.golden import check

    contenders: dict[Tuned, Classifier] = {}
    for provider in PROVIDERS:
        reason = unusable(provider)
        if reason is not None:
            excluded[provider.device] = reason
            continue
        for variant in load_manifest(bundle).variants:
            if saturates(variant, provider):
                excluded[f"{variant.name} on {provider.device}"] = "its int8 arithmetic could saturate here"
                continue
            for threads in _thread_counts() if provider == CPU else (None,):
                tuned = Tuned(variant=variant.name, device=provider.device, threads=threads)
                try:
                    classifier = Classifier.load(bundle, device=tuned.device, variant=tuned.variant, threads=threads)
                    check(classifier, bundle)
                except EdgeportError as error:
                    excluded[_name(tuned)] = str(error)
                    continue
                contenders[tuned] = classifier
    if not contenders:
        raise InputError(f"no variant of {bundle} runs and passes here: {'; '.join(excluded.values())}")
    return contenders


def _thread_counts() -> list[int]:
    """Powers of two, and all processors."""
    allowed = available_cpus()
    return sorted({allowed, *(2**i for i in range(allowed.bit_length()) if 2**i < allowed)})


def _fields(tuned: Tuned) -> dict[str, Any]:
    return {"variant": tuned.variant, "device": tuned.device, "threads": tuned.threads}


def _name(tuned: Tuned) -> str:
    threads = "" if tuned.threads is None else f", {tuned.threads} thread{'' if tuned.threads == 1 else 's'}"
    return f"{tuned.variant} on {tuned.device}{threads}"


def _file_name(bundle: Path) -> str:
    """Another name for another bundle, machine, or version of a package: what was found before is not found again."""
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    digest = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    key = json.dumps([digest, describe_machine(), versions], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:32] + ".json"


def _remember(bundle: Path, findings: dict[str, Any]) -> Path | None:
    path = cache_folder() / _file_name(bundle)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(findings, indent=2))
        part.replace(path)
    except OSError:  # read-only, full, or a file in the way: the findings are told all the same
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        return None
    return path
