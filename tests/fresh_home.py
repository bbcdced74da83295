"""Processes in a home of their own, and what ONNX Runtime's telemetry leaves there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = os.pathsep.join(str(ROOT / name) for name in ("runtime", "models", "export"))
EXPORT_MODEL = (sys.executable, "-c", "import sys; from edgeport_export.cli import main; sys.exit(main())")
RUN_MODEL = (sys.executable, "-c", "import sys; from edgeport_runtime.commands.cli import main; sys.exit(main())")


def run_at_home(home: Path, *command: object, **variables: str) -> str:
    """Run a command that must succeed, in that home, with no variable that ONNX Runtime could take for a CI's."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": PACKAGES, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def traces(home: Path) -> list[Path]:
    """The folder of the device id and the queue of events, wherever it is in that home, and the queue's own files."""
    return [path for path in home.rglob("*") if path.name == ".onnxruntime" or path.suffix == ".ses"]
