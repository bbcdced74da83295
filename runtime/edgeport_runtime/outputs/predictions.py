"""What a person is told of one image: classes with their scores. K outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.outputs.metrics import top_k
from edgeport_runtime.outputs.tasks import decisions, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.pixels.decode import ImageSource

__all__ = ["Prediction", "StreamResult", "predictions_of"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class.

    Attributes:
        index: of the class.
        label: its name, None where labels are not known.
        score: its probability.
        is_decided: True for the class that the model decides on: the most probable one of a multi-class model (if it
            reaches the threshold, where the model has one), the one on its side of the threshold of a binary model,
            each that reaches its threshold of a multi-label model.
    """

    index: int
    label: str | None
    score: float
    is_decided: bool


class StreamResult(NamedTuple):
    """What a stream gives for one image.

    Attributes:
        item: the image as it was given.
        predictions: as of ``Classifier.predict``, None if the image could not be used.
        error: why it could not be used, or None.
    """

    item: ImageSource
    predictions: list[Prediction] | None
    error: InputError | None


def predictions_of(outputs_K: NDArray[np.float32], contract: Contract, k: int) -> list[Prediction]:
    """The ``k`` most probable classes, best first; of a binary model the decided class first.

    Raises:
        SessionError: if an output is not finite.
    """
    if not np.isfinite(outputs_K).all():
        raise SessionError(
            "the model returned NaN or infinite values; check its bundle with run-model verify, and --mean and --std "
            "of a lone file"
        )
    outputs_1K = outputs_K[np.newaxis]
    scores, decided = probabilities(outputs_1K, contract)[0], decisions(outputs_1K, contract)[0]
    if contract.task == "multilabel":
        order, chosen = top_k(scores, k), set(np.flatnonzero(decided))
    elif contract.task == "binary":
        scores = np.array([1 - scores[0], scores[0]])
        order, chosen = np.array([decided[0], 1 - decided[0]])[:k], {decided[0]}
    else:
        order = top_k(outputs_K, k)
        chosen = {decided[0]} if decided[1:].all() else set()
    labels = contract.labels
    return [
        Prediction(int(i), None if labels is None else labels[i], float(scores[i]), bool(i in chosen)) for i in order
    ]
