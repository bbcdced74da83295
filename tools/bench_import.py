"""What importing the runtime costs beyond importing numpy and PIL; each runs in a process of its own, in turn.

    python tools/bench_import.py [--rounds N]

Times are CPU seconds of the whole process, less those of an interpreter that imports nothing; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

CONTENDERS = {
    "nothing": "",
    "numpy and PIL": "import numpy, PIL.Image",
    "edgeport_runtime": "import edgeport_runtime",
}


def cpu_seconds(code: str) -> float:
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{code!r} failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="runs of each contender (default 40)")
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds + 1):
        for name, code in CONTENDERS.items():
            times[name].append(cpu_seconds(code))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first fills caches
    costs = {name: median - medians["nothing"] for name, median in medians.items() if name != "nothing"}
    for name, cost in costs.items():
        print(f"{name:<17} {cost * 1e3:6.1f} ms")
    print(f"ratio             {costs['edgeport_runtime'] / costs['numpy and PIL']:6.2f}")


if __name__ == "__main__":
    main()
