"""Puts 50 faults into a copy of the source, one at a time, and reports who catches each.

    python tools/seeded_faults.py [--only NAME ...] [--json]

A fault is caught by the export (no bundle is written), by `run-model verify`, by a named test where the fault is in the
network that is itself the reference, or told in the export's notes where only the user can know. About six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
PACKAGES = {"runtime": "edgeport_runtime", "export": "edgeport_export", "models": "edgeport_models"}
EXPORT = "import sys; from edgeport_export.cli import main; sys.exit(main())"
RUN = "import sys; from edgeport_runtime.commands.cli import main; sys.exit(main())"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault; ``seeded_faults.toml`` says what the fields mean."""

    name: str
    file: str = ""
    old: str = ""
    new: str = ""
    command: str = "lenet5 --quantize none"
    flip: str = ""
    rotate_labels: bool = False
    test: str = ""
    told: str = ""


def read_faults() -> list[Fault]:
    """The faults of the table beside this file."""
    with Path(__file__).with_suffix(".toml").open("rb") as file:
        return [Fault(**values) for values in tomllib.load(file)["fault"]]


def spoil(fault: Fault, bundle: Path) -> None:
    """Alter a finished bundle."""
    if fault.flip:
        data = bytearray((bundle / fault.flip).read_bytes())
        data[len(data) // 2] ^= 1
        (bundle / fault.flip).write_bytes(data)
    if fault.rotate_labels:
        path = bundle / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        labels = manifest["contract"]["labels"]
        manifest["contract"]["labels"] = labels[1:] + labels[:1]
        path.write_text(json.dumps(manifest), encoding="utf-8")


def copy_source(folder: Path) -> None:
    """Copy the three packages and the tests."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for root in (*PACKAGES, "tests", "tools"):
        shutil.copytree(ROOT / root, folder / root, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)


def seed(fault: Fault, folder: Path) -> None:
    """Put the fault into the copy.

    Raises:
        SystemExit: if the source has no such text, or more than one.
    """
    if not fault.file:
        return
    path = folder / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.name}: {fault.file} holds {text.count(fault.old)} times {fault.old!r}, not once")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def catcher_of(fault: Fault, folder: Path) -> tuple[str | None, str]:
    """Who catches a fault that was seeded, and in which words."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder / root) for root in PACKAGES)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    if fault.test:
        done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", fault.test)
        return ("test" if done.returncode == 1 else None), fault.test
    bundle = folder / "bundle"
    done = run("-c", EXPORT, *fault.command.split(), "-o", str(bundle))
    if fault.told:
        told = [line for line in done.stdout.splitlines() if fault.told in line]
        return ("note" if told else None), "".join(told[:1])
    if done.returncode != 0:
        return "export", (done.stderr.strip().splitlines() or ["?"])[-1]
    spoil(fault, bundle)
    done = run("-c", RUN, "verify", str(bundle), "--variant", "fp32")
    return ("verify" if done.returncode != 0 else None), (done.stderr + done.stdout).strip().splitlines()[-1]


def measure(faults: Iterable[Fault]) -> list[dict[str, str | None]]:
    """Seed each fault into a copy of its own."""
    rows = []
    for fault in faults:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_source(folder)
            seed(fault, folder)
            catcher, words = catcher_of(fault, folder)
        rows.append({"fault": fault.name, "catcher": catcher, "words": words.replace(str(folder), "")})
        print(f"{catcher or 'NOBODY':<8} {fault.name}: {words[:150]}", file=sys.stderr)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run, print, and fail if a fault was caught by nobody."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="Faults to seed (default: all).")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    faults = [fault for fault in read_faults() if args.only is None or fault.name in args.only]
    rows = measure(faults)
    missed = [row for row in rows if row["catcher"] is None]
    if args.json:
        print(json.dumps({"faults": rows, "num_caught": len(rows) - len(missed)}, indent=2))
    else:
        print(f"{len(rows) - len(missed)} of {len(rows)} faults are caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
