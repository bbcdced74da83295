"""The export, stage by stage."""

from __future__ import annotations

import contextlib
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgeport_export.bundle.card import write_card
from edgeport_export.bundle.check_infer import check_infer
from edgeport_export.bundle.formats import write_models, write_runtime, write_scripts
from edgeport_export.bundle.in_graph import check_in_graph
from edgeport_export.bundle.latency import latencies
from edgeport_export.bundle.place import place, prepare_target, staging
from edgeport_export.bundle.report import write_report
from edgeport_export.bundle.side_files import write_evidence, write_features
from edgeport_export.bundle.write import (
    manifest_of,
    score_tolerance_of,
    tolerance_of,
    write_golden,
    write_json,
)
from edgeport_export.config import ExportConfig
from edgeport_export.parity.chain import SATURATES, Chain
from edgeport_export.parity.compare import FLOAT32_LIMITS, check_comparison
from edgeport_export.parity.inputs import golden_files, make_batches, reference_input
from edgeport_export.parity.probes import probe_images
from edgeport_export.parity.torch_original import TorchOriginal
from edgeport_export.parity.witness import confirmed_pixels
from edgeport_export.progress import Progress
from edgeport_export.source.given_file import GivenFile, find_given, is_given
from edgeport_export.source.normalization import odd_normalization
from edgeport_export.source.resolve import COMMAND_LINE
from edgeport_export.source.subject import Subject, find_subject
from edgeport_export.stages import leave_out, make_models
from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.bundle.manifest import MANIFEST_NAME, Manifest, Variant
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.machine import describe_machine, peak_memory_bytes
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.errors import ImageWarning, InputError, ParityError
from edgeport_runtime.loading.choice import MEASUREMENTS_NAME, saturates

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from edgeport_export.graph.trace import Traced
    from edgeport_export.parity.compare import ParityReport
    from edgeport_export.parity.inputs import GoldenFile
    from edgeport_export.stages import Models
    from edgeport_export.variants import Made

