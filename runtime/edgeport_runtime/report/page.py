"""The page of a bundle, made of its report's document alone; nothing that the document says is taken as markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_runtime.report.document import MAX_THUMBNAILS
from edgeport_runtime.report.drawing import require_altair, svg_of
from edgeport_runtime.report.figures import bundle_figures
from edgeport_runtime.report.tables import (
    Row,
    accuracy_part,
    chain_part,
    facts,
    flips_told,
    input_told,
    layers_part,
    variants_part,
)
from edgeport_runtime.report.verdict import percent
from edgeport_runtime.report.words import cleaned, shell_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Page", "bundle_page"]

_TEXT_COLUMNS = frozenset(("same file as", "variant", "device", "result", "operator", "taken for", "digest"))
_OPTION = re.compile(r"(--[a-z-]+(?: [A-Z]+\b)?|run-model (?:verify|report) BUNDLE(?: -o FILE)?)")
_TEMPLATES = Path(__file__).parent / "templates"
_SECTIONS = (
    ("verdict", "The verdict"),
    ("variants", "Variants"),
    ("proof", "The proof"),
    ("flips", "Where it flips"),
    ("layers", "Layers"),
    ("accuracy", "Accuracy"),
    ("input", "What the device sees"),
    ("provenance", "Where it comes from"),
)


class Page:
    """A template with its filters, and plots that are numbered as they are drawn.

    Args:
        template: name of its file.

    Raises:
        InputError: if altair or vl-convert is not installed.
    """

    def __init__(self, template: str) -> None:
        require_altair()
        import jinja2
        import markupsafe

        self._safe = markupsafe.Markup
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"percent": percent, "count": lambda number: f"{number:,}", "options": self._options}
        environment.tests["text"] = lambda column: column in _TEXT_COLUMNS or column.startswith("runs in")
        self._template, self._num_plots = environment.get_template(template), 0

    def draw(self, make: Callable[[int], Any], alternative: str) -> Any:
        """A plot as markup.

        Args:
            make: the plot for a width in pixels.
            alternative: what it shows, in words.
        """
        self._num_plots += 1
        return self._safe(svg_of(make, alternative=alternative, number=self._num_plots))

    def _options(self, text: str) -> Any:
        """Text as markup, in which options are set as code and not broken."""
        parts = _OPTION.split(text)
        code = self._safe('<code class="nb">{}</code>')
        return self._safe("").join(code.format(part) if i % 2 else part for i, part in enumerate(parts))

    def render(self, **values: Any) -> str:
        """The page."""
        return self._template.render(**values)


def bundle_page(document: Mapping[str, Any]) -> str:
    """The page of a bundle's report.

    Args:
        document: as ``docs/report.md`` says.

    Raises:
        InputError: if altair or vl-convert is not installed.
    """
    page, r = Page("report.html"), cleaned(dict(document))
    chosen, first = r["chosen"]["variant"], r["variants"][0]["name"]
    shown = [first] if chosen == first else [first, chosen]
    where = r["where"]
    machine = f"{where['machine']['cpu']}, {where['machine']['num_cpus']} processors, on {where['device']}"
    return page.render(
        r=r,
        sections=_SECTIONS,
        machine=machine,
        max_thumbnails=MAX_THUMBNAILS,
        version=where["versions"]["edgeport"],
        **variants_part(r),
        **chain_part(r),
        flips_told=flips_told(r),
        **layers_part(r, shown),
        **accuracy_part(r, shown),
        input_told=input_told(r),
        facts=facts(r, machine),
        command=shell_lines(r["export"]["command"]) if r["export"] is not None else "",
        digests=[Row([variant["file"], variant["sha256"]]) for variant in r["variants"]],
        plots=bundle_figures(page.draw, r, shown),
    )
