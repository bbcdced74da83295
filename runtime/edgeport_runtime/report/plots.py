"""The plots of the page, each for a width in pixels. What each takes is a part of the report's document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_runtime.report.drawing import ACCENT, INK, MUTED, PALETTE, WARN, Chart, require_altair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = [
    "benchmark_plot",
    "chain_plot",
    "changes_plot",
    "classes_plot",
    "confusion_plot",
    "costs_plot",
    "precision_recall_plot",
    "reliability_plot",
    "times_plot",
    "variants_plot",
]

_FLOOR = 1e-9  # where a plot on a log scale shows an error of zero
_WIDE = 10  # of the slowest call to the fastest
_PHONE = 400  # pixels, and less
_ROOMY = 34  # pixels of a stage that hold its number of inputs with a mark
_FEW = 4  # classes, whose cells are larger
_ROW = 26  # pixels of a bar with its gap


def variants_plot(rows: Sequence[Mapping[str, Any]], score: str, *, width: int) -> Chart:
    """Latency against agreement or accuracy, with size as area, and a ring around the variant that runs.

    Args:
        rows: ``label``, ``ms``, ``score``, ``low`` and ``high`` (of 100), ``mb``, ``is_chosen``.
        score: what that is, for the axis.
        width: in pixels.
    """
    alt = require_altair()
    slowest = max(row["ms"] for row in rows)
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    pad = max(0.02 * (high - low), 0.2)
    x = alt.X(
        "ms:Q",
        title="milliseconds per call, median (less is better)",
        axis=alt.Axis(tickCount=5),
        scale=alt.Scale(domain=[0, slowest * 1.15]),
    )
    y_scale = alt.Scale(domain=[max(0, low - 3 * pad), min(100, high) + 4 * pad], zero=False, nice=False)
    colour = _colours(alt, [row["label"] for row in rows], field="label", columns=4 if width > _PHONE else 2)
    base = alt.Chart(alt.Data(values=sorted(rows, key=lambda row: -row["mb"]))).encode(x=x, color=colour)
    y = alt.Y("score:Q", title=score, scale=y_scale)
    spread = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=score), y2="high:Q")
    sizes = sorted({round(row["mb"], 2) for row in rows})
    legend = None  # on a phone there is no room for it, and the table has the sizes
    if width > _PHONE:
        legend = alt.Legend(title="size, MB", values=sizes, format=".2f", symbolFillColor=MUTED, symbolStrokeColor=INK)
    area = alt.Scale(domain=[0, max(row["mb"] for row in rows)], range=[40, 1400])
    points = base.mark_circle(opacity=0.8, stroke=INK).encode(
        y=y,
        size=alt.Size("mb:Q", scale=area, legend=legend),
        strokeWidth=alt.condition("datum.is_chosen", alt.value(3), alt.value(0.5)),
    )
    return alt.layer(spread, points).properties(width=width - 70, height=260)


def chain_plot(rows: Sequence[Mapping[str, Any]], *, width: int) -> Chart:
    """The error of each stage from left to right on a log scale, with its limit and the number of its inputs.

    Args:
        rows: ``stage``, ``error``, ``limit`` and ``num_samples``, in order.
        width: in pixels.
    """
    alt = require_altair()
    step = (width - 80) / len(rows)
    mark = "n=" if step > _ROOMY else ""
    shown = [dict(row, error=max(row["error"], _FLOOR), count=f"{mark}{row['num_samples']}") for row in rows]
    values = [row["error"] for row in shown] + [row["limit"] for row in shown]
    domain = [min(values) / 5, max(values) * 4]
    base = alt.Chart(alt.Data(values=shown)).encode(
        x=alt.X(
            "stage:N",
            sort=[row["stage"] for row in shown],
            title=None,
            axis=alt.Axis(labelAngle=-40, labelLimit=130, labelOverlap=False),
        )
    )
    y = alt.Y(
        "error:Q",
        title="relative error of the outputs",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(format=".0e", tickCount=6),
    )
    room = base.mark_rule(color=MUTED, strokeWidth=1, strokeDash=[2, 3]).encode(y=y, y2="limit:Q")
    limits = base.mark_tick(thickness=3, size=min(26, step * 0.7), color=WARN, opacity=1).encode(y=alt.Y("limit:Q"))
    points = base.mark_circle(size=90, color=ACCENT, opacity=1).encode(y=y)
    counts = base.mark_text(fontSize=11, color=MUTED, dy=14).encode(y=alt.Y("error:Q"), text="count:N")
    return alt.layer(room, limits, points, counts).properties(width=width - 80, height=230)


def costs_plot(rows: Sequence[Mapping[str, Any]], *, width: int) -> Chart:
    """The error that each layer adds when it alone is quantized, the worst first: ``layer`` and ``error``."""
    return _bars(rows, "layer", "error", "relative error of the outputs with this layer alone in int8", width)


def times_plot(rows: Sequence[Mapping[str, Any]], variants: Sequence[str], *, width: int) -> Chart:
    """Time of each layer in up to two variants, side by side: ``layer``, ``variant`` and ``ms``."""
    return _grouped(rows, "layer", "ms", "variant", list(variants), "milliseconds per call", width)


def classes_plot(rows: Sequence[Mapping[str, Any]], variants: Sequence[str], *, width: int) -> Chart:
    """A figure of each class, from 0 to 100, in up to two variants: ``label``, ``variant`` and ``value``."""
    title = "of its images found, percent"
    return _grouped(rows, "label", "value", "variant", list(variants), title, width, domain=[0, 100])


def confusion_plot(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], *, width: int) -> Chart:
    """Images by true and decided class: ``true``, ``decided``, ``count``, and ``share`` of the images of the class."""
    alt = require_altair()
    side = min(64 if len(labels) <= _FEW else 44, max(18, (width - 120) // len(labels)))
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X(
            "decided:N", sort=list(labels), title="decided", axis=alt.Axis(orient="top", labelAngle=-45, labelLimit=90)
        ),
        y=alt.Y("true:N", sort=list(labels), title="true", axis=alt.Axis(labelLimit=90)),
    )
    is_right = "datum.true === datum.decided"
    cells = base.mark_rect(cornerRadius=2).encode(
        color=alt.condition(is_right, alt.value(ACCENT), alt.value(WARN)),
        opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 0.5]), legend=None),
    )
    counts = base.mark_text(fontSize=12 if side > 26 else 9).encode(text="count:Q")
    return (cells + counts).properties(width=side * len(labels), height=max(20, side * 0.75) * len(labels))


def reliability_plot(rows: Sequence[Mapping[str, Any]], variants: Sequence[str], *, width: int) -> Chart:
    """How often decisions are right, by how sure the model is: ``variant``, ``confidence``, ``accuracy``, ``num``."""
    alt = require_altair()
    diagonal = alt.Chart(alt.Data(values=[{"c": 0, "a": 0}, {"c": 1, "a": 1}])).mark_line(
        color=MUTED, strokeDash=[4, 4]
    )
    scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format=".0%", tickCount=5)
    x, y = (
        alt.X("confidence:Q", scale=scale, axis=axis, title="how sure the model is"),
        alt.Y("accuracy:Q", scale=scale, axis=axis, title="how often it is right"),
    )
    colour = _colours(alt, variants)
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=x, y=y, color=colour)
    points = base.mark_circle(opacity=0.85).encode(
        size=alt.Size("num:Q", title="images", scale=alt.Scale(range=[20, 400]), legend=None)
    )
    side = min(360, width - 80)
    return (
        diagonal.encode(x=alt.X("c:Q", scale=scale), y=alt.Y("a:Q", scale=scale)) + base.mark_line() + points
    ).properties(width=side, height=side * 0.8)


def precision_recall_plot(
    rows: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]], labels: Sequence[str], *, width: int
) -> Chart:
    """Precision against recall for each label, with the point of its decision threshold.

    Args:
        rows: ``label``, ``recall`` and ``precision``, in order.
        marks: the same of the thresholds.
        labels: at most eight.
        width: in pixels.
    """
    alt = require_altair()
    axis, scale = alt.Axis(format=".0%", tickCount=5), alt.Scale(domain=[0, 1])
    x = alt.X("recall:Q", scale=scale, axis=axis, title="recall: of what there is, how much is found")
    y = alt.Y("precision:Q", scale=scale, axis=axis, title="precision: of what is found, how much is right")
    colour = _colours(alt, labels, field="label", columns=4 if width > _PHONE else 2)
    lines = (
        alt.Chart(alt.Data(values=list(rows))).mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, order="i:Q")
    )
    points = (
        alt.Chart(alt.Data(values=list(marks)))
        .mark_point(filled=True, size=90, stroke=INK, opacity=1)
        .encode(x=x, y=y, color=colour)
    )
    side = min(420, width - 80)
    return (lines + points).properties(width=side, height=side * 0.8)


def changes_plot(rows: Sequence[Mapping[str, Any]], *, width: int) -> Chart:
    """How many more images the second model decides for each class: ``label`` and ``change``."""
    alt = require_altair()
    low, high = min(0, *(row["change"] for row in rows)), max(0, *(row["change"] for row in rows))
    step = max(1, (high - low) // 8)
    x = alt.X(
        "change:Q",
        title="images that B decides for it, less those of A",
        axis=alt.Axis(values=list(range(low, high + 1, step)), format="d"),
    )
    colour = alt.condition("datum.change < 0", alt.value(WARN), alt.value(ACCENT))
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=_names_axis(alt, rows, "label", width))
    return base.mark_bar(height=14).encode(x=x, color=colour).properties(width=width - 150, height=_ROW * len(rows))


def benchmark_plot(result: Mapping[str, Any], title: str) -> Chart:
    """Every timed call of a benchmark, with the median of each contender: the result of ``tuning.bench``."""
    alt = require_altair()
    machine = f"{result['machine']['cpu']}, {result['machine']['num_cpus']} processors"
    calls, medians, order = [], [], []
    for row in result["rows"]:
        name = f"{row['variant']} on {row['device']}, batch {row['batch']}"
        order.append(name)
        calls += [{"name": name, "ms": ms / row["batch"]} for ms in row["times_ms"]]
        medians.append(
            {"name": name, "ms": row["p50_ms"] / row["batch"], "text": f"{row['p50_ms'] / row['batch']:.3g}"}
        )
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    times = [call["ms"] for call in calls]
    is_wide = max(times) > _WIDE * min(times)  # a few slow calls would leave no room for the others
    x = alt.X(
        "ms:Q",
        title=f"milliseconds per image{', logarithmic' if is_wide else ''}; less is better",
        scale=alt.Scale(type="log", nice=True) if is_wide else alt.Scale(zero=True),
        axis=alt.Axis(tickCount=8, format="~g"),
    )
    ticks = alt.Chart(alt.Data(values=calls)).mark_tick(thickness=1.5, size=16, opacity=0.45, color=ACCENT)
    middle = alt.Chart(alt.Data(values=medians)).encode(x=x, y=y)
    return (
        ticks.encode(x=x, y=y)
        + middle.mark_tick(thickness=3, size=24, color=WARN)
        + middle.mark_text(dy=-18, fontWeight="bold").encode(text="text:N")
    ).properties(
        width=520,
        height=44 * len(order),
        title=alt.TitleParams(
            title,
            subtitle=[machine, "each thin line is a call; thick lines and figures are medians"],
            subtitleColor=MUTED,
        ),
    )


def _bars(rows: Sequence[Mapping[str, Any]], name: str, value: str, title: str, width: int) -> Chart:
    alt = require_altair()
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=_names_axis(alt, rows, name, width))
    bars = base.mark_bar(height=14, color=ACCENT).encode(x=alt.X(f"{value}:Q", title=title, axis=alt.Axis(tickCount=5)))
    return bars.properties(width=width - 150, height=_ROW * len(rows))


def _grouped(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    value: str,
    by: str,
    groups: list[str],
    title: str,
    width: int,
    domain: list[float] | None = None,
) -> Chart:
    alt = require_altair()
    scale = alt.Scale() if domain is None else alt.Scale(domain=domain)
    num_rows = len({row[name] for row in rows})
    return (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar()
        .encode(
            y=_names_axis(alt, rows, name, width),
            yOffset=alt.YOffset(f"{by}:N", sort=groups),
            x=alt.X(f"{value}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5)),
            color=_colours(alt, groups, field=by),
        )
        .properties(width=width - 150, height=max(60, _ROW * num_rows))
    )


def _names_axis(alt: Any, rows: Sequence[Mapping[str, Any]], name: str, width: int) -> Any:
    """The names of bars, in the order of the rows."""
    order = list(dict.fromkeys(row[name] for row in rows))
    return alt.Y(f"{name}:N", sort=order, title=None, axis=alt.Axis(labelLimit=130 if width > _PHONE else 110))


def _colours(alt: Any, names: Sequence[str], *, field: str = "variant", columns: int = 4) -> Any:
    scale = alt.Scale(domain=list(names), range=PALETTE[: len(names)])
    legend = alt.Legend(title=None, columns=columns, symbolType="square", labelLimit=110) if len(names) > 1 else None
    return alt.Color(f"{field}:N", scale=scale, legend=legend)
