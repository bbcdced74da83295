"""``run-model compare``: two models side by side, on images and by the clock."""

from __future__ import annotations

import csv
import functools
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeport_runtime.accuracy.comparison import compare
from edgeport_runtime.accuracy.dataset import Images, read_images
from edgeport_runtime.bundle.files import checked_file
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.errors import InputError
from edgeport_runtime.hub import is_address
from edgeport_runtime.loading.remote import bring_bundle
from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeport_runtime.accuracy.comparison import Comparison, Decided
    from edgeport_runtime.accuracy.matching import Match

__all__ = ["Compared", "Side", "compare_models", "write_flips"]

_ROUNDS = 5


class Side(NamedTuple):
    """One of the two models: what it is called, what ran, its size, and its median time per call."""

    name: str
    variant: str | None
    device: str
    precision: str | None
    size_bytes: int
    latency_ms: float


class Compared(NamedTuple):
    """Both models, the batch that they were timed with, what was found, and what to know of the images, if anything."""

    first: Side
    second: Side
    batch: int
    comparison: Comparison
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "first": self.first._asdict(),
            "second": self.second._asdict(),
            "batch": self.batch,
            "times_first": round(self.first.latency_ms / self.second.latency_ms, 3),
            "note": self.note,
            **self.comparison.to_dict(),
        }


def compare_models(
    first: str,
    second: str,
    *,
    variant: str = "auto",
    devices: Sequence[str] = ("auto",),
    data: str | None = None,
    match: Match = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Compared:
    """Load two models, run both on the same images, and time them in turn at the smallest batch that each takes.

    Args:
        first: a bundle, with ``@VARIANT`` after it or without, or a lone ``.onnx``. A bundle of the hub has its
            revision before the variant: ``hf://OWNER/NAME@REVISION@VARIANT``.
        second: another, or the same.
        variant: of a bundle that names none.
        devices: one for both, or one each.
        data: images; None takes the golden images of the first bundle.
        match: how folders become classes, as of ``evaluate``.
        on_progress: called with (images done, images in all).

    Raises:
        InputError: if the models cannot be compared, or an argument cannot be used.
        ManifestError, SessionError: if a model cannot be loaded or run.
    """
    if len(devices) > 2:
        raise InputError(f"--device takes one device for both models, or two; {len(devices)} are given")
    with ExitStack() as stack:
        loaded = []
        for reference, device in zip((first, second), (devices[0], devices[-1]), strict=True):
            path, chosen = _split(reference)
            found = Classifier.load(path, variant=chosen or (variant if path.is_dir() else "auto"), device=device)
            loaded.append((reference, path, stack.enter_context(found)))
        (_, path_a, a), (_, path_b, b) = loaded
        images = _golden([(path_a, a), (path_b, b)]) if data is None else read_images(data, a.contract, match=match)
        targets = None if images.labelled is None else images.labelled.targets
        comparison = compare(a, b, images.paths, targets, on_progress=on_progress)
        batch = max(a.contract.batch or 1, b.contract.batch or 1)
        calls = {
            str(i): functools.partial(c.outputs, np.zeros((batch, *c.contract.input_shape), np.float32))
            for i, c in enumerate((a, b))
        }
        times = [statistics.median(values) for values in time_in_turn(calls, rounds=_ROUNDS).values()]
        one, other = (_side(*model, latency) for model, latency in zip(loaded, times, strict=True))
    return Compared(one, other, batch, comparison, images.note)


def write_flips(comparison: Comparison, file: Path) -> None:
    """Write a CSV with a row for each image that is decided otherwise, the largest difference first."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened)
        rows.writerow(["image", "first", "first_score", "second", "second_score", "true", "difference"])
        for flip in comparison.flips:
            named = [(_names(side), ";".join(f"{d.score:.6f}" for d in side)) for side in (flip.first, flip.second)]
            true = "" if flip.true is None else ";".join(map(str, flip.true))
            rows.writerow([flip.image, *named[0], *named[1], true, f"{flip.difference:.6f}"])


def _names(side: Sequence[Decided]) -> str:
    return ";".join(str(d.index) if d.label is None else d.label for d in side)


def _split(reference: str) -> tuple[Path, str | None]:
    """A path and the variant after its last ``@``, unless the whole is a path; of the hub, after its second ``@``."""
    path, at, variant = reference.rpartition("@")
    if is_address(reference):
        is_named = "@" in path
        return bring_bundle(path if is_named else reference), variant if is_named else None
    return (Path(reference), None) if not at or Path(reference).exists() else (Path(path), variant)


def _side(name: str, path: Path, classifier: Classifier, latency_ms: float) -> Side:
    variant = classifier.variant
    return Side(
        name=name,
        variant=None if variant is None else variant.name,
        device=classifier.device,
        precision=classifier.explain()["precision"],
        size_bytes=path.stat().st_size if variant is None else variant.total_bytes,
        latency_ms=round(latency_ms, 4),
    )


def _golden(loaded: Sequence[tuple[Path, Classifier]]) -> Images:
    for bundle, classifier in loaded:
        if classifier.manifest is not None:
            golden = classifier.manifest.golden.images
            paths = [checked_file(bundle, image.file, image.sha256) for image in golden]
            return Images(paths, None, "these are the golden images, and few; --data PATH compares on your own")
    raise InputError("two lone .onnx have no golden images; give images with --data")
