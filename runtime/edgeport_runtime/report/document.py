"""The report as JSON types, by the schema of ``docs/report.md``: everything that the page shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.files import checked_file
from edgeport_runtime.errors import InputError
from edgeport_runtime.outputs.metrics import wilson_interval
from edgeport_runtime.pixels.decode import load_image
from edgeport_runtime.report.layers import layer_times
from edgeport_runtime.report.outcomes import accuracies, agreements, flips
from edgeport_runtime.report.pictures import input_steps, thumbnail
from edgeport_runtime.report.record import SCHEMA_VERSION
from edgeport_runtime.report.verdict import not_tested, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.bundle.manifest import Manifest, Variant
    from edgeport_runtime.engine.session import NodeTime
    from edgeport_runtime.pixels.decode import ImageMode
    from edgeport_runtime.report.outcomes import Seen
    from edgeport_runtime.report.record import ExportRecord

__all__ = ["MAX_THUMBNAILS", "Findings", "picture_of", "report_document"]

MAX_THUMBNAILS = 24
_MAX_FLIPS = 1000
_HEADLINES = {"multiclass": "top1", "binary": "accuracy", "multilabel": "macro_f1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was measured on one machine.

    Attributes:
        is_build_machine: it is the one that made the bundle.
        device: what ran the variants, such as ``cpu``.
        machine: as ``describe_machine``.
        versions: of the packages that ran them.
        chosen: the variant that runs here where nobody asks for another.
        reason: why.
        executed: by the variant's name, the precision that the device computes in.
        latency: by the variant's name, ``p50_ms`` and ``p90_ms`` per call, ``batch`` and ``runs``.
        nodes: by the variant's name, the time of each node; empty where the device does not tell.
        excluded: the variants that were not run, and why.
        seen: what the variants give for images of the user's; None without any.
        note: what is to be known of those images.
        golden: by the variant's name, how the golden images went here, as ``GoldenReport.to_dict``; empty on the
            machine that made the bundle, whose chain has them.
    """

    is_build_machine: bool
    device: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    chosen: str
    reason: str
    executed: Mapping[str, str]
    latency: Mapping[str, Mapping[str, Any]]
    nodes: Mapping[str, Sequence[NodeTime]] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    seen: Seen | None = None
    note: str | None = None
    golden: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def report_document(
    bundle: Path,
    manifest: Manifest,
    record: ExportRecord | None,
    findings: Findings,
    *,
    name: str,
    has_thumbnails: bool = True,
) -> dict[str, Any]:
    """Everything that is to be told of a bundle.

    Args:
        bundle: the folder.
        manifest: its manifest.
        record: what its export left; None for bundles that have no report.
        findings: what was measured.
        name: what the report calls the bundle.
        has_thumbnails: show images of the user's; synthetic ones are shown in any case.

    Raises:
        ManifestError: if a golden image is missing or altered.
        InputError: if it cannot be used.
    """
    contract, seen = manifest.contract, findings.seen
    measured = {} if seen is None else accuracies(seen, contract)
    changed = [] if seen is None else flips(seen, contract)
    is_synthetic = record is not None and record.golden == "synthetic"
    golden = manifest.golden.images[0]
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "architecture": dict(manifest.architecture),
        "weights": dict(manifest.weights),
        "contract": contract.to_dict(),
        "where": {
            "is_build_machine": findings.is_build_machine,
            "device": findings.device,
            "machine": dict(findings.machine),
            "versions": dict(findings.versions),
        },
        "chosen": {"variant": findings.chosen, "reason": findings.reason},
        "images": _images(manifest, record, findings),
        "variants": _variants(manifest, findings, measured),
        "chain": [dict(stage) for stage in manifest.parity],
        "num_flips": len(changed),
        "flips": _with_pictures(changed[:_MAX_FLIPS], contract, has_thumbnails=has_thumbnails),
        "layers": _layers(record, findings),
        "accuracy": measured,
        "input": {
            "image": golden.file,
            "is_synthetic": is_synthetic,
            "steps": input_steps(
                checked_file(bundle, golden.file, golden.sha256),
                contract.preprocess,
                has_pictures=has_thumbnails or is_synthetic,
            ),
        },
        "provenance": dict(manifest.provenance),
        "export": None if record is None else record.to_dict(),
    }
    return {**document, "verdict": verdict(document), "not_tested": not_tested(document)}


