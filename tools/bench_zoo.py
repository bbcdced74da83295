"""Default int8 over networks of many families, against float32 and what `onnxruntime.quantization` makes of them.

    make .peers/.installed
    python tools/bench_zoo.py -o DIR [--networks NAME,NAME,...] [--images N] [--make-only] [--rounds N] [--json]

Each network is exported with random weights and without asking for int8, with ranges of photos from the folder that
EDGEPORT_TEST_DATA names, in a process of its own. All contenders' files are kept in DIR/NAME, and what became of them
in DIR/NAME.json: a network is made once and timed once, so that the command can be interrupted, given a few networks at
a time, or made with --make-only on a busy machine and timed later on a quiet one. The table is of what was timed.

Contenders, on stock ONNX Runtime's CPU provider, all made from EdgePort's float32 graph: our int8; `quantize_static`
with int8 and with uint8 activations, weights per channel, all operators; `quantize_dynamic` over the linear layers.
Weights are random: speeds and the order of errors mean something, accuracies do not. Each turn begins with 80 ms of
rest and two calls that do not count. Speeds are float32's median over the contender's, at batch 1: above 1 is faster.
"Theirs" is the fastest of the three. Where no int8 is made, the reason stands there, and ours counts as 1 in the mean
over all networks, as `auto` then takes float32; so does a contender of theirs that is slower than float32.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEPORT_TEST_DATA", ROOT.parent / "shared"))
PHOTOS = SHARED / "data" / "cats-dogs" / "test"
CALLS, LEAST_MS = 3, 20.0
LIMIT_S = 1800
_OURS = ("alexnet", "vgg11", "googlenet", "resnet18", "resnet50", "vit_b_16")
_TORCHVISION = (
    "mobilenet_v2 mobilenet_v3_small mobilenet_v3_large shufflenet_v2_x1_0 efficientnet_b0 regnet_x_400mf "
    "regnet_y_400mf mnasnet1_0 squeezenet1_1 densenet121 resnext50_32x4d convnext_tiny swin_t"
)
_TIMM = (
    "convnext_atto convnextv2_atto focalnet_tiny_srf poolformer_s12 inception_next_atto efficientformer_l1 "
    "mobilevit_xxs fastvit_t8 ghostnet_100 repvit_m0_9 mobileone_s0 edgenext_xx_small mixer_s32_224 resmlp_12_224 "
    "lcnet_050 tinynet_e dla34 res2net50_26w_4s deit_tiny_patch16_224 mobilenetv4_conv_small starnet_s1"
)
NETWORKS = (*_OURS, *(f"torchvision:{n}" for n in _TORCHVISION.split()), *(f"timm:{n}" for n in _TIMM.split()))


def make(name: str, folder: Path, num_images: int) -> dict[str, Any]:
    """The contenders of one network, as files in a folder, and how far each is from float32."""
    if name.startswith(("torchvision:", "timm:")):
        import tvshim  # noqa: F401 - torchvision's compiled half does not fit the CPU build of torch

    from edgeport_export import ExportConfig, export
    from edgeport_export.quantize.calibration import CalibrationImages
    from quantizers import session

    photos = folder / "photos"
    photos.mkdir(parents=True)
    for path in sorted(PHOTOS.rglob("*.jpg"))[:num_images]:
        (photos / f"{path.parent.name}-{path.name}").symlink_to(path)
    start = time.perf_counter()
    result = export(ExportConfig(architecture=name, output=folder / "bundle", calibration=photos))
    seconds = time.perf_counter() - start
    contract = result.manifest.contract
    batches = list(CalibrationImages(photos, contract, seed=0).batches())
    fp32 = result.path / "model.fp32.onnx"
    files, failed = {"fp32": fp32}, {}
    details: dict[str, Any] | None = None
    for variant in result.manifest.variants[1:]:
        files["int8"], details = result.path / variant.file, dict(variant.quantization or {})
    for contender, write in _theirs(fp32, folder, batches).items():
        try:
            files[contender] = write()
            session(files[contender])
        except Exception as error:  # noqa: BLE001 - of whatever kind: it is told in the table
            files.pop(contender, None)
            failed[contender] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    outputs = {
        c: np.concatenate([run(None, {"image": batch})[0] for batch in batches])
        for c, run in ((c, session(path).run) for c, path in files.items())
    }
    return {
        "name": name,
        "share": None if details is None else details["share"],
        "scheme": None if details is None else details["scheme"],
        "float_layers": None if details is None else [len(details["float_layers"]), details["num_layers"]],
        "reason": next((note for note in result.notes if note.startswith("no int8 variant")), None),
        "export_seconds": round(seconds, 1),
        "failed": failed,
        "files": {c: str(path.relative_to(folder)) for c, path in files.items()},
        "input_shape": list(contract.input_shape),
        "compared": {c: _compared(out, outputs["fp32"], contract) for c, out in outputs.items() if c != "fp32"},
    }


def time_made(made: dict[str, Any], folder: Path, rounds: int) -> dict[str, Any]:
    """The same with the latency of each contender."""
    from edgeport_runtime.tuning.timing import time_in_turn
    from quantizers import session

    x_BCHW = np.random.default_rng(0).standard_normal((1, *made["input_shape"]), dtype=np.float32)
    runs = {contender: session(folder / file).run for contender, file in made["files"].items()}
    calls = {contender: functools.partial(run, None, {"image": x_BCHW}) for contender, run in runs.items()}
    times = time_in_turn(calls, rounds=rounds, calls=CALLS, least_ms=LEAST_MS)
    return {**made, "latency_ms": {c: statistics.median(values) for c, values in times.items()}}


def _theirs(fp32: Path, work: Path, batches: list[NDArray[np.float32]]) -> dict[str, Any]:
    from quantizers import dynamic, static

    make = functools.partial(static, fp32, batches=batches, per_channel=True)
    return {
        "static S8S8": functools.partial(make, path=work / "s8s8.onnx", activations="int8"),
        "static U8S8": functools.partial(make, path=work / "u8s8.onnx", activations="uint8"),
        "dynamic": functools.partial(dynamic, fp32, work / "dynamic.onnx"),
    }


def _compared(outputs_BK: NDArray[np.float32], reference_BK: NDArray[np.float32], contract: Any) -> dict[str, float]:
    from edgeport_runtime.outputs.metrics import relative_l2_of_all
    from edgeport_runtime.outputs.tasks import compared

    return {
        "relative_l2": relative_l2_of_all(*compared(outputs_BK, reference_BK, contract)),
        "agreement": float((outputs_BK.argmax(axis=1) == reference_BK.argmax(axis=1)).mean()),
    }


def _work(name: str, path: Path, args: argparse.Namespace) -> None:
    """The worker: what is missing of one network."""
    folder = path.with_suffix("")
    if path.exists():
        result = time_made(json.loads(path.read_text()), folder, args.rounds)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        result = make(name, folder, args.images)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2))
    temporary.replace(path)


def _run(name: str, path: Path, args: argparse.Namespace) -> str | None:
    """Do the next step of a network in a process of its own; the last line of what it says if it fails."""
    peers = (ROOT / "tools", ROOT / "tests" / "e2e", *(ROOT / ".peers" / peer for peer in ("timm", "torchvision")))
    search = os.pathsep.join([*map(str, peers), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", __file__, "--worker", name, "-o", str(path)]
    command += ["--images", str(args.images), "--rounds", str(args.rounds)]
    try:
        process = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return f"not done in {LIMIT_S} s"
    lines = process.stderr.strip().splitlines()
    return None if process.returncode == 0 else lines[-1] if lines else f"status {process.returncode}"


def _finish(name: str, args: argparse.Namespace) -> str | None:
    """Make a network's contenders and time them, as far as that was not done; why it could not be."""
    path = args.output / f"{name.replace(':', '_')}.json"
    if not path.exists() and (reason := _run(name, path, args)) is not None:
        return reason
    if not args.make_only and "latency_ms" not in json.loads(path.read_text()):
        return _run(name, path, args)
    return None


