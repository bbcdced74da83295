"""Metrics of PyTorch's outputs, computed by scikit-learn and named as ``run-model evaluate --json`` names its."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sklearn import metrics as sk

from edgeport_models.tasks import activation, loss
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgeport_runtime.bundle.contract import Task
    from training.data import Split

__all__ = ["SCORES", "measure"]

SCORES = {"multiclass": "top1", "binary": "accuracy", "multilabel": "mean_average_precision"}
"""The metric by which the best epoch is chosen."""

_BATCH = 256


def measure(module: nn.Module, split: Split, task: Task) -> dict[str, float]:
    """Metrics of a module on images; the module is put into evaluation mode."""
    module.eval()
    with torch.no_grad():
        logits_BK = torch.cat([module(part) for part in split.images.split(_BATCH)]).double()
        cross_entropy = loss(task, logits_BK, split.targets).item()
        scores = activation(task)(logits_BK).numpy()
    targets = split.targets.numpy()
    if task == "multiclass":
        found = {"top1": float((scores.argmax(axis=1) == targets).mean())}
    elif task == "binary":
        found = _binary(scores[:, 0], targets)
    else:
        found = _multilabel(scores, targets)
    return {**found, "cross_entropy": cross_entropy}


def _binary(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    decided = (scores >= 0.5).astype(int)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(targets, decided, average="binary", zero_division=0)
    found = {"accuracy": float((decided == targets).mean()), "precision": precision, "recall": recall, "f1": f1}
    if len(set(targets.tolist())) == 2:
        found["auroc"] = sk.roc_auc_score(targets, scores)
    return {name: float(value) for name, value in found.items()}


def _multilabel(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    decided = (scores >= 0.5).astype(int)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(targets, decided, average="macro", zero_division=0)
    has_images = targets.any(axis=0)
    if not has_images.any():
        raise InputError(
            "none of the images to measure on has a label; choose other images, or another --seed or --held-out"
        )
    return {
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "mean_average_precision": float(sk.average_precision_score(targets[:, has_images], scores[:, has_images])),
        "exact_match": float((decided == targets).all(axis=1).mean()),
    }
