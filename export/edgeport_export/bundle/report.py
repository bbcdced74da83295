"""The report that stands in a bundle: what the export knows and measured, as ``report.json`` and ``report.html``."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_export.bundle.layers import layers_in
from edgeport_export.bundle.write import write_json
from edgeport_export.graph.outcome import is_routine
from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.errors import InputError
from edgeport_runtime.loading.choice import choose_variant
from edgeport_runtime.report.document import Findings, report_document
from edgeport_runtime.report.measure import profile_variant, report_versions, seen_by
from edgeport_runtime.report.outcomes import Seen
from edgeport_runtime.report.page import bundle_page
from edgeport_runtime.report.record import PAGE_NAME, REPORT_NAME, ExportRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeport_export.config import ExportConfig
    from edgeport_export.variants import Made
    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["Written", "command_of", "write_report"]

_OMITTED = ("architecture", "output", "force")
_WITH_COMMAS = ("quantize", "target")


class Written(NamedTuple):
    """A report.

    Attributes:
        accuracy: by variant, ``metric``, ``value``, ``interval`` and ``num_images``; empty without labelled images.
        missing: why there is no page, or None if there is one.
    """

    accuracy: dict[str, dict[str, Any]]
    missing: str | None


def write_report(
    bundle: Path,
    manifest: Manifest,
    config: ExportConfig,
    *,
    made: Sequence[Made],
    measured: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
    seconds: float,
    is_module: bool,
) -> Written:
    """Write ``report.json``, and ``report.html`` where altair and vl-convert are installed.

    Args:
        bundle: the folder, finished but for the report.
        manifest: its manifest.
        config: what was asked for.
        made: how the quantized variants were made.
        measured: as of ``latencies``.
        notes: what the export tells its user.
        seconds: that the export took.
        is_module: a module of the user's own was passed from Python.
    """
    record = ExportRecord(
        golden="synthetic" if config.golden is None else "images",
        layers=layers_in(bundle, manifest, made),
        notes=tuple(note for note in notes if not is_routine(note)),
        command=command_of(config, is_module=is_module),
        seconds=round(seconds),
    )
    seen, note = _seen(made), None
    if seen is None and config.eval is not None:  # no variant was quantized, which would have run them
        labelled = read_labelled_images(config.eval, manifest.contract, match=config.match)
        name = manifest.variants[0].name
        with Classifier.load_exactly(bundle, variant=name, device=CPU.device) as classifier:
            seen, note = seen_by({name: classifier}, Seen("evaluation", labelled.paths, {}, labelled))
    findings = replace(_findings(bundle, manifest, measured), seen=seen, note=note)
    document = report_document(
        bundle, manifest, record, findings, name=config.output.resolve().name, has_thumbnails=config.thumbnails
    )
    write_json(bundle / REPORT_NAME, document)
    num_images = document["images"]["num_images"]
    accuracy = {
        variant["name"]: {**variant["accuracy"], "num_images": num_images}
        for variant in document["variants"]
        if variant["accuracy"] is not None
    }
    try:
        page = bundle_page(document)
    except InputError as error:
        return Written(accuracy, f"no {PAGE_NAME}: {error}")
    (bundle / PAGE_NAME).write_text(page, encoding="utf-8")
    return Written(accuracy, None)


def command_of(config: ExportConfig, *, is_module: bool) -> str:
    """The command that makes a bundle again; of a module that was passed from Python, the call."""
    changed = {
        field.name: value
        for field in fields(config)
        if field.name not in _OMITTED and (value := getattr(config, field.name)) != field.default
    }
    if is_module:
        told = {"output": str(config.output)} | {
            name: str(value) if isinstance(value, Path) else value for name, value in changed.items()
        }
        return f"export(module, ExportConfig({', '.join(f'{name}={value!r}' for name, value in told.items())}))"
    words = ["export-model", str(config.architecture)]
    for name, value in changed.items():
        words += _as_option(name, value)
    return shlex.join([*words, "-o", str(config.output)])


def _as_option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if name in _WITH_COMMAS:
        return [flag, ",".join(value) or "none"]
    return [flag, *map(str, value if isinstance(value, tuple) else (value,))]


def _findings(bundle: Path, manifest: Manifest, measured: Mapping[str, Mapping[str, Any]]) -> Findings:
    choice = choose_variant(manifest, "auto", bundle=bundle, provider=CPU)
    skipped = {str(stage["stage"]): str(stage["skipped"]) for stage in manifest.parity if "skipped" in stage}
    latency = {
        name: {"p50_ms": one["latency_ms"], "p90_ms": one["p90_ms"], "batch": one["batch"], "runs": one["runs"]}
        for name, one in measured.items()
    }
    shown = dict.fromkeys((manifest.variants[0].name, choice.variant.name))
    return Findings(
        is_build_machine=True,
        device=CPU.device,
        machine=describe_machine(),
        versions=report_versions(),
        chosen=choice.variant.name,
        reason=choice.reason,
        executed={name: str(CPU.executed(manifest.variant(name).precision)) for name in latency},
        latency=latency,
        nodes={name: profile_variant(bundle, manifest, name, latency[name]) for name in shown if name in latency},
        excluded={
            variant.name: skipped[f"runtime {variant.name}"]
            for variant in manifest.variants
            if f"runtime {variant.name}" in skipped
        },
    )


def _seen(made: Sequence[Made]) -> Seen | None:
    """What all variants give for the user's images, which are the same for each."""
    every = [one.seen for one in made if one.seen is not None]
    if not every:
        return None
    outputs = {name: outputs_BK for seen in every for name, outputs_BK in seen.outputs.items()}
    return every[0]._replace(outputs=outputs)
