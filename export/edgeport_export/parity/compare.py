"""The parity chain: every stage of an export against the PyTorch module, on the same inputs.

Shapes: B samples, C channels, H W image, K classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeport_runtime.errors import ParityError
from edgeport_runtime.outputs.metrics import (
    log_sigmoid,
    log_softmax,
    relative_l2,
    relative_l2_of_all,
    wilson_interval,
)
from edgeport_runtime.outputs.tasks import compared, decisions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = [
    "FLOAT32_LIMITS",
    "IN_GRAPH_INT8_LIMITS",
    "IN_GRAPH_LIMITS",
    "MAX_RELATIVE_L2",
    "Limits",
    "ParityReport",
    "SkippedStage",
    "StageReport",
    "check_comparison",
    "compare",
]

MAX_RELATIVE_L2 = 1e-3
"""No float32 stage may differ by more, whatever PyTorch's own float32 does."""

# Measured, of each of 14 inputs, over 15 networks of ours, timm and torchvision: the graph is 1.4 (googlenet) to 4.0
# times (mobilenetv3_small_100) as far from PyTorch's float32 as that is from float64, at its worst input.
_TIMES_OWN = 10
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a stage must meet.

    Attributes:
        relative_l2: largest relative L2 distance at the outputs.
        agreement: smallest fraction of samples with PyTorch's decisions.
        over: what ``relative_l2`` is of: the worst ``sample``, or all the golden ``images`` together, which is how a
            quantized variant is judged; noise and constants then need to give finite outputs only.
    """

    relative_l2: float
    agreement: float
    over: Literal["sample", "images"] = "sample"


FLOAT32_LIMITS = Limits(relative_l2=1e-5, agreement=1.0)
"""A float32 stage may differ by the order of additions only."""

IN_GRAPH_LIMITS = Limits(relative_l2=5e-3, agreement=1.0, over="images")
"""Of preprocessing in the graph against the runtime's. Measured on noise, which is the worst: 2.3e-4 for resnet18,
6.6e-4 for vit_ti_16."""

IN_GRAPH_INT8_LIMITS = Limits(relative_l2=5e-2, agreement=0.0, over="images")
"""Of int8, where a pixel that is off by a level may be a step of quantization: 0.010 and 0.026 for the same two. Near
ties, of which random weights have many, may be decided otherwise; the agreement is reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """One stage of the chain.

    Attributes:
        stage: ``exported``, ``simplified``, ``variant <name>``, ``runtime <name>``, or ``in-graph <name>``, which is
            compared with the runtime, ``ort <name>`` or
            ``in-graph <name> ort``.
        num_samples: inputs compared.
        max_abs: largest difference of an output.
        relative_l2: ||difference|| / ||PyTorch's outputs|| of the worst sample, or of all, as ``limits.over`` says; of
            multi-class logits without each sample's mean.
        cosine: smallest cosine similarity of a sample, of the same values.
        agreement: fraction of samples with the same decisions: the same top-1, or every label on the same side of its
            threshold.
        agreement_interval: 95% confidence interval of that fraction (Wilson 1927).
        flips: number of samples whose decision differs, for each output; None for ``multiclass``.
        kl: largest Kullback-Leibler divergence of a sample's probabilities from PyTorch's, in nats; summed over the
            labels where each has a probability of its own.
        limits: what had to be met; ``relative_l2`` by the sample that came nearest to its own limit.
        float64_l2: largest distance of PyTorch's own float32 from its float64, of the inputs that were run in both;
            None if none was.
        same_bytes_as: the stage whose file has the same bytes, so that nothing was run again.
    """

    stage: str
    num_samples: int
    max_abs: float
    relative_l2: float
    cosine: float
    agreement: float
    agreement_interval: tuple[float, float]
    flips: tuple[int, ...] | None
    kl: float
    limits: Limits
    float64_l2: float | None = None
    same_bytes_as: str | None = None

    @property
    def passed(self) -> bool:
        """True if the limits are met; a value that is not finite never meets them."""
        return self.relative_l2 <= self.limits.relative_l2 and self.agreement >= self.limits.agreement

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; a value that is not finite becomes null."""
        data = asdict(self)
        for key in ("max_abs", "relative_l2", "cosine", "kl"):
            data[key] = float(f"{data[key]:.6g}") if math.isfinite(data[key]) else None
        own = data.pop("float64_l2")
        return {
            **data,
            **({} if own is None else {"float64_l2": float(f"{own:.6g}")}),
            "agreement_interval": list(self.agreement_interval),
            "flips": None if self.flips is None else list(self.flips),
            "passed": self.passed,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedStage:
    """A stage that this machine cannot run as others do.

    Attributes:
        stage: as of ``StageReport``.
        reason: why it was not run.
    """

    stage: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"stage": self.stage, "skipped": self.reason}


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """The chain so far.

    Attributes:
        stages: those compared, in their order.
        skipped: those that this machine cannot run.
    """

    stages: tuple[StageReport, ...]
    skipped: tuple[SkippedStage, ...] = ()

    @property
    def passed(self) -> bool:
        """True if every stage that ran passed."""
        return all(stage.passed for stage in self.stages)

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON types; skipped stages come last."""
        return [stage.to_dict() for stage in self.stages] + [stage.to_dict() for stage in self.skipped]


