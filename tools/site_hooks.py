"""What `make docs` puts on the site beside the pages: the report of a bundle that is made for it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from edgeport_export import ExportConfig, export

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add sample/report.html, of the digits whose weights EdgePort ships."""
    with tempfile.TemporaryDirectory() as folder:
        result = export(ExportConfig(architecture="lenet5", weights="digits", output=Path(folder) / "digits"))
        page = (result.path / "report.html").read_text()
    files.append(File.generated(config, "sample/report.html", content=page))
    return files
