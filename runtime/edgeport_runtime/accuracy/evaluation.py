"""What an evaluation finds, one type per task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "BinaryEvaluation",
    "ClassCount",
    "Evaluation",
    "LabelEvaluation",
    "MulticlassEvaluation",
    "MultilabelEvaluation",
    "UnusableImage",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnusableImage:
    """An image that has no part in the metrics: its path, and why."""

    path: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCount:
    """One class that has images: its name, how many there are, and how many were classified correctly."""

    name: str
    index: int
    num_images: int
    num_correct: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MulticlassEvaluation:
    """Metrics over all images of a data set.

    Attributes:
        num_images: images evaluated.
        num_correct: images whose most probable class is the true one.
        top1: fraction of those.
        top5: fraction with the true class among the five most probable; None with five classes or fewer.
        cross_entropy: mean -log probability of the true class, in nats.
        calibration_error: expected calibration error of the top-1 probability, 15 bins (Guo et al. 2017, Equation 3).
        confusion: (true class, predicted class, images), for each pair that occurs.
        matched_by: how names became classes: ``name`` (of the labels), ``sorted order`` of the folders, or ``number``.
        classes: one entry a class that has images, in their order.
        threshold: below this probability nothing is decided; None where the most probable class always is. The metrics
            above take no notice of it.
        num_decided: images that are decided.
        num_decided_correct: those of them whose class is the true one.
        unusable: images that could not be used; they are in no figure.
        left_out: of folders: files that were not taken as images, by kind.
    """

    num_images: int
    num_correct: int
    top1: float
    top5: float | None
    cross_entropy: float
    calibration_error: float
    confusion: tuple[tuple[int, int, int], ...]
    matched_by: str
    classes: tuple[ClassCount, ...]
    threshold: float | None
    num_decided: int
    num_decided_correct: int
    unusable: tuple[UnusableImage, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"task": "multiclass", **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class BinaryEvaluation:
    """Metrics of a binary model; the positive class is the second one.

    Attributes:
        num_images: images evaluated.
        threshold: an image with at least this probability is decided positive.
        true_negatives, false_positives, false_negatives, true_positives: images of each kind.
        accuracy: fraction decided correctly.
        precision: fraction of the images decided positive that are positive; 0 if there are none.
        recall: fraction of the positive images that were decided positive; 0 if there are none.
        f1: harmonic mean of precision and recall.
        auroc: area under the receiver operating characteristic; None unless there are images of both classes.
        cross_entropy: mean binary cross-entropy, in nats.
        calibration_error: expected calibration error of the probability, 15 bins (Guo et al. 2017, Equation 3).
        matched_by, unusable, left_out: as for ``MulticlassEvaluation``.
    """

    num_images: int
    threshold: float
    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    auroc: float | None
    cross_entropy: float
    calibration_error: float
    matched_by: str
    unusable: tuple[UnusableImage, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"task": "binary", **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelEvaluation:
    """One label of a multi-label model; metrics as for ``BinaryEvaluation``, and its average precision."""

    name: str
    threshold: float
    num_positive: int
    num_decided: int
    precision: float
    recall: float
    f1: float
    auroc: float | None
    average_precision: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MultilabelEvaluation:
    """Metrics of a multi-label model.

    Attributes:
        num_images: images evaluated.
        exact_match: fraction of images with every label decided correctly.
        macro_precision, macro_recall, macro_f1: means over all labels.
        macro_auroc: mean over the labels that have one; None if none has.
        mean_average_precision: mean over the labels that have positive images; None if none has.
        num_labels_with_images: how many labels that is.
        cross_entropy: mean binary cross-entropy over images and labels, in nats.
        labels: each label by itself.
        unusable, left_out: as for ``MulticlassEvaluation``.
    """

    num_images: int
    exact_match: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    macro_auroc: float | None
    mean_average_precision: float | None
    num_labels_with_images: int
    cross_entropy: float
    labels: tuple[LabelEvaluation, ...]
    unusable: tuple[UnusableImage, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"task": "multilabel", **asdict(self)}


Evaluation = MulticlassEvaluation | BinaryEvaluation | MultilabelEvaluation
