"""The export, stage by stage."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from edgeport_export.bundle import place, prepare_target, staging
from edgeport_export.chain import Chain
from edgeport_export.config import ExportConfig
from edgeport_export.inputs import golden_files, make_batches, reference_input
from edgeport_export.measure import latency_ms, machine, peak_memory_bytes
from edgeport_export.model_file import data_beside, move_model
from edgeport_export.simplify import simplify
from edgeport_export.subject import Subject, find_subject
from edgeport_export.trace import trace
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.errors import InputError
from edgeport_runtime.manifest import MANIFEST_NAME, DataFile, Golden, GoldenImage, Manifest, Variant, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from edgeport_export.inputs import GoldenFile
    from edgeport_export.parity import ParityReport
    from edgeport_export.trace import Traced

__all__ = ["ExportResult", "export"]

_PACKAGES = ("edgeport", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """A finished export: where the bundle is, and what its manifest says."""

    path: Path
    manifest: Manifest
    parity: ParityReport


class _Recipe(NamedTuple):
    """How a variant is made from the simplified graph."""

    name: str
    precision: str
    scheme: str | None
    tolerance: float  # of `run-model verify`: a device may order additions differently than the build machine
    make: Callable[[Path, Path], None]


def _same_graph(simplified: Path, path: Path) -> None:
    move_model(simplified, path.parent)


_VARIANTS = (_Recipe("fp32", "float32", None, 1e-4, _same_graph),)


@overload
def export(model: ExportConfig, *, on_stage: Callable[[str], None] | None = None) -> ExportResult: ...
@overload
def export(
    model: nn.Module, config: ExportConfig, *, on_stage: Callable[[str], None] | None = None
) -> ExportResult: ...
def export(
    model: nn.Module | ExportConfig,
    config: ExportConfig | None = None,
    *,
    on_stage: Callable[[str], None] | None = None,
) -> ExportResult:
    """Export a classifier to a bundle: ``export(config)``, or ``export(module, config)`` for a module of your own.

    Args:
        model: a module that maps float32 images (B, C, H, W) to logits (B, K), left as it is; or the configuration
            alone, which then names the architecture.
        config: what to export and where.
        on_stage: called with the name of each stage as it begins.

    Raises:
        InputError: if the options contradict each other, or a golden image cannot be used.
        WeightsError: if the checkpoint does not fit.
        TraceError: if the module cannot be captured as a graph; naming the operator and the line of its source.
        ParityError: if a stage departs from PyTorch; no bundle is written.
        ExportError: if anything else stops the export; no bundle is written.
    """
    start = time.perf_counter()
    tell = on_stage or (lambda _stage: None)
    module = None if isinstance(model, ExportConfig) else model
    config = model if isinstance(model, ExportConfig) else config
    if config is None:
        raise InputError("export(module, config) needs an ExportConfig, with the output folder and the image size")
    target = prepare_target(config.output, force=config.force)
    tell("build")
    subject = find_subject(config, module)
    with staging(target) as folder:
        work, bundle = folder / "work", folder / "bundle"
        work.mkdir()
        (bundle / "golden").mkdir(parents=True)
        tell("reference")
        files = golden_files(config.golden, subject.contract.preprocess, seed=config.seed)
        batches = make_batches(_inputs(files, subject), subject.contract, seed=config.seed)
        chain = Chain(subject.module, batches, contract=subject.contract)
        golden = _write_golden(bundle, files, chain.reference_BK, array=subject.contract.output)
        traced = _trace(subject, config, chain, work=work, tell=tell)
        variants = _write_variants(traced, subject, config, chain, bundle=bundle, tell=tell)

        def write(parity: ParityReport) -> Manifest:
            manifest = _manifest(subject, config, golden=golden, variants=variants, parity=parity)
            _write_json(bundle / MANIFEST_NAME, manifest.to_dict())
            return manifest

        write(chain.report)
        measured = _run_variants(variants, chain, bundle=bundle, tell=tell)
        manifest = write(chain.report)
        seconds = round(time.perf_counter() - start, 3)
        totals = {
            "seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(),
            "num_nodes_traced": len(traced.op_types),
        }
        _write_json(bundle / "measurements.json", {"machine": machine(), "variants": measured, "export": totals})
        place(bundle, target, force=config.force)
    return ExportResult(path=target, manifest=manifest, parity=chain.report)


def _run_variants(
    variants: tuple[Variant, ...], chain: Chain, *, bundle: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Compare what each variant gives from image bytes, loaded as a user would; their latencies."""
    measured = {}
    for variant in variants:
        tell(f"runtime {variant.name}")
        with Classifier.load(bundle, variant=variant.name, device="cpu") as classifier:
            chain.check_runtime(f"runtime {variant.name}", classifier, bundle)
            measured[variant.name] = latency_ms(classifier)
    return measured


def _inputs(files: list[GoldenFile], subject: Subject) -> list[NDArray[np.float32]]:
    inputs = []
    for file in files:
        try:
            inputs.append(reference_input(file.data, subject.contract.preprocess))
        except InputError as error:
            raise InputError(f"golden image {file.source}: {error}") from None
    return inputs


def _write_golden(bundle: Path, files: list[GoldenFile], reference_BK: NDArray[np.float32], *, array: str) -> Golden:
    kept = [file for file in files if file.name is not None]
    images = []
    for file in kept:
        name = f"golden/{file.name}"
        (bundle / name).write_bytes(file.data)
        images.append(GoldenImage(file=name, sha256=hashlib.sha256(file.data).hexdigest()))
    expected = "golden/expected.npz"
    arrays: dict[str, Any] = {array: reference_BK[: len(kept)]}
    np.savez(bundle / expected, **arrays)
    return Golden(images=tuple(images), expected=expected, sha256=sha256_of(bundle / expected))


def _trace(subject: Subject, config: ExportConfig, chain: Chain, *, work: Path, tell: Callable[[str], None]) -> Traced:
    tell("trace")
    traced = trace(subject.module, subject.contract, opset=config.opset, path=work / "exported.onnx")
    chain.follow(traced.program)
    tell("exported")
    chain.check_graph("exported", traced.path)
    return traced


def _write_variants(
    traced: Traced,
    subject: Subject,
    config: ExportConfig,
    chain: Chain,
    *,
    bundle: Path,
    tell: Callable[[str], None],
) -> tuple[Variant, ...]:
    tell("simplify")
    simplified = traced.path.with_name("model.fp32.onnx")  # the name by which a model knows the file of its weights
    simplify(traced, subject.contract, simplified)
    tell("simplified")
    chain.check_graph("simplified", simplified)
    variants = []
    for recipe in _VARIANTS:
        tell(f"variant {recipe.name}")
        path = bundle / f"model.{recipe.name}.onnx"
        recipe.make(simplified, path)
        digest = chain.check_graph(f"variant {recipe.name}", path)
        data = data_beside(path)
        variant = Variant(
            name=recipe.name,
            file=path.name,
            precision=recipe.precision,
            scheme=recipe.scheme,
            opset=config.opset,
            sha256=digest,
            size_bytes=path.stat().st_size,
            data=None
            if data is None
            else DataFile(file=data.name, sha256=sha256_of(data), size_bytes=data.stat().st_size),
            tolerance=recipe.tolerance,
        )
        variants.append(variant)
    return tuple(variants)


def _manifest(
    subject: Subject, config: ExportConfig, *, golden: Golden, variants: tuple[Variant, ...], parity: ParityReport
) -> Manifest:
    provenance: dict[str, Any] = {package: metadata.version(package) for package in _PACKAGES}
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
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
