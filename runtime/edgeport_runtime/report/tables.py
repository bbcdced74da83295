"""The tables and sentences of a bundle's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.report.document import MAX_THUMBNAILS
from edgeport_runtime.report.figures import MAX_CLASSES, MAX_CURVES, class_rows
from edgeport_runtime.report.verdict import percent
from edgeport_runtime.report.words import METRICS, error_told, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Row",
    "Table",
    "accuracy_part",
    "chain_part",
    "facts",
    "flips_told",
    "input_told",
    "layers_part",
    "variants_part",
]

_MAX_MISTAKES, _MAX_NAMED = 20, 12
_LICENCES = {"shipped": "Apache-2.0, as EdgePort itself", "random": "none needed: they are random"}
_SOURCES = {
    "evaluation": "the labelled images of --eval",
    "calibration": "the images of --calibration",
    "golden": "the golden images",
    "data": "the images of --data",
    "synthetic": "synthetic images",
}


class Row(NamedTuple):
    """A row of a table; the first cell is its heading, ``mark`` shades it."""

    cells: Sequence[str]
    mark: bool = False


class Table(NamedTuple):
    """A table's columns and rows."""

    columns: Sequence[str]
    rows: Sequence[Row]


def variants_part(r: Mapping[str, Any]) -> dict[str, Any]:
    """``variants``, the table, and what is said before it."""
    chosen, first = r["chosen"]["variant"], r["variants"][0]["name"]
    has_accuracy = any(row["accuracy"] for row in r["variants"])
    columns = ["variant", "MB", "of the size", "p50 ms", "p90 ms", "speed", "same decisions", "flips", "drop, points"]
    columns += [METRICS[r["variants"][0]["accuracy"]["metric"]]] if has_accuracy else []
    rows = []
    for row in r["variants"]:
        latency, agreement = row["latency"], row["agreement"]
        cells = [row["name"], f"{row['size_bytes'] / 1e6:.2f}", percent(row["size_ratio"])]
        cells += (
            ["not run", "", ""]
            if latency is None
            else [milliseconds(latency["p50_ms"]), milliseconds(latency["p90_ms"])]
        )
        cells += [] if latency is None else ["" if row["times_first"] is None else f"{row['times_first']:.2f}\u00d7"]
        if agreement is None:
            cells += ["reference" if row["name"] == first else "", ""]
        else:
            equal, num = agreement["num_equal"], agreement["num_images"]
            cells += [f"{percent(equal / num)} of {num}", str(num - equal)]
        drop = (row["quantization"] or {}).get("drop")
        cells.append("" if drop is None else f"{drop['points']:.2f}")
        if has_accuracy:
            cells.append(
                "" if row["accuracy"] is None else _metric(row["accuracy"]["value"], row["accuracy"]["metric"])
            )
        rows.append(Row([*cells, row["executed"] or ""], mark=row["name"] == chosen))
    batch = next((row["latency"]["batch"] for row in r["variants"] if row["latency"]), 1)
    told = (
        f"{chosen} ships: {r['chosen']['reason']}. Decisions are compared on {r['images']['num_images']} images, "
        f"{_SOURCES[r['images']['source']]}. Times are of calls of {batch} on "
        f"{r['where']['device']}."
    )
    if r["images"]["note"]:
        told += f" {r['images']['note']}."
    return {
        "chosen_told": told,
        "no_variants_plot": "Fewer than two variants were both timed and compared, so there is nothing to plot.",
        "variants": Table([*columns, "runs in"], rows),
        "made_told": [f"{row['name']}: {_how(row)}." for row in r["variants"] if row["quantization"] is not None],
    }


def chain_part(r: Mapping[str, Any]) -> dict[str, Any]:
    """``chain``, the table of stages, and what the original is called."""
    rows = [
        Row(
            [
                stage["stage"],
                str(stage["num_samples"]),
                error_told(stage["relative_l2"]),
                error_told(stage["limits"]["relative_l2"]),
                percent(stage["agreement"]),
                stage["same_bytes_as"] or "",
            ]
        )
        for stage in r["chain"]
        if "skipped" not in stage
    ]
    is_file = r["weights"].get("source") == "onnx"
    replayed = [
        Row(
            [
                row["name"],
                str(row["golden"]["num_images"]),
                error_told(row["golden"]["relative_l2"]),
                error_told(row["golden"]["tolerance"]),
                f"{row['golden']['num_equal']} of at least {row['golden']['num_equal_needed']}",
                "passed" if row["golden"]["passed"] else "FAILED",
            ]
        )
        for row in r["variants"]
        if row["golden"] is not None
    ]
    return {
        "golden": Table(["variant", "images", "error", "limit", "same decisions", "result"], replayed),
        "original": "the .onnx file that was given" if is_file else "the PyTorch model",
        "chain": Table(["stage", "inputs", "error", "limit", "same decisions", "same file as"], rows),
    }


