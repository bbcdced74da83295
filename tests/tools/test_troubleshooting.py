"""docs/troubleshooting.md has every refusal of the export, as it is raised, with its remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from edgeport_export.cli import main
from make_troubleshooting import TARGET, page, refusals, without_remedy
from troubleshooting_remedies import REMEDIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_page_is_what_the_tool_writes() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run: python tools/make_troubleshooting.py"


def test_each_refusal_has_a_remedy() -> None:
    assert sum(map(len, refusals().values())) > 100
    assert without_remedy() == []


def test_each_remedy_that_stands_apart_belongs_to_a_message() -> None:
    messages = [row.message for rows in refusals().values() for row in rows]
    assert [start for start in REMEDIES if not any(start in message for message in messages)] == []


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["PEOPLE:batch_statistics", "--image-size", "8"], "--batch 1"),
        (["PEOPLE:bare_squeeze", "--image-size", "8"], "flatten(1)"),
        (["PEOPLE:one_output", "--image-size", "8"], "--task binary"),
        (["PEOPLE:torchscript", "--image-size", "8"], "torch.jit"),
        (["PEOPLE:plain"], "--image-size"),
        (["PEOPLE:nothing", "--image-size", "8"], "callable"),
        (["PEOPLE:plain", "--image-size", "8", "--output-name", "logits"], "--output-name"),
        (["PEOPLE:plain", "--image-size", "8", "--task", "binary"], "--task multiclass"),
        (["PEOPLE:plain", "--image-size", "8", "--num-classes", "7"], "--num-classes"),
        (["lenet5", "--output-name", "logits"], "--output-name"),
        (["lenet6"], "--list"),
        (["lenet5", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["lenet5", "--golden", "nowhere"], "nowhere"),
        (["resnet20", "--quantize", "int8"], "--calibration"),
    ],
)
def test_what_is_printed_stands_in_the_page(
    arguments: list[str],
    remedy: str,
    shared: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    people = str(shared("cases/modules/people.py"))
    status = main([*(word.replace("PEOPLE", people) for word in arguments), "-o", str(tmp_path / "bundle")])
    assert status in (1, 2, 3)
    error = capsys.readouterr().err.removeprefix("error: ").strip()
    assert remedy in error
    rows = [row for rows in refusals().values() for row in rows if re.match(_pattern(row.message), error, re.DOTALL)]
    assert rows, error


def _pattern(message: str) -> str:
    return "(.*: )?" + ".*".join(map(re.escape, message.split("…")))
