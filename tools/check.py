"""The one command before a commit: lint, types, architecture, tests.

python tools/check.py            everything
python tools/check.py ruff mypy  some steps
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = {
    "ruff": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."]],
    "mypy": [["-m", "mypy"]],
    "imports": [["-c", "import sys; from importlinter.cli import lint_imports_command as lint; sys.exit(lint())"]],
    "pytest": [["-m", "pytest"]],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"Steps to run, from {', '.join(STEPS)} (default: all)."
    )
    steps = parser.parse_args().steps or list(STEPS)
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        parser.error(f"unknown step {', '.join(unknown)}; choose from {', '.join(STEPS)}")
    failed = []
    for step in steps:
        start = time.monotonic()
        is_good = all(subprocess.run([sys.executable, *command], cwd=ROOT).returncode == 0 for command in STEPS[step])
        print(f"== {step}: {'passed' if is_good else 'FAILED'} in {time.monotonic() - start:.0f} s", flush=True)
        if not is_good:
            failed.append(step)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
