"""What ``predict`` must say of the golden images, and of outputs that no image gives. C classes, K outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeport_runtime.errors import ManifestError
from edgeport_runtime.outputs.predictions import predictions_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.protocol import RunsImages
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.outputs.predictions import Prediction

__all__ = ["AnswerReport", "Answers", "Given", "answers_in", "check_answers"]

_STREAMED = 4  # images of a batch: eight golden images are two, which run side by side
_EXACT = 1e-6  # of probabilities that both sides compute from the same outputs in float64; measured: 2e-16


class Given(NamedTuple):
    """Answers to some outputs.

    Attributes:
        scores: probability of each class, float64 (samples, C).
        order: classes in the order of ``predict``, int64 (samples, k).
        decided: classes that the model decides on, bool (samples, C).
    """

    scores: NDArray[np.float64]
    order: NDArray[np.int64]
    decided: NDArray[np.bool_]


class Answers(NamedTuple):
    """What PyTorch's side says; ``docs/bundle.md``, golden.

    Attributes:
        images: of the golden images.
        labels: name of each class; None where they are not known.
        outputs: made up, with ties and probabilities at a threshold: float32 (cases, K).
        cases: answers to those.
    """

    images: Given
    labels: tuple[str, ...] | None
    outputs: NDArray[np.float32]
    cases: Given


class AnswerReport(NamedTuple):
    """How ``predict`` and ``stream`` answer.

    Attributes:
        max_difference: largest difference of a probability from PyTorch's.
        num_equal: images with PyTorch's decisions.
        problem: the first answer that cannot be put down to a difference of the outputs, or None.
    """

    max_difference: float
    num_equal: int
    problem: str | None


def answers_in(arrays: Mapping[str, NDArray[np.generic]], contract: Contract, *, num_images: int) -> Answers | None:
    """The answers in the arrays of ``expected.npz``; None if it is of a bundle that has none (schema version 1).

    Raises:
        ManifestError: if an array is missing, or of another type or shape.
    """
    if "scores" not in arrays:
        return None
    num_cases, num_classes = len(arrays.get("cases", ())), contract.num_classes
    k = min(5, num_classes)
    wanted = {
        "scores": ("f8", (num_images, num_classes)),
        "order": ("i8", (num_images, k)),
        "decided": ("b1", (num_images, num_classes)),
        "cases": ("f4", (num_cases, contract.num_outputs)),
        "case_scores": ("f8", (num_cases, num_classes)),
        "case_order": ("i8", (num_cases, k)),
        "case_decided": ("b1", (num_cases, num_classes)),
    }
    for name, (kind, shape) in wanted.items():
        array = arrays.get(name)
        if array is None or (array.dtype.str[1:], array.shape) != (kind, shape):
            told = "is missing" if array is None else f"is {array.dtype} {array.shape}"
            raise ManifestError(f"expected.npz: the array {name} {told}, not {np.dtype(kind)} {shape}; export again")
    labels = arrays.get("labels")
    if labels is not None and (labels.dtype.kind != "U" or labels.shape != (num_classes,)):
        raise ManifestError(f"expected.npz: the array labels is not {num_classes} strings; export again")
    given: dict[str, Any] = dict(arrays)
    return Answers(
        images=Given(given["scores"], given["order"], given["decided"]),
        labels=None if labels is None else tuple(map(str, labels)),
        outputs=given["cases"],
        cases=Given(given["case_scores"], given["case_order"], given["case_decided"]),
    )


def check_answers(
    classifier: RunsImages, images: Sequence[Path], answers: Answers, *, tolerance: float, brief: bool = False
) -> AnswerReport:
    """Ask ``predict`` for each image, ``stream`` for all of them, and the same code for the made-up outputs.

    Args:
        classifier: a loaded variant.
        images: the golden images.
        answers: PyTorch's.
        tolerance: largest difference of a probability.
        brief: ask ``predict`` for the first half of the images, and ``stream`` for the other, in the session that is
            there.
    """
    contract = classifier.contract
    for row, outputs_K in enumerate(answers.outputs):
        found = predictions_of(outputs_K, contract, answers.cases.order.shape[1])
        difference, is_equal, problem = _compare(found, answers.cases, row, answers.labels, tolerance=_EXACT)
        order = [p.index for p in found]
        if problem is None and (order != answers.cases.order[row].tolist() or not is_equal or difference > _EXACT):
            problem = f"of {np.array2string(outputs_K, threshold=6)} it takes {order} and scores {found[0].score:.6g}"
        if problem is not None:
            return AnswerReport(difference, 0, f"made-up outputs {row}: {problem}")
    k, part = answers.images.order.shape[1], (len(images) + 1) // 2 if brief else len(images)
    first_streamed = len(images) - part
    given: list[list[tuple[str, list[Prediction]]]] = [[] for _ in images]
    for row, image in enumerate(images[:part]):
        given[row].append(("predict", classifier.predict(image, k)))
    streamed = images[first_streamed:]
    results = list(classifier.stream(streamed, top_k=k, batch_size=_STREAMED, workers=1 if brief else None))
    if len(results) != part:
        return AnswerReport(0.0, 0, f"stream gives {len(results)} results for {part} images")
    for row, result in enumerate(results, first_streamed):
        if result.error is not None:
            raise result.error
        assert result.predictions is not None
        given[row].append(("stream", result.predictions))
    largest, num_equal = 0.0, 0
    for row, (image, ways) in enumerate(zip(images, given, strict=True)):
        is_right = True
        for how, found in ways:
            difference, is_equal, problem = _compare(found, answers.images, row, answers.labels, tolerance=tolerance)
            if problem is not None:
                return AnswerReport(difference, num_equal, f"{image.name}, {how}: {problem}")
            largest, is_right = max(largest, difference), is_right and is_equal
        num_equal += is_right
    return AnswerReport(largest, num_equal, None)


def _compare(
    found: list[Prediction], given: Given, row: int, labels: tuple[str, ...] | None, *, tolerance: float
) -> tuple[float, bool, str | None]:
    """The largest difference of a score, whether the decision is the same, and what cannot be right."""
    scores_C, decided_C = given.scores[row], given.decided[row]
    difference = max(abs(p.score - float(scores_C[p.index])) for p in found)
    is_equal = {p.index for p in found if p.is_decided} == set(np.flatnonzero(decided_C)) & {p.index for p in found}
    for p in found:
        expected = None if labels is None else labels[p.index]
        if p.label != expected:
            return difference, is_equal, f"class {p.index} is called {p.label!r}, not {expected!r}"
        if not abs(p.score - float(scores_C[p.index])) <= tolerance:
            return difference, is_equal, f"class {p.index} has probability {p.score:.4f}, not {scores_C[p.index]:.4f}"
    left_out = np.delete(scores_C, [p.index for p in found])
    least = min(p.score for p in found)
    if left_out.size and float(left_out.max()) > least + 2 * tolerance:
        return difference, is_equal, f"the classes are not the {len(found)} most probable ones"
    return difference, is_equal, None
