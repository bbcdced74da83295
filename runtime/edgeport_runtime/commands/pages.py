"""The pages that commands write: a bundle's report made on this machine, and the comparison of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.errors import InputError
from edgeport_runtime.report.comparison_page import page_of_comparison
from edgeport_runtime.report.document import report_document
from edgeport_runtime.report.drawing import require_altair
from edgeport_runtime.report.measure import measure_bundle
from edgeport_runtime.report.page import bundle_page
from edgeport_runtime.report.record import read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_runtime.accuracy.matching import Match
    from edgeport_runtime.commands.compare import Compared

__all__ = ["check_output", "comparison_page", "make_page"]


def check_output(file: str, option: str) -> Path:
    """The file that a command is to write.

    Raises:
        InputError: naming the option, if its folder does not exist.
    """
    path = Path(file)
    if not path.absolute().parent.is_dir():
        raise InputError(f"--{option}: the folder of {file} does not exist")
    return path


def make_page(
    bundle: Path,
    output: Path,
    *,
    device: str,
    data: str | None,
    match: Match,
    has_thumbnails: bool,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Measure a bundle on this machine and write its page.

    Args:
        bundle: the folder.
        output: the file.
        device: to measure on, by name.
        data: images of the user's; None takes the golden images.
        match: how folders become classes.
        has_thumbnails: show images of the user's.
        on_progress: called with (images done, images in all).

    Returns:
        What the page shows, by the schema of ``docs/report.md``.

    Raises:
        ManifestError, InputError, SessionError: if the bundle or the images cannot be used.
    """
    require_altair()
    manifest, record = load_manifest(bundle), read_record(bundle)
    findings = measure_bundle(bundle, manifest, record, device=device, data=data, match=match, on_progress=on_progress)
    name = bundle.resolve().name
    document = report_document(bundle, manifest, record, findings, name=name, has_thumbnails=has_thumbnails)
    output.write_text(bundle_page(document), encoding="utf-8")
    return document


def comparison_page(found: Compared, *, has_thumbnails: bool) -> str:
    """The page of a comparison; errors as of ``make_page``."""
    return page_of_comparison(found.to_dict(), has_thumbnails=has_thumbnails)
