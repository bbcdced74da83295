"""What a bundle contains for places without EdgePort: models that take pixels, ONNX Runtime's own format, scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from edgeport_export.bundle.in_graph import put_in_graph
from edgeport_export.bundle.ort_format import write_operators, write_ort
from edgeport_export.bundle.script import write_c_program, write_infer
from edgeport_export.bundle.wheel import write_wheel
from edgeport_export.graph.model_file import save_model
from edgeport_export.parity.chain import SATURATES
from edgeport_export.parity.compare import FLOAT32_LIMITS
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.bundle.manifest import DataFile
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.loading.choice import saturates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeport_export.config import BundleOptions
    from edgeport_export.parity.chain import Chain
    from edgeport_export.parity.compare import Limits
    from edgeport_export.progress import Progress
    from edgeport_runtime.bundle.manifest import Manifest, Variant

__all__ = ["data_file", "write_models", "write_runtime", "write_scripts"]


def write_models(
    variants: tuple[Variant, ...],
    options: BundleOptions,
    limits: Mapping[str, Limits],
    chain: Chain,
    *,
    bundle: Path,
    progress: Progress,
) -> tuple[Variant, ...]:
    """Write each variant in the other formats that were requested, and compare them.

    Returns:
        The variants with what was written.

    Raises:
        ExportError: if ONNX Runtime cannot write its format.
        ParityError: if one departs.
    """
    if options.has_in_graph:
        variants = tuple(_write_in_graph(v, options, chain, bundle=bundle, progress=progress) for v in variants)
    if options.ort:
        variants = tuple(
            _write_ort(v, chain, limits.get(v.name, FLOAT32_LIMITS), bundle=bundle, progress=progress) for v in variants
        )
        write_operators(bundle, bundle.glob("*.ort"))
    return variants


def write_scripts(manifest: Manifest, options: BundleOptions, bundle: Path) -> None:
    """Write ``infer.py``, and the C program if it was requested."""
    write_infer(bundle, manifest)
    if options.script == "c":
        write_c_program(bundle, manifest)


def write_runtime(bundle: Path) -> DataFile:
    """Write the runtime's wheel into the folder ``runtime``; errors as ``write_wheel``."""
    wheel = write_wheel(bundle / "runtime")
    return replace(data_file(wheel), file=f"runtime/{wheel.name}")


def data_file(path: Path) -> DataFile:
    """What the manifest says about a file of the bundle."""
    return DataFile(file=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _write_in_graph(
    variant: Variant, options: BundleOptions, chain: Chain, *, bundle: Path, progress: Progress
) -> Variant:
    model = onnx.load(bundle / variant.file, load_external_data=False)
    put_in_graph(model, chain.contract.preprocess)
    path = bundle / f"model.{variant.name}.in-graph.onnx"
    save_model(model, path, check=False)
    files = [path]
    if options.ort:
        files.append(path.with_suffix(".ort"))
        write_ort(path, files[-1])
    stages = {f"in-graph {variant.name}{' ort' if file.suffix == '.ort' else ''}": file for file in files}
    if saturates(variant.quantization, CPU):
        for stage in stages:
            chain.skip(stage, SATURATES)
    else:
        with Classifier.load_exactly(bundle, variant=variant.name, device=CPU.device) as classifier:
            for stage, file in stages.items():
                progress.stage(stage)
                chain.check_in_graph(stage, file, classifier, bundle)
    return replace(variant, in_graph=data_file(path), in_graph_ort=data_file(files[-1]) if options.ort else None)


def _write_ort(variant: Variant, chain: Chain, limits: Limits, *, bundle: Path, progress: Progress) -> Variant:
    stage = f"ort {variant.name}"
    progress.stage(stage)
    path = bundle / f"model.{variant.name}.ort"
    write_ort(bundle / variant.file, path)
    chain.check_graph(stage, path, limits=limits)
    return replace(variant, ort=data_file(path))
