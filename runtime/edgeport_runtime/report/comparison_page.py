"""The page of a comparison of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_runtime.engine.packages import versions_of
from edgeport_runtime.report import plots
from edgeport_runtime.report.document import MAX_THUMBNAILS, picture_of
from edgeport_runtime.report.figures import MAX_CLASSES, short_names, unlike_names
from edgeport_runtime.report.outcomes import names_of
from edgeport_runtime.report.page import Page
from edgeport_runtime.report.tables import Row, Table
from edgeport_runtime.report.verdict import percent
from edgeport_runtime.report.words import cleaned, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["page_of_comparison"]

_CHANCE = 0.05


def page_of_comparison(document: Mapping[str, Any], *, has_thumbnails: bool) -> str:
    """The page.

    Args:
        document: what ``run-model compare --json`` prints.
        has_thumbnails: show the images that are decided otherwise, at most 24.

    Raises:
        InputError: if altair or vl-convert is not installed.
    """
    page = Page("compare.html")
    flips = _with_pictures(document, has_thumbnails=has_thumbnails)
    c = cleaned(dict(document))
    changed = sorted(
        (one for one in c["classes"] if one["num_first"] != one["num_second"]),
        key=lambda one: -abs(one["num_second"] - one["num_first"]),
    )
    unlike = unlike_names({one["index"]: _name(one) for one in changed})
    shortened = short_names(unlike.values())
    rows = [
        {"label": shortened[unlike[one["index"]]], "change": one["num_second"] - one["num_first"]}
        for one in changed[:MAX_CLASSES]
    ]
    plot = None
    if rows:
        told = f"Change by class: most for {rows[0]['label']}, {rows[0]['change']:+d} images"
        plot = page.draw(lambda width: plots.changes_plot(rows, width=width), told)
    return page.render(
        c=c,
        titles=[_title(c[side]) for side in ("first", "second")],
        verdict=_verdict(c),
        not_tested=_not_tested(c),
        sides=_sides(c),
        labelled=_labelled(c),
        mcnemar=_mcnemar(c),
        flips=cleaned(flips),
        flips_told=_flips_told(c, has_thumbnails=has_thumbnails),
        classes=_classes(c),
        classes_told=_classes_told(c, len(changed)),
        plot=plot,
        max_thumbnails=MAX_THUMBNAILS,
        version=versions_of(("edgeport",))["edgeport"],
    )


def _with_pictures(document: Mapping[str, Any], *, has_thumbnails: bool) -> list[dict[str, Any]]:
    paths = [Path(flip["image"]) for flip in document["flips"]]
    labels = {one["index"]: _name(one) for one in document["classes"]}
    return [
        {
            **flip,
            "image": name,
            "true": None if flip["true"] is None else [labels[index] for index in flip["true"]],
            "picture": picture_of(path, "RGB", None) if has_thumbnails and i < MAX_THUMBNAILS else None,
        }
        for i, (flip, name, path) in enumerate(zip(document["flips"], names_of(paths), paths, strict=True))
    ]


def _images(num: int) -> str:
    return "1 image" if num == 1 else f"{num} images"


def _name(one: Mapping[str, Any]) -> str:
    return f"class {one['index']}" if one["label"] is None else str(one["label"])


def _title(side: Mapping[str, Any]) -> str:
    is_named = side["variant"] is None or side["name"].endswith(f"@{side['variant']}")
    variant = "" if is_named else f", {side['variant']}"
    precision = "" if side["precision"] is None else f" in {side['precision']}"
    return f"{side['name']}{variant}, on {side['device']}{precision}"


def _verdict(c: Mapping[str, Any]) -> list[str]:
    low, high = c["interval"]
    times, size = c["times_first"], c["second"]["size_bytes"] / c["first"]["size_bytes"]
    told = [
        f"A and B decide the same on {c['num_equal']} of {c['num_images']} images ({percent(c['agreement'])}, 95% "
        f"interval {percent(low)} to {percent(high)}); B is {times:.2f} times as fast as A on this machine and has "
        f"{percent(size)} of its size."
    ]
    labelled = c["labelled"]
    if labelled is not None:
        told.append(
            f"A is right on {percent(labelled['accuracy_first'])} of the images, B on "
            f"{percent(labelled['accuracy_second'])}."
        )
    return told


def _not_tested(c: Mapping[str, Any]) -> list[str]:
    told = [] if c["note"] is None else [f"{c['note'][:1].upper()}{c['note'][1:]}."]
    if c["labelled"] is None:
        told.append("Which of them is right: no labelled images were given (--data DIR with a folder per class).")
    if c["unusable"]:
        told.append(f"{len(c['unusable'])} images could not be used, and are in no figure.")
    return told


def _sides(c: Mapping[str, Any]) -> Table:
    rows = [
        Row(
            [
                f"{letter} {side['name']}",
                side["variant"] or "",
                side["precision"] or "",
                side["device"],
                f"{side['size_bytes'] / 1e6:.2f}",
                milliseconds(side["latency_ms"]),
            ]
        )
        for letter, side in (("A", c["first"]), ("B", c["second"]))
    ]
    return Table(["model", "variant", "runs in", "device", "MB", f"ms per call of {c['batch']}"], rows)


def _labelled(c: Mapping[str, Any]) -> Table:
    told = c["labelled"]
    if told is None:
        return Table([], [])
    names = (("both", "both"), ("A alone", "first_only"), ("B alone", "second_only"), ("neither", "neither"))
    return Table(["right", "images"], [Row([name, str(told[key])]) for name, key in names])


def _mcnemar(c: Mapping[str, Any]) -> str:
    told = c["labelled"]
    if told is None:
        return ""
    p = told["p_value"]
    meaning = "so these images do not tell which is better" if p >= _CHANCE else "so the difference is more than chance"
    first, second = (_images(told[key]) for key in ("first_only", "second_only"))
    return (
        f"A alone is right on {first}, B alone on {second}. If both were equally good, a difference at least as large "
        f"would come up with a probability of {p:.3g} (McNemar's test), {meaning}."
    )


def _flips_told(c: Mapping[str, Any], *, has_thumbnails: bool) -> str:
    num = len(c["flips"])
    if not num:
        return f"On none of the {c['num_images']} images do they decide otherwise."
    pictures = "" if has_thumbnails else " Pictures were left out on request."
    return (
        f"{num} of {c['num_images']} images are decided otherwise; those with the largest difference of a "
        f"probability come first.{pictures}"
    )


def _classes_told(c: Mapping[str, Any], num_changed: int) -> str:
    if not num_changed:
        return "Both decide for each class on equally many images."
    more = f" The {MAX_CLASSES} with the largest change are drawn." if num_changed > MAX_CLASSES else ""
    return f"For {num_changed} of {len(c['classes'])} classes they decide on a different number of images.{more}"


def _classes(c: Mapping[str, Any]) -> Table:
    has_true = c["labelled"] is not None
    columns = ["class", "A", "B", *(["of that class", "right in A", "right in B"] if has_true else [])]
    rows: Sequence[Row] = [
        Row(
            [
                _name(one),
                str(one["num_first"]),
                str(one["num_second"]),
                *([str(one[key]) for key in ("num_true", "right_first", "right_second")] if has_true else []),
            ]
        )
        for one in c["classes"]
    ]
    return Table(columns, rows)
