"""Metrics of a classifier, in numpy. Shapes: B samples, K classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "auroc",
    "average_precision",
    "binary_cross_entropy",
    "calibration_error",
    "cross_entropy",
    "log_sigmoid",
    "log_softmax",
    "mcnemar",
    "precision_recall_f1",
    "relative_l2",
    "relative_l2_of_all",
    "sigmoid",
    "softmax",
    "top_k",
    "wilson_interval",
]


def log_softmax(logits_BK: NDArray[Any]) -> NDArray[np.float64]:
    """log(softmax) over the last axis, in float64, stable for logits of any size."""
    shifted = logits_BK.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits_BK: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    result: NDArray[np.float64] = np.exp(log_softmax(logits_BK))
    return result


def log_sigmoid(logits_BK: NDArray[Any]) -> NDArray[np.float64]:
    """log(sigmoid) of each logit, in float64, stable for logits of any size."""
    result: NDArray[np.float64] = -np.logaddexp(0.0, -logits_BK.astype(np.float64))
    return result


def sigmoid(logits_BK: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of each logit by itself, in float64."""
    result: NDArray[np.float64] = np.exp(log_sigmoid(logits_BK))
    return result


def binary_cross_entropy(logits_BK: NDArray[Any], targets_BK: NDArray[Any]) -> NDArray[np.float64]:
    """-log of the probability of what is true, in nats, one value per label of each sample; targets are 0 or 1."""
    logits = logits_BK.astype(np.float64)
    result: NDArray[np.float64] = -np.where(targets_BK.astype(bool), log_sigmoid(logits), log_sigmoid(-logits))
    return result


def cross_entropy(logits_BK: NDArray[Any], targets_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log of the probability of the true class, in nats, one value per sample."""
    result: NDArray[np.float64] = -log_softmax(logits_BK)[np.arange(len(targets_B)), targets_B]
    return result


def top_k(scores_BK: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Indices of the k highest scores, best first; of equal scores the lower index comes first."""
    result: NDArray[np.int64] = np.argsort(-scores_BK, axis=-1, kind="stable")[..., :k]
    return result


def relative_l2(logits_BK: NDArray[Any], reference_BK: NDArray[Any]) -> NDArray[np.float64]:
    """||logits - reference|| / ||reference|| per sample; infinite where either is not finite or the norm is 0.

    Of a single logit (K = 1), which may be as near to 0 as it likes, the norm is the root mean square over the samples.
    """
    reference = reference_BK.astype(np.float64)
    norm = np.linalg.norm(reference, axis=-1)
    if reference.shape[-1] == 1:
        norm = np.where(np.isfinite(norm), np.sqrt(np.mean(norm**2)), norm)
    with np.errstate(invalid="ignore"):  # infinity minus infinity: infinite below
        distance = np.linalg.norm(logits_BK.astype(np.float64) - reference, axis=-1)
    is_valid = np.isfinite(distance) & np.isfinite(norm) & (norm > 0)
    result: NDArray[np.float64] = np.where(is_valid, distance / np.where(is_valid, norm, 1.0), np.inf)
    return result


def relative_l2_of_all(logits_BK: NDArray[Any], reference_BK: NDArray[Any]) -> float:
    """||logits - reference|| / ||reference|| over all samples together; infinite as ``relative_l2``."""
    norm = float(np.linalg.norm(reference_BK.astype(np.float64)))
    if not np.isfinite(logits_BK).all() or not 0 < norm < np.inf:
        return np.inf
    return float(np.linalg.norm(logits_BK.astype(np.float64) - reference_BK)) / norm


def calibration_error(confidences_B: NDArray[np.float64], outcomes_B: NDArray[Any], *, num_bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, "On calibration of modern neural networks", Equation 3).

    Args:
        confidences_B: probabilities, 0 to 1.
        outcomes_B: 1 where what was predicted is true, else 0.
        num_bins: bins of equal width, closed above.
    """
    bins = np.clip(np.ceil(confidences_B * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=outcomes_B.astype(np.float64) - confidences_B, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidences_B))


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """95% confidence interval of a proportion (Wilson 1927, "Probable inference")."""
    z = 1.959964
    p = num_successes / num_trials
    centre = p + z * z / (2 * num_trials)
    spread = z * math.sqrt(p * (1 - p) / num_trials + z * z / (4 * num_trials**2))
    scale = 1 + z * z / num_trials
    return round(max(0.0, (centre - spread) / scale), 6), round(min(1.0, (centre + spread) / scale), 6)


def mcnemar(num_first_only: int, num_second_only: int) -> float:
    """Probability of a difference at least this large if both were equally good: McNemar's test, exact (McNemar 1947).

    Args:
        num_first_only: images that the first model alone has right.
        num_second_only: images that the second model alone has right.
    """
    num_discordant, fewer = num_first_only + num_second_only, min(num_first_only, num_second_only)
    log_ways = [
        math.lgamma(num_discordant + 1) - math.lgamma(i + 1) - math.lgamma(num_discordant - i + 1)
        for i in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(ways - num_discordant * math.log(2)) for ways in log_ways))


def precision_recall_f1(true_positives: int, false_positives: int, false_negatives: int) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean; 0 where a denominator is 0."""
    decided, positive = true_positives + false_positives, true_positives + false_negatives
    both = decided + positive
    return (
        true_positives / decided if decided else 0.0,
        true_positives / positive if positive else 0.0,
        2 * true_positives / both if both else 0.0,
    )


def auroc(scores_B: NDArray[Any], targets_B: NDArray[Any]) -> float | None:
    """Area under the receiver operating characteristic, by the rank sum (Hanley and McNeil 1982); ties count half.

    Returns:
        0 to 1; None unless the targets hold both 0 and 1.
    """
    num_positive = int(targets_B.sum())
    num_negative = len(targets_B) - num_positive
    if not num_positive or not num_negative:
        return None
    _, group_B, sizes = np.unique(scores_B, return_inverse=True, return_counts=True)
    ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = ranks[group_B][targets_B.astype(bool)].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def average_precision(scores_B: NDArray[Any], targets_B: NDArray[Any]) -> float | None:
    """Mean precision over the steps of recall, without interpolation, as scikit-learn defines it.

    Equal scores are one step.

    Returns:
        0 to 1; None if no target is 1.
    """
    if not targets_B.any():
        return None
    scores, group_B = np.unique(-scores_B, return_inverse=True)  # best first
    found = np.cumsum(np.bincount(group_B, weights=targets_B, minlength=len(scores)))
    seen = np.cumsum(np.bincount(group_B, minlength=len(scores)))
    steps = np.diff(found, prepend=0.0) / found[-1]
    return float((steps * found / seen).sum())