def picture_of(path: Path, mode: ImageMode, bits: int | None) -> str | None:
    """A small picture of an image file, as of ``thumbnail``; None where it cannot be used any more."""
    try:
        return thumbnail(load_image(path, mode, bits=bits))
    except InputError:  # deleted since it was classified: its name and scores are told all the same
        return None


def _with_pictures(changed: list[dict[str, Any]], contract: Contract, *, has_thumbnails: bool) -> list[dict[str, Any]]:
    """Rows of images without their ``path``, and the first 24 of them with a ``picture``; None where there is none."""
    spec = contract.preprocess
    rows = []
    for i, row in enumerate(changed):
        has_picture = has_thumbnails and i < MAX_THUMBNAILS
        picture = picture_of(row["path"], spec.mode, spec.bits) if has_picture else None
        rows.append({**{key: value for key, value in row.items() if key != "path"}, "picture": picture})
    return rows


def _images(manifest: Manifest, record: ExportRecord | None, findings: Findings) -> dict[str, Any]:
    """Which images the variants were compared on."""
    seen = findings.seen
    if seen is not None:
        source, num_images = seen.source, len(seen.images)
    else:
        source = "synthetic" if record is not None and record.golden == "synthetic" else "golden"
        num_images = len(manifest.golden.images)
    is_labelled = seen is not None and seen.labelled is not None
    return {"source": source, "num_images": num_images, "is_labelled": is_labelled, "note": findings.note}


def _variants(
    manifest: Manifest, findings: Findings, measured: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    equal = {} if findings.seen is None else agreements(findings.seen, manifest.contract)
    first = manifest.variants[0]
    first_ms = findings.latency.get(first.name, {}).get("p50_ms")
    headline = _HEADLINES[manifest.contract.task]
    rows = []
    for variant in manifest.variants:
        latency = findings.latency.get(variant.name)
        found = measured.get(variant.name)
        rows.append(
            {
                "name": variant.name,
                "file": variant.file,
                "sha256": variant.sha256,
                "precision": variant.precision,
                "executed": findings.executed.get(variant.name),
                "size_bytes": variant.total_bytes,
                "size_ratio": round(variant.total_bytes / first.total_bytes, 4),
                "latency": None if latency is None else dict(latency),
                "times_first": None
                if latency is None or first_ms is None
                else round(first_ms / max(latency["p50_ms"], 1e-6), 3),
                "agreement": equal.get(variant.name) or _told_agreement(variant, manifest, findings),
                "accuracy": None if found is None else _headline(found, headline),
                "quantization": None if variant.quantization is None else dict(variant.quantization),
                "golden": None if variant.name not in findings.golden else dict(findings.golden[variant.name]),
                "not_run": findings.excluded.get(variant.name),
            }
        )
    return rows


def _headline(found: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """One metric, and the 95% interval of a share of images (Wilson 1927); None of what is no such share."""
    interval = None
    if metric != "macro_f1":
        num_images = found["num_images"]
        interval = list(wilson_interval(round(found[metric] * num_images), num_images))
    return {"metric": metric, "value": found[metric], "interval": interval}


def _told_agreement(variant: Variant, manifest: Manifest, findings: Findings) -> dict[str, Any] | None:
    """On how many images a variant decides as PyTorch, by the manifest; None where it says nothing of it."""
    told = (variant.quantization or {}).get("agreement")
    if told is not None and findings.is_build_machine:
        return dict(told)
    num_images = len(manifest.golden.images)
    if f"runtime {variant.name}" not in {stage["stage"] for stage in manifest.parity if "skipped" not in stage}:
        return None
    if findings.seen is not None and findings.is_build_machine and variant.quantization is None:
        return None  # it is what the others are held to
    interval = list(wilson_interval(min(variant.num_equal, num_images), num_images))
    return {"num_images": num_images, "num_equal": variant.num_equal, "interval": interval}


def _layers(record: ExportRecord | None, findings: Findings) -> dict[str, Any]:
    """The layers with the time of each in each variant, and the time of everything else."""
    layers = () if record is None else record.layers
    rows: list[dict[str, Any]] = [{**layer.to_dict(), "times_ms": {}} for layer in layers]
    others = {}
    for name, nodes in findings.nodes.items():
        times, rest = layer_times(layers, nodes, name)
        for row in rows:
            if row["name"] in times:
                row["times_ms"][name] = round(times[row["name"]], 6)
        others[name] = {op_type: round(taken, 6) for op_type, taken in sorted(rest.items(), key=lambda pair: -pair[1])}
    for row in rows:
        del row["also"]
    return {"rows": rows, "others_ms": others}
