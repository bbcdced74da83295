"""What a classifier's logits mean: loss and activation of each task.

Shapes: B batch, K logits (one per class; a single one for a binary classifier).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

__all__ = ["TASKS", "Task", "activation", "loss"]

Task = Literal["multiclass", "binary", "multilabel"]
TASKS: tuple[Task, ...] = get_args(Task)


def activation(task: Task) -> nn.Module:
    """The module from logits (B, K) to probabilities (B, K): softmax over the classes, or a sigmoid of each logit."""
    return nn.Softmax(dim=1) if task == "multiclass" else nn.Sigmoid()


def loss(task: Task, logits_BK: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats, computed from the logits; a scalar.

    Args:
        task: ``multiclass``: categorical; ``binary`` and ``multilabel``: binary, averaged over samples and labels.
        logits_BK: the network's output; K is 1 for ``binary``.
        targets: class indices (B,), int64, for ``multiclass``; 0 or 1, (B,) for ``binary``, (B, K) for
            ``multilabel``.

    Raises:
        ValueError: if the shapes do not go together.
    """
    if task == "multiclass":
        return nn.functional.cross_entropy(logits_BK, targets)
    wanted = targets.reshape(-1, 1) if task == "binary" else targets
    if wanted.shape != logits_BK.shape:
        raise ValueError(f"{task} targets of shape {tuple(targets.shape)} for logits of {tuple(logits_BK.shape)}")
    return nn.functional.binary_cross_entropy_with_logits(logits_BK, wanted.to(logits_BK.dtype))
