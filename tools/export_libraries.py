"""Export the smallest network of every family of torchvision and timm, and every image classifier of transformers.

    python tools/export_libraries.py [REFERENCE ...] [--results FILE] [--table FILE] [--again STATUS ...]

Random weights, float32 alone, each in a process of its own with at most 10 minutes and 12 GB. A family is the module of
a library that defines a network; the smallest is the one with the fewest parameters, at the library's own image size.
Networks of transformers are made here from a small configuration and saved to a folder, which is exported as hf:FOLDER.
A run passes if the export does, and if the bundle then gives the module's decisions on random images, three together
and one alone.

Each result is a line of --results; a run that is stopped goes on where it was, and `--again failed` repeats what did
not pass. REFERENCE names networks (timm:resnet18) or families (timm, torchvision, hf); default: all of them.

The three libraries must be importable. Where torchvision's compiled operators do not load beside this PyTorch, the
folder of tests/e2e/tvshim.py stands on PYTHONPATH as well:

    PYTHONPATH=tests/e2e:.peers/timm:.peers/torchvision:.peers/transformers python tools/export_libraries.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from library_networks import NUM_CLASSES, Network, default_classes, every_network, load_libraries, save_classifier

SECONDS, GIGABYTES = 600, 12
EXPORTED, REFUSED, NOT_BUILT = "exported", "refused", "not built"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", nargs="*", metavar="REFERENCE")
    parser.add_argument("--results", type=Path, default=Path("build/networks.jsonl"), metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table of all results as Markdown")
    parser.add_argument("--again", nargs="*", default=[], metavar="STATUS", help="repeat those, or all that failed")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="limit of a network, for a busy machine")
    parser.add_argument("--worker", metavar="REFERENCE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    wanted = {n.reference: n for n in every_network_once(args.results.with_suffix(".names.json"))}
    if args.references:
        chosen = {}
        for reference in args.references:
            found = [n for n in wanted.values() if reference in (n.reference, n.reference.partition(":")[0])]
            chosen |= {n.reference: n for n in found or [Network(reference, "")]}
        wanted = chosen
    results = read(args.results)
    for number, network in enumerate(wanted.values(), 1):
        known = results.get(network.reference)
        is_failed = known is not None and known["status"] != EXPORTED
        if known and known["status"] not in args.again and not ("failed" in args.again and is_failed):
            continue
        result = {"reference": network.reference, "family": network.family, **run(network.reference, args.seconds)}
        results[network.reference] = result
        with args.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{number}/{len(wanted)} {line_of(result)}", flush=True)
    done = [results[name] for name in wanted if name in results]
    failed = [result for result in done if result["status"] != EXPORTED]
    print(f"{len(done) - len(failed)} of {len(done)} exported")
    if args.table:
        args.table.write_text(table_of(done, len(wanted)))
    return 1 if failed else 0


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The last result of each network."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["reference"]: result for result in map(json.loads, lines)}


def line_of(result: dict[str, Any]) -> str:
    distance = f"{result['relative_l2']:.1e}" if "relative_l2" in result else ""
    told = f"{result['reference']:<44} {result['status']:<9} {distance:>8} {result['seconds']:>6.0f} s"
    return f"{told} {result.get('reason', '')}".rstrip()


def table_of(results: list[dict[str, Any]], num_wanted: int) -> str:
    num_exported = sum(result["status"] == EXPORTED for result in results)
    lines = [
        "# Networks of other libraries that were exported",
        "",
        "Written by `tools/export_libraries.py`: the smallest network of every family of torchvision and timm, and",
        "every image classifier of transformers from a small configuration, with random weights, in float32.",
        f"Of {num_wanted} networks {len(results)} were run, and {num_exported} of these are exported.",
        "",
        "*Distance* is the largest relative L2 distance of any stage from PyTorch, *float64* that of PyTorch's own",
        "float32 from float64, where it was measured. Each bundle gave the module's decisions on random images, three",
        "together and one alone.",
        "",
        "| network | family | parameters | distance | float64 | result |",
        "|---|---|---:|---:|---:|---|",
    ]
    for result in sorted(results, key=lambda result: result["reference"]):
        numbers = [f"{result[key]:.1e}" if result.get(key) is not None else "" for key in ("relative_l2", "float64_l2")]
        params = f"{result['num_params']:,}" if "num_params" in result else ""
        told = result["status"] if result["status"] == EXPORTED else f"{result['status']}: {result.get('reason', '')}"
        cells = (f"`{result['reference']}`", result["family"], params, *numbers, told.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(reference: str, limit: int) -> dict[str, Any]:
    """Export one network in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--worker", reference]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, preexec_fn=limit_memory, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": "timeout", "reason": f"more than {limit} s", "seconds": limit}
    seconds = round(time.perf_counter() - start, 1)
    with contextlib.suppress(ValueError, IndexError):
        return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}
    last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    is_memory = any(word in last[0] for word in ("MemoryError", "bad_alloc", "can't allocate", "not enough memory"))
    return {"status": "memory" if is_memory else "crashed", "reason": last[0][:300], "seconds": seconds}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES * 2**30, GIGABYTES * 2**30))


