"""Measures what a quantized model loses against its float original, and whether that is more than chance.

Shapes: B images, K outputs or classes, R resamples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.outputs.tasks import decisions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["Drop", "measure_drop"]

_NUM_RESAMPLES, _CHUNK = 1000, 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A loss in points (hundredths).

    Attributes:
        metric: ``top-1``, ``macro F1``, or ``disagreement`` (with the float model, where nothing is known to be true).
        num_images: images it was measured on.
        float_score: the float model's, in points; None for ``disagreement``.
        points: how much the quantized model is lower; for ``disagreement`` how many images of 100 are decided
            differently.
        interval: 95% confidence interval of ``points``, by 1,000 paired resamples of the images (Efron 1979,
            "Bootstrap methods").
        flips: images whose decision differs, for each output; None for ``multiclass``.
    """

    metric: str
    num_images: int
    float_score: float | None
    points: float
    interval: tuple[float, float]
    flips: tuple[int, ...] | None

    @property
    def is_noise(self) -> bool:
        """True if the interval holds 0: this many images cannot tell the loss from none."""
        return self.interval[0] <= 0 <= self.interval[1]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        data = asdict(self)
        flips = None if self.flips is None else list(self.flips)
        return {**data, "interval": list(self.interval), "flips": flips, "is_noise": self.is_noise}


def measure_drop(
    outputs_BK: NDArray[np.float32],
    reference_BK: NDArray[np.float32],
    targets: NDArray[np.int64] | None,
    contract: Contract,
) -> Drop:
    """Compare two models' outputs for the same images.

    Args:
        outputs_BK: the quantized model's.
        reference_BK: the float model's.
        targets: what is true: classes (B,), or 0 and 1 for each label (B, K) of a multi-label task; None if unknown.
        contract: task and thresholds.
    """
    ours, theirs = decisions(outputs_BK, contract), decisions(reference_BK, contract)
    num_images = len(ours)
    differs_BK = ours != theirs
    flips = None if contract.task == "multiclass" else tuple(int(n) for n in differs_BK.sum(axis=0))
    metric = "disagreement" if targets is None else "top-1" if contract.task == "multiclass" else "macro F1"

    def losses(weights_RB: NDArray[np.float64]) -> NDArray[np.float64]:
        if targets is None:
            lost: NDArray[np.float64] = weights_RB @ differs_BK.any(axis=1) / num_images
            return lost
        return _scores(weights_RB, theirs, targets, contract) - _scores(weights_RB, ours, targets, contract)

    once_1B = np.ones((1, num_images))
    points = float(losses(once_1B)[0])
    generator, share = np.random.default_rng(0), np.full(num_images, 1 / num_images)
    resampled = [
        losses(generator.multinomial(num_images, share, size=_CHUNK).astype(np.float64))
        for _ in range(_NUM_RESAMPLES // _CHUNK)  # a few at a time: images by resamples would fill the memory
    ]
    score = None if targets is None else round(100 * float(_scores(once_1B, theirs, targets, contract)[0]), 4)
    low, high = np.percentile(np.concatenate(resampled), [2.5, 97.5])
    return Drop(
        metric=metric,
        num_images=num_images,
        float_score=score,
        points=round(100 * points, 4),
        interval=(round(100 * float(low), 4), round(100 * float(high), 4)),
        flips=flips,
    )


def _scores(
    weights_RB: NDArray[np.float64], decided: NDArray[np.int64], targets: NDArray[np.int64], contract: Contract
) -> NDArray[np.float64]:
    """Top-1, or macro F1 (of both classes of a binary task), in each resample (R,)."""
    if contract.task == "multiclass":
        result: NDArray[np.float64] = weights_RB @ (decided[:, 0] == targets) / decided.shape[0]
        return result
    if contract.task == "binary":
        decided, targets = np.hstack([1 - decided, decided]), np.stack([1 - targets, targets], axis=1)
    found_RK = weights_RB @ (decided & targets)
    both_RK = weights_RB @ decided + weights_RB @ targets
    f1_RK: NDArray[np.float64] = np.where(both_RK > 0, 2 * found_RK / np.maximum(both_RK, 1), 0.0)
    means: NDArray[np.float64] = f1_RK.mean(axis=1)
    return means