def best_of_theirs(result: dict[str, Any]) -> str | None:
    """The fastest contender that is not ours."""
    theirs = [name for name in result["latency_ms"] if name not in ("fp32", "int8")]
    return min(theirs, key=lambda name: result["latency_ms"][name], default=None)


def line(result: dict[str, Any]) -> str:
    """A row of the table."""
    latency, found, best = result["latency_ms"], result["compared"], best_of_theirs(result)
    theirs = "none | |" if best is None else f"{latency['fp32'] / latency[best]:.2f} ({best}) | {_error(found[best])} |"
    if "int8" not in latency:
        return f"| {result['name']} | {result['reason']} | | | {theirs}"
    share = f"{result['share']:.1%} ({result['scheme']})"
    return (
        f"| {result['name']} | {share} | {latency['fp32'] / latency['int8']:.2f} | {_error(found['int8'])} | {theirs}"
    )


def _error(compared: dict[str, float]) -> str:
    return f"{compared['relative_l2']:.4f}, {compared['agreement']:.0%}"


def means(results: Sequence[dict[str, Any]]) -> list[str]:
    """Geometric means of the speeds: where int8 was made, and of all networks with float32 where it is not faster."""
    pairs, kept = [], []
    for result in results:
        latency, best = result["latency_ms"], best_of_theirs(result)
        ours = latency["fp32"] / latency["int8"] if "int8" in latency else None
        theirs = 1.0 if best is None else latency["fp32"] / latency[best]
        kept.append((max(1.0, ours or 1.0), max(1.0, theirs)))
        if ours is not None:
            pairs.append((ours, theirs))
    said = []
    for what, rows in (("where int8 is made", pairs), ("of all, float32 where int8 is slower", kept)):
        if rows:
            ours, theirs = (math.exp(statistics.fmean(map(math.log, column))) for column in zip(*rows, strict=True))
            said.append(f"geometric mean {what} ({len(rows)} networks): ours {ours:.2f}, theirs {theirs:.2f}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--networks", metavar="NAME,NAME", help=f"networks to run (default: {len(NETWORKS)})")
    parser.add_argument("--images", type=int, default=32, metavar="N", help="photos for ranges and errors (default 32)")
    parser.add_argument("--make-only", action="store_true", help="make the contenders and time nothing")
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="turns of each contender (default 6)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--worker", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        _work(args.worker, args.output, args)
        return 0
    args.output.mkdir(parents=True, exist_ok=True)
    failed = {}
    names = NETWORKS if args.networks is None else args.networks.split(",")
    for number, name in enumerate(names, 1):
        reason = _finish(name, args)
        if reason is not None:
            failed[name] = reason
        if not args.json:
            print(f"{number}/{len(names)} {name} {reason or ''}", file=sys.stderr, flush=True)
    found = [json.loads(path.read_text()) for path in sorted(args.output.glob("*.json"))]
    results = [result for result in found if "latency_ms" in result]
    if args.json:
        print(json.dumps({"results": results, "failed": failed, "means": means(results)}, indent=2))
        return 1 if failed else 0
    print(
        "| network | share in int8 | speed | error, agreement | theirs | error, agreement |\n|---|---|---|---|---|---|"
    )
    for result in results:
        print(line(result))
    print("\n".join(["", *means(results)]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
