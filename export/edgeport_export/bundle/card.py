"""The model card of a bundle, ``README.md`` with the header that the Hugging Face hub reads.

It holds timings: like ``measurements.json`` it is excepted from the promise of the same bytes.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from edgeport_runtime.commands.report import describe_input
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.hub import CARD_NAME
from edgeport_runtime.report.record import PAGE_NAME
from edgeport_runtime.report.words import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.bundle.manifest import Manifest, Variant

__all__ = ["write_card"]

_KINDS = {"top1": "accuracy", "accuracy": "accuracy", "macro_f1": "f1"}  # as the hub calls them
_MAX_LABELS = 20


def write_card(
    bundle: Path,
    manifest: Manifest,
    measured: Mapping[str, Any],
    *,
    accuracy: Mapping[str, Mapping[str, Any]],
    is_synthetic: bool,
) -> None:
    """Write the card of a bundle.

    Args:
        bundle: the folder, with all else in it: a report is linked to if it is there.
        manifest: of the bundle.
        measured: latencies of the variants, as in ``measurements.json``.
        accuracy: of the variants, on labelled images; as of ``Written``.
        is_synthetic: the golden images are EdgePort's own.
    """
    name = str(manifest.architecture["name"])
    header = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in _header(manifest, accuracy).items()]
    sections = {
        "Run": _run(),
        "Input and output": _contract(manifest.contract),
        "Measured": _measured(manifest, measured, accuracy, has_report=(bundle / PAGE_NAME).is_file()),
        "Not tested": [f"- {line}" for line in _untested(manifest, accuracy, is_synthetic=is_synthetic)],
        "Intended use": _intended(manifest),
        "Provenance": _provenance(manifest),
    }
    lines = ["---", *header, "---", "", f"# {_plain(name)}", "", *_introduction(manifest)]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    (bundle / CARD_NAME).write_text("\n".join([*lines, ""]), encoding="utf-8")


def _header(manifest: Manifest, accuracy: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each value is JSON, which YAML holds."""
    name, weights = str(manifest.architecture["name"]), manifest.weights
    kinds = [v.name for v in manifest.variants if v.quantization is not None]
    header: dict[str, Any] = {
        "library_name": "edgeport",
        "pipeline_tag": "image-classification",
        "tags": ["edgeport", "onnx", "onnxruntime", manifest.contract.task, *kinds],
    }
    if weights["source"] == "hub":
        header["base_model"] = weights["repository"]
    if results := _results(manifest, accuracy):
        header["model-index"] = [{"name": name, "results": results}]
    return header


