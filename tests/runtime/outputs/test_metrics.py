"""Metrics in numpy against scikit-learn, SciPy and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.metrics import average_precision_score, log_loss, precision_recall_fscore_support, roc_auc_score

from edgeport_runtime.outputs.metrics import (
    auroc,
    average_precision,
    binary_cross_entropy,
    calibration_error,
    cross_entropy,
    log_sigmoid,
    log_softmax,
    mcnemar,
    precision_recall_f1,
    relative_l2,
    sigmoid,
    softmax,
    top_k,
    wilson_interval,
)


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


def test_sigmoid_and_its_loss_are_scipys_and_scikit_learns(logits: np.ndarray) -> None:
    np.testing.assert_allclose(sigmoid(logits), scipy.special.expit(logits.astype(float)), rtol=1e-12)
    np.testing.assert_allclose(log_sigmoid(logits), scipy.special.log_expit(logits.astype(float)), rtol=1e-12)
    targets = np.random.default_rng(1).integers(0, 2, logits.shape)
    expected = log_loss(targets.ravel(), sigmoid(logits).ravel(), labels=[0, 1])
    assert binary_cross_entropy(logits, targets).mean() == pytest.approx(expected, rel=1e-9)


def test_binary_loss_of_large_logits_is_finite() -> None:
    losses = binary_cross_entropy(np.array([[1e4, -1e4, 1e4]]), np.array([[0, 0, 1]]))
    assert losses.tolist() == [[1e4, 0, 0]]
    assert sigmoid(np.array([1e30, -1e30])).tolist() == [1, 0]


@pytest.mark.parametrize("digits", [1, 9])
def test_ranking_metrics_are_scikit_learns_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for share in (0.1, 0.5, 0.9):
        targets = (rng.random(200) < share).astype(int)
        scores = np.round(rng.random(200) * 0.7 + targets * 0.3, digits)
        assert auroc(scores, targets) == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)
        assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores), abs=1e-12)


def test_ranking_metrics_of_one_class_do_not_exist() -> None:
    scores = np.array([0.1, 0.9])
    assert auroc(scores, np.array([0, 0])) is None
    assert auroc(scores, np.array([1, 1])) is None
    assert average_precision(scores, np.array([0, 0])) is None
    assert average_precision(scores, np.array([1, 1])) == 1


@pytest.mark.parametrize(
    ("targets", "decided"), [([1, 0, 1, 1], [1, 1, 0, 1]), ([0, 0], [0, 0]), ([1, 1], [0, 0]), ([0, 0], [1, 0])]
)
def test_precision_recall_f1_are_scikit_learns(targets: list[int], decided: list[int]) -> None:
    t, d = np.array(targets), np.array(decided)
    found = precision_recall_f1(int((t & d).sum()), int((~t & d & 1).sum()), int((t & ~d & 1).sum()))
    expected = precision_recall_fscore_support(t, d, average="binary", zero_division=0)
    assert found == pytest.approx(expected[:3])


def test_calibration_error_by_hand() -> None:
    confidences, outcomes = np.array([0.95, 0.95, 0.65, 0.65, 1.0, 0.0]), np.array([1, 0, 1, 1, 1, 0])
    # Bins of 1/15: the first two, the next two, 1.0 with the first two (0.9333 to 1], 0.0 alone.
    expected = (abs(2 - 2.9) + abs(2 - 1.3) + 0) / 6
    assert calibration_error(confidences, outcomes) == pytest.approx(expected)


@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (7, 8), (64, 64), (455, 500)])
def test_wilson_interval_is_scipys(successes: int, trials: int) -> None:
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=2e-6)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (10, 10), (700, 820), (20_000, 20_500)])
def test_mcnemar_is_scipys_binomial_test(first: int, second: int) -> None:
    expected = scipy.stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-6)
    assert mcnemar(second, first) == mcnemar(first, second)
