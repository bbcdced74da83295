"""Runs the bundle's own script, which is a second implementation of everything, on the golden images."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.engine.machine import available_cpus
from edgeport_runtime.errors import ParityError

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["check_infer"]


def check_infer(bundle: Path, manifest: Manifest, *, name: str) -> None:
    """Compare what ``infer.py`` answers for the golden images with the original's answers, by the first variant.

    Args:
        bundle: the folder.
        manifest: of the bundle.
        name: of the original.

    Raises:
        ParityError: naming the image, if a label, a decision or a probability is another.
    """
    contract, variant = manifest.contract, manifest.variants[0]
    script: dict[str, Any] = runpy.run_path(str(bundle / "infer.py"))
    session = script["load"](variant.name, threads=available_cpus())
    with np.load(bundle / manifest.golden.expected) as arrays:
        scores_BC, decided_BC = arrays["scores"], arrays["decided"]
    tolerance = variant.score_tolerance or 0.0
    for row, image in enumerate(manifest.golden.images):
        found = script["predict"](session, bundle / image.file, 5)
        for p in found:
            index, expected = p["index"], float(scores_BC[row, p["index"]])
            label = None if contract.labels is None else contract.labels[index]
            # What came quantized decides a tie otherwise than without ONNX Runtime's optimizations.
            is_as_decided = p["is_decided"] == bool(decided_BC[row, index]) or variant.quantization is not None
            is_right = p["label"] == label and is_as_decided
            if not is_right or not abs(p["score"] - expected) <= tolerance:
                raise ParityError(
                    f"stage infer.py: of {image.file} it says {p}, but {name}'s side {label!r} with {expected:.6g}; "
                    "no bundle was written"
                )
