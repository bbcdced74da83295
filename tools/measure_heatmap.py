"""Whether a heat map shows what counts: hide its hottest fifth, and as much elsewhere, and see what the score loses.

    python tools/measure_heatmap.py BUNDLE IMAGES [--method occlusion] [--json]

Of each image, the fifth of the network's input with the largest values of the map is hidden by the input's own mean,
and then, ten times, another fifth of the same form: the map's, moved by a random step and around the edges, so that
neither its shape nor its size differs. The score is the probability of the class that is predicted.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgeport_runtime import Classifier
from edgeport_runtime.outputs.metrics import wilson_interval
from edgeport_runtime.pixels.decode import search_images
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["main", "measure"]

PART, NUM_RANDOM = 0.2, 10


def measure(bundle: Path | str, images: Sequence[Path | str], *, method: str = "auto", seed: int = 0) -> dict[str, Any]:
    """Measure the maps of a bundle's default variant on images.

    Returns:
        ``hottest`` and ``random``: the mean fall of the score; ``num_more``: on how many images the hottest fifth costs
        more than the mean of the random ones, with the 95% ``interval`` of that share; ``still``: how many of the
        ``num_images`` keep their class, when the hottest or a random fifth is hidden.
    """
    rng = np.random.default_rng(seed)
    falls, kept = [], []
    with Classifier.load(bundle) as classifier:
        for image in images:
            found = classifier.heatmap(image, method=method)  # type: ignore[arg-type]
            x_CHW = preprocess(image, classifier.contract.preprocess)
            is_hot = _hottest(found.values, x_CHW.shape[1], x_CHW.shape[2])
            steps = [tuple(int(rng.integers(1, side)) for side in is_hot.shape) for _ in range(NUM_RANDOM)]
            masks = [is_hot, *(np.roll(is_hot, step, axis=(0, 1)) for step in steps)]
            mean = x_CHW.mean(axis=(1, 2), keepdims=True)
            hidden = np.stack([np.where(mask, mean, x_CHW) for mask in masks]).astype(np.float32)
            p_BK = classifier.probabilities(hidden)
            index = found.prediction.index
            falls.append([found.prediction.score - p_BK[0, index], found.prediction.score - p_BK[1:, index].mean()])
            kept.append([p_BK[0].argmax() == index, (p_BK[1:].argmax(axis=1) == index).mean()])
        contract = classifier.contract
    assert contract.task == "multiclass"
    falls_N2 = np.array(falls)
    num_more = int((falls_N2[:, 0] > falls_N2[:, 1]).sum())
    return {
        "method": found.method,
        "num_images": len(falls),
        "hottest": round(float(falls_N2[:, 0].mean()), 4),
        "random": round(float(falls_N2[:, 1].mean()), 4),
        "num_more": num_more,
        "interval": wilson_interval(num_more, len(falls)),
        "still": [round(float(share), 4) for share in np.array(kept, float).mean(axis=0)],
    }


def _hottest(values_hw: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """The fifth of the pixels where the map, enlarged to the input, is largest."""
    map_HW = np.asarray(Image.fromarray(values_hw).resize((width, height), Image.Resampling.BILINEAR))
    order = map_HW.ravel().argsort(kind="stable")[::-1]
    mask = np.zeros(height * width, bool)
    mask[order[: round(PART * height * width)]] = True
    return mask.reshape(height, width)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("images", help="folder of images")
    parser.add_argument("--method", choices=("auto", "occlusion"), default="auto")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    result = measure(args.bundle, search_images(args.images).paths, method=args.method)
    if args.json:
        print(json.dumps(result))
        return 0
    low, high = result["interval"]
    print(
        f"{result['method']}, {result['num_images']} images: hiding the hottest fifth costs {result['hottest']:.3f} of "
        f"the score, another fifth {result['random']:.3f}; more on {result['num_more']} (95% interval {low:.1%} to "
        f"{high:.1%}); the class stays on {result['still'][0]:.0%} and {result['still'][1]:.0%}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