def work(reference: str) -> int:
    """The worker: prints its result as the last line."""
    load_libraries()
    from edgeport_runtime.errors import EdgeportError

    with tempfile.TemporaryDirectory() as folder:
        try:
            result = export_and_check(reference, Path(folder))
        except EdgeportError as error:
            result = {"status": REFUSED, "reason": one_line(str(error).replace(folder, ""))}
        except MemoryError as error:
            result = {"status": "memory", "reason": one_line(str(error))}
        except Exception as error:  # noqa: BLE001 - what must not happen is a result as well
            traceback.print_exc()
            result = {"status": "traceback", "reason": one_line(f"{type(error).__name__}: {error}")}
    print(json.dumps(result))
    return 0


def one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def export_and_check(reference: str, folder: Path) -> dict[str, Any]:
    """Export a network, and compare the bundle with the module on images that the export has not seen."""
    import numpy as np
    import torch

    from edgeport_export import ExportConfig, export
    from edgeport_export.source.subject import find_subject
    from edgeport_runtime import Classifier

    library, _, name = reference.partition(":")
    options: dict[str, Any] = {}
    if library == "timm" and not default_classes(name):
        options["num_classes"] = NUM_CLASSES
    if library == "hf":
        try:
            save_classifier(name, folder / name)
        except Exception as error:  # noqa: BLE001 - whatever the library lacks
            return {"status": NOT_BUILT, "reason": one_line(str(error))}
        reference = f"hf:{folder / name}"
    config = ExportConfig(architecture=reference, output=folder / "bundle", quantize=(), **options)
    result = export(config)
    stages = [stage for stage in result.parity.stages if hasattr(stage, "relative_l2")]
    distances = [stage.float64_l2 for stage in stages if stage.float64_l2 is not None]
    told: dict[str, Any] = {
        "status": EXPORTED,
        "num_params": result.manifest.architecture["num_params"],
        "relative_l2": max(stage.relative_l2 for stage in stages),
        "float64_l2": max(distances, default=None),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    subject = find_subject(config)
    x_BCHW = torch.randn(3, *subject.contract.input_shape, generator=torch.Generator().manual_seed(12345))
    with torch.no_grad():
        expected_BK = subject.module(x_BCHW).numpy()
    with Classifier.load(result.path, variant="fp32", device="cpu") as classifier:
        together_BK = classifier.outputs(x_BCHW.numpy())
        alone_BK = np.concatenate([classifier.outputs(x_BCHW[i : i + 1].numpy()) for i in range(3)])
    for size, outputs_BK in ((3, together_BK), (1, alone_BK)):
        if (outputs_BK.argmax(1) != expected_BK.argmax(1)).any():
            return {**told, "status": "departs", "reason": f"other decisions than the module's in batches of {size}"}
    return told


def every_network_once(path: Path) -> list[Network]:
    """The list of networks, kept in a file beside the results."""
    if not path.exists():
        path.write_text(json.dumps(every_network(), indent=0))
    return [Network(*values) for values in json.loads(path.read_text())]


if __name__ == "__main__":
    sys.exit(main())
