"""Measures a bundle on this machine for its report: time, time by layer, golden images, and images of the user's."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.accuracy.dataset import read_images
from edgeport_runtime.accuracy.golden import report_of
from edgeport_runtime.bundle.files import bundle_file, checked_file
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.engine.packages import DISTRIBUTIONS, versions_of
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.engine.session import SessionSettings, profile
from edgeport_runtime.errors import EdgeportError, InputError
from edgeport_runtime.loading.load import settings_of
from edgeport_runtime.report.document import Findings
from edgeport_runtime.report.outcomes import Seen
from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeport_runtime.accuracy.matching import Match
    from edgeport_runtime.bundle.manifest import Manifest
    from edgeport_runtime.engine.session import NodeTime
    from edgeport_runtime.report.record import ExportRecord
    from edgeport_runtime.stream import Streamed

__all__ = ["measure_bundle", "profile_variant", "report_versions", "seen_by"]

_ROUNDS, _LEAST_MS, _ENOUGH_S = 5, 20.0, 30.0
_PROFILED_MS, _LEAST_CALLS, _MOST_CALLS = 150.0, 3, 10


def measure_bundle(
    bundle: Path,
    manifest: Manifest,
    record: ExportRecord | None,
    *,
    device: str = "auto",
    data: str | None = None,
    match: Match = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Run every variant that runs on a device of this machine.

    Args:
        bundle: the folder.
        manifest: its manifest.
        record: what its export left.
        device: by name.
        data: images of the user's, with labels or without; None takes the golden images.
        match: how folders become classes, as of ``evaluate``.
        on_progress: called with (images done, images in all), over all variants.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError: if the device or the images cannot be used.
        SessionError: if a variant fails.
    """
    excluded: dict[str, str] = {}
    with ExitStack() as stack:
        chosen = stack.enter_context(Classifier.load(bundle, device=device))
        assert chosen.variant is not None
        loaded: dict[str, Classifier] = {}
        for variant in manifest.variants:
            try:
                found = Classifier.load_exactly(bundle, variant=variant.name, device=chosen.device)
            except EdgeportError as error:  # which the report tells
                excluded[variant.name] = str(error)
            else:
                loaded[variant.name] = stack.enter_context(found)
        latency = _latencies(loaded)
        shown = [name for name in dict.fromkeys((manifest.variants[0].name, chosen.variant.name)) if name in loaded]
        is_cpu = chosen.device == CPU.device
        seen, note = _seen(bundle, manifest, record, loaded, data, match, on_progress)
        return Findings(
            is_build_machine=False,
            device=chosen.device,
            machine=describe_machine(),
            versions=report_versions(),
            chosen=chosen.variant.name,
            reason=chosen.explain()["reasons"][-1].removeprefix(f"{chosen.variant.name}: "),
            executed={name: str(one.explain()["precision"]) for name, one in loaded.items()},
            latency=latency,
            nodes={name: profile_variant(bundle, manifest, name, latency[name]) for name in shown if is_cpu},
            excluded=excluded,
            seen=seen,
            note=note,
            golden={name: report_of(one, bundle).to_dict() for name, one in loaded.items()},
        )


def report_versions() -> dict[str, str]:
    """Versions of the packages that run a bundle."""
    return versions_of(("edgeport", *DISTRIBUTIONS, "numpy", "pillow"))


def profile_variant(bundle: Path, manifest: Manifest, name: str, latency: Mapping[str, Any]) -> list[NodeTime]:
    """Time of each node of a variant on the CPU, in about a sixth of a second, and at least three calls.

    Args:
        bundle: the folder.
        manifest: its manifest.
        name: of the variant.
        latency: its ``p50_ms`` and ``batch``.
    """
    variant, contract = manifest.variant(name), manifest.contract
    x_BCHW = np.zeros((latency["batch"], *contract.input_shape), np.float32)
    calls = int(np.clip(_PROFILED_MS / max(latency["p50_ms"], 1e-3), _LEAST_CALLS, _MOST_CALLS))
    settings = settings_of(variant, contract, SessionSettings())
    return profile(bundle_file(bundle, variant.file), x_BCHW, provider=CPU, settings=settings, calls=calls)


def _latencies(loaded: Mapping[str, Classifier]) -> dict[str, dict[str, Any]]:
    contract = next(iter(loaded.values())).contract
    batch = contract.batch or 1
    x_BCHW = np.zeros((batch, *contract.input_shape), np.float32)
    calls = {name: functools.partial(classifier.outputs, x_BCHW) for name, classifier in loaded.items()}
    times = time_in_turn(calls, rounds=_ROUNDS, least_ms=_LEAST_MS, enough_s=_ENOUGH_S)
    found = {}
    for name, values in times.items():
        p50, p90 = (round(float(value), 4) for value in np.percentile(values, [50, 90]))
        found[name] = {"p50_ms": p50, "p90_ms": p90, "batch": batch, "runs": len(values)}
    return found


def _seen(
    bundle: Path,
    manifest: Manifest,
    record: ExportRecord | None,
    loaded: Mapping[str, Classifier],
    data: str | None,
    match: Match,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Seen, str | None]:
    """What the variants give for the images, and what is to be known of those."""
    if data is None:
        paths = [checked_file(bundle, image.file, image.sha256) for image in manifest.golden.images]
        is_synthetic = record is not None and record.golden == "synthetic"
        seen = Seen("synthetic" if is_synthetic else "golden", paths, {})
        labelled, note = None, None
    else:
        paths, labelled, note = read_images(data, manifest.contract, match=match)
        seen = Seen("data", paths, {})
    return seen_by(loaded, seen._replace(labelled=labelled), note, on_progress)


def seen_by(
    loaded: Mapping[str, Classifier],
    seen: Seen,
    note: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Seen, str | None]:
    """Run variants on images.

    Args:
        loaded: classifiers by their names.
        seen: the images, without outputs.
        note: what is to be known of them.
        on_progress: called with (images done, images in all), over all variants.

    Returns:
        The images that could be used, with outputs, and the note with how many could not.

    Raises:
        InputError: if none can be used.
    """
    paths = list(seen.images)
    results: dict[str, list[Streamed]] = {}
    for i, (name, classifier) in enumerate(loaded.items()):
        results[name] = []
        for j, result in enumerate(classifier.iter_results(paths)):
            results[name].append(result)
            if on_progress is not None:
                on_progress(i * len(paths) + j + 1, len(loaded) * len(paths))
    usable = [i for i in range(len(paths)) if all(found[i].error is None for found in results.values())]
    if not usable:
        error = next(iter(results.values()))[0].error
        raise InputError(f"none of the {len(paths)} images can be used; the first: {error}")
    if len(usable) < len(paths):
        told = f"{len(paths) - len(usable)} of {len(paths)} images could not be used and are in no figure"
        note = told if note is None else f"{note}; {told}"
    outputs = {
        name: np.stack([outputs_K for i in usable if (outputs_K := found[i].outputs) is not None])
        for name, found in results.items()
    }
    labelled = None if seen.labelled is None else seen.labelled.subset(usable)
    return Seen(seen.source, [paths[i] for i in usable], outputs, labelled), note
