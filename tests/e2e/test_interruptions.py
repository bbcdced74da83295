"""An export cut short from outside: nothing half-written is left."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_COMMAND = [sys.executable, "-c", "import sys; from edgeport_export.cli import main; sys.exit(main())"]


def _start(*argv: str, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        # A full disk, as a process can have it to itself: writes beyond this size fail.
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [*_COMMAND, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit
    )


def _wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while not any(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("pattern", "number", "status"),
    [
        (".bundle.*.tmp", signal.SIGINT, 130),
        pytest.param(".bundle.*.tmp/work/exported.onnx", signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(".bundle.*.tmp", signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_signal_during_an_export_leaves_nothing(pattern: str, number: int, status: int, tmp_path: Path) -> None:
    process = _start("resnet20", "-o", str(tmp_path / "made" / "bundle"))
    _wait_for(tmp_path, f"made/{pattern}", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert out == ""
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_signal_before_the_export_begins_is_as_quiet(tmp_path: Path) -> None:
    process = _start("lenet5", "-o", str(tmp_path / "bundle"))
    time.sleep(1.0)  # within the import of PyTorch, which takes longer
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_signal_during_a_forced_export_keeps_the_old_bundle(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    assert subprocess.run([*_COMMAND, "lenet5", "-o", str(target)], stdout=subprocess.DEVNULL).returncode == 0
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    process = _start("resnet20", "-o", str(target), "--force")
    _wait_for(tmp_path, ".bundle.*.tmp/bundle/manifest.json", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    process = _start("resnet20", "-o", str(tmp_path / "made" / "bundle"), limit_bytes=600_000)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("error: ")
    assert "disk full?" in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
