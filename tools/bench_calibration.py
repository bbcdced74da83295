"""Accuracy of int8 on labelled images: EdgePort, and `quantize_static` with each of its calibrators, on the same data.

    python tools/bench_calibration.py resnet20 --weights FILE --calibration DIR --eval DATA

Columns: top-1 (or exact match), agreement with float32, and the relative L2 distance at the logits over all images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_export import ExportConfig, export
from edgeport_export.quantize.calibration import CalibrationImages
from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.outputs.metrics import relative_l2_of_all
from edgeport_runtime.outputs.tasks import decisions
from edgeport_runtime.pixels.preprocess import preprocess
from quantizers import CALIBRATORS, session, static

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

BATCH = 50


def outputs(path: Path, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    run = session(path).run
    return np.concatenate([run(None, {"image": x_BCHW[i : i + BATCH]})[0] for i in range(0, len(x_BCHW), BATCH)])


def row(
    name: str,
    ours_BK: NDArray[np.float32],
    reference_BK: NDArray[np.float32],
    targets: NDArray[np.int64],
    contract: Contract,
) -> dict[str, Any]:
    decided, theirs = decisions(ours_BK, contract), decisions(reference_BK, contract)
    return {
        "quantizer": name,
        "top1": float((decided == targets.reshape(len(targets), -1)).all(axis=1).mean()),
        "agreement": float((decided == theirs).all(axis=1).mean()),
        "relative_l2": relative_l2_of_all(ours_BK, reference_BK),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", metavar="ARCH")
    parser.add_argument("--weights", required=True, metavar="FILE")
    parser.add_argument("--calibration", required=True, type=Path, metavar="DIR")
    parser.add_argument("--eval", required=True, type=Path, metavar="DATA")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        config = ExportConfig(
            architecture=args.architecture,
            weights=args.weights,
            output=work / "bundle",
            quantize=("int8",),
            calibration=args.calibration,
        )
        result = export(config)
        contract, source = result.manifest.contract, result.path / "model.fp32.onnx"
        images = read_labelled_images(args.eval, contract, match="order")  # the model has no labels
        x_BCHW = np.stack([preprocess(path, contract.preprocess) for path in images.paths])
        reference_BK = outputs(source, x_BCHW)
        rows = [row("float32", reference_BK, reference_BK, images.targets, contract)]
        for calibrator in CALIBRATORS:
            for per_channel in (False, True):
                for activations in ("uint8", "int8"):
                    batches = CalibrationImages(args.calibration, contract, seed=0).batches(BATCH)
                    path = static(
                        source,
                        work / "theirs.onnx",
                        batches,
                        activations=activations,
                        per_channel=per_channel,
                        calibrator=calibrator,
                    )
                    name = f"quantize_static, {calibrator}, per {'channel' if per_channel else 'tensor'}, {activations}"
                    rows.append(row(name, outputs(path, x_BCHW), reference_BK, images.targets, contract))
        ours = outputs(result.path / "model.int8.onnx", x_BCHW)
        rows.append(row("EdgePort int8", ours, reference_BK, images.targets, contract))
    if args.json:
        print(json.dumps({"architecture": args.architecture, "num_images": len(images.paths), "rows": rows}, indent=2))
        return 0
    print(f"| {args.architecture}, {len(images.paths)} images | top-1 | agreement | relative L2 |\n|---|---|---|---|")
    for r in rows:
        print(f"| {r['quantizer']} | {r['top1']:.2%} | {r['agreement']:.2%} | {r['relative_l2']:.4f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
