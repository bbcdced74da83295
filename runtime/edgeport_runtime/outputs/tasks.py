"""From a model's outputs to probabilities and decisions, by the contract's task. Shapes: B batch, K outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeport_runtime.outputs.metrics import sigmoid, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["OfClasses", "centred", "compared", "decisions", "of_classes", "probabilities"]


class OfClasses(NamedTuple):
    """Probabilities, float64, and decisions, bool, by class: (B, C) each, both classes of a binary task among them."""

    scores: NDArray[np.float64]
    decided: NDArray[np.bool_]


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
    """What the model decides, of a multi-class task by class, and otherwise 0 or 1 for each output (B, K).

    Args:
        outputs_BK: what the graph gave.
        contract: tells the task and its thresholds; a probability equal to its threshold is a 1.

    Returns:
        int64 (B, K); of a multi-class task the most probable class (B, 1), and where the task has a threshold behind it
        whether that class reaches it, 0 or 1 (B, 2).
    """
    if contract.task == "multiclass":
        best_B1: NDArray[np.int64] = outputs_BK.argmax(axis=1)[:, np.newaxis].astype(np.int64)
        if contract.thresholds is None:
            return best_B1
        scores_B1 = np.take_along_axis(probabilities(outputs_BK, contract), best_B1, axis=1)
        return np.hstack([best_B1, (scores_B1 >= contract.thresholds[0]).astype(np.int64)])
    return (probabilities(outputs_BK, contract) >= np.array(contract.thresholds)).astype(np.int64)


def of_classes(outputs_BK: NDArray[Any], contract: Contract) -> OfClasses:
    """Probabilities and decisions of every class, from what the graph gave."""
    scores, decided = probabilities(outputs_BK, contract), decisions(outputs_BK, contract)
    if contract.task == "binary":
        scores = np.hstack([1 - scores, scores])
    if contract.task == "multilabel":
        return OfClasses(scores, decided.astype(bool))
    is_best_BC = np.arange(contract.num_classes) == decided[:, :1]
    return OfClasses(scores, is_best_BC & decided[:, 1:].all(axis=1, keepdims=True))


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


def compared(
    outputs_BK: NDArray[Any], reference_BK: NDArray[Any], contract: Contract
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Outputs and reference as distances are measured on them: centred, and without what no image changes.

    Of multi-class logits, a class that the reference gives the same value for every sample, such as one that is masked
    by -1e9, is moved to the mean of the others, in both by as much: their differences stay, and it hides none of them.

    Args:
        outputs_BK: what the graph gave.
        reference_BK: what it is compared with.
        contract: tells the task, and whether the outputs are logits.
    """
    is_same_K = (reference_BK == reference_BK[:1]).all(axis=0)
    has_logits = contract.task == "multiclass" and contract.output == "logits"
    if has_logits and len(reference_BK) > 1 and is_same_K.any() and (~is_same_K).sum() > 1:
        ours, theirs = outputs_BK.astype(np.float64), reference_BK.astype(np.float64)
        with np.errstate(invalid="ignore"):
            shift = theirs[:, ~is_same_K].mean(axis=1, keepdims=True) - theirs[:, is_same_K]
            ours[:, is_same_K] += shift
            theirs[:, is_same_K] += shift
        outputs_BK, reference_BK = ours, theirs
    return centred(outputs_BK, contract), centred(reference_BK, contract)
