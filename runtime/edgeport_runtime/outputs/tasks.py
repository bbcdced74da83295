"""From a model's outputs to probabilities and decisions, by the contract's task. Shapes: B batch, K outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.outputs.metrics import sigmoid, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["centred", "decisions", "probabilities"]


def probabilities(outputs_BK: NDArray[Any], contract: Contract) -> NDArray[np.float64]:
    """Probabilities (B, K), of which the activation is applied once: here, or in the graph where it is there.

    Args:
        outputs_BK: what the graph gave.
        contract: tells the task, and whether the outputs are logits.
    """
    if contract.output == "probabilities":
        return outputs_BK.astype(np.float64)
    return softmax(outputs_BK) if contract.task == "multiclass" else sigmoid(outputs_BK)


def decisions(outputs_BK: NDArray[Any], contract: Contract) -> NDArray[np.int64]:
    """What the model decides: the class (B, 1), or 0 or 1 for each output (B, K).

    Args:
        outputs_BK: what the graph gave.
        contract: tells the task and its thresholds; a probability equal to its threshold is a 1.
    """
    if contract.thresholds is None:
        best: NDArray[np.int64] = outputs_BK.argmax(axis=1)[:, np.newaxis]
        return best
    return (probabilities(outputs_BK, contract) >= np.array(contract.thresholds)).astype(np.int64)


def centred(outputs_BK: NDArray[Any], contract: Contract) -> NDArray[Any]:
    """Outputs as distances are measured on them (B, K): of multi-class logits each sample's mean is taken off.

    The softmax does not change, and a constant in every logit would hide differences in a relative distance.

    Args:
        outputs_BK: what the graph gave.
        contract: tells the task, and whether the outputs are logits.
    """
    if contract.task != "multiclass" or contract.output != "logits":
        return outputs_BK
    values_BK = outputs_BK.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities: they stay what they are to whoever measures
        centred_BK: NDArray[np.float64] = values_BK - values_BK.mean(axis=1, keepdims=True)
    return centred_BK
