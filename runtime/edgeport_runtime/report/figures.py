"""Which plots a report has, with the rows of each; none where there is nothing to be seen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from edgeport_runtime.report import plots
from edgeport_runtime.report.verdict import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Draw = Callable[[Callable[[int], Any], str], Any]

__all__ = ["MAX_CLASSES", "MAX_CURVES", "MAX_LAYERS", "bundle_figures", "class_rows", "short_names", "unlike_names"]

MAX_LAYERS, MAX_CLASSES, MAX_CURVES = 20, 20, 8
_MAX_NAME = 18  # of a label in a plot; Vega-Lite would cut it, and two that begin alike would be one bar


def bundle_figures(draw: Draw, r: Mapping[str, Any], shown: Sequence[str]) -> dict[str, Any]:
    """The plots by name; None for those that would show nothing.

    Args:
        draw: makes markup of a plot for a width, and of what it shows in words.
        r: the report's document.
        shown: names of the variants that are drawn by layer and by class: the first and the one that runs.
    """
    return {
        "variants": _variants(draw, r),
        "chain": _chain(draw, r),
        "costs": _costs(draw, r, shown[-1]),
        "times": _times(draw, r, shown),
        "confusion": _confusion(draw, r, shown[-1]),
        "classes": _classes(draw, r, shown),
        "reliability": _reliability(draw, r, shown),
        "curves": _curves(draw, r, shown[-1]),
    }


def class_rows(r: Mapping[str, Any], shown: Sequence[str]) -> list[dict[str, Any]]:
    """``label``, ``num`` images, and the share of them that each variant finds, worst class of the last one first."""
    found: dict[int, dict[str, Any]] = {}
    for name in shown:
        for index, label, num, share in _of_classes(r["accuracy"][name], r["contract"]):
            found.setdefault(index, {"label": label, "num": num, "shares": {}})["shares"][name] = share
    unlike = unlike_names({index: row["label"] for index, row in found.items()})
    rows = [{**row, "label": unlike[index]} for index, row in found.items()]
    return sorted(rows, key=lambda row: row["shares"][shown[-1]])


def unlike_names(names: Mapping[int, str]) -> dict[int, str]:
    """Names by number; of those that are the same, such as ImageNet's two cranes, with the number."""
    counts = Counter(names.values())
    return {number: name if counts[name] == 1 else f"{name} ({number})" for number, name in names.items()}


def _of_classes(told: Mapping[str, Any], contract: Mapping[str, Any]) -> list[tuple[int, str, int, float]]:
    if told["task"] == "multiclass":
        return [(c["index"], c["name"], c["num_images"], c["num_correct"] / c["num_images"]) for c in told["classes"]]
    if told["task"] == "multilabel":
        return [
            (i, one["name"], one["num_positive"], one["recall"])
            for i, one in enumerate(told["labels"])
            if one["num_positive"]
        ]
    labels = contract["labels"] or ["class 0", "class 1"]
    counts = (
        (0, labels[0], told["true_negatives"], told["false_positives"]),
        (1, labels[1], told["true_positives"], told["false_negatives"]),
    )
    return [(i, label, right + wrong, right / (right + wrong)) for i, label, right, wrong in counts if right + wrong]


