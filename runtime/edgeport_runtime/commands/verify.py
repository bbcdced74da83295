"""Checks that this device gives PyTorch's outputs for a bundle's golden images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edgeport_runtime.accuracy.golden import report_of
from edgeport_runtime.bundle.files import checked_file
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import os

    from edgeport_runtime.accuracy.golden import GoldenReport
    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["verify"]


def verify(bundle: str | os.PathLike[str], *, variant: str = "auto", device: str = "auto") -> GoldenReport:
    """Replay the golden images of a bundle on this device, and check the digests of all models in it.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError, SessionError: as ``Classifier.load``.
    """
    if Path(bundle).is_file():
        raise InputError(
            f"{bundle} is a single file, and verify needs golden images with known outputs, which a bundle holds: give "
            f"its folder, or make one of the file: export-model {shlex.quote(str(bundle))} -o DIR"
        )
    with Classifier.load(bundle, variant=variant, device=device) as classifier:
        assert classifier.manifest is not None
        _check_models(Path(bundle), classifier.manifest)
        return report_of(classifier, Path(bundle))


def _check_models(bundle: Path, manifest: Manifest) -> None:
    """Raise ManifestError if a model is altered: of another variant too, or for places without EdgePort; or the wheel.

    One that is not there was left behind on purpose, to save room.
    """
    for name, sha256 in manifest.digests.items():
        if (bundle / name).exists():
            checked_file(bundle, name, sha256)
