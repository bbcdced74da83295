"""Accuracy of a classifier on a folder that holds one folder a class."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeport_runtime.errors import InputError
from edgeport_runtime.images import find_images
from edgeport_runtime.metrics import cross_entropy, top_k

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from edgeport_runtime.classifier import Classifier

__all__ = ["ClassCount", "Evaluation", "evaluate"]

_TOP_5 = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCount:
    """One folder: the class it stands for, its images, and how many were classified correctly."""

    folder: str
    index: int
    num_images: int
    num_correct: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Metrics over all images of a data set.

    Attributes:
        num_images: images evaluated.
        num_correct: images whose most probable class is the true one.
        top1: fraction of those.
        top5: fraction with the true class among the five most probable; None with five classes or fewer.
        cross_entropy: mean -log probability of the true class, in nats.
        matched_by: how folders became classes: ``name`` (of the labels) or ``sorted order``.
        classes: one entry a folder, in the order of their classes.
    """

    num_images: int
    num_correct: int
    top1: float
    top5: float | None
    cross_entropy: float
    matched_by: Literal["name", "sorted order"]
    classes: tuple[ClassCount, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def evaluate(
    classifier: Classifier, data: str | os.PathLike[str], *, on_progress: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Run every image under ``data`` and compare with the class that its folder stands for.

    Folders are matched to labels by name if each of them is a label, otherwise to classes by sorted order.

    Args:
        classifier: a loaded multi-class model.
        data: a folder with one folder of images a class, each searched recursively.
        on_progress: called with (images done, images in all).

    Raises:
        InputError: if the folders cannot be matched, hold no image, or an image cannot be used.
    """
    root = Path(data)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; --data takes a folder with one folder of images a class")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{root} holds no folders; it needs one folder of images a class")
    matched_by, indices = _match([f.name for f in folders], classifier)
    paths = [find_images(folder) for folder in folders]
    targets = np.repeat(indices, [len(p) for p in paths])
    num_images = len(targets)
    predicted = np.empty(num_images, np.int64)
    losses = np.empty(num_images, np.float64)
    num_top5 = 0
    for done, logits_K in enumerate(classifier.iter_logits(path for group in paths for path in group)):
        best = top_k(logits_K, _TOP_5)
        predicted[done] = best[0]
        losses[done] = cross_entropy(logits_K[np.newaxis], targets[done : done + 1])[0]
        num_top5 += int(targets[done] in best)
        if on_progress is not None:
            on_progress(done + 1, num_images)
    is_correct = predicted == targets
    counts = [
        ClassCount(
            folder=folder.name,
            index=int(index),
            num_images=len(group),
            num_correct=int(is_correct[targets == index].sum()),
        )
        for folder, index, group in zip(folders, indices, paths, strict=True)
    ]
    return Evaluation(
        num_images=num_images,
        num_correct=int(is_correct.sum()),
        top1=float(is_correct.mean()),
        top5=num_top5 / num_images if classifier.contract.num_classes > _TOP_5 else None,
        cross_entropy=float(losses.mean()),
        matched_by=matched_by,
        classes=tuple(sorted(counts, key=lambda c: c.index)),
    )


def _match(names: list[str], classifier: Classifier) -> tuple[Literal["name", "sorted order"], list[int]]:
    labels = classifier.contract.labels
    if labels is not None and set(names) <= set(labels):
        return "name", [labels.index(name) for name in names]
    num_classes = classifier.contract.num_classes
    if len(names) == num_classes:
        return "sorted order", list(range(num_classes))
    if labels is None:
        raise InputError(
            f"{len(names)} folders for {num_classes} classes, and the model has no labels to match by name"
        )
    unknown = [name for name in names if name not in labels]
    raise InputError(
        f"{len(names)} folders for {num_classes} classes, and these are not among the labels: {', '.join(unknown[:10])}"
    )
