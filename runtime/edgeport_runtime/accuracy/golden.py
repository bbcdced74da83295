"""Runs a bundle's golden images and compares outputs and answers with PyTorch's."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeport_runtime.accuracy.answers import Answers, answers_in, check_answers
from edgeport_runtime.bundle.files import checked_file
from edgeport_runtime.errors import ManifestError, ParityError
from edgeport_runtime.outputs.metrics import relative_l2, relative_l2_of_all
from edgeport_runtime.outputs.tasks import compared, decisions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.protocol import RunsImages
    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["GoldenReport", "Replayed", "check", "expected_of", "replay", "report_of"]

_MAX_EXPECTED_BYTES = 256 * 2**20
# Whatever a manifest says: no export writes more for float32, and outputs that are all zero are at a distance of 1.
_MAX_TOLERANCE_FLOAT32, _MAX_TOLERANCE = 1e-2, 0.99


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
        score_difference: largest difference of a probability from PyTorch's; None for a bundle without answers.
        problem: what ``predict`` or ``stream`` answered that cannot be right, or None.
    """

    variant: str
    device: str
    num_images: int
    relative_l2: float
    num_equal: int
    tolerance: float
    num_equal_needed: int
    score_difference: float | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """True if distance, decisions and answers are as they must be."""
        is_near = self.relative_l2 <= self.tolerance and self.num_equal >= self.num_equal_needed
        return is_near and self.problem is None

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
        ParityError: if the outputs or answers are not PyTorch's.
    """
    report = report_of(classifier, bundle)
    if not report.passed:
        precision = classifier.explain()["precision"]
        problem = "" if report.problem is None else f"; {report.problem}"
        raise ParityError(
            f"{report.variant} on {report.device} (in {precision}) does not give what PyTorch computes: relative L2 "
            f"{report.relative_l2:.2g} (at most {report.tolerance:.1g}), same decision on {report.num_equal} of "
            f"{report.num_images} golden images (at least {report.num_equal_needed}){problem}; "
            "choose another device or variant"
        )


def report_of(classifier: RunsImages, bundle: Path) -> GoldenReport:
    """Replay the golden images, through ``iter_outputs``, ``predict`` and ``stream``.

    Raises:
        ManifestError: if the bundle is incomplete or altered.
        InputError, SessionError: if an image or the model cannot be used.
    """
    if classifier.variant is None:
        raise ManifestError("a lone .onnx has no golden images; use the bundle's folder")
    golden = replay(classifier, bundle)
    contract, variant = classifier.contract, classifier.variant
    ours, expected = (decisions(values, contract) for values in (golden.outputs, golden.expected))
    distance = relative_l2 if variant.quantization is None else relative_l2_of_all
    num_equal, answers = int((ours == expected).all(axis=1).sum()), None
    if golden.answers is not None:
        answers = check_answers(classifier, golden.images, golden.answers, tolerance=variant.score_tolerance or 1.0)
        num_equal = min(num_equal, answers.num_equal)
    return GoldenReport(
        variant=variant.name,
        device=classifier.device,
        num_images=len(golden.images),
        relative_l2=float(np.max(distance(*compared(golden.outputs, golden.expected, contract)))),
        num_equal=num_equal,
        tolerance=min(variant.tolerance, _MAX_TOLERANCE_FLOAT32 if variant.quantization is None else _MAX_TOLERANCE),
        num_equal_needed=variant.num_equal,
        score_difference=None if answers is None else answers.max_difference,
        problem=None if answers is None else answers.problem,
    )


class Replayed(NamedTuple):
    """What the golden images give.

    Attributes:
        images: their files.
        outputs: this device's, float32 (images, K).
        expected: PyTorch's, float32 (images, K).
        answers: what PyTorch's side answers; None for a bundle of schema version 1.
    """

    images: list[Path]
    outputs: NDArray[np.float32]
    expected: NDArray[np.float32]
    answers: Answers | None


def replay(classifier: RunsImages, bundle: Path) -> Replayed:
    """The outputs for the golden images, from their bytes.

    Raises:
        ManifestError: if a golden file is missing or altered, or lacks what the manifest speaks of.
    """
    manifest = classifier.manifest
    if manifest is None:
        raise ManifestError("a lone .onnx has no golden images; use the bundle's folder")
    images = [checked_file(bundle, image.file, image.sha256) for image in manifest.golden.images]
    arrays = _arrays(bundle, manifest)
    expected_BK = _expected_in(arrays, manifest)
    answers = answers_in(arrays, manifest.contract, num_images=len(images))
    if answers is None and any(variant.score_tolerance is not None for variant in manifest.variants):
        raise ManifestError(
            f"{manifest.golden.expected} holds no answers, but the manifest is of a bundle that has them; copy the "
            "bundle again"
        )
    return Replayed(images, np.stack(list(classifier.iter_outputs(images))), expected_BK, answers)


def expected_of(bundle: Path, manifest: Manifest) -> NDArray[np.float32]:
    """PyTorch's outputs for the golden images (images, K); errors as ``replay``."""
    return _expected_in(_arrays(bundle, manifest), manifest)


def _expected_in(arrays: dict[str, NDArray[Any]], manifest: Manifest) -> NDArray[np.float32]:
    expected_BK = arrays.get(manifest.contract.output)
    wanted = (len(manifest.golden.images), manifest.contract.num_outputs)
    if expected_BK is None or expected_BK.dtype != np.float32 or expected_BK.shape != wanted:
        told = "nothing" if expected_BK is None else f"{expected_BK.dtype} {expected_BK.shape}"
        raise ManifestError(
            f"{manifest.golden.expected} holds {told} as {manifest.contract.output}, not float32 {wanted}"
        )
    return expected_BK.astype(np.float32)


def _arrays(bundle: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    golden = manifest.golden
    path = checked_file(bundle, golden.expected, golden.sha256)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_EXPECTED_BYTES:
                raise ManifestError(f"{golden.expected} is larger than {_MAX_EXPECTED_BYTES} bytes")
            return {
                name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
            }
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{golden.expected} cannot be read: {error}") from None