def _variants(draw: Draw, r: Mapping[str, Any]) -> Any:
    has_accuracy = all(row["accuracy"] for row in r["variants"])
    rows = []
    for row in r["variants"]:
        agreement = row["agreement"]
        if row["latency"] is None or (agreement is None and not has_accuracy and row is not r["variants"][0]):
            continue
        if has_accuracy:
            score = 100 * row["accuracy"]["value"]
            low, high = (100 * value for value in row["accuracy"]["interval"] or [row["accuracy"]["value"]] * 2)
        elif agreement is None:
            score = low = high = 100.0
        else:
            score = 100 * agreement["num_equal"] / agreement["num_images"]
            low, high = (100 * value for value in agreement["interval"])
        mark = " (ships)" if row["name"] == r["chosen"]["variant"] else ""
        rows.append(
            {
                "name": row["name"],
                "label": row["name"] + mark,
                "ms": row["latency"]["p50_ms"],
                "score": score,
                "low": low,
                "high": high,
                "mb": row["size_bytes"] / 1e6,
                "is_chosen": row["name"] == r["chosen"]["variant"],
            }
        )
    if len(rows) < 2:
        return None
    metric = r["variants"][0]["accuracy"]["metric"] if has_accuracy else ""
    title = {"": f"same decisions as {rows[0]['name']}, percent", "macro_f1": "macro F1, percent"}.get(
        metric, "accuracy, percent"
    )
    told = "; ".join(
        f"{row['name']} {row['ms']:.3g} ms, {row['score']:.1f} percent, {row['mb']:.2f} MB" for row in rows
    )
    return draw(lambda width: plots.variants_plot(rows, title, width=width), f"Variants by latency: {told}")


def _chain(draw: Draw, r: Mapping[str, Any]) -> Any:
    rows = [
        {
            "stage": stage["stage"],
            "error": stage["relative_l2"],
            "limit": stage["limits"]["relative_l2"],
            "num_samples": stage["num_samples"],
        }
        for stage in r["chain"]
        if "skipped" not in stage and stage["relative_l2"] is not None
    ]
    if not rows:
        return None
    told = "; ".join(f"{row['stage']} {row['error']:.1e} of at most {row['limit']:.0e}" for row in rows)
    return draw(lambda width: plots.chain_plot(rows, width=width), f"Error of each stage: {told}")


def _costs(draw: Draw, r: Mapping[str, Any], chosen: str) -> Any:
    labels = short_names(row["name"] for row in r["layers"]["rows"])
    rows = [
        {"layer": labels[row["name"]], "error": row["variants"][chosen]["error"]}
        for row in r["layers"]["rows"]
        if row["variants"].get(chosen, {}).get("error") is not None
    ]
    rows = sorted(rows, key=lambda row: -row["error"])[:MAX_LAYERS]
    if not rows:
        return None
    told = f"Cost of quantization by layer: {rows[0]['layer']} costs most, a relative error of {rows[0]['error']:.1e}"
    return draw(lambda width: plots.costs_plot(rows, width=width), told)


def _times(draw: Draw, r: Mapping[str, Any], shown: Sequence[str]) -> Any:
    layers, timed = r["layers"], [name for name in shown if name in r["layers"]["others_ms"]]
    if not timed:
        return None
    slowest = sorted(layers["rows"], key=lambda row: -row["times_ms"].get(timed[-1], 0.0))
    bars = slowest[: MAX_LAYERS - 1]
    labels = short_names(row["name"] for row in bars)
    rows = [
        {"layer": labels[row["name"]], "variant": name, "ms": row["times_ms"].get(name, 0.0)}
        for row in bars
        for name in timed
    ]
    for label, part in (("all other layers", slowest[len(bars) :]), ("everything else", None)):
        for name in timed:
            taken = (
                sum(layers["others_ms"][name].values())
                if part is None
                else sum(row["times_ms"].get(name, 0.0) for row in part)
            )
            if part is None or part:
                rows.append({"layer": label, "variant": name, "ms": taken})
    told = f"Time by layer: {rows[0]['layer']} takes longest in {timed[-1]}"
    return draw(lambda width: plots.times_plot(rows, timed, width=width), told)


