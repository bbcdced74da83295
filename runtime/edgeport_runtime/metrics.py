"""Numbers of a classifier, in numpy. Shapes: B samples, K classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["cross_entropy", "log_softmax", "relative_l2", "softmax", "top_k"]


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


def cross_entropy(logits_BK: NDArray[Any], targets_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log of the probability of the true class, in nats, one value a sample."""
    result: NDArray[np.float64] = -log_softmax(logits_BK)[np.arange(len(targets_B)), targets_B]
    return result


def top_k(scores_BK: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Indices of the k highest scores, best first; of equal scores the lower index comes first."""
    result: NDArray[np.int64] = np.argsort(-scores_BK, axis=-1, kind="stable")[..., :k]
    return result


def relative_l2(logits_BK: NDArray[Any], reference_BK: NDArray[Any]) -> NDArray[np.float64]:
    """||logits - reference|| / ||reference|| a sample; infinite where either is not finite or the norm is 0."""
    reference = reference_BK.astype(np.float64)
    norm = np.linalg.norm(reference, axis=-1)
    with np.errstate(invalid="ignore"):  # infinity minus infinity: infinite below
        distance = np.linalg.norm(logits_BK.astype(np.float64) - reference, axis=-1)
    is_valid = np.isfinite(distance) & np.isfinite(norm) & (norm > 0)
    result: NDArray[np.float64] = np.where(is_valid, distance / np.where(is_valid, norm, 1.0), np.inf)
    return result
