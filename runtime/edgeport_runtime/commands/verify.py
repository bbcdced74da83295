"""Checks that this device gives PyTorch's outputs for a bundle's golden images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeport_runtime.accuracy.golden import report_of
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import os

    from edgeport_runtime.accuracy.golden import GoldenReport

__all__ = ["verify"]


def verify(bundle: str | os.PathLike[str], *, variant: str = "auto", device: str = "auto") -> GoldenReport:
    """Replay the golden images of a bundle on this device.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError, SessionError: as ``Classifier.load``.
    """
    if Path(bundle).is_file():
        raise InputError(f"{bundle} is a file; give verify the bundle's folder, which holds the golden images")
    with Classifier.load(bundle, variant=variant, device=device) as classifier:
        return report_of(classifier, Path(bundle))
