"""Size, speed and error of EdgePort's int8 against float32 and against what `onnxruntime.quantization` makes by itself.

    make .peers/.installed
    python tools/bench_quantize.py [NAME ...] [--rounds N] [--json]

Contenders, all on stock ONNX Runtime's CPU provider: EdgePort's float32 and int8; and on the same network with the same
weights in torchvision's layout (through torch.onnx.export and onnxsim): `quantize_static` S8S8 and U8S8, per channel,
over all operators, and `quantize_dynamic` over the linear layers. Weights are random, ranges are of 100 photos from the
folder that EDGEPORT_TEST_DATA names: speeds and the order of errors mean something, accuracies do not.

Every contender is timed in turn; each turn begins with 80 ms of rest and two calls that do not count, because idle
threads of the contender before spin for a while. Latencies are medians, and ratios are theirs over ours: above 1,
EdgePort is faster.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_export import ExportConfig, export
from edgeport_export.quantize.calibration import CalibrationImages
from edgeport_models import ARCHITECTURES
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.outputs.metrics import relative_l2_of_all
from edgeport_runtime.tuning.timing import time_in_turn
from quantizers import dynamic, session, static

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAMES = ("lenet5", "alexnet", "resnet50", "vgg16", "googlenet", "vit_b_16")
BATCHES = (1, 8)
CALLS, LEAST_MS = 3, 20.0
ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEPORT_TEST_DATA", ROOT.parent / "shared"))
PHOTOS = SHARED / "data" / "cats-dogs" / "test"

# In a process of its own: torchvision's compiled extension does not fit the CPU build of torch.
BARE = """
import sys
import onnx, onnxsim, torch
from peers_worker import reference_module
name, weights, folder = sys.argv[1:]
module = reference_module(name, weights)
side, channels = (32, 1) if name == "lenet5" else (224, 3)
torch.onnx.export(module, (torch.zeros(2, channels, side, side),), f"{folder}/traced.onnx", dynamo=True,
                  external_data=False, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},),
                  input_names=["image"], output_names=["logits"])
onnx.save(onnxsim.simplify(f"{folder}/traced.onnx")[0], f"{folder}/bare.onnx")
"""


def contenders(name: str, work: Path) -> tuple[dict[str, Path], list[NDArray[np.float32]]]:
    """The files to compare, and the calibration batches."""
    import torch

    from edgeport_export.source.subject import find_subject

    config = ExportConfig(architecture=name, output=work / "bundle", quantize=("int8",), calibration=PHOTOS)
    module = find_subject(config).module
    torch.save(module.state_dict(), work / "weights.pth")
    result = export(config)
    batches = list(CalibrationImages(PHOTOS, result.manifest.contract, seed=0).batches())
    search = os.pathsep.join(map(str, (ROOT / "tools", ROOT / ".peers" / "torchvision", SHARED / "peers")))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BARE, name, str(work / "weights.pth"), str(work)],
        check=True,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.DEVNULL,
    )
    bare = work / "bare.onnx"
    files = {
        "fp32": result.path / "model.fp32.onnx",
        "int8": result.path / "model.int8.onnx",
        "static S8S8": static(bare, work / "s8s8.onnx", batches, activations="int8", per_channel=True),
        "static U8S8": static(bare, work / "u8s8.onnx", batches, activations="uint8", per_channel=True),
        "dynamic": dynamic(bare, work / "dynamic.onnx"),
    }
    return files, batches


def time_ms(files: dict[str, Path], x_BCHW: NDArray[np.float32], rounds: int) -> dict[str, float]:
    """Median latency of each contender, in turn."""
    runs = {name: session(path).run for name, path in files.items()}
    calls = {name: functools.partial(run, None, {"image": x_BCHW}) for name, run in runs.items()}
    times = time_in_turn(calls, rounds=rounds, calls=CALLS, least_ms=LEAST_MS)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(name: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files, batches = contenders(name, Path(folder))
        outputs = {}
        for contender, path in files.items():
            run = session(path).run
            outputs[contender] = np.concatenate([run(None, {"image": batch})[0] for batch in batches])
        spec = ARCHITECTURES[name].preprocess
        shape = spec.input_shape
        generator = np.random.default_rng(0)
        latency = {
            batch: time_ms(files, generator.standard_normal((batch, *shape), dtype=np.float32), rounds)
            for batch in BATCHES
        }
        return {
            "name": name,
            "size_ratio": files["int8"].stat().st_size / files["fp32"].stat().st_size,
            "relative_l2": {c: relative_l2_of_all(out, outputs["fp32"]) for c, out in outputs.items() if c != "fp32"},
            "latency_ms": latency,
        }


def line(result: dict[str, Any], batch: int) -> str:
    latency, errors = result["latency_ms"][batch], result["relative_l2"]
    theirs = min(("static S8S8", "static U8S8", "dynamic"), key=lambda name: latency[name])
    return (
        f"| {result['name']} | {batch} | {result['size_ratio']:.3f} | {latency['fp32'] / latency['int8']:.2f} "
        f"| {latency[theirs] / latency['int8']:.2f} ({theirs}) | {errors['int8']:.4f} | {errors['static S8S8']:.4f} "
        f"| {errors['static U8S8']:.4f} | {errors['dynamic']:.4f} |"
    )


def parse_arguments(description: str | None, names: Sequence[str]) -> argparse.Namespace:
    """Networks by name, rounds and --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument(
        "--rounds", type=int, default=6, help="turns of each contender, at least 3 calls and 20 ms each (default 6)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(names))
    if unknown:
        parser.error(f"unknown network {', '.join(unknown)}")
    return args


def main() -> int:
    args = parse_arguments(__doc__, NAMES)
    machine = describe_machine()
    if not args.json:
        print(f"{machine['cpu']}, {machine['num_cpus']} processors; medians of at least {args.rounds * CALLS} calls\n")
        print(
            "| network | batch | size | to float32 | to the best of theirs | rel. L2 | static S8S8 | static U8S8 "
            "| dynamic |\n|---|---|---|---|---|---|---|---|---|"
        )
    results = []
    for name in args.names or NAMES:
        results.append(measure(name, args.rounds))
        if not args.json:
            for batch in BATCHES:
                print(line(results[-1], batch), flush=True)
    if args.json:
        print(json.dumps({"machine": machine, "rounds": args.rounds, "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
