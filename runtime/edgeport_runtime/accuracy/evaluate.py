"""Metrics of a classifier on labelled images. Shapes: B images, K outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.accuracy.evaluation import (
    BinaryEvaluation,
    ClassCount,
    LabelEvaluation,
    MulticlassEvaluation,
    MultilabelEvaluation,
    UnusableImage,
)
from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.outputs.metrics import (
    auroc,
    average_precision,
    binary_cross_entropy,
    calibration_error,
    cross_entropy,
    precision_recall_f1,
    top_k,
)
from edgeport_runtime.outputs.tasks import decisions, probabilities

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.dataset import LabelledImages
    from edgeport_runtime.accuracy.evaluation import Evaluation
    from edgeport_runtime.accuracy.matching import Match
    from edgeport_runtime.accuracy.protocol import RunsImages
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["evaluate", "measure"]

# What is true of an image, and what the graph gives for it.
_Results: TypeAlias = "Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]"

_TOP_5 = 5
_TINY = float(np.finfo(np.float32).tiny)  # the smallest probability that a graph's float32 softmax gives


def evaluate(
    classifier: RunsImages,
    data: str | os.PathLike[str],
    *,
    match: Match = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run every image of a data set and compare with what is true of it.

    An image that cannot be used, such as a damaged one, is counted, and has no part in the metrics.

    Args:
        classifier: a loaded model.
        data: a folder with one folder of images per class, each searched recursively; or a CSV file with the columns
            ``path`` and ``labels``.
        match: how names become classes: ``auto``, or ``order`` of the folders
            (``read_labelled_images``).
        on_progress: called with (images done, images in all).

    Raises:
        InputError: if the data cannot be matched to classes, or no image can be used.
        SessionError: if the model fails, or gives NaN or infinite values.
    """
    images = read_labelled_images(data, classifier.contract, match=match)
    unusable: list[UnusableImage] = []

    def results() -> _Results:
        for i, (path, output_K, error) in enumerate(classifier.iter_results(images.paths)):
            if output_K is None:
                unusable.append(UnusableImage(path=str(path), error=str(error)))
            elif not np.isfinite(output_K).all():
                raise SessionError(f"{path}: the model returned NaN or infinite values")
            else:
                yield images.targets[i], output_K
            if on_progress is not None:
                on_progress(i + 1, len(images.paths))
        if len(unusable) == len(images.paths):
            raise InputError(f"none of the {len(unusable)} images can be used; the first: {unusable[0].error}")

    result = _measures(classifier.contract)(results(), images, classifier.contract)
    return replace(result, unusable=tuple(unusable), left_out=dict(images.left_out))


def measure(outputs_BK: NDArray[np.float32], images: LabelledImages, contract: Contract) -> Evaluation:
    """The metrics of outputs that are there already.

    Args:
        outputs_BK: what the graph gave for each of the images, in their order.
        images: and what is true of them.
        contract: what the outputs mean.
    """
    return _measures(contract)(zip(images.targets, outputs_BK, strict=True), images, contract)


def _measures(contract: Contract) -> Callable[[_Results, LabelledImages, Contract], Evaluation]:
    return {"multiclass": _multiclass, "binary": _binary, "multilabel": _multilabel}[contract.task]


def _multiclass(results: _Results, images: LabelledImages, contract: Contract) -> Evaluation:
    true, best, losses_seen, confidences_seen = [], [], [], []
    num_top5 = 0
    # One image at a time: what is kept does not grow with the number of classes.
    for target, output_K in results:
        ranked = top_k(output_K, _TOP_5)
        p_K = probabilities(output_K[np.newaxis], contract)[0]
        true.append(int(target))
        best.append(int(ranked[0]))
        confidences_seen.append(float(p_K[ranked[0]]))
        losses_seen.append(_categorical_loss(output_K, int(target), contract))
        num_top5 += int(target in ranked)
    num_images, targets, predicted = len(true), np.array(true), np.array(best)
    losses, confidences = np.array(losses_seen), np.array(confidences_seen)
    is_correct = predicted == targets
    threshold = None if contract.thresholds is None else contract.thresholds[0]
    is_decided = confidences >= (threshold or 0.0)
    pairs, counts = np.unique(np.stack([targets, predicted], axis=1), axis=0, return_counts=True)
    names = {index: name for name, index in images.folders}
    return MulticlassEvaluation(
        num_images=num_images,
        num_correct=int(is_correct.sum()),
        top1=float(is_correct.mean()),
        top5=num_top5 / num_images if contract.num_classes > _TOP_5 else None,
        cross_entropy=float(losses.mean()),
        calibration_error=calibration_error(confidences, is_correct),
        confusion=tuple((int(t), int(p), int(n)) for (t, p), n in zip(pairs, counts, strict=True)),
        matched_by=images.matched_by,
        classes=tuple(
            ClassCount(
                name=names.get(int(index), contract.label(int(index))),
                index=int(index),
                num_images=int((targets == index).sum()),
                num_correct=int(is_correct[targets == index].sum()),
            )
            for index in np.unique(targets)
        ),
        threshold=threshold,
        num_decided=int(is_decided.sum()),
        num_decided_correct=int((is_decided & is_correct).sum()),
    )


