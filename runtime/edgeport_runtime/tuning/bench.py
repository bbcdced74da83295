"""Measures how fast a bundle's variants run on this machine, with everything that a comparison needs."""

from __future__ import annotations

import functools
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.errors import EdgeportError, InputError
from edgeport_runtime.tuning.subprocess_cost import measure_process
from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["bench"]


def bench(
    bundle: Path,
    *,
    variants: Sequence[str] | None = None,
    devices: Sequence[str] = ("auto",),
    batches: Sequence[int] = (1, 8),
    rounds: int = 10,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time variants on devices in turn, each turn after 80 ms of rest and two calls that do not count.

    Args:
        bundle: the folder.
        variants: by name; None for all.
        devices: by name.
        batches: images per call; a bundle with a fixed batch is timed only with that.
        rounds: turns of each contender, three calls each.
        on_progress: called with (done, all) turns of a batch size.

    Returns:
        JSON types: ``machine``, ``versions``, ``rows`` (``variant``, ``device``, ``precision`` as executed, ``batch``,
        ``p50_ms``, ``p90_ms``, ``p99_ms``, ``images_per_s`` at the median, ``times_first`` against the first row of
        the batch size, ``runs``, ``times_ms`` of each call, ``start_ms`` and ``peak_bytes`` of a process of its own),
        and ``excluded`` with the reasons.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError: if a variant is unknown, or none can be run.
    """
    manifest = load_manifest(bundle)
    chosen = [manifest.variant(name) for name in variants] if variants else manifest.variants
    excluded: dict[str, str] = {}
    loaded = _load(bundle, [variant.name for variant in chosen], devices, excluded)
    rows: list[dict[str, Any]] = []
    for batch in [manifest.contract.batch] if manifest.contract.batch else batches:
        rows += _rows(loaded, batch, rounds, on_progress)
    for classifier in loaded.values():
        classifier.close()
    for row in rows:
        row |= measure_process(bundle, variant=row["variant"], device=row["device"], batch=row["batch"])
    return {
        "machine": describe_machine(),
        "versions": {"onnxruntime": import_onnxruntime().__version__, "numpy": np.__version__},
        "rows": rows,
        "excluded": excluded,
    }


def _load(
    bundle: Path, variants: Sequence[str], devices: Sequence[str], excluded: dict[str, str]
) -> dict[str, Classifier]:
    loaded: dict[str, Classifier] = {}
    for device in devices:
        for name in variants:
            try:
                loaded[f"{name} on {device}"] = Classifier.load_exactly(bundle, variant=name, device=device)
            except EdgeportError as error:
                excluded[f"{name} on {device}"] = str(error)
    if not loaded:
        raise InputError(f"no variant can be timed: {'; '.join(excluded.values())}")
    return loaded


def _rows(
    loaded: dict[str, Classifier], batch: int, rounds: int, on_progress: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    x_BCHW = np.zeros((batch, *next(iter(loaded.values())).contract.input_shape), np.float32)
    calls = {name: functools.partial(classifier.outputs, x_BCHW) for name, classifier in loaded.items()}
    times = time_in_turn(calls, rounds=rounds, on_progress=on_progress)
    first = statistics.median(next(iter(times.values())))
    rows = []
    for name, values in times.items():
        told = loaded[name].explain()
        p50, p90, p99 = (float(value) for value in np.percentile(values, [50, 90, 99]))
        rows.append(
            {
                **{key: told[key] for key in ("variant", "device", "precision")},
                "batch": batch,
                "p50_ms": round(p50, 4),
                "p90_ms": round(p90, 4),
                "p99_ms": round(p99, 4),
                "images_per_s": round(1e3 * batch / p50, 1),
                "times_first": round(first / p50, 3),
                "runs": len(values),
                "times_ms": [round(value, 4) for value in values],
            }
        )
    return rows