__all__ = ["ExportResult", "export"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """A finished export.

    Attributes:
        path: the bundle.
        manifest: its manifest.
        parity: the stages of its chain.
        made: how each variant except ``fp32`` was made, in order.
        measured: latencies of each variant on this machine.
        notes: what was found in a module of the user's own, and what was not compared; what each graph pass changed,
            and why it left what it left; variants that were left out, and why.
    """

    path: Path
    manifest: Manifest
    parity: ParityReport
    made: tuple[Made, ...]
    measured: dict[str, dict[str, Any]]
    notes: tuple[str, ...]


@overload
def export(model: ExportConfig, *, progress: Progress | None = None) -> ExportResult: ...
@overload
def export(model: nn.Module, config: ExportConfig, *, progress: Progress | None = None) -> ExportResult: ...
def export(
    model: nn.Module | ExportConfig, config: ExportConfig | None = None, *, progress: Progress | None = None
) -> ExportResult:
    """Export a classifier to a bundle: ``export(config)``, or ``export(module, config)`` for a module of your own.

    Args:
        model: a module that maps float32 images (B, C, H, W) to logits (B, K), left as it is; or the configuration
            alone, which then names the architecture.
        config: what to export and where.
        progress: is told when a stage begins, and how far a long one has come.

    Raises:
        InputError: if the options contradict each other, or an image cannot be used.
        WeightsError: if the checkpoint does not fit.
        TraceError: naming the operator and the line of source, if the module cannot be captured as a graph.
        ParityError: if a stage departs from PyTorch, or from the ``.onnx`` file that was given; no bundle is written.
        AccuracyError: if a quantized variant that was asked for loses too much; no bundle is written.
        ExportError: if anything else stops the export; no bundle is written.
    """
    start = time.perf_counter()
    progress = progress or Progress()
    module = None if isinstance(model, ExportConfig) else model
    config = model if isinstance(model, ExportConfig) else config
    if config is None:
        raise InputError("export(module, config) needs an ExportConfig with the output folder and the image size")
    target = prepare_target(config.output, force=config.force)
    progress.stage("build")
    subject = _find(config, module)
    original = subject.original if isinstance(subject, GivenFile) else TorchOriginal(subject.module)
    with staging(target) as folder:
        work, bundle = folder / "work", folder / "bundle"
        work.mkdir()
        (bundle / "golden").mkdir(parents=True)
        runtime = write_runtime(bundle) if config.with_runtime else None
        progress.stage("reference")
        files = golden_files(config.golden, subject.contract.preprocess, seed=config.seed)
        batches = make_batches(_inputs(files, subject, config), subject.contract, seed=config.seed)
        chain = Chain(original, batches, contract=subject.contract, num_images=len(files))
        check_comparison(chain.reference_BK, subject.contract, seed=config.seed)
        golden = write_golden(bundle, files, chain.reference_BK, contract=subject.contract, seed=config.seed)
        models = make_models(
            subject,
            original,
            config,
            chain,
            own_golden=() if config.golden is None else [Path(file.source) for file in files],
            work=work,
            bundle=bundle,
            progress=progress,
        )

        def write(variants: tuple[Variant, ...]) -> Manifest:
            manifest = manifest_of(
                subject, config, golden=golden, variants=variants, parity=chain.report, runtime=runtime
            )
            write_json(bundle / MANIFEST_NAME, manifest.to_dict())
            return manifest

        write(models.variants)
        variants, measured, more = _run_variants(models, chain, bundle=bundle, progress=progress)
        made = tuple(m for m in models.made if any(m.plan.name == variant.name for variant in variants))
        variants = write_models(variants, config.bundle_options, models.limits, chain, bundle=bundle, progress=progress)
        variants, told = _write_beside(variants, subject, config, models, chain, bundle=bundle, progress=progress)
        manifest = write(variants)
        write_scripts(manifest, config.bundle_options, bundle)
        progress.stage("infer.py")
        check_infer(bundle, manifest, name=original.name)
        seconds = time.perf_counter() - start
        _write_measurements(bundle, measured, seconds=seconds, traced=models.traced)
        notes = [*_notes_on_input(subject), *subject.notes, *chain.notes, *models.notes, *more, *told]
        progress.stage("report")
        report = write_report(
            bundle,
            manifest,
            config,
            made=made,
            measured=measured,
            notes=notes,
            seconds=seconds,
            is_module=module is not None,
        )
        notes += [] if report.missing is None else [report.missing]
        write_card(bundle, manifest, measured, accuracy=report.accuracy, is_synthetic=config.golden is None)
        place(bundle, target, force=config.force)
    return ExportResult(
        path=target, manifest=manifest, parity=chain.report, made=made, measured=measured, notes=tuple(notes)
    )


def _find(config: ExportConfig, module: nn.Module | None) -> Subject | GivenFile:
    """What is exported; what cannot be done with it, or with the labels, is said before anything takes long."""
    subject = find_given(config) if module is None and is_given(config) else find_subject(config, module)
    if isinstance(subject, GivenFile) and config.features:
        raise InputError("--features compares with a module of PyTorch, and an .onnx file has none; omit --features")
    if config.eval is not None:
        read_labelled_images(config.eval, subject.contract, match=config.match)
    if isinstance(subject, Subject) and config.bundle_options.has_in_graph:
        check_in_graph(subject.contract.preprocess, config.opset)
    return subject


def _write_beside(
    variants: tuple[Variant, ...],
    subject: Subject | GivenFile,
    config: ExportConfig,
    models: Models,
    chain: Chain,
    *,
    bundle: Path,
    progress: Progress,
) -> tuple[tuple[Variant, ...], list[str]]:
    """The graphs beside the variants' own that were asked for, and notes on them."""
    notes: list[str] = []
    if config.evidence:
        variants, told = write_evidence(variants, models.limits, chain, bundle=bundle, progress=progress)
        notes += told
    if config.features and isinstance(subject, Subject):
        module, limits = subject.module, models.limits
        variants, told = write_features(variants, module, limits, chain, bundle=bundle, progress=progress)
        notes += told
    return variants, notes


def _notes_on_input(subject: Subject | GivenFile) -> list[str]:
    """What may be a slip of the user's."""
    is_given = COMMAND_LINE in (subject.sources.get("mean"), subject.sources.get("std"))
    note = odd_normalization(subject.contract.preprocess) if is_given else None
    return [] if note is None else [note]


def _write_measurements(bundle: Path, measured: dict[str, Any], *, seconds: float, traced: Traced) -> None:
    """What differs from one export to the next stands beside the manifest, not in it."""
    totals = {
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory_bytes(),
        "num_nodes_traced": len(traced.op_types),
    }
    write_json(bundle / MEASUREMENTS_NAME, {"machine": describe_machine(), "variants": measured, "export": totals})


def _run_variants(
    models: Models, chain: Chain, *, bundle: Path, progress: Progress
) -> tuple[tuple[Variant, ...], dict[str, Any], list[str]]:
    """Compare what each variant gives from image bytes, loaded the way a user loads it.

    Returns:
        The variants with what `run-model verify` accepts from them, their latencies, and which were left out, and why.
    """
    limits, not_asked = models.limits, {m.plan.name for m in models.made if not m.plan.is_asked}
    checked, notes = [], []
    with ExitStack() as stack:
        loaded = {}
        for variant in models.variants:
            stage = f"runtime {variant.name}"
            progress.stage(stage)
            if saturates(variant.quantization, CPU):
                chain.skip(stage, SATURATES)
                checked.append(replace(variant, tolerance=limits[variant.name].relative_l2))
                continue
            classifier = stack.enter_context(Classifier.load_exactly(bundle, variant=variant.name, device=CPU.device))
            loaded[variant.name] = classifier
            limit = limits.get(variant.name, FLOAT32_LIMITS)
            try:
                report, answers = chain.check_runtime(stage, classifier, bundle, limits=limit)
            except ParityError as error:
                if variant.name not in not_asked:
                    raise
                del loaded[variant.name]
                notes.append(leave_out(variant.name, error, chain, bundle))
                continue
            found = replace(
                variant,
                tolerance=tolerance_of(report.relative_l2),
                num_equal=answers.num_equal,
                score_tolerance=score_tolerance_of(answers.max_difference),
            )
            checked.append(found)
        progress.stage("latency")
        return tuple(checked), latencies(loaded), notes


def _inputs(files: list[GoldenFile], subject: Subject | GivenFile, config: ExportConfig) -> list[NDArray[np.float32]]:
    """The golden images as the network takes them, and proof that the runtime prepares images by the contract."""
    spec = subject.contract.preprocess
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)  # of what these images are made for
        for name, data in probe_images(spec, seed=config.seed):
            confirmed_pixels(data, spec, source=name)
    inputs = []
    for file in files:
        try:
            with _warnings_naming(f"golden image {file.source}"):
                inputs.append(reference_input(file.data, spec, source=file.source))
        except InputError as error:
            raise InputError(f"golden image {file.source}: {error}") from None
    return inputs


@contextlib.contextmanager
def _warnings_naming(image: str) -> Iterator[None]:
    """Let what is warned of an image that is given as bytes name the file that it came from."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default", ImageWarning)
        yield
    for warning in seen:
        message = warning.message
        told = ImageWarning(str(message), image=image) if isinstance(message, ImageWarning) else message
        warnings.warn_explicit(told, warning.category, warning.filename, warning.lineno)
