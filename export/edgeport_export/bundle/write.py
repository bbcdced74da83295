"""The files of a bundle that describe its models: the golden images and the manifest."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_export.bundle.formats import data_file
from edgeport_export.graph.model_file import data_beside
from edgeport_export.parity.answers import answer_arrays
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.bundle.manifest import Golden, GoldenImage, Manifest, Variant
from edgeport_runtime.engine.packages import DISTRIBUTIONS, versions_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export.config import ExportConfig
    from edgeport_export.parity.compare import ParityReport
    from edgeport_export.parity.inputs import GoldenFile
    from edgeport_export.source.given_file import GivenFile
    from edgeport_export.source.subject import Subject
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.bundle.manifest import DataFile

__all__ = ["manifest_of", "score_tolerance_of", "tolerance_of", "variant_of", "write_golden", "write_json"]

_FP32_TOLERANCE = 1e-4  # of `run-model verify`: a device may order additions differently than the build machine
_SCORE_TOLERANCE = 1e-3  # of probabilities, where logits of a norm of 20 may be off by 1e-4 of it
_PACKAGES = ("edgeport", "torch", "onnx", "onnxscript", "onnxsim", *DISTRIBUTIONS, "numpy", "pillow")


def write_golden(
    bundle: Path, files: list[GoldenFile], reference_BK: NDArray[np.float32], *, contract: Contract, seed: int
) -> Golden:
    """Write the images that the bundle keeps, and PyTorch's outputs and answers for them.

    Args:
        bundle: the folder, which holds a folder ``golden``.
        files: the images of the chain, those that are kept first.
        reference_BK: PyTorch's outputs for the images, in their order; rows beyond those that are kept are left out.
        contract: what the outputs mean.
        seed: of the made-up outputs.
    """
    kept = [file for file in files if file.name is not None]
    images = []
    for file in kept:
        name = f"golden/{file.name}"
        (bundle / name).write_bytes(file.data)
        images.append(GoldenImage(file=name, sha256=hashlib.sha256(file.data).hexdigest()))
    expected = "golden/expected.npz"
    kept_BK = reference_BK[: len(kept)]
    arrays: dict[str, Any] = {contract.output: kept_BK, **answer_arrays(kept_BK, contract, seed=seed)}
    np.savez(bundle / expected, **arrays)
    return Golden(images=tuple(images), expected=expected, sha256=sha256_of(bundle / expected))


def variant_of(path: Path, *, digest: str, **values: Any) -> Variant:
    """The manifest's entry on a model that was written; ``values`` are the fields that its file does not tell."""
    data = data_beside(path)
    return Variant(
        file=path.name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        data=None if data is None else data_file(data),
        in_graph=None,
        ort=None,
        in_graph_ort=None,
        tolerance=_FP32_TOLERANCE,
        **values,
    )


def tolerance_of(relative_l2: float) -> float:
    """Twice what was seen here, to two digits: another machine rounds sums of products otherwise.

    At most halfway from there to 1, which is the distance of outputs that are all zero.
    """
    return max(_FP32_TOLERANCE, min(float(f"{2 * relative_l2:.1e}"), (1 + relative_l2) / 2))


def score_tolerance_of(difference: float) -> float:
    """The same for a probability."""
    return max(_SCORE_TOLERANCE, min(float(f"{2 * difference:.1e}"), (1 + difference) / 2))


def manifest_of(
    subject: Subject | GivenFile,
    config: ExportConfig,
    *,
    golden: Golden,
    variants: tuple[Variant, ...],
    parity: ParityReport,
    runtime: DataFile | None = None,
) -> Manifest:
    """The manifest of an export, with the versions of everything that took part."""
    provenance: dict[str, Any] = dict(versions_of(_PACKAGES))
    return Manifest(
        architecture={
            "name": subject.name,
            "num_params": subject.num_params,
            "source": subject.source,
            "options": subject.options,
        },
        weights=subject.weights,
        contract=subject.contract,
        variants=variants,
        golden=golden,
        parity=tuple(parity.to_dict()),
        provenance={**provenance, "seed": config.seed, "sources": subject.sources},
        runtime=runtime,
    )


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document of JSON types, indented."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
