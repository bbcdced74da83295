"""The fastest way to run a bundle on this machine: measured once, remembered, and used by ``Classifier.load``."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.accuracy.golden import check
from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.machine import available_cpus, describe_machine
from edgeport_runtime.engine.providers import CPU, PROVIDERS, unusable
from edgeport_runtime.engine.session import SessionSettings
from edgeport_runtime.errors import EdgeportError, InputError, ManifestError, SessionError
from edgeport_runtime.loading.cache import Tuned, findings_file, new_cache_path, outdated
from edgeport_runtime.loading.choice import saturates
from edgeport_runtime.loading.load import settings_of
from edgeport_runtime.tuning.prepared import prepare
from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["tune"]

_ROUNDS = 5


def tune(
    bundle: Path, *, batch: int = 1, on_progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], Path | None]:
    """Time every variant on every usable device with several numbers of threads, and remember the fastest.

    Only what gives PyTorch's decisions and outputs for the golden images on this device takes part. Two models are in
    memory at most: a contender, and the fastest so far.

    Args:
        bundle: the folder.
        batch: images per call by which the fastest is chosen; a bundle with a fixed batch is timed with that.
        on_progress: called with (done, all) contenders.

    Returns:
        The findings as JSON types (``winner``, ``contenders`` with ``latency_ms`` at that batch, fastest first,
        ``excluded`` with the reasons, ``prepared``, see ``prepared``), and the file they are
        remembered in, None if it cannot be written.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError: if nothing can be run here.
        SessionError: if the bundle cannot be run at this batch size.
    """
    manifest = load_manifest(bundle)
    excluded: dict[str, str] = {}
    batch = manifest.contract.batch or batch
    contest = _Contest(np.zeros((batch, *manifest.contract.input_shape), np.float32))
    candidates = _candidates(manifest, excluded)
    try:
        for done, tuned in enumerate(candidates):
            classifier = _load(bundle, tuned, excluded)
            if classifier is not None:
                contest.enter(tuned, classifier)
            if on_progress is not None:
                on_progress(done + 1, len(candidates))
    finally:
        contest.close()
    if not contest.latencies_ms:
        raise InputError(
            f"no variant of {bundle} runs here and gives PyTorch's outputs: {'; '.join(excluded.values())}"
        )
    order = sorted(contest.latencies_ms, key=lambda tuned: contest.latencies_ms[tuned])
    findings = {
        "batch": batch,
        "winner": asdict(order[0]),
        "contenders": [{**asdict(tuned), "latency_ms": round(contest.latencies_ms[tuned], 4)} for tuned in order],
        "excluded": excluded,
        "prepared": None,
        "machine": describe_machine(),
    }
    return findings, _remember(bundle, findings)


class _Contest:
    """The fastest so far against one challenger after another: two models are in memory at most.

    Attributes:
        latencies_ms: of each that entered. What was timed at another time was timed at another speed of the machine:
            the first one's median is as measured, the others follow from the ratios of their turns with the fastest.
    """

    def __init__(self, x_BCHW: NDArray[np.float32]) -> None:
        self._x_BCHW = x_BCHW
        self._best: tuple[Tuned, Classifier] | None = None
        self.latencies_ms: dict[Tuned, float] = {}

    def enter(self, tuned: Tuned, classifier: Classifier) -> None:
        """Time a challenger in turn with the fastest, and keep the faster of the two; the other is closed."""
        entrants = [(tuned, classifier)] if self._best is None else [self._best, (tuned, classifier)]
        calls = {str(name): functools.partial(one.outputs, self._x_BCHW) for name, one in entrants}
        times = time_in_turn(calls, rounds=_ROUNDS)
        median_ms = statistics.median(times[str(tuned)])
        if self._best is None:
            self._best, self.latencies_ms[tuned] = (tuned, classifier), median_ms
            return
        best, loser = self._best[0], classifier
        ratio = median_ms / statistics.median(times[str(best)])
        self.latencies_ms[tuned] = ratio * self.latencies_ms[best]
        if ratio < 1:
            loser, self._best = self._best[1], (tuned, classifier)
        loser.close()

    def close(self) -> None:
        """Free the fastest."""
        if self._best is not None:
            self._best[1].close()


def _candidates(manifest: Manifest, excluded: dict[str, str]) -> list[Tuned]:
    """Every variant on every usable device, on the CPU with several numbers of threads."""
    found = []
    for provider in PROVIDERS:
        reason = unusable(provider)
        if reason is not None:
            excluded[provider.device] = reason
            continue
        for variant in manifest.variants:
            if saturates(variant.quantization, provider):
                excluded[f"{variant.name} on {provider.device}"] = "its int8 arithmetic could saturate here"
                continue
            counts = _thread_counts() if provider == CPU else [None]
            found += [Tuned(variant=variant.name, device=provider.device, threads=threads) for threads in counts]
    return found


def _load(bundle: Path, tuned: Tuned, excluded: dict[str, str]) -> Classifier | None:
    """The contender, if it loads and gives PyTorch's answers."""
    try:
        classifier = Classifier.load_exactly(bundle, variant=tuned.variant, device=tuned.device, threads=tuned.threads)
        check(classifier, bundle)
    except ManifestError:
        raise
    except EdgeportError as error:
        excluded[str(tuned)] = str(error)
        return None
    return classifier


def _thread_counts() -> list[int | None]:
    """Powers of two, and all processors."""
    allowed = available_cpus()
    return sorted({allowed, *(2**i for i in range(allowed.bit_length()) if 2**i < allowed)})


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
    variant = manifest.variant(winner["variant"])
    try:
        return prepare(
            bundle,
            variant,
            settings=settings_of(variant, manifest.contract, SessionSettings(threads=winner["threads"])),
            target=target,
        )
    except (OSError, SessionError):  # no room for it, for example: it only saves time
        return None
