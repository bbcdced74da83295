"""docs/architecture.md names every module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["runtime/edgeport_runtime", "export/edgeport_export", "models/edgeport_models"])
def test_every_module_is_named(package: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.split(r"[./\s]", quoted)}
    modules = {file.stem for file in (ROOT / package).rglob("*.py") if "templates" not in file.parts} - {"__init__"}
    assert len(modules) > 10
    assert modules - named == set()