def _binary(results: _Results, images: LabelledImages, contract: Contract) -> Evaluation:
    targets_B, outputs_B1 = (np.stack(values) for values in zip(*results, strict=True))
    p_B, decided_B = probabilities(outputs_B1, contract)[:, 0], decisions(outputs_B1, contract)[:, 0]
    counts = np.bincount(2 * targets_B + decided_B, minlength=4)
    true_negatives, false_positives, false_negatives, true_positives = (int(n) for n in counts)
    precision, recall, f1 = precision_recall_f1(true_positives, false_positives, false_negatives)
    return BinaryEvaluation(
        num_images=len(p_B),
        threshold=(contract.thresholds or ())[0],
        true_negatives=true_negatives,
        false_positives=false_positives,
        false_negatives=false_negatives,
        true_positives=true_positives,
        accuracy=(true_negatives + true_positives) / len(p_B),
        precision=precision,
        recall=recall,
        f1=f1,
        auroc=auroc(p_B, targets_B),
        cross_entropy=float(_binary_loss(outputs_B1, targets_B[:, np.newaxis], contract).mean()),
        calibration_error=calibration_error(p_B, targets_B),
        matched_by=images.matched_by,
    )


def _multilabel(results: _Results, _images: LabelledImages, contract: Contract) -> Evaluation:
    targets_BK, outputs_BK = (np.stack(values) for values in zip(*results, strict=True))
    p_BK, decided_BK = probabilities(outputs_BK, contract), decisions(outputs_BK, contract)
    thresholds_K = np.broadcast_to(np.array(contract.thresholds), contract.num_classes)
    labels = []
    for k in range(contract.num_classes):
        p_B, decided_B, targets_B = p_BK[:, k], decided_BK[:, k], targets_BK[:, k]
        num_found, num_decided, num_positive = (int(n.sum()) for n in (decided_B & targets_B, decided_B, targets_B))
        precision, recall, f1 = precision_recall_f1(num_found, num_decided - num_found, num_positive - num_found)
        label = LabelEvaluation(
            name=contract.label(k),
            threshold=float(thresholds_K[k]),
            num_positive=num_positive,
            num_decided=num_decided,
            precision=precision,
            recall=recall,
            f1=f1,
            auroc=auroc(p_B, targets_B),
            average_precision=average_precision(p_B, targets_B),
        )
        labels.append(label)
    return MultilabelEvaluation(
        num_images=len(p_BK),
        exact_match=float((decided_BK == targets_BK).all(axis=1).mean()),
        macro_precision=float(np.mean([label.precision for label in labels])),
        macro_recall=float(np.mean([label.recall for label in labels])),
        macro_f1=float(np.mean([label.f1 for label in labels])),
        macro_auroc=_mean([label.auroc for label in labels]),
        mean_average_precision=_mean([label.average_precision for label in labels]),
        num_labels_with_images=sum(label.num_positive > 0 for label in labels),
        cross_entropy=float(_binary_loss(outputs_BK, targets_BK, contract).mean()),
        labels=tuple(labels),
    )


def _categorical_loss(output_K: NDArray[np.float32], target: int, contract: Contract) -> float:
    if contract.output == "probabilities":
        return float(-np.log(max(float(output_K[target]), _TINY)))
    return float(cross_entropy(output_K[np.newaxis], np.array([target]))[0])


def _binary_loss(
    outputs_BK: NDArray[np.float32], targets_BK: NDArray[np.int64], contract: Contract
) -> NDArray[np.float64]:
    if contract.output == "logits":
        return binary_cross_entropy(outputs_BK, targets_BK)
    p_BK = outputs_BK.astype(np.float64)
    return -np.log(np.maximum(np.where(targets_BK == 1, p_BK, 1 - p_BK), _TINY))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
