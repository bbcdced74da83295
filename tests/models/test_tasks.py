"""Losses and activations against scikit-learn and hand computation."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import log_loss

from edgeport_models.tasks import TASKS, activation, loss


def test_categorical_loss_is_scikit_learns() -> None:
    logits_BK = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    targets_B = torch.tensor([2, 1])
    expected = log_loss(targets_B, activation("multiclass")(logits_BK).double(), labels=[0, 1, 2])
    assert loss("multiclass", logits_BK, targets_B).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_binary_loss_is_scikit_learns(task: str) -> None:
    logits_BK = torch.tensor([[2.0], [-3.0], [0.5]]) if task == "binary" else torch.tensor([[2.0, -3.0], [0.5, 1.0]])
    targets = torch.tensor([1, 1, 0]) if task == "binary" else torch.tensor([[1, 1], [0, 1]])
    probabilities = activation(task)(logits_BK).double()  # type: ignore[arg-type]
    expected = log_loss(targets.flatten(), probabilities.flatten(), labels=[0, 1])
    assert loss(task, logits_BK, targets).item() == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


def test_losses_are_computed_from_logits_and_do_not_overflow() -> None:
    assert loss("binary", torch.tensor([[-1000.0]]), torch.tensor([1])).item() == 1000
    assert loss("multiclass", torch.tensor([[0.0, 1000.0]]), torch.tensor([0])).item() == 1000


def test_shapes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multilabel targets of shape \(2,\) for logits of \(2, 3\)"):
        loss("multilabel", torch.zeros(2, 3), torch.zeros(2))
    assert TASKS == ("multiclass", "binary", "multilabel")