def _confusion(draw: Draw, r: Mapping[str, Any], chosen: str) -> Any:
    told = r["accuracy"].get(chosen)
    if told is None or told["task"] == "multilabel":
        return None
    if told["task"] == "binary":
        names = dict(enumerate(r["contract"]["labels"] or ["class 0", "class 1"]))
        counts = {
            (0, 0): told["true_negatives"],
            (0, 1): told["false_positives"],
            (1, 0): told["false_negatives"],
            (1, 1): told["true_positives"],
        }
        classes = [0, 1]
    else:
        counts = {(true, decided): count for true, decided, count in told["confusion"]}
        classes = sorted({c for pair in counts for c in pair})
        if len(classes) > MAX_CLASSES:
            return None
        known = r["contract"]["labels"]
        names = unlike_names({c: str(c) if known is None else known[c] for c in classes})
    shortened = short_names(names.values())
    labels = [shortened[names[c]] for c in classes]
    totals = {c: sum(n for (true, _), n in counts.items() if true == c) for c in classes}
    rows = [
        {
            "true": labels[i],
            "decided": labels[j],
            "count": counts[a, b],
            "share": counts[a, b] / max(1, totals[a]),
        }
        for i, a in enumerate(classes)
        for j, b in enumerate(classes)
        if counts.get((a, b))
    ]
    wrong = max((row for row in rows if row["true"] != row["decided"]), key=lambda row: row["count"], default=None)
    most = (
        "none is taken for another"
        if wrong is None
        else (f"most often {wrong['true']} is taken for {wrong['decided']}, {wrong['count']} times")
    )
    return draw(lambda width: plots.confusion_plot(rows, labels, width=width), f"Confusion matrix of {chosen}: {most}")


def _classes(draw: Draw, r: Mapping[str, Any], shown: Sequence[str]) -> Any:
    if not r["accuracy"]:
        return None
    found = class_rows(r, shown)[:MAX_CLASSES]
    labels = short_names(row["label"] for row in found)
    rows = [
        {"label": labels[row["label"]], "variant": name, "value": 100 * share}
        for row in found
        for name, share in row["shares"].items()
    ]
    told = f"Share of each class that is found: least of {found[0]['label']}, {percent(found[0]['shares'][shown[-1]])}"
    return draw(lambda width: plots.classes_plot(rows, shown, width=width), told)


def _reliability(draw: Draw, r: Mapping[str, Any], shown: Sequence[str]) -> Any:
    rows = [
        {
            "variant": name,
            "confidence": bin_["confidence"],
            "accuracy": bin_["accuracy"],
            "num": bin_["num_images"],
        }
        for name in shown
        for bin_ in r["accuracy"].get(name, {}).get("reliability", ())
    ]
    if not rows:
        return None
    error = r["accuracy"][shown[-1]]["calibration_error"]
    return draw(
        lambda width: plots.reliability_plot(rows, shown, width=width),
        f"Reliability: how often decisions are right, by how sure the model is; calibration error of {shown[-1]} "
        f"{error:.3f}",
    )


def _curves(draw: Draw, r: Mapping[str, Any], chosen: str) -> Any:
    found = r["accuracy"].get(chosen, {}).get("precision_recall", [])
    found = sorted(found, key=lambda one: _mean_precision(one["points"]))[:MAX_CURVES]
    if not found:
        return None
    unlike = unlike_names(dict(enumerate(one["label"] for one in found)))
    shortened = short_names(unlike.values())
    labels = [shortened[name] for name in unlike.values()]
    rows = [
        {"label": label, "recall": recall, "precision": precision, "i": i}
        for label, one in zip(labels, found, strict=True)
        for i, (recall, precision) in enumerate(one["points"])
    ]
    marks = [
        {"label": label, "recall": one["at"][0], "precision": one["at"][1]}
        for label, one in zip(labels, found, strict=True)
        if one["at"] is not None
    ]
    told = f"Precision against recall of {chosen} for {', '.join(labels)}"
    return draw(lambda width: plots.precision_recall_plot(rows, marks, labels, width=width), told)


def _mean_precision(points: Sequence[Sequence[float]]) -> float:
    return sum(precision for _, precision in points) / len(points)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Labels for a plot: of a long name the beginning and the end, by which names of nodes differ.

    No two are the same, because bars of one name would lie upon each other.
    """
    found: dict[str, str] = {}
    for name in names:
        label = name if len(name) <= _MAX_NAME else f"{name[:6]}\u2026{name[-(_MAX_NAME - 7) :]}"
        taken = set(found.values())
        found.setdefault(name, label if label not in taken else f"{label} ({len(found) + 1})")
    return found
