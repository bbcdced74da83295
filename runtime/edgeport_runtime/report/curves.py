"""Points of the curves that show how good probabilities are. Shapes: B images, K outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.outputs.tasks import of_classes, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["curves", "precision_recall", "reliability"]

_NUM_BINS, _MAX_POINTS, _MAX_LABELS = 10, 60, 100
_PART = 1024  # images at a time: float64 of all classes of all of them would be large


def curves(outputs_BK: NDArray[np.float32], targets: NDArray[np.int64], contract: Contract) -> dict[str, Any]:
    """``reliability`` of a task of one class per image, ``precision_recall`` of those with thresholds.

    Args:
        outputs_BK: what the graph gave.
        targets: what is true: classes (B,), or 0 and 1 for each label (B, K).
        contract: what the outputs mean.
    """
    found: dict[str, Any] = {}
    if contract.task != "multilabel":
        parts = [_best(outputs_BK[start : start + _PART], contract) for start in range(0, len(outputs_BK), _PART)]
        best_B, scores_B = (np.concatenate(column) for column in zip(*parts, strict=True))
        found["reliability"] = reliability(scores_B, best_B == targets)
    if contract.thresholds is not None:
        p_BK, targets_BK = probabilities(outputs_BK, contract), targets.reshape(len(targets), -1)
        thresholds_K = np.broadcast_to(np.array(contract.thresholds), p_BK.shape[1])
        first = 1 if contract.task == "binary" else 0
        found["precision_recall"] = [
            {
                "label": contract.label(k + first),
                **precision_recall(p_BK[:, k], targets_BK[:, k], float(thresholds_K[k])),
            }
            for k in range(min(p_BK.shape[1], _MAX_LABELS))
            if targets_BK[:, k].any()
        ]
    return found


def _best(outputs_BK: NDArray[np.float32], contract: Contract) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The decided class of each image, and its probability."""
    scores_BC, decided_BC = of_classes(outputs_BK, contract)
    best_B: NDArray[np.int64] = decided_BC.argmax(axis=1)
    return best_B, scores_BC[np.arange(len(best_B)), best_B]


def reliability(confidences_B: NDArray[np.float64], is_right_B: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """How often decisions are right, by how sure the model is of them (Guo et al. 2017, Section 2).

    Returns:
        For each of ten bins of equal width that holds images, ``confidence`` and ``accuracy``, both means over its
        ``num_images``.
    """
    bins_B = np.clip(np.ceil(confidences_B * _NUM_BINS).astype(np.int64) - 1, 0, _NUM_BINS - 1)
    return [
        {
            "confidence": round(float(confidences_B[bins_B == b].mean()), 6),
            "accuracy": round(float(is_right_B[bins_B == b].mean()), 6),
            "num_images": int((bins_B == b).sum()),
        }
        for b in np.unique(bins_B)
    ]


def precision_recall(p_B: NDArray[np.float64], targets_B: NDArray[np.int64], threshold: float) -> dict[str, Any]:
    """Precision and recall at every probability that occurs, at most 60 of them, and at the decision threshold.

    Returns:
        ``points`` as [recall, precision] with recall increasing, ``threshold``, and ``at``, the point there; None if
        nothing is decided there.
    """
    order = np.argsort(-p_B, kind="stable")
    found, p = np.cumsum(targets_B[order]), p_B[order]
    ends = np.flatnonzero(np.append(np.diff(p) != 0, True))  # equal probabilities are one step
    if len(ends) > _MAX_POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, _MAX_POINTS).round().astype(np.int64))]
    total = int(targets_B.sum())

    def point(end: int) -> list[float]:
        return [round(float(found[end] / total), 6), round(float(found[end] / (end + 1)), 6)]

    num_decided = int((p_B >= threshold).sum())
    return {
        "points": [point(int(end)) for end in ends],
        "threshold": threshold,
        "at": point(num_decided - 1) if num_decided else None,
    }
