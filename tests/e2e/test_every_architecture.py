"""Every architecture by its name, through the command: full parity, the right size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgeport_export.cli import main
from edgeport_models import ALIASES, ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [name for name in ARCHITECTURES if name not in ALIASES]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_architecture_exports_with_full_parity(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "-o", str(tmp_path / "bundle"), "--quantize", "none", "--json"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    manifest = json.loads(told.out)["manifest"]
    spec = ARCHITECTURES[name]
    assert manifest["architecture"]["num_params"] == spec.num_params
    assert manifest["contract"]["num_classes"] == spec.num_classes
    assert [stage["stage"] for stage in manifest["parity"]] == [
        "exported",
        "simplified",
        "variant fp32",
        "runtime fp32",
    ]
    for stage in manifest["parity"]:
        assert stage["passed"]
        assert stage["relative_l2"] <= 1e-5
        assert stage["agreement"] == 1
