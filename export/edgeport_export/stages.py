"""The graphs of an export: traced or taken as they are, simplified, quantized, and each compared with the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx

from edgeport_export.bundle.side_files import check_features
from edgeport_export.bundle.write import variant_of
from edgeport_export.graph.lower import OLDEST_TRACED, lower
from edgeport_export.graph.model_file import data_beside, move_model
from edgeport_export.graph.onnx_file import opset_of
from edgeport_export.graph.simplify import simplify
from edgeport_export.graph.trace import trace
from edgeport_export.parity.torch_original import TorchOriginal
from edgeport_export.source.given_file import GivenFile, limits_of
from edgeport_export.source.subject import Subject
from edgeport_export.variants import Workshop, plan_variants
from edgeport_runtime.errors import ExportError, ParityError, QuantizeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeport_export.config import ExportConfig
    from edgeport_export.graph.trace import Traced
    from edgeport_export.parity.chain import Chain
    from edgeport_export.parity.compare import Limits
    from edgeport_export.parity.original import Original
    from edgeport_export.progress import Progress
    from edgeport_export.variants import Made
    from edgeport_runtime.bundle.manifest import Variant

__all__ = ["Models", "leave_out", "make_models"]


class Models(NamedTuple):
    """What was written: the traced graph, the variants, how EdgePort quantized those that it did, and their limits."""

    traced: Traced
    variants: tuple[Variant, ...]
    made: tuple[Made, ...]
    limits: dict[str, Limits]
    notes: tuple[str, ...]


def make_models(
    subject: Subject | GivenFile,
    original: Original,
    config: ExportConfig,
    chain: Chain,
    *,
    own_golden: Sequence[Path],
    work: Path,
    bundle: Path,
    progress: Progress,
) -> Models:
    """Trace, or take the file that was given, and write each variant, every one compared with the original."""
    if isinstance(subject, GivenFile):
        subject.check_original(chain)
        traced = _adapt(subject, chain, work=work, progress=progress)
        opset = subject.opset
        if subject.quantized is not None:
            first, limits = _write_as_it_is(subject, traced, chain, bundle=bundle, progress=progress)
            return Models(traced, (first,), (), limits, ())
    else:
        traced = _trace(subject, original, config, chain, work=work, progress=progress)
        opset = config.opset
    first, source, notes = _write_fp32(traced, subject, opset, chain, bundle=bundle, progress=progress)
    if config.features:
        check_features(source)
    made, others, more = _write_quantized(
        source, subject, opset, config, chain, own_golden=own_golden, bundle=bundle, progress=progress
    )
    limits = {m.plan.name: m.limits for m in made}
    return Models(traced, (first, *others), made, limits, (*notes, *more))


def _trace(
    subject: Subject, original: Original, config: ExportConfig, chain: Chain, *, work: Path, progress: Progress
) -> Traced:
    progress.stage("trace")
    opset = max(config.opset, OLDEST_TRACED)
    traced = trace(subject.module, subject.contract, opset=opset, path=work / "exported.onnx")
    if isinstance(original, TorchOriginal) and traced.program is not None:
        original.follow(traced.program)
    progress.stage("exported")
    chain.check_graph("exported", traced.path, few=True)
    return traced


def _adapt(subject: GivenFile, chain: Chain, *, work: Path, progress: Progress) -> Traced:
    progress.stage("adapted")
    traced = subject.write(work / "adapted.onnx")
    chain.check_graph("adapted", traced.path, limits=limits_of(subject))
    return traced


def _write_as_it_is(
    subject: GivenFile, traced: Traced, chain: Chain, *, bundle: Path, progress: Progress
) -> tuple[Variant, dict[str, Limits]]:
    """A model that came quantized, as the one variant."""
    assert subject.quantized is not None
    name, precision, details = subject.quantized
    stage, limits = f"variant {name}", limits_of(subject)
    progress.stage(stage)
    path = bundle / f"model.{name}.onnx"
    subject.write_as_it_is(path)
    digest = chain.check_graph(stage, path, limits=limits)
    values = {"name": name, "precision": precision, "quantization": details, "opset": traced.opset, "num_equal": 0}
    return variant_of(path, digest=digest, **values), {name: limits}


def _write_fp32(
    traced: Traced, subject: Subject | GivenFile, opset: int, chain: Chain, *, bundle: Path, progress: Progress
) -> tuple[Variant, Path, tuple[str, ...]]:
    """The variant, the model that the others are made from, and what the passes did."""
    progress.stage("simplify")
    simplified = traced.path.with_name("model.fp32.onnx")  # the name by which a model knows the file of its weights
    notes = simplify(traced, subject.contract, simplified)
    progress.stage("simplified")
    try:
        chain.check_graph("simplified", simplified)
    except ParityError:
        if isinstance(subject, Subject):
            chain.check_graph("exported", traced.path)  # on all inputs this time: it may be the one to blame
        raise
    progress.stage("variant fp32")
    # What quantizes takes the newer operators, by which it knows the parts of a network.
    source, path = simplified, bundle / simplified.name
    if opset < traced.opset:
        lower(source, path, opset)
    else:
        source = path = move_model(simplified, bundle)
    digest = chain.check_graph("variant fp32", path)
    variant = variant_of(
        path,
        name="fp32",
        precision="float32",
        quantization=None,
        digest=digest,
        opset=opset,
        num_equal=0,
    )
    return variant, source, tuple(notes)


def _write_quantized(
    source: Path,
    subject: Subject | GivenFile,
    opset: int,
    config: ExportConfig,
    chain: Chain,
    *,
    own_golden: Sequence[Path],
    bundle: Path,
    progress: Progress,
) -> tuple[tuple[Made, ...], tuple[Variant, ...], tuple[str, ...]]:
    if config.quantize == ():
        return (), (), ()
    graph = onnx.load(source, load_external_data=False)
    planned = plan_variants(config.quantize_options, graph, is_random=subject.weights["source"] == "random")
    notes = [] if planned.note is None else [planned.note]
    if not planned.plans:
        return (), (), tuple(notes)
    progress.stage("calibration")
    workshop = Workshop(
        source,
        config.quantize_options,
        subject.contract,
        planned,
        golden=chain.images,
        golden_files=own_golden,
        on_progress=progress.count,
    )
    made, variants = [], []
    for plan in planned.plans:
        progress.stage(f"quantize {plan.name}")
        path = bundle / f"model.{plan.name}.onnx"
        try:
            result = workshop.make(plan, path)
            variants.append(_check_made(result, path, opset, chain, progress=progress))
        except (ParityError, QuantizeError) as error:
            if plan.is_asked:
                raise
            notes.append(leave_out(plan.name, error, chain, bundle))
            continue
        made.append(result)
        notes += [f"{plan.name}: {note}" for note in result.notes]
    return tuple(made), tuple(variants), tuple(notes)


def leave_out(name: str, error: ExportError, chain: Chain, bundle: Path) -> str:
    """Take away a variant that nobody asked for, and say why there is none."""
    chain.forget(name)
    path = bundle / f"model.{name}.onnx"
    for file in (path, data_beside(path)):
        if file is not None:
            file.unlink(missing_ok=True)
    reason = str(error).removesuffix("; no bundle was written")
    return f"no {name} variant: {reason}"


def _check_made(made: Made, path: Path, opset: int, chain: Chain, *, progress: Progress) -> Variant:
    stage = f"variant {made.plan.name}"
    progress.stage(stage)
    if opset < min(OLDEST_TRACED, opset_of(onnx.load(path, load_external_data=False))):
        lower(path, path, opset)
    return variant_of(
        path,
        name=made.plan.name,
        precision=made.plan.precision,
        quantization=made.details,
        digest=chain.check_graph(stage, path, limits=made.limits),
        opset=opset,
        num_equal=0,
    )