def flips_told(r: Mapping[str, Any]) -> str:
    """How many images flip, and on which images that was found."""
    images = r["images"]
    first = r["variants"][0]["name"]
    if len(r["variants"]) == 1:
        return f"This bundle has one variant, {first}: there is no other that could decide otherwise."
    if images["source"] == "synthetic" or (images["source"] == "golden" and not r["num_flips"]):
        kind = f"{images['num_images']} {_SOURCES[images['source']].removeprefix('the ')}"
        counts = [
            f"{row['name']} decides {agreement['num_images'] - agreement['num_equal']} otherwise"
            for row in r["variants"][1:]
            if (agreement := row["agreement"]) is not None
        ]
        return (
            f"Of the {kind}, {', '.join(counts) or 'nothing is known'}, which says little: more images, and your own, "
            "would show here where they flip."
        )
    if not r["num_flips"]:
        told = f"{images['num_images']} images ({_SOURCES[images['source']]})"
        return f"On none of the {told} do the variants decide otherwise."
    pictures = "" if any(flip["picture"] for flip in r["flips"]) else " Pictures were left out on request."
    part = f" The first {MAX_THUMBNAILS} are shown." if r["num_flips"] > MAX_THUMBNAILS else ""
    return (
        f"{r['num_flips']} of {images['num_images']} images ({_SOURCES[images['source']]}) are decided otherwise by "
        f"some variant than by {first}. Those whose probabilities differ most come first.{part}{pictures}"
    )


def layers_part(r: Mapping[str, Any], shown: Sequence[str]) -> dict[str, Any]:
    """``layers``, the table, and what is said of costs, of layers in float, and of times."""
    chosen, rows = shown[-1], r["layers"]["rows"]
    quantized = [row["name"] for row in r["variants"] if row["quantization"] is not None]
    subject = chosen if chosen in quantized else next(iter(quantized), None)
    measured = [row for row in rows if subject and row["variants"].get(subject, {}).get("error") is not None]
    if subject is None:
        costs = "There is no quantized variant, and so no cost of quantization."
    elif not measured:
        costs = (
            "What each layer costs alone was not measured; --explain measures it, which takes a model for each layer."
        )
    else:
        costs = f"What each of {len(measured)} layers adds to the error of {subject} alone, the worst first."
    timed = [name for name in shown if name in r["layers"]["others_ms"]]
    columns = ["layer", "operator", "multiply-adds", "parameters", *(f"{name} ms" for name in timed)]
    columns += [f"runs in ({name})" for name in quantized] + ([f"error alone ({subject})"] if measured else [])
    table = []
    for row in rows:
        cells = [row["name"], row["op_type"], f"{row['multiply_adds']:,}", f"{row['num_params']:,}"]
        cells += [milliseconds(row["times_ms"].get(name)) for name in timed]
        cells += [_runs_in(row["variants"].get(name), r, name) for name in quantized]
        if measured:
            cells.append(error_told(row["variants"][subject]["error"]) if row in measured else "")
        table.append(Row(cells))
    return {
        "costs_told": costs,
        "costs_caption": f"Relative error of the outputs with one layer of {subject} quantized, the others in float.",
        "floats_told": [_floats(r, name) for name in quantized],
        "times_told": _times_told(r, timed),
        "layers": Table(columns, table),
    }


def accuracy_part(r: Mapping[str, Any], shown: Sequence[str]) -> dict[str, Any]:
    """The tables of section 6, and what is said of them."""
    accuracy, chosen = r["accuracy"], shown[-1]
    empty = Table([], [])
    if not accuracy:
        return {"accuracy_told": "", "metrics": empty, "confusions": empty, "classes": empty}
    first = next(iter(accuracy.values()))
    names = [name for name in METRICS if first.get(name) is not None]
    found = class_rows(r, shown)
    part = (
        f"The {MAX_CLASSES} classes of which {chosen} finds the least." if len(found) > MAX_CLASSES else "Worst first."
    )
    num_curves = len(accuracy[chosen].get("precision_recall", ()))
    which = f"the {MAX_CURVES} worst of {num_curves} labels" if num_curves > MAX_CURVES else "each label"
    return {
        "accuracy_told": f"On {first['num_images']} labelled images of {_SOURCES[r['images']['source']].split()[-1]}.",
        "metrics": Table(
            ["variant", *(METRICS[name] for name in names)],
            [
                Row([name, *(_metric(told[key], key) for key in names)], mark=name == chosen)
                for name, told in accuracy.items()
            ],
        ),
        "confusion_caption": f"Images of {chosen} by what they are (rows) and what they are taken for (columns); the "
        "stronger the colour, the larger the share of the row.",
        "confusions": _mistakes(r, accuracy[chosen]),
        "classes_caption": f"Of the images of a class, how many are found. {part}",
        "classes": Table(
            ["class", "images", *shown],
            [Row([row["label"], str(row["num"]), *(percent(row["shares"][name]) for name in shown)]) for row in found],
        ),
        "curves_caption": f"For {which}, with a dot where its decision threshold lies ({chosen}).",
    }


