"""What an export costs beyond its bare ingredients, in wall time and peak memory; each runs in its own process.

    python tools/bench_export.py [--rounds N] [--json]

Contenders: `export-model vit_b_16` (everything included), and a script with nothing but `torch.onnx.export` and
`onnxsim.simplify` of the same network. Both write their model. Reported are medians and their ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REST_S = 2.0
ARCHITECTURE = "vit_b_16"
BARE = f"""
import sys, onnx, onnxsim, torch
from edgeport_models import ARCHITECTURES
module = ARCHITECTURES["{ARCHITECTURE}"].build().eval()
traced, simplified = sys.argv[1:]
torch.onnx.export(module, (torch.zeros(2, 3, 224, 224),), traced, dynamo=True, external_data=False, verbose=False,
                  dynamic_shapes=({{0: torch.export.Dim("batch")}},), input_names=["image"], output_names=["logits"])
onnx.save(onnxsim.simplify(traced)[0], simplified)
"""
OURS = "import sys; from edgeport_export.cli import main; sys.exit(main())"


def measure(command: list[str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a command that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{command[:3]} failed:\n{error.decode()}")
    return seconds, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    results: dict[str, list[tuple[float, int]]] = {"bare": [], "edgeport": []}
    for _ in range(args.rounds):
        for name, runs in results.items():
            with tempfile.TemporaryDirectory() as folder:
                paths = [str(Path(folder) / file) for file in ("traced.onnx", "simplified.onnx")]
                bare = [sys.executable, "-c", BARE, *paths]
                ours = [
                    sys.executable,
                    "-c",
                    OURS,
                    ARCHITECTURE,
                    "-o",
                    str(Path(folder) / "bundle"),
                    "--quantize",
                    "none",
                ]
                time.sleep(REST_S)
                runs.append(measure(bare if name == "bare" else ours))
    medians = {
        name: {
            "seconds": statistics.median(seconds for seconds, _ in runs),
            "peak_bytes": statistics.median(peak for _, peak in runs),
        }
        for name, runs in results.items()
    }
    ratios = {key: medians["edgeport"][key] / medians["bare"][key] for key in ("seconds", "peak_bytes")}
    if args.json:
        print(json.dumps({"rounds": args.rounds, "medians": medians, "ratios": ratios}, indent=2))
        return
    for name, median in medians.items():
        print(f"{name:<10} {median['seconds']:6.1f} s  {median['peak_bytes'] / 2**20:7.0f} MiB")
    print(
        f"ratio      {ratios['seconds']:6.2f}    {ratios['peak_bytes']:7.2f}   "
        f"(edgeport over bare; {args.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
