"""Every architecture by its name, through the command, each in a process of its own: full parity, the right size."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeport_models import ALIASES, ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-c", "import sys; from edgeport_export.cli import main; sys.exit(main())"]
NAMES = [name for name in ARCHITECTURES if name not in ALIASES]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_architecture_exports_with_full_parity(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, name, "-o", tmp_path / "bundle", "--quantize", "none", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    manifest = json.loads(done.stdout)["manifest"]
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
