"""The parity chain: every stage of an export against the PyTorch module, on the same inputs.

Shapes: B samples, C channels, H W image, K classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.metrics import log_softmax, relative_l2

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FLOAT32_LIMITS", "Limits", "ParityReport", "StageReport", "compare", "wilson_interval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a stage must meet.

    Attributes:
        relative_l2: largest relative L2 distance at the logits, of the worst sample.
        top1_agreement: smallest fraction of samples with PyTorch's top-1.
    """

    relative_l2: float
    top1_agreement: float


FLOAT32_LIMITS = Limits(relative_l2=1e-5, top1_agreement=1.0)
"""A float32 stage may differ by the order of additions only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """One stage of the chain.

    Attributes:
        stage: ``exported``, ``simplified``, ``variant <name>`` or ``runtime <name>``.
        num_samples: inputs compared.
        max_abs: largest difference of a logit.
        relative_l2: ||difference|| / ||PyTorch's logits|| of the worst sample.
        cosine: smallest cosine similarity of a sample.
        top1_agreement: fraction of samples with the same top-1.
        top1_interval: 95% confidence interval of that fraction (Wilson 1927).
        kl: largest Kullback-Leibler divergence of a sample's softmax from PyTorch's, in nats.
        limits: what had to be met.
        same_bytes_as: the stage whose file has the same bytes, so that nothing was run again.
    """

    stage: str
    num_samples: int
    max_abs: float
    relative_l2: float
    cosine: float
    top1_agreement: float
    top1_interval: tuple[float, float]
    kl: float
    limits: Limits
    same_bytes_as: str | None = None

    @property
    def passed(self) -> bool:
        """True if the limits are met; a value that is not finite never meets them."""
        return self.relative_l2 <= self.limits.relative_l2 and self.top1_agreement >= self.limits.top1_agreement

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; a value that is not finite becomes null."""
        data = asdict(self)
        for key in ("max_abs", "relative_l2", "cosine", "kl"):
            data[key] = float(f"{data[key]:.6g}") if math.isfinite(data[key]) else None
        return {**data, "top1_interval": list(self.top1_interval), "passed": self.passed}


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """The stages compared so far, in their order."""

    stages: tuple[StageReport, ...]

    @property
    def passed(self) -> bool:
        """True if every stage passed."""
        return all(stage.passed for stage in self.stages)

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON types."""
        return [stage.to_dict() for stage in self.stages]


def compare(
    stage: str, logits_BK: NDArray[np.float32], reference_BK: NDArray[np.float32], *, limits: Limits
) -> StageReport:
    """Measure one stage.

    Args:
        stage: its name.
        logits_BK: what the stage gave.
        reference_BK: what PyTorch gave for the same inputs.
        limits: what must be met.

    Raises:
        ValueError: if the shapes differ.
    """
    if logits_BK.shape != reference_BK.shape:
        raise ValueError(f"{stage} gives logits of shape {logits_BK.shape}, PyTorch {reference_BK.shape}")
    with np.errstate(invalid="ignore"):  # a stage may give NaN or infinities: they show in the figures
        difference = np.abs(logits_BK.astype(np.float64) - reference_BK)
        log_p, log_q = log_softmax(reference_BK), log_softmax(logits_BK)
    num_samples = len(reference_BK)
    num_equal = int((logits_BK.argmax(axis=1) == reference_BK.argmax(axis=1)).sum())
    return StageReport(
        stage=stage,
        num_samples=num_samples,
        max_abs=float(difference.max()),
        relative_l2=float(relative_l2(logits_BK, reference_BK).max()),
        cosine=float(_cosine(logits_BK, reference_BK).min()),
        top1_agreement=num_equal / num_samples,
        top1_interval=wilson_interval(num_equal, num_samples),
        kl=float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).max()),
        limits=limits,
    )


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """95% confidence interval of a proportion (Wilson 1927, "Probable inference")."""
    z = 1.959964
    p = num_successes / num_trials
    centre = p + z * z / (2 * num_trials)
    spread = z * math.sqrt(p * (1 - p) / num_trials + z * z / (4 * num_trials**2))
    scale = 1 + z * z / num_trials
    return round(max(0.0, (centre - spread) / scale), 6), round(min(1.0, (centre + spread) / scale), 6)


def _cosine(a_BK: NDArray[np.float32], b_BK: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = a_BK.astype(np.float64), b_BK.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float64] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return result
