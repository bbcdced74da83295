"""What a bundle holds for places without EdgePort: models that take pixels, ONNX Runtime's own format, and scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from edgeport_export.bundle.in_graph import put_in_graph
from edgeport_export.bundle.ort_format import write_operators, write_ort
from edgeport_export.bundle.script import write_c_program, write_infer
from edgeport_export.graph.model_file import save_model
from edgeport_export.parity.compare import FLOAT32_LIMITS
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.bundle.manifest import DataFile
from edgeport_runtime.classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeport_export.config import ExportConfig
    from edgeport_export.parity.chain import Chain
    from edgeport_export.parity.compare import Limits
    from edgeport_export.progress import Progress
    from edgeport_runtime.bundle.manifest import Manifest, Variant

__all__ = ["data_file", "write_models", "write_scripts"]


def write_models(
    variants: tuple[Variant, ...],
    config: ExportConfig,
    limits: Mapping[str, Limits],
    chain: Chain,
    *,
    bundle: Path,
    progress: Progress,
) -> tuple[Variant, ...]:
    """Write each variant once more in the forms that were asked for, and compare.

    Returns:
        The variants with what was written.

    Raises:
        ExportError: if ONNX Runtime cannot write its format.
        ParityError: if one departs.
    """
    if config.has_in_graph:
        variants = tuple(_write_in_graph(v, config, chain, bundle=bundle, progress=progress) for v in variants)
    if config.ort:
        variants = tuple(
            _write_ort(v, chain, limits.get(v.name, FLOAT32_LIMITS), bundle=bundle, progress=progress) for v in variants
        )
        write_operators(bundle, bundle.glob("*.ort"))
    return variants


def write_scripts(manifest: Manifest, config: ExportConfig, bundle: Path) -> None:
    """Write ``infer.py``, and the C program where it was asked for."""
    write_infer(bundle, manifest)
    if config.script == "c":
        write_c_program(bundle, manifest)


def data_file(path: Path) -> DataFile:
    """What the manifest says of a file of the bundle."""
    return DataFile(file=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _write_in_graph(
    variant: Variant, config: ExportConfig, chain: Chain, *, bundle: Path, progress: Progress
) -> Variant:
    stage = f"in-graph {variant.name}"
    progress.stage(stage)
    with Classifier.load(bundle, variant=variant.name, device="cpu") as classifier:
        model = onnx.load(bundle / variant.file, load_external_data=False)
        put_in_graph(model, classifier.contract.preprocess)
        path = bundle / f"model.{variant.name}.in-graph.onnx"
        save_model(model, path, check=False)
        chain.check_in_graph(stage, path, classifier, bundle)
        if not config.ort:
            return replace(variant, in_graph=data_file(path))
        converted = path.with_suffix(".ort")
        write_ort(path, converted)
        chain.check_in_graph(f"{stage} ort", converted, classifier, bundle)
    return replace(variant, in_graph=data_file(path), in_graph_ort=data_file(converted))


def _write_ort(variant: Variant, chain: Chain, limits: Limits, *, bundle: Path, progress: Progress) -> Variant:
    stage = f"ort {variant.name}"
    progress.stage(stage)
    path = bundle / f"model.{variant.name}.ort"
    write_ort(bundle / variant.file, path)
    chain.check_graph(stage, path, limits=limits)
    return replace(variant, ort=data_file(path))
