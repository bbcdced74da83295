"""Runs a bundle's golden images and compares the outputs with PyTorch's."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.bundle.files import bundle_file, sha256_of
from edgeport_runtime.errors import ManifestError, ParityError
from edgeport_runtime.outputs.metrics import relative_l2, relative_l2_of_all
from edgeport_runtime.outputs.tasks import decisions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.protocol import RunsImages
    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["GoldenReport", "check", "replay", "report_of"]

_MAX_EXPECTED_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenReport:
    """How far this device's outputs are from PyTorch's.

    Attributes:
        variant: name of the variant that ran.
        device: where it ran.
        num_images: how many images were replayed.
        relative_l2: the worst image's distance; of a quantized variant that of all images together.
        num_equal: images with the same decisions, such as top-1.
        tolerance: largest distance accepted.
        num_equal_needed: fewest such images accepted: a quantized variant may decide some otherwise.
    """

    variant: str
    device: str
    num_images: int
    relative_l2: float
    num_equal: int
    tolerance: float
    num_equal_needed: int

    @property
    def passed(self) -> bool:
        """True if every image is within the tolerance, and as many decisions are PyTorch's as on the build machine."""
        return self.relative_l2 <= self.tolerance and self.num_equal >= self.num_equal_needed

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; an infinite distance (a norm of zero or not finite) becomes null."""
        values = {field: getattr(self, field) for field in self.__slots__}
        if not np.isfinite(self.relative_l2):
            values["relative_l2"] = None
        return {**values, "passed": self.passed}


def check(classifier: RunsImages, bundle: Path) -> None:
    """Replay the golden images of a bundle with a classifier that was loaded from it.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        ParityError: if the outputs are not PyTorch's.
    """
    report = report_of(classifier, bundle)
    if not report.passed:
        precision = classifier.explain()["precision"]
        raise ParityError(
            f"{report.variant} on {report.device} (in {precision}) does not give what PyTorch computes: relative L2 "
            f"{report.relative_l2:.2g} (at most {report.tolerance:.1g}), same decision on {report.num_equal} of "
            f"{report.num_images} golden images (at least {report.num_equal_needed}); choose another device or variant"
        )


def report_of(classifier: RunsImages, bundle: Path) -> GoldenReport:
    """Replay the golden images.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError, SessionError: if an image or the model cannot be used.
    """
    outputs_BK, expected_BK = replay(classifier, bundle)
    ours, expected = (decisions(values, classifier.contract) for values in (outputs_BK, expected_BK))
    if classifier.variant is None:
        raise ManifestError(f"{bundle} is not an EdgePort bundle")
    return GoldenReport(
        variant=classifier.variant.name,
        device=classifier.device,
        num_images=len(expected_BK),
        relative_l2=float(relative_l2(outputs_BK, expected_BK).max())
        if classifier.variant.quantization is None
        else relative_l2_of_all(outputs_BK, expected_BK),
        num_equal=int((ours == expected).all(axis=1).sum()),
        tolerance=classifier.variant.tolerance,
        num_equal_needed=classifier.variant.num_equal,
    )


def replay(classifier: RunsImages, bundle: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The outputs for the golden images, from their bytes: this device's and PyTorch's, both (images, K) float32.

    Raises:
        ManifestError: if a golden file is missing or altered.
    """
    manifest = classifier.manifest
    if manifest is None:
        raise ManifestError("a lone .onnx has no golden images; use the bundle's folder")
    images = []
    for image in manifest.golden.images:
        path = bundle_file(bundle, image.file)
        if sha256_of(path) != image.sha256:
            raise ManifestError(
                f"{image.file} is not the image that was exported (its SHA-256 differs); copy the bundle again"
            )
        images.append(path)
    return np.stack(list(classifier.iter_outputs(images))), _expected(bundle, manifest)


def _expected(bundle: Path, manifest: Manifest) -> NDArray[np.float32]:
    golden = manifest.golden
    path = bundle_file(bundle, golden.expected)
    if sha256_of(path) != golden.sha256:
        raise ManifestError(
            f"{golden.expected} is not the file that was exported (its SHA-256 differs); copy the bundle again"
        )
    array = f"{manifest.contract.output}.npy"
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(array).file_size > _MAX_EXPECTED_BYTES:
                raise ManifestError(f"{golden.expected} is larger than {_MAX_EXPECTED_BYTES} bytes")
            expected_BK: NDArray[np.float32] = np.load(io.BytesIO(archive.read(array)), allow_pickle=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{golden.expected} cannot be read: {error}") from None
    wanted = (len(golden.images), manifest.contract.num_outputs)
    if expected_BK.dtype != np.float32 or expected_BK.shape != wanted:
        raise ManifestError(f"{golden.expected} holds {expected_BK.dtype} {expected_BK.shape}, not float32 {wanted}")
    return expected_BK
