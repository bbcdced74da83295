"""Export every architecture with random weights, each in a process of its own, and print one line per network.

    python tools/export_all.py [NAME ...] [--keep DIR]

Columns: parameters, graph nodes as traced and as shipped, the worst relative L2 distance from PyTorch and the smallest
top-1 agreement of any stage, wall seconds, and peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

from edgeport_models import ALIASES, ARCHITECTURES

COMMAND = [sys.executable, "-c", "import sys; from edgeport_export.cli import main; sys.exit(main())"]


def export(name: str, folder: Path) -> str | None:
    """Export one architecture and describe it in a line; None, with the reason on stderr, if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, name, "-o", str(folder), "--force"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        return None
    manifest = json.loads((folder / "manifest.json").read_text())
    measured = json.loads((folder / "measurements.json").read_text())
    stages = [stage for stage in manifest["parity"] if "skipped" not in stage]
    shipped = onnx.load(folder / manifest["variants"][0]["file"], load_external_data=False)
    return (
        f"{name:<14} {manifest['architecture']['num_params']:>12,} {measured['export']['num_nodes_traced']:>6} "
        f"{len(shipped.graph.node):>6} {max(stage['relative_l2'] for stage in stages):>9.1e} "
        f"{min(stage['agreement'] for stage in stages):>7.1%} {seconds:>7.1f} "
        f"{usage.ru_maxrss / 2**20:>6.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures (default: all)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the bundles in this folder")
    args = parser.parse_args()
    every = [name for name in ARCHITECTURES if name not in ALIASES]
    unknown = sorted(set(args.names) - set(every))
    if unknown:
        parser.error(f"unknown architecture {', '.join(unknown)}")
    print(
        f"{'name':<14} {'parameters':>12} {'traced':>6} {'nodes':>6} {'rel. L2':>9} "
        f"{'top-1':>7} {'seconds':>7} {'GiB':>6}"
    )
    failed = []
    for name in args.names or every:
        with tempfile.TemporaryDirectory() as folder:
            line = export(name, (args.keep or Path(folder)) / name)
        if line is None:
            failed.append(name)
        print(line or f"{name:<14} FAILED", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
