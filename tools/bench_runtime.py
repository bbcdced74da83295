"""What the runtime adds to a bare session, and what its settings cost: overhead, start, spinning, memory, streams.

    python tools/bench_runtime.py BUNDLE [--variant NAME] [--photos DIR]

Lines, each a median or a rate, contenders in turn after a rest:
overhead    microseconds that `Classifier.logits` adds to the bare session at batch 1.
start       milliseconds from the start of a process to its first outputs, its peak resident size, and its private
            memory: from the bundle, from what `run-model tune` prepares, and from the .ort file if there is one.
spinning    a call every 50 ms, with idle threads spinning and without: latency, and processor time per call.
memory      peak resident size of a process that loads and runs once, by default and with `low_memory=True`.
stream      images per second over 300 JPEG photos: a loop of `predict`, decoding alone, the network alone at batch 8
            (the better of one session with all threads and one thread per worker), and `stream`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime import Classifier, load_manifest
from edgeport_runtime.engine.machine import available_cpus, describe_machine
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.engine.session import SessionSettings
from edgeport_runtime.loading.cache import new_cache_path
from edgeport_runtime.loading.load import settings_of
from edgeport_runtime.pixels.decode import find_images
from edgeport_runtime.pixels.preprocess import preprocess
from edgeport_runtime.tuning.prepared import prepare
from edgeport_runtime.tuning.subprocess_cost import measure_process
from edgeport_runtime.tuning.timing import time_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = Path(os.environ.get("EDGEPORT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared"))
NUM_PHOTOS, ROUNDS = 300, 3


def overhead(bundle: Path, variant: str, x_BCHW: Any) -> dict[str, float]:
    with Classifier.load(bundle, variant=variant) as classifier:
        file = bundle / next(v.file for v in classifier.manifest.variants if v.name == classifier.variant.name)  # type: ignore[union-attr]
        bare = import_onnxruntime().InferenceSession(str(file), providers=["CPUExecutionProvider"])
        calls = {
            "bare": lambda: bare.run(["logits"], {"image": x_BCHW}),
            "logits": lambda: classifier.logits(x_BCHW),
        }
        times = time_in_turn(calls, rounds=ROUNDS, calls=1000 if x_BCHW.size < 10_000 else 20)
    bare_us, ours_us = (1e3 * statistics.median(times[name]) for name in calls)
    return {"bare_us": bare_us, "logits_us": ours_us, "adds_us": ours_us - bare_us}


def start(bundle: Path, variant: str) -> dict[str, dict[str, float]]:
    manifest = load_manifest(bundle)
    known = next(known for known in manifest.variants if known.name == variant)
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EDGEPORT_CACHE"] = cache
        for name in ("bundle", "ort", "prepared"):
            path, asked = bundle, variant
            if name == "prepared":
                settings = settings_of(known, manifest.contract, SessionSettings())
                if prepare(bundle, known, settings=settings, target=new_cache_path(bundle)) is None:
                    break  # no gain
            elif name == "ort":
                if known.ort is None:
                    continue
                path, asked = bundle / known.ort.file, "auto"
            runs = [measure_process(path, variant=asked, device="cpu", batch=1) for _ in range(5)]
            results[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        del os.environ["EDGEPORT_CACHE"]
    return results


def spinning(bundle: Path, variant: str, x_BCHW: Any) -> dict[str, dict[str, float]]:
    results = {}
    for name, spin in (("spinning", True), ("not spinning", False)):
        with Classifier.load(bundle, variant=variant, spin=spin) as classifier:
            times = []
            classifier.outputs(x_BCHW)
            cpu = time.process_time()
            for _ in range(40):
                time.sleep(0.05)
                start = time.perf_counter()
                classifier.outputs(x_BCHW)
                times.append(1e3 * (time.perf_counter() - start))
            cpu_ms = 1e3 * (time.process_time() - cpu) / 40
        results[name] = {"latency_ms": statistics.median(times), "cpu_ms": cpu_ms}
    return results


def memory(bundle: Path, variant: str) -> dict[str, int | None]:
    return {
        name: measure_process(bundle, variant=variant, device="cpu", batch=1, low_memory=is_low)["peak_bytes"]
        for name, is_low in (("default_bytes", False), ("low_memory_bytes", True))
    }


def stream(bundle: Path, variant: str, photos: list[Path]) -> dict[str, float]:
    with (
        Classifier.load(bundle, variant=variant) as classifier,
        Classifier.load(bundle, variant=variant, threads=1) as single,
    ):
        spec, cpus = classifier.contract.preprocess, available_cpus()
        x_BCHW = np.stack([preprocess(path, spec) for path in photos[:8]])
        num_batches = len(photos) // len(x_BCHW)

        def parallel(call: Callable[[Any], object], items: Any) -> None:
            with ThreadPoolExecutor(cpus) as pool:
                list(pool.map(call, items))

        contenders: dict[str, Callable[[], object]] = {
            "loop": lambda: [classifier.predict(path) for path in photos],
            "decode": lambda: parallel(lambda path: preprocess(path, spec), photos),
            "infer, all threads": lambda: [classifier.outputs(x_BCHW) for _ in range(num_batches)],
            "infer, a thread each": lambda: parallel(lambda _: single.outputs(x_BCHW), range(num_batches)),
            "stream": lambda: list(classifier.stream(photos)),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, call in contenders.items():
                time.sleep(0.2)
                start = time.perf_counter()
                call()
                num_images = num_batches * len(x_BCHW) if name.startswith("infer") else len(photos)
                rates[name].append(num_images / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    slower = min(medians["decode"], max(medians["infer, all threads"], medians["infer, a thread each"]))
    return {**medians, "of the slower": medians["stream"] / slower, "of the loop": medians["stream"] / medians["loop"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--variant", default="auto", metavar="NAME")
    parser.add_argument("--photos", type=Path, default=SHARED / "data" / "cats-dogs", metavar="DIR")
    args = parser.parse_args()
    with Classifier.load(args.bundle, variant=args.variant) as classifier:
        variant = "auto" if classifier.variant is None else classifier.variant.name
        shape = (1, *classifier.contract.input_shape)
    x_BCHW = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    photos = find_images(args.photos)[:NUM_PHOTOS]
    document = {
        "machine": describe_machine(),
        "variant": variant,
        "overhead": overhead(args.bundle, variant, x_BCHW),
        "start": start(args.bundle, variant),
        "spinning": spinning(args.bundle, variant, x_BCHW),
        "memory": memory(args.bundle, variant),
        "stream": stream(args.bundle, variant, photos),
    }
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
