"""docs/reference.md is what the parsers say."""

from __future__ import annotations

from make_reference import TARGET, reference


def test_the_page_is_what_the_tool_writes() -> None:
    assert TARGET.read_text(encoding="utf-8") == reference(), "run: python tools/make_reference.py"


def test_each_option_has_a_meaning() -> None:
    rows = [line.replace("\\|", "") for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if not row.split("|")[2].strip()] == []
