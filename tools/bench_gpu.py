"""EdgePort on an NVIDIA GPU against PyTorch: eager, torch.compile, and the TensorRT provider where there is one.

    python tools/bench_gpu.py [NAME ...] [--batch N ...] [--rounds N] [--json]

It needs a PyTorch with CUDA and `pip install 'edgeport[export,gpu]'`. Weights are random. Every contender gets its
input from the host's memory and gives its logits there, in turn after 80 ms of rest and two calls that do not count;
latencies are medians, the error is the relative L2 to PyTorch in float32. A bundle is exported for each batch size,
which is fixed, so that CUDA graphs are used.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgeport_export import ExportConfig, export
from edgeport_export.source.subject import find_subject
from edgeport_runtime import Classifier, load_manifest
from edgeport_runtime.engine.providers import find_provider, unusable
from edgeport_runtime.outputs.metrics import relative_l2_of_all
from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

NAMES = ("resnet18", "resnet50", "vit_b_16")
REFERENCE = "PyTorch float32"


def of_torch(module: torch.nn.Module, dtype: torch.dtype, *, compiles: bool) -> Run:
    module = module.to("cuda", dtype)
    call = torch.compile(module, mode="max-autotune") if compiles else module

    def run(x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = call(torch.from_numpy(x_BCHW).to("cuda", dtype)).float().cpu().numpy()
            return logits

    return run


def measure(name: str, batch: int, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as work:
        config = ExportConfig(architecture=name, output=Path(work) / "bundle", quantize=("fp16",), batch=batch)
        bundle = export(config).path
        contenders: dict[str, Run] = {REFERENCE: of_torch(find_subject(config).module, torch.float32, compiles=False)}
        for dtype in (torch.float32, torch.float16):
            precision = str(dtype).removeprefix("torch.")
            if dtype != torch.float32:
                contenders[f"PyTorch {precision}"] = of_torch(find_subject(config).module, dtype, compiles=False)
            contenders[f"torch.compile {precision}"] = of_torch(find_subject(config).module, dtype, compiles=True)
        for device in ("cuda", "tensorrt"):
            if unusable(find_provider(device)) is None:
                for variant in ("fp32", "fp16"):
                    classifier = Classifier.load_exactly(bundle, device=device, variant=variant)
                    contenders[f"EdgePort {device} {variant}"] = classifier.outputs
        shape = (batch, *load_manifest(bundle).contract.input_shape)
        x_BCHW = np.random.default_rng(0).standard_normal(shape, np.float32)
        outputs = {contender: run(x_BCHW) for contender, run in contenders.items()}
        calls = {contender: (lambda run=run: run(x_BCHW)) for contender, run in contenders.items()}
        times = time_in_turn(calls, rounds=rounds)
    return [
        {
            "name": name,
            "batch": batch,
            "contender": contender,
            "latency_ms": statistics.median(times[contender]),
            "relative_l2": relative_l2_of_all(outputs[contender], outputs[REFERENCE]),
        }
        for contender in contenders
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"(default {' '.join(NAMES)})")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 64], metavar="N")
    parser.add_argument("--rounds", type=int, default=10, metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "error: this PyTorch finds no NVIDIA GPU; nothing was measured\n")
    rows = [row for name in args.names or NAMES for batch in args.batch for row in measure(name, batch, args.rounds)]
    if args.json:
        print(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=2))
        return 0
    print(f"{torch.cuda.get_device_name()}; milliseconds")
    for row in rows:
        print(f"{row['name']:<10} {row['batch']:>4} {row['contender']:<24}", end=" ")
        print(f"{row['latency_ms']:9.3f} {row['relative_l2']:.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
