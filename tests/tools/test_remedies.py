"""What a message tells to install can be installed: EdgePort itself is in no package index."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FROM_INDEX = re.compile(r"pip install (?!--no-index)[^,;]*?\bedgeport\b")


def _texts(source: Path) -> list[str]:
    """Every text of a module, with {} for what is filled in."""
    tree = ast.parse(source.read_text("utf-8"))
    return [
        "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        if isinstance(node, ast.JoinedStr)
        else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


@pytest.mark.parametrize("package", ["runtime", "models", "export"])
def test_no_message_installs_edgeport_from_an_index(package: str) -> None:
    texts = [text for source in (ROOT / package).rglob("*.py") for text in _texts(source)]
    assert [text for text in texts if FROM_INDEX.search(text)] == []


def test_the_pages_for_users_do_not_either() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    assert [line for line in lines if FROM_INDEX.search(line) or "'edgeport[" in line] == []
