"""The report in a few sentences: which variant runs, what it loses, how fast it is, and what was not tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["images_told", "not_tested", "percent", "verdict"]

_DECIDES = {"multiclass": "gives the same class", "binary": "decides the same", "multilabel": "gives the same labels"}
_METRICS = {"top1": "top-1 accuracy", "accuracy": "accuracy", "macro_f1": "macro F1"}
_NEAR = 1.05  # what is not 5% faster or slower is not told from noise


def verdict(report: Mapping[str, Any]) -> list[str]:
    """Sentences for a manager, the first of which says which variant runs and what that means."""
    rows = {row["name"]: row for row in report["variants"]}
    chosen, first = rows[report["chosen"]["variant"]], report["variants"][0]
    trial = "A trial with random weights, whose decisions mean nothing. " if is_random(report) else ""
    sentences = [trial + _first(report, chosen)]
    others = [row for row in report["variants"] if row is not chosen and row is not first]
    sentences += [f"{row['name']} {_what(report, row)}." for row in others]
    if chosen["accuracy"] is not None:
        told = [f"{row['name']} {_figure(row['accuracy'])}" for row in report["variants"] if row["accuracy"]]
        metric = _METRICS[chosen["accuracy"]["metric"]]
        sentences.append(f"On {report['images']['num_images']} labelled images the {metric} is: {', '.join(told)}.")
        sentences += _lost(chosen)
    return sentences


def not_tested(report: Mapping[str, Any]) -> list[str]:
    """What nobody should take as shown by this report, each with what would show it."""
    images, where, told = report["images"], report["where"], []
    if is_random(report):
        told.append(
            "The weights are random: no decision means anything, and neither do accuracy and agreement. What is shown "
            "is that the graphs compute what PyTorch computes. Export again with --weights FILE."
        )
    if images["source"] == "synthetic":
        told.append(
            f"No real image was used: the {images['num_images']} that were compared are synthetic, made by EdgePort. "
            "Give your own with --golden DIR, --calibration DIR or --eval DATA."
        )
    elif images["source"] == "golden":
        told.append(
            f"Only the {images['num_images']} golden images were compared, too few to tell small losses. Give more "
            f"with {'--calibration DIR or --eval DATA' if where['is_build_machine'] else '--data DIR'}."
        )
    elif images["source"] == "calibration":
        told.append(
            "Agreement was measured on the images by which the ranges of int8 were chosen, and may be a little better "
            "than on others. Images of their own are given with --eval DATA."
        )
    if not images["is_labelled"] and not is_random(report):
        option = "--eval DATA" if where["is_build_machine"] else "--data DIR with a folder per class"
        told.append(f"Accuracy was not measured: no labelled images were given ({option}).")
    told += [
        f"{row['name']} does not give PyTorch's answers here: {row['golden']['problem'] or 'it is too far from them'}."
        for row in report["variants"]
        if row["golden"] is not None and not row["golden"]["passed"]
    ]
    told += [f"{row['name']} was not run here: {row['not_run']}." for row in report["variants"] if row["not_run"]]
    told.append(
        f"No other device than {where['device']} of this machine was tried. On each device: run-model verify BUNDLE, "
        "and run-model report BUNDLE -o FILE for this page with its own figures."
    )
    return told


def is_random(report: Mapping[str, Any]) -> bool:
    """Whether the weights were never trained."""
    return bool(report["weights"].get("source") == "random")


def images_told(report: Mapping[str, Any], num_images: int) -> str:
    """What to call that many of the images."""
    is_all = num_images == report["images"]["num_images"]
    source = report["images"]["source"] if is_all else "calibration"
    return {"synthetic": "synthetic images", "golden": "golden images"}.get(source, "of your images")


def percent(share: float) -> str:
    """A share with as many digits as it needs."""
    return f"{100 * share:.1f}%" if 0 < share < 1 else f"{100 * share:.0f}%"


def _first(report: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    first = report["variants"][0]
    if chosen is not first:
        return f"{chosen['name']} ships: it {_what(report, chosen)}."
    ending = "It is the only variant of this bundle."
    if len(report["variants"]) > 1:
        reason = report["chosen"]["reason"]
        ending = f"{reason[:1].upper()}{reason[1:]}."
    return f"{chosen['name']} ships: {_exactness(report, chosen)}{_speed(chosen)}. {ending}"


def _what(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a variant keeps, how fast it is, and how large, against the first."""
    parts = []
    agreement = row["agreement"]
    if agreement is not None:
        num_images = agreement["num_images"]
        low, high = agreement["interval"]
        of = images_told(report, num_images)
        parts.append(
            f"{_DECIDES[report['contract']['task']]} as {_original(report)} on {agreement['num_equal']} of "
            f"{num_images} {of} (95% interval {percent(low)} to {percent(high)})"
        )
    times = row["times_first"]
    first = report["variants"][0]["name"]
    if times is not None:
        if times >= _NEAR:
            parts.append(f"is {times:.1f} times as fast as {first} on this machine")
        elif times > 1 / _NEAR:
            parts.append(f"is as fast as {first} on this machine")
        else:
            parts.append(f"is slower than {first} on this machine ({times:.2f} times as fast)")
    of_first = "its size" if times is not None else f"the size of {first}"
    parts.append(f"has {percent(row['size_ratio'])} of {of_first} ({row['size_bytes'] / 1e6:.2f} MB)")
    return ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1]


def _exactness(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    stage = next((s for s in report["chain"] if s["stage"] == f"runtime {row['name']}" and "skipped" not in s), None)
    if stage is None:
        return f"it was compared with {_original(report)} stage by stage"
    num_images = stage["num_samples"]
    num_equal = round(stage["agreement"] * num_images)
    kind = "synthetic images" if report["input"]["is_synthetic"] else "golden images"
    return (
        f"it {_DECIDES[report['contract']['task']]} as {_original(report)} on {num_equal} of {num_images} "
        f"{kind}, with outputs that differ by {_small(stage['relative_l2'])}"
    )


def _small(error: float) -> str:
    """A relative error for people."""
    return "less than 0.001%" if error < 1e-5 else f"{100 * error:.2g}%"


def _speed(row: Mapping[str, Any]) -> str:
    latency = row["latency"]
    if latency is None:
        return ""
    call = "an image" if latency["batch"] == 1 else f"a batch of {latency['batch']}"
    return (
        f"; {call} takes {latency['p50_ms']:.3g} ms on this machine, and the file has {row['size_bytes'] / 1e6:.2f} MB"
    )


def _lost(chosen: Mapping[str, Any]) -> list[str]:
    drop = (chosen["quantization"] or {}).get("drop")
    if drop is None:
        return []
    low, high = drop["interval"]
    noise = f", which {drop['num_images']} images cannot tell from none" if drop["is_noise"] else ""
    verb = "gained" if drop["points"] < 0 else "lost"
    return [
        f"When it was made, {chosen['name']} {verb} {abs(drop['points']):.2f} points of {drop['metric']} (95% interval "
        f"of the loss {low:.2f} to {high:.2f}){noise}."
    ]


def _original(report: Mapping[str, Any]) -> str:
    is_file = report["weights"].get("source") == "onnx"
    return "the .onnx file that was given" if is_file else "the PyTorch model"


def _figure(accuracy: Mapping[str, Any]) -> str:
    value = accuracy["value"]
    return f"{value:.3f}" if accuracy["metric"] == "macro_f1" else percent(value)
