"""The fastest way to run a bundle on this machine: measured once, remembered, and used by ``Classifier.load``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.engine.machine import available_cpus, describe_machine
from edgeport_runtime.engine.providers import CPU, PROVIDERS, unusable
from edgeport_runtime.engine.session import SessionSettings
from edgeport_runtime.errors import EdgeportError, InputError, ManifestError, SessionError
from edgeport_runtime.loading.cache import Tuned, findings_file, new_cache_path, outdated
from edgeport_runtime.loading.choice import saturates
from edgeport_runtime.loading.load import settings_of
from edgeport_runtime.tuning.prepared import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.classifier import Classifier

__all__ = ["tune"]

_ROUNDS = 5


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
        ``excluded`` with the reasons, ``prepared``, see :mod:`edgeport_runtime.tuning.prepared`), and the file they are
        remembered in, None if it cannot be written.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError: if nothing can be run here.
        SessionError: if the bundle cannot be run at this batch size.
    """
    manifest = load_manifest(bundle)
    excluded: dict[str, str] = {}
    contenders = _load_contenders(bundle, excluded)
    try:
        findings = _time(manifest.contract, contenders, batch, on_progress)
    finally:
        for classifier in contenders.values():
            classifier.close()
    findings |= {"excluded": excluded, "prepared": None, "machine": describe_machine()}
    return findings, _remember(bundle, findings)


def _time(
    contract: Contract,
    contenders: dict[Tuned, Classifier],
    batch: int,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    from edgeport_runtime.tuning.timing import time_in_turn

    spec, batch = contract.preprocess, contract.batch or batch
    x_BCHW = np.zeros((batch, spec.num_channels, spec.image_size, spec.image_size), np.float32)
    names = {_name(tuned): tuned for tuned in contenders}
    calls = {_name(tuned): (lambda c=classifier: c.outputs(x_BCHW)) for tuned, classifier in contenders.items()}
    times = time_in_turn(calls, rounds=_ROUNDS, on_progress=on_progress)
    medians = {name: statistics.median(values) for name, values in times.items()}
    order = sorted(medians, key=lambda name: medians[name])
    return {
        "batch": batch,
        "winner": _fields(names[order[0]]),
        "contenders": [{**_fields(names[name]), "latency_ms": round(medians[name], 4)} for name in order],
    }


def _load_contenders(bundle: Path, excluded: dict[str, str]) -> dict[Tuned, Classifier]:
    from edgeport_runtime.accuracy.golden import check
    from edgeport_runtime.classifier import Classifier

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
                except ManifestError:
                    raise
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


def _remember(bundle: Path, findings: dict[str, Any]) -> Path | None:
    """Write the findings down, with the winner prepared, and drop those of other versions of the packages."""
    try:
        key = new_cache_path(bundle)
        findings["prepared"] = _prepare(bundle, findings["winner"], key)
        part = key.with_name(f"{key.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(findings, indent=2))
            part.replace(findings_file(key))
        finally:
            part.unlink(missing_ok=True)
    except OSError:  # read-only, full, or a file in the way: the findings are told all the same
        return None
    for old in outdated(key):
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # another user's, for example: it is only in the way
                old.unlink(missing_ok=True)
    return findings_file(key)


def _prepare(bundle: Path, winner: dict[str, Any], target: Path) -> dict[str, Any] | None:
    if winner["device"] != CPU.device:
        return None
    manifest = load_manifest(bundle)
    variant = next(known for known in manifest.variants if known.name == winner["variant"])
    try:
        return prepare(
            bundle,
            variant,
            settings=settings_of(variant, manifest.contract, SessionSettings(threads=winner["threads"])),
            target=target,
        )
    except (OSError, SessionError):  # no room for it, for example: it only saves time
        return None
