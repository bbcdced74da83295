"""What ``predict`` must answer, from PyTorch's side: for the golden images, and for outputs that no image gives.

Shapes: B samples, C classes, K outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["answer_arrays"]

_TOP = 5
_NUM_RANDOM = 4
_BESIDE = 1e-3  # far above what two implementations of a sigmoid differ by


def answer_arrays(reference_BK: NDArray[np.float32], contract: Contract, *, seed: int) -> dict[str, NDArray[Any]]:
    """The arrays of ``golden/expected.npz`` beside the outputs (``docs/bundle.md``, golden).

    Args:
        reference_BK: PyTorch's outputs for the golden images.
        contract: their meaning.
        seed: of the made-up outputs.
    """
    cases_BK = _made_up(contract, seed=seed)
    arrays: dict[str, NDArray[Any]] = dict(
        zip(("scores", "order", "decided"), _answers(reference_BK, contract), strict=True)
    )
    arrays["cases"] = cases_BK
    arrays |= dict(zip(("case_scores", "case_order", "case_decided"), _answers(cases_BK, contract), strict=True))
    if contract.labels is not None:
        arrays["labels"] = np.array(contract.labels)
    return arrays


def _answers(outputs_BK: NDArray[np.float32], contract: Contract) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Scores (B, C), order (B, k) and decisions (B, C)."""
    outputs = torch.from_numpy(outputs_BK).to(torch.float64)
    if contract.task == "multiclass":
        scores = torch.softmax(outputs, dim=1) if contract.output == "logits" else outputs
        order = _descending(outputs)
        best = order[:, :1]
        is_enough = scores.gather(1, best).ge(0.0 if contract.thresholds is None else contract.thresholds[0])
        decided = torch.zeros_like(outputs, dtype=torch.bool).scatter_(1, best, is_enough)
    else:
        scores = torch.sigmoid(outputs) if contract.output == "logits" else outputs
        decided = scores.ge(torch.tensor(contract.thresholds, dtype=torch.float64))
        order = _descending(scores)
        if contract.task == "binary":
            scores, decided = torch.cat([1 - scores, scores], 1), torch.cat([~decided, decided], 1)
            order = _descending(decided.to(torch.float64))  # the class on its side of the threshold comes first
    return scores.numpy(), order[:, :_TOP].numpy().copy(), decided.numpy()


def _descending(values: Tensor) -> Tensor:
    return torch.sort(values, dim=1, descending=True, stable=True).indices


def _made_up(contract: Contract, *, seed: int) -> NDArray[np.float32]:
    """Outputs at random, all equal, with two equal ones ahead, and at the thresholds."""
    generator = np.random.default_rng([seed, 2])
    count = contract.num_outputs
    random = 4 * generator.standard_normal((_NUM_RANDOM, count))
    ahead = 4 * generator.standard_normal((1, count))
    ahead[0, [0, -1]] = 9.0
    logits = torch.from_numpy(np.concatenate([random, np.zeros((1, count)), ahead]).astype(np.float32))
    outputs = logits
    if contract.output == "probabilities":
        scores = logits.to(torch.float64)
        scores = torch.softmax(scores, dim=1) if contract.task == "multiclass" else torch.sigmoid(scores)
        outputs = scores.to(torch.float32)
    if contract.thresholds is None:
        return outputs.numpy()
    thresholds = np.broadcast_to(np.array(contract.thresholds), (count,))
    return np.concatenate([outputs.numpy(), np.stack([_beside(thresholds, sign, contract) for sign in (1, -1)])])


def _beside(thresholds: NDArray[np.float64], sign: int, contract: Contract) -> NDArray[np.float32]:
    """Outputs on a threshold where float32 has it, which decides for the class; else a little to that side of it.

    Of a multi-class task the first class is on it, and the others share the rest.
    """
    if contract.task == "multiclass":
        return _first_beside(thresholds, sign, contract)
    if contract.output == "probabilities":
        is_there, on = thresholds.astype(np.float32) == thresholds, thresholds
    else:
        is_there, on = thresholds == 0.5, np.log(thresholds) - np.log1p(-thresholds)
    values: NDArray[np.float64] = np.where(is_there, on, on + sign * _BESIDE)
    return values.astype(np.float32)


def _first_beside(thresholds: NDArray[np.float64], sign: int, contract: Contract) -> NDArray[np.float32]:
    first, num_others = thresholds[0], max(len(thresholds) - 1, 1)
    if contract.output == "probabilities":
        is_there, on, other = first.astype(np.float32) == first, first, (1 - first) / num_others
    else:
        is_there, on, other = False, np.log(first) - np.log1p(-first) + np.log(num_others), 0.0
    values = np.full(len(thresholds), other)
    values[0] = on if is_there else on + sign * _BESIDE
    return values.astype(np.float32)
