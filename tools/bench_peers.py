"""Compares EdgePort with what a person can build by hand: PyTorch, stock ONNX Runtime, OpenVINO with NNCF.

    make .peers/.installed .peers/openvino/.installed
    python tools/bench_peers.py [NAME ...] [--rounds N] [--json]

Every contender runs in a process of its own, on the same weights and input: one is timed at a time, in turn, and each
turn begins with 80 ms of rest and two calls that do not count, while the others wait. Weights are random and ranges are
of 100 photos: speeds and the order of errors mean something, accuracies do not. Latencies are medians; the error is the
relative L2 to PyTorch in float32 over 32 of the photos.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench_quantize import BARE, PHOTOS, ROOT, SHARED, parse_arguments
from edgeport_export import ExportConfig, export
from edgeport_export.quantize.calibration import CalibrationImages
from edgeport_export.source.subject import find_subject
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.outputs.metrics import relative_l2_of_all
from quantizers import static

NAMES = ("lenet5", "alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "vit_b_16")
BATCHES = (1, 8)
REST_S, CALLS, LEAST_MS, NUM_IMAGES = 0.08, 3, 20.0, 32
REFERENCE = "PyTorch eager"
WORKER = Path(__file__).with_name("peers_worker.py")
OPENVINO = ROOT / ".peers" / "openvino" / "bin" / "python"
BUILT_IN = ROOT / ".peers" / "openvino-builtin" / "bin" / "python"


class Contender:
    """A worker process; None of its work happens but when it is asked."""

    def __init__(self, kind: str, options: dict[str, Any], *, python: Path | str = sys.executable) -> None:
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(WORKER), kind, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(python),
        )
        self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, error = self._process.communicate()
            raise RuntimeError((error.strip().splitlines() or ["ended without a word"])[-1].split(": ", 1)[-1])
        answer: dict[str, Any] = json.loads(line)
        return answer


def _environment(python: Path | str) -> dict[str, str]:
    ours = [ROOT / "runtime"]
    if str(python) == sys.executable:
        ours += [ROOT / "tools", ROOT / "models", ROOT / ".peers" / "torchvision", SHARED / "peers"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, ours))}


def make(name: str, work: Path) -> tuple[dict[str, tuple[str, dict[str, Any], Any]], np.ndarray]:
    """What each contender is started with, and the images to compare on."""
    import torch

    targets = ("cpu", "openvino")
    config = ExportConfig(
        architecture=name, output=work / "bundle", quantize=("int8",), target=targets, calibration=PHOTOS
    )
    weights = work / "weights.pth"
    torch.save(find_subject(config).module.state_dict(), weights)
    result = export(config)
    bundle = str(result.path)
    batches = list(CalibrationImages(PHOTOS, result.manifest.contract, seed=0).batches())
    np.save(work / "calibration.npy", np.concatenate(batches))
    bare = work / "bare.onnx"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BARE, name, str(weights), str(work)],
        check=True,
        env=_environment(sys.executable),
        stdout=subprocess.DEVNULL,
    )
    defaults = static(bare, work / "defaults.onnx", batches, activations="int8", per_channel=False)
    torch_options = {"name": name, "weights": str(weights)}
    contenders: dict[str, tuple[str, dict[str, Any], Any]] = {
        REFERENCE: ("torch", torch_options, sys.executable),
        "torch.compile": ("torch", {**torch_options, "compiles": True}, sys.executable),
        "torch.compile bf16": ("torch", {**torch_options, "compiles": True, "is_bfloat16": True}, sys.executable),
        "ONNX Runtime": ("onnxruntime", {"path": str(bare)}, sys.executable),
        "quantize_static": ("onnxruntime", {"path": str(defaults)}, sys.executable),
        "EdgePort fp32": ("edgeport", {"path": bundle, "variant": "fp32", "device": "cpu"}, sys.executable),
        "EdgePort int8": ("edgeport", {"path": bundle, "variant": "int8", "device": "cpu"}, sys.executable),
    }
    if OPENVINO.exists():
        int8 = work / "nncf.xml"
        options = {
            "source": str(bare),
            "path": str(int8),
            "batches": str(work / "calibration.npy"),
            "is_transformer": name.startswith("vit"),
        }
        subprocess.run(
            [OPENVINO, str(WORKER), "nncf", json.dumps(options)],
            check=True,
            capture_output=True,
            env=_environment(OPENVINO),
        )
        for precision in ("f32", "bf16"):
            contenders[f"OpenVINO {precision}"] = ("openvino", {"path": str(bare), "precision": precision}, OPENVINO)
        contenders["OpenVINO NNCF"] = ("openvino", {"path": str(int8), "precision": "bf16"}, OPENVINO)
        ours = {"path": f"{bundle}/model.int8-openvino.onnx", "precision": "bf16"}
        contenders["EdgePort's file in OpenVINO"] = ("openvino", ours, OPENVINO)
        on_openvino = {"path": bundle, "variant": "int8-openvino", "device": "openvino"}
        contenders["EdgePort plugin"] = ("edgeport", on_openvino, OPENVINO)
        contenders["EdgePort OpenVINO built in"] = ("edgeport", on_openvino, BUILT_IN)
    return contenders, np.concatenate(batches)[:NUM_IMAGES]


def measure(name: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        specifications, images = make(name, work)
        running: dict[str, Contender] = {}
        absent: dict[str, str] = {}
        try:
            for contender, (kind, options, python) in specifications.items():
                try:
                    running[contender] = Contender(kind, options, python=python)
                except RuntimeError as error:
                    absent[contender] = str(error)
            np.save(work / "images.npy", images)
            outputs = {}
            for contender, process in running.items():
                process.ask(do="run", input=str(work / "images.npy"), output=str(work / "out.npy"))
                outputs[contender] = np.load(work / "out.npy")
            latency: dict[int, dict[str, float]] = {}
            for batch in BATCHES:
                np.save(work / "x.npy", np.ascontiguousarray(images[:batch]))
                times: dict[str, list[float]] = {contender: [] for contender in running}
                for _ in range(rounds):
                    for contender, process in running.items():
                        time.sleep(REST_S)
                        answer = process.ask(do="time", input=str(work / "x.npy"), calls=CALLS, least_ms=LEAST_MS)
                        times[contender] += answer["times_ms"]
                latency[batch] = {contender: statistics.median(values) for contender, values in times.items()}
        finally:
            for process in running.values():
                process.close()
    errors = {contender: relative_l2_of_all(out, outputs[REFERENCE]) for contender, out in outputs.items()}
    return {"name": name, "latency_ms": latency, "relative_l2": errors, "absent": absent}


def main() -> int:
    args = parse_arguments(__doc__, NAMES)
    machine = describe_machine()
    results = []
    for name in args.names or NAMES:
        result = measure(name, args.rounds)
        results.append(result)
        if args.json:
            continue
        print(f"\n{name} ({machine['cpu']}, {machine['num_cpus']} processors; milliseconds)\n")
        print("| contender | batch 1 | batch 8 | relative L2 |\n|---|---|---|---|")
        for contender, error in result["relative_l2"].items():
            first, second = (result["latency_ms"][batch][contender] for batch in BATCHES)
            print(f"| {contender} | {first:.3g} | {second:.3g} | {error:.2g} |", flush=True)
        for contender, reason in result["absent"].items():
            print(f"| {contender} | - | - | {reason} |")
    if args.json:
        print(json.dumps({"machine": machine, "rounds": args.rounds, "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
