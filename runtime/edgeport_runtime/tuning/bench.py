"""Measures how fast a bundle's variants run on this machine, with everything that a comparison needs."""

from __future__ import annotations

import functools
import html
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

__all__ = ["bench", "plot"]


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
        the batch size, ``runs``, ``start_ms`` and ``peak_bytes`` of a process of its own), and ``excluded`` with the
        reasons.

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
            }
        )
    return rows


def plot(result: dict[str, Any], title: str) -> str:
    """The median times as bars, an SVG document; a thin line goes from the median to the 99th percentile."""
    rows, height, left, width = result["rows"], 26, 230, 420
    longest = max(row["p99_ms"] / row["batch"] for row in rows)
    machine = f"{result['machine']['cpu']}, {result['machine']['num_cpus']} processors"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 110}" height="{70 + height * len(rows)}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{html.escape(title)}: milliseconds per image, lower is better</text>',
        f'<text x="10" y="42" fill="#555">{html.escape(machine)}</text>',
    ]
    for i, row in enumerate(rows):
        y, median, last = 56 + i * height, row["p50_ms"] / row["batch"], row["p99_ms"] / row["batch"]
        label = html.escape(f"{row['variant']} on {row['device']}, batch {row['batch']}")
        bar, end = left + width * median / longest, left + width * last / longest
        parts += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{label}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{bar - left:.1f}" height="16" fill="#3b6ea5"/>',
            f'<path d="M{bar:.1f} {y + 10}H{end:.1f}" stroke="#222"/>',
            f'<text x="{end + 6:.1f}" y="{y + 14}">{median:.3g}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
