"""tools/check.py: a step that fails, or that nobody knows, is never a success."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).resolve().parents[2] / "tools" / "check.py"


def _run(check: Path, *steps: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, check, *steps], capture_output=True, text=True, check=False)


def test_unknown_step_is_refused() -> None:
    done = _run(CHECK, "ruff", "lint")
    assert done.returncode == 2
    assert "unknown step lint; choose from ruff, mypy, imports, pytest" in done.stderr


def test_a_failed_step_fails_the_whole(tmp_path: Path) -> None:
    # A copy, so that it checks a tree of its own.
    copy = tmp_path / "tools" / "check.py"
    copy.parent.mkdir()
    copy.write_text(CHECK.read_text())
    (tmp_path / "pyproject.toml").write_text('[tool.ruff]\nline-length = 120\nlint.select = ["E", "I"]\n')
    assert _run(copy, "ruff").returncode == 0
    (tmp_path / "bad.py").write_text("import os,sys\n")
    done = _run(copy, "ruff")
    assert done.returncode == 1
    assert "== ruff: FAILED" in done.stdout
