"""From a plot to SVG, by altair and vl-convert: no script, no request, colours by the page's own variables."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ACCENT", "INK", "MUTED", "PALETTE", "WARN", "Chart", "require_altair", "standalone", "svg_of"]

Chart: TypeAlias = Any
"""A chart of altair, which is imported when something is drawn."""
INK, MUTED, LINE, ACCENT, WARN = (f"var(--{name})" for name in ("ink", "muted", "line", "accent", "warn"))
PALETTE = [f"var(--p{i})" for i in range(1, 9)]
"""Colours of the page, for light and for dark."""

_LIGHT = {
    "ink": "#1d2430",
    "muted": "#5a6473",
    "line": "#d5dae1",
    "accent": "#0b62b0",
    "warn": "#b3400a",
    "p1": "#0b62b0",
    "p2": "#b3400a",
    "p3": "#0d7a55",
    "p4": "#7a3fa0",
    "p5": "#946200",
    "p6": "#b02a6b",
    "p7": "#3d6b1f",
    "p8": "#556",
}
WIDE, NARROW = 720, 340
_ARIA = re.compile(r' (?:aria-[a-z]+|role)="[^"]*"')
_SIZE = re.compile(r' width="([\d.]+)" height="([\d.]+)"')
_TEXT = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
_AXIS = {**_TEXT, "titlePadding": 8, "gridColor": LINE, "domainColor": MUTED, "tickColor": MUTED, "labelLimit": 150}
_LOOK = {
    "background": "transparent",
    "padding": {"left": 6, "right": 8, "top": 6, "bottom": 4},
    "config": {
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": _AXIS,
        "legend": {**_TEXT, "orient": "top"},
        "text": {"color": INK, "fontSize": 12},
        "title": {"color": INK, "fontSize": 14, "anchor": "start"},
    },
}
"""The look of every plot."""


def require_altair() -> Any:
    """The module, or InputError with the remedy where it or vl-convert is absent."""
    try:
        import altair
        import vl_convert  # noqa: F401  altair's way to SVG
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed, which draws plots; pip install altair jinja2 vl-convert-python"
        ) from None
    return altair


def svg_of(make: Callable[[int], Chart], *, alternative: str, number: int) -> str:
    """A plot for screens of any width: SVG for wide and for narrow ones, of which the page shows one.

    Args:
        make: the plot for a width in pixels.
        alternative: what it shows, for those who do not see it.
        number: of the plot in its page.
    """
    parts = []
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        svg = _render(make(width), f"{kind}{number}")
        head = f' class="plot {kind}" role="img" aria-label="{html.escape(alternative)}"'
        parts.append(svg.replace(' class="marks"', head, 1))
    return "\n".join(parts)


def standalone(chart: Chart) -> str:
    """A plot as an SVG document of its own, dark on white."""
    svg = _render(chart, "plot")
    for name, colour in _LIGHT.items():
        svg = svg.replace(f"var(--{name})", colour)
    size = _SIZE.search(svg)
    assert size is not None
    width, height = size.groups()
    head, mark, rest = svg.partition(">")
    return f'{head}{mark}<rect width="{width}" height="{height}" fill="white"/>{rest}\n'


def _render(chart: Chart, prefix: str) -> str:
    import vl_convert

    # Unchecked: altair's checks take as long as the drawing.
    spec = {**chart.to_dict(validate=False), **_LOOK}
    svg: str = vl_convert.vegalite_to_svg(spec)
    svg = _ARIA.sub("", svg)  # of each mark: the plot is told as a whole
    return re.sub(r'(id="|url\(#)', rf"\g<1>{prefix}-", svg)
