"""The seeded faults fit the source as it is, and the documentation names who catches each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import seeded_faults
from seeded_faults import ROOT, Fault, catcher_of, copy_source, read_faults, seed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAULTS = read_faults()


def test_there_are_50_and_each_has_a_place() -> None:
    assert len({fault.name for fault in FAULTS}) == 50
    for fault in FAULTS:
        assert fault.file or fault.flip or fault.rotate_labels or fault.told, fault.name
        if fault.file:
            assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) == 1, fault.name
            assert fault.new != fault.old


def test_the_documentation_lists_each() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = dict(_rows(text))
    assert set(rows) == {fault.name for fault in FAULTS}
    for fault in FAULTS:
        assert (f"`{fault.test}`" in rows[fault.name]) == bool(fault.test)


def _rows(text: str) -> Iterator[tuple[str, str]]:
    for line in text.partition("## Seeded faults")[2].splitlines():
        if line.startswith("| ") and not line.startswith(("| fault", "|---")):
            name, catcher = line.strip("| ").split(" | ")
            yield name, catcher


@pytest.mark.parametrize(
    ("name", "catcher"),
    [
        ("labels rotated in the manifest", "verify"),
        pytest.param("crop off by one pixel", "export", marks=pytest.mark.slow),
        pytest.param("network: epsilon", "test", marks=pytest.mark.slow),
        pytest.param("user: --mean and --std exchanged", "note", marks=pytest.mark.slow),
    ],
)
def test_a_fault_is_caught(name: str, catcher: str, tmp_path: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    copy_source(tmp_path)
    seed(fault, tmp_path)
    assert catcher_of(fault, tmp_path)[0] == catcher


def test_a_fault_that_nobody_catches_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    harmless = Fault(name="harmless", file="runtime/edgeport_runtime/stream.py", old="same order,", new="same order")
    monkeypatch.setattr(seeded_faults, "read_faults", lambda: [harmless])
    monkeypatch.setattr(seeded_faults, "catcher_of", lambda *_: (None, "nothing was wrong"))
    assert seeded_faults.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == "0 of 1 faults are caught\n"
    assert captured.err.startswith("NOBODY   harmless: nothing was wrong")