def input_told(r: Mapping[str, Any]) -> str:
    """Of which image the steps are, and what to look for."""
    kind = "a synthetic image" if r["input"]["is_synthetic"] else "one of the golden images"
    return (
        f"{r['input']['image']}, {kind}, on its way from the file to the network. If a step looks wrong, such as a "
        "squeezed object, colours exchanged or the subject cut off, the preprocessing is not what the network was "
        "trained with."
    )


def facts(r: Mapping[str, Any], machine: str) -> list[tuple[str, str]]:
    """Names and values for the section of provenance."""
    weights, provenance = r["weights"], r["provenance"]
    told = [("architecture", f"{r['architecture']['name']} ({r['architecture']['source']})")]
    told += [(name, str(value)) for name, value in r["architecture"]["options"].items()]
    names = ("source", "file", "name", "repository", "commit", "layout", "key", "seed", "note", "sha256")
    told += [(f"weights: {name}", str(weights[name])) for name in names if name in weights]
    told.append(("licence of the weights", _LICENCES.get(weights.get("source"), "not known to EdgePort")))
    versions = {name: value for name, value in provenance.items() if name != "sources"}
    told.append(("made with", ", ".join(f"{name} {value}" for name, value in versions.items())))
    by_source: dict[str, list[str]] = {}
    for name, source in provenance.get("sources", {}).items():
        by_source.setdefault(source, []).append(name)
    told += [(f"from the {source}", ", ".join(values)) for source, values in by_source.items()]
    told.append(("measured on", machine))
    told.append(("measured with", ", ".join(f"{name} {value}" for name, value in r["where"]["versions"].items())))
    if r["export"] is not None:
        told.append(("the export took", f"{r['export']['seconds']} s"))
    return told


def _how(row: Mapping[str, Any]) -> str:
    details = row["quantization"]
    parts = [str(details["scheme"])]
    calibration = details.get("calibration")
    if calibration is not None:
        kind = "synthetic images" if calibration["source"] == "synthetic" else "images"
        parts.append(f"{calibration['num_images']} {kind}")
    if "share" in details:
        parts.append(f"{percent(details['share'])} of the multiply-adds in int8")
    return ", ".join(parts)


def _runs_in(told: Mapping[str, Any] | None, r: Mapping[str, Any], name: str) -> str:
    if told is None:
        return ""
    precision = next(row["precision"] for row in r["variants"] if row["name"] == name)
    return "float" if told["is_float"] else str(precision)


def _floats(r: Mapping[str, Any], name: str) -> str:
    """Which layers of a variant ran in float, and why."""
    reasons: dict[str, list[str]] = {}
    for row in r["layers"]["rows"]:
        told = row["variants"].get(name)
        if told is not None and told["is_float"]:
            reasons.setdefault(told["reason"] or "no reason is recorded", []).append(row["name"])
    if not reasons:
        return f"{name}: no layer computes in float."
    parts = []
    for reason, layers in reasons.items():
        more = f" and {len(layers) - _MAX_NAMED} more" if len(layers) > _MAX_NAMED else ""
        parts.append(f"{', '.join(layers[:_MAX_NAMED])}{more}: {reason}")
    return f"In float in {name}: {'; '.join(parts)}."


def _times_told(r: Mapping[str, Any], timed: Sequence[str]) -> str:
    if not timed:
        return f"ONNX Runtime does not tell the time of each layer on {r['where']['device']}."
    told = []
    for name in timed:
        layers = sum(row["times_ms"].get(name, 0.0) for row in r["layers"]["rows"])
        others = r["layers"]["others_ms"][name]
        most = "; ".join(f"{op} {milliseconds(taken)}" for op, taken in list(others.items())[:3])
        rest = sum(others.values())
        told.append(
            f"{name}: {milliseconds(layers)} ms in layers and {milliseconds(rest)} ms in everything else"
            f"{f' ({most})' if most else ''}"
        )
    return f"{'. '.join(told)}. With the profiler on, a call takes a little longer than without."


def _mistakes(r: Mapping[str, Any], told: Mapping[str, Any]) -> Table:
    if told["task"] != "multiclass":
        return Table([], [])
    known = r["contract"]["labels"]
    names = {c: str(c) if known is None else known[c] for pair in told["confusion"] for c in pair[:2]}
    wrong = sorted((pair for pair in told["confusion"] if pair[0] != pair[1]), key=lambda pair: -pair[2])
    rows = [Row([names[true], names[decided], str(count)]) for true, decided, count in wrong[:_MAX_MISTAKES]]
    return Table(["true", "taken for", "images"], rows)


def _metric(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return percent(value) if name in ("top1", "top5", "accuracy", "exact_match") else f"{value:.3f}"