def _results(manifest: Manifest, accuracy: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured on labelled images, or else on how many images a quantized variant decides as before."""
    results = []
    task = {"type": "image-classification", "name": "Image classification"}
    if accuracy:
        metrics = [
            {"type": _KINDS[one["metric"]], "name": f"{one['metric']}, {name}", "value": round(one["value"], 6)}
            for name, one in accuracy.items()
        ]
        num_images = next(iter(accuracy.values()))["num_images"]
        dataset = {"type": "imagefolder", "name": f"{num_images} labelled images of the exporter's"}
        return [{"task": task, "dataset": dataset, "metrics": metrics}]
    for variant in manifest.variants:
        drop, agreement = ((variant.quantization or {}).get(key) for key in ("drop", "agreement"))
        if drop and drop["float_score"] is not None:
            kind = "accuracy" if drop["metric"] == "top-1" else "f1"
            lost, metric = drop["points"], drop["metric"]
            metrics = [
                {"type": kind, "name": f"{metric}, fp32", "value": round(drop["float_score"] / 100, 6)},
                {
                    "type": kind,
                    "name": f"{metric}, {variant.name}",
                    "value": round((drop["float_score"] - lost) / 100, 6),
                },
            ]
            dataset = {"type": "imagefolder", "name": f"{drop['num_images']} labelled images of the exporter's"}
        elif agreement:
            share = round(agreement["num_equal"] / agreement["num_images"], 6)
            metrics = [
                {"type": "agreement", "name": f"same decision as the float model, {variant.name}", "value": share}
            ]
            dataset = {"type": "imagefolder", "name": f"{agreement['num_images']} images of the exporter's"}
        else:
            continue
        results.append({"task": task, "dataset": dataset, "metrics": metrics})
    return results


def _introduction(manifest: Manifest) -> list[str]:
    architecture, is_file = manifest.architecture, manifest.weights["source"] == "onnx"
    origin = "an .onnx file" if is_file else "PyTorch"
    variants = ", ".join(v.name for v in manifest.variants)
    return [
        f"An image classifier as ONNX: {_plain(str(architecture['name']))}, {architecture['num_params']:,} parameters "
        f"({_plain(str(architecture['source']))}), in the variants {variants}. EdgePort exported it from {origin}, "
        "compared every stage with the original, and wrote golden images with the original's answers, which "
        "`run-model verify` replays on any device.",
    ]


def _run() -> list[str]:
    return [
        "With numpy, Pillow and ONNX Runtime alone:",
        "",
        "```",
        "python infer.py photo.jpg",
        "```",
        "",
        "With EdgePort's runtime, from the folder or from the hub:",
        "",
        "```python",
        "from edgeport_runtime import Classifier",
        "",
        'with Classifier.load("hf://OWNER/NAME") as classifier:',
        '    print(classifier.predict("photo.jpg"))',
        "```",
    ]


def _contract(contract: Contract) -> list[str]:
    labels = contract.labels or ()
    shown = ", ".join(_plain(label) for label in labels[:_MAX_LABELS])
    lines = [f"- Task: {contract.task}, {contract.num_classes} classes"]
    if labels:
        lines.append(f"- Labels: {shown}{', ...' if len(labels) > _MAX_LABELS else ''}")
    if contract.thresholds is not None:
        values = ", ".join(f"{value:g}" for value in contract.thresholds[:_MAX_LABELS])
        lines.append(f"- Decided at a probability of at least {values}")
    return [*lines, f"- Input: {describe_input(contract)}"]


def _measured(
    manifest: Manifest, measured: Mapping[str, Any], accuracy: Mapping[str, Mapping[str, Any]], *, has_report: bool
) -> list[str]:
    """A row for each variant, and what of its figures comes from where."""
    stages = {str(stage["stage"]): stage for stage in manifest.parity}
    rows = [_row(variant, stages.get(f"runtime {variant.name}", {}), measured) for variant in manifest.variants]
    machine = describe_machine()
    lines = [
        "| variant | precision | size | distance from the original | same decision | time per call |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Distance is the relative L2 of the outputs for the golden images, from their bytes. Times are medians on "
        f"{machine['num_cpus']} processors of {machine['cpu']} ({machine['system']}).",
    ]
    for name, one in accuracy.items():
        value = f"{one['value']:.1%}" if one["interval"] else f"{one['value']:.3f}"
        interval = " (95% interval {:.1%} to {:.1%})".format(*one["interval"]) if one["interval"] else ""
        lines += [
            "",
            f"{name}: {METRICS[one['metric']]} {value} on {one['num_images']} labelled images{interval}.",
        ]
    for variant in manifest.variants:
        drop = (variant.quantization or {}).get("drop")
        if drop:
            low, high = drop["interval"]
            of = "" if drop["float_score"] is None else f" of {drop['float_score']:g}%"
            lines += [
                "",
                f"{variant.name} loses {drop['points']:g} points {drop['metric']}{of} on {drop['num_images']} images "
                f"(95% interval {low:g} to {high:g}).",
            ]
    if has_report:
        lines += ["", f"All of it, with plots: [{PAGE_NAME}]({PAGE_NAME})."]
    return lines


def _row(variant: Variant, stage: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    timed = measured.get(variant.name)
    agreement = (variant.quantization or {}).get("agreement")
    if agreement:
        same = f"{agreement['num_equal']} of {agreement['num_images']} images"
    elif "num_samples" in stage:
        same = f"{variant.num_equal} of {stage['num_samples']} golden images"
    else:
        same = "not run here"
    cells = (
        variant.name,
        variant.precision,
        f"{variant.total_bytes / 1e6:.2f} MB",
        f"{stage['relative_l2']:.1e}" if "relative_l2" in stage else "not run here",
        same,
        f"{timed['latency_ms']:.3f} ms (batch {timed['batch']})" if timed else "not run here",
    )
    return f"| {' | '.join(cells)} |"


def _untested(manifest: Manifest, accuracy: Mapping[str, Mapping[str, Any]], *, is_synthetic: bool) -> list[str]:
    lines = []
    if manifest.weights["source"] == "random":
        lines.append("The weights are random: what it predicts means nothing, and the comparison is of arithmetic.")
    if is_synthetic:
        lines.append("The golden images are synthetic: real photos were not compared.")
    details = [variant.quantization or {} for variant in manifest.variants]
    if not accuracy and not any(one.get("drop") and one["drop"]["float_score"] is not None for one in details):
        lines.append("No labelled images were given: how often it is right was not measured.")
    lines.append("Other devices than the one above: `run-model verify` tells on each.")
    return lines


def _intended(manifest: Manifest) -> list[str]:
    return [
        f"Images like those that it was trained on, to be told apart by {manifest.contract.num_classes} classes, on "
        "devices that run ONNX Runtime. An image of anything else gets one of these classes too. What it was trained "
        "on, under which licence its weights are, and whom its errors may harm, EdgePort does not know: whoever "
        "publishes it writes that here, and the licence as `license:` into the header.",
    ]


def _provenance(manifest: Manifest) -> list[str]:
    weights, versions = manifest.weights, dict(manifest.provenance)
    sources = [
        f"{key} {_plain(str(weights[key]))}"
        for key in ("repository", "commit", "name", "file", "sha256")
        if key in weights
    ]
    notes = [f"- {_plain(str(weights['note']))}"] if "note" in weights else []
    packages = [f"{key} {value}" for key, value in versions.items() if key not in ("seed", "sources")]
    return [f"- Weights: {', '.join([str(weights['source']), *sources])}", *notes, f"- Made with {', '.join(packages)}"]


def _plain(text: str) -> str:
    """A name of the user's as Markdown that shows it and does nothing else."""
    marked = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in marked)