def compare(
    stage: str,
    outputs_BK: NDArray[np.float32],
    reference_BK: NDArray[np.float32],
    *,
    limits: Limits,
    contract: Contract,
    own_B: NDArray[np.float64] | None = None,
) -> StageReport:
    """Measure one stage.

    Args:
        stage: its name.
        outputs_BK: what the stage gave.
        reference_BK: what PyTorch gave for the same inputs.
        limits: what must be met.
        contract: what the outputs mean.
        own_B: what PyTorch's float32 leaves open of each sample (``OwnDistance.noise``); a sample may differ by ten
            times as much, if that is more than the limit, and by ``MAX_RELATIVE_L2`` at most.

    Raises:
        ValueError: if the shapes differ.
    """
    if outputs_BK.shape != reference_BK.shape:
        raise ValueError(f"{stage} gives outputs of shape {outputs_BK.shape}, PyTorch gives {reference_BK.shape}")
    with np.errstate(invalid="ignore"):  # a stage may give NaN or infinities: they show in the figures
        difference = np.abs(outputs_BK.astype(np.float64) - reference_BK)
        kl_B = _kl(outputs_BK, reference_BK, contract)
        is_equal_BK = decisions(outputs_BK, contract) == decisions(reference_BK, contract)
    ours_BK, theirs_BK = compared(outputs_BK, reference_BK, contract)
    distance = _relative_l2(ours_BK, theirs_BK, limits)
    if own_B is not None and limits.over == "sample":
        distance_B = relative_l2(ours_BK, theirs_BK)
        allowed_B = np.maximum(limits.relative_l2, np.minimum(_TIMES_OWN * own_B, MAX_RELATIVE_L2))
        nearest = int(np.nan_to_num(distance_B / allowed_B, nan=np.inf).argmax())
        distance, limits = float(distance_B[nearest]), replace(limits, relative_l2=float(allowed_B[nearest]))
    num_samples = len(reference_BK)
    num_equal = int(is_equal_BK.all(axis=1).sum())
    flips = None if contract.task == "multiclass" else tuple(int(n) for n in (~is_equal_BK).sum(axis=0))
    return StageReport(
        stage=stage,
        num_samples=num_samples,
        max_abs=float(difference.max()),
        relative_l2=distance,
        cosine=float(_cosine(ours_BK, theirs_BK).min()),
        agreement=num_equal / num_samples,
        agreement_interval=wilson_interval(num_equal, num_samples),
        flips=flips,
        kl=float(kl_B.max()),
        limits=limits,
    )


def check_comparison(reference_BK: NDArray[np.float32], contract: Contract, *, seed: int) -> None:
    """See that ``compare`` passes the same outputs, and fails noise, other decisions and NaN.

    Raises:
        ParityError: if it does not, so that nothing it says of this export could be relied on.
    """
    generator = np.random.default_rng([seed, 3])
    noise_BK = generator.standard_normal(reference_BK.shape, np.float32) * np.abs(reference_BK).max()
    anywhere = Limits(relative_l2=np.inf, agreement=1.0)
    altered = {
        "noise of a thousandth": (reference_BK + np.float32(1e-3) * noise_BK, FLOAT32_LIMITS),
        "other decisions": (_decided_otherwise(reference_BK, contract), anywhere),
        "NaN": (np.full_like(reference_BK, np.nan), FLOAT32_LIMITS),
    }
    for what, (outputs_BK, limits) in altered.items():
        if compare("self-test", outputs_BK, reference_BK, limits=limits, contract=contract).passed:
            raise ParityError(f"stage self-test: the comparison passes {what}; no bundle was written")
    if not compare("self-test", reference_BK, reference_BK, limits=FLOAT32_LIMITS, contract=contract).passed:
        raise ParityError("stage self-test: the comparison fails equal outputs; no bundle was written")


def _decided_otherwise(reference_BK: NDArray[np.float32], contract: Contract) -> NDArray[np.float32]:
    if contract.task == "multiclass":
        return np.roll(reference_BK, 1, axis=1)
    low, high = (0.0, 1.0) if contract.output == "probabilities" else (-99.0, 99.0)
    return np.where(decisions(reference_BK, contract) == 1, low, high).astype(np.float32)


def _relative_l2(outputs_BK: NDArray[Any], reference_BK: NDArray[Any], limits: Limits) -> float:
    if limits.over == "images":
        return relative_l2_of_all(outputs_BK, reference_BK)
    return float(relative_l2(outputs_BK, reference_BK).max())


def _kl(outputs_BK: NDArray[Any], reference_BK: NDArray[Any], contract: Contract) -> NDArray[np.float64]:
    """Divergence of each sample's probabilities from the reference's, in nats."""
    p, q = _log_probabilities(reference_BK, contract), _log_probabilities(outputs_BK, contract)
    parts = [(np.exp(log_p) * (log_p - log_q)).sum(axis=1) for log_p, log_q in zip(p, q, strict=True)]
    result: NDArray[np.float64] = np.sum(parts, axis=0)
    return result


def _log_probabilities(outputs_BK: NDArray[Any], contract: Contract) -> list[NDArray[np.float64]]:
    """Of each class; or of each label, and of its absence."""
    if contract.output == "probabilities":
        p = outputs_BK.astype(np.float64)
        both = [p] if contract.task == "multiclass" else [p, 1 - p]
        return [np.log(np.maximum(values, _TINY)) for values in both]
    if contract.task == "multiclass":
        return [log_softmax(outputs_BK)]
    return [log_sigmoid(outputs_BK), log_sigmoid(-outputs_BK)]


def _cosine(a_BK: NDArray[np.float32], b_BK: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = a_BK.astype(np.float64), b_BK.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float64] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return result
