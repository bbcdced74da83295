"""An export holds back what libraries log, and leaves the caller's logging and random numbers as they were."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeport_export.quantize.quiet import quiet_logging

if TYPE_CHECKING:
    from pathlib import Path

# In an interpreter of its own: some libraries set up logging when they are first imported.
_EXPORT = """
import logging, sys
from pathlib import Path

import numpy as np
import torch

from edgeport_export import ExportConfig, export
from edgeport_models import ARCHITECTURES

module = ARCHITECTURES["lenet5"].build(num_classes=10, in_channels=1, image_size=32).eval()
config = ExportConfig(
    output=Path(sys.argv[1]), image_size=32, channels=1, quantize=("int8", "fp16"), target=("cpu", "openvino"),
    calibration="builtin", ort=True,
)

def state():
    names = [name for name in logging.root.manager.loggerDict if name.startswith(("torch.onnx", "onnx"))]
    levels = {name: logging.getLogger(name).level for name in names}
    random = np.random.get_state()
    return logging.root.manager.disable, list(logging.root.handlers), logging.root.level, levels, [
        torch.get_rng_state().tolist(), random[0], random[1].tolist(), *random[2:],
    ]

logging.disable(logging.DEBUG)
before = state()
result = export(module, config)
schemes = {made.details["scheme"] for made in result.made}
assert schemes == {"dynamic", "static", "float16"}, schemes
after = state()
assert after[:3] == before[:3], (before[:3], after[:3])
assert {name: after[3][name] for name in before[3]} == before[3]
assert after[4] == before[4], "random numbers"
"""


@pytest.mark.slow
def test_an_export_leaves_logging_and_random_numbers_as_they_were(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _EXPORT, str(tmp_path / "bundle")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def _log(disabled: int) -> None:
    logging.warning("of the root")
    library = logging.getLogger("library")
    library.warning("of a library")
    assert not library.isEnabledFor(logging.WARNING)
    assert library.isEnabledFor(logging.ERROR) == (disabled < logging.ERROR)
    raise ValueError("a reason")


@pytest.mark.parametrize("disabled", [logging.NOTSET, logging.DEBUG, logging.CRITICAL])
def test_logging_is_held_back_and_then_as_it_was(
    disabled: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root.manager, "disable", disabled)
    with pytest.raises(ValueError, match="a reason"), quiet_logging():
        _log(disabled)
    assert logging.root.handlers == []
    assert logging.root.manager.disable == disabled
    assert capsys.readouterr() == ("", "")
