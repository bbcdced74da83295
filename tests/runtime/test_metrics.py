"""Metrics in numpy against scikit-learn, SciPy and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from sklearn.metrics import log_loss

from edgeport_runtime.metrics import cross_entropy, log_softmax, relative_l2, softmax, top_k


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * 3


def test_softmax_is_scipys(logits: np.ndarray) -> None:
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits.astype(float), axis=1), rtol=1e-12)
    np.testing.assert_allclose(log_softmax(logits), scipy.special.log_softmax(logits.astype(float), axis=1), rtol=1e-12)


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_array_equal(softmax(np.array([1e30, -1e30, 0], np.float32)), [1, 0, 0])
    np.testing.assert_allclose(softmax(np.array([2000.0, 2000.0])), [0.5, 0.5])


def test_cross_entropy_is_scikit_learns(logits: np.ndarray) -> None:
    targets = np.random.default_rng(1).integers(0, 7, 50)
    expected = log_loss(targets, softmax(logits), labels=range(7))
    assert cross_entropy(logits, targets).mean() == pytest.approx(expected, rel=1e-9)


def test_top_k_ranks_and_prefers_the_lower_index() -> None:
    assert top_k(np.array([0.1, 0.5, 0.5, 0.9]), 3).tolist() == [3, 1, 2]
    assert top_k(np.array([[1.0, 2.0], [2.0, 1.0]]), 1).tolist() == [[1], [0]]
    assert top_k(np.array([1.0, 2.0]), 9).tolist() == [1, 0]


def test_relative_l2_is_by_sample_and_never_passes_what_is_not_finite() -> None:
    reference = np.array([[3.0, 4.0], [0.0, 0.0], [np.inf, 1.0], [1.0, 0.0]])
    logits = np.array([[3.0, 4.5], [0.0, 0.0], [np.inf, 1.0], [np.nan, 0.0]])
    assert relative_l2(logits, reference).tolist() == [0.1, np.inf, np.inf, np.inf]
