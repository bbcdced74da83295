"""Metrics of the parity chain on small arrays with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from edgeport_export.parity import FLOAT32_LIMITS, Limits, ParityReport, compare, wilson_interval

_REFERENCE = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)


def test_equal_logits_pass() -> None:
    report = compare("exported", _REFERENCE.copy(), _REFERENCE, limits=FLOAT32_LIMITS)
    assert report.passed
    assert (report.max_abs, report.relative_l2, report.kl, report.top1_agreement) == (0, 0, 0, 1)
    assert report.cosine == pytest.approx(1, abs=1e-12)


def test_figures_are_those_of_the_worst_sample() -> None:
    logits = _REFERENCE + np.array([[0.0, 0.0], [0.3, 0.4]], np.float32)
    report = compare("exported", logits, _REFERENCE, limits=FLOAT32_LIMITS)
    assert report.max_abs == pytest.approx(0.4, rel=1e-6)
    assert report.relative_l2 == pytest.approx(0.1, rel=1e-6)
    p, q = (np.exp(v) / np.exp(v).sum() for v in (_REFERENCE[1].astype(float), logits[1].astype(float)))
    assert report.kl == pytest.approx(stats.entropy(p, q), rel=1e-6)
    assert not report.passed


def test_one_flipped_class_fails_whatever_the_distance() -> None:
    reference = np.array([[1.0, 1.0 + 1e-6]], np.float32)
    report = compare("exported", reference[:, ::-1].copy(), reference, limits=Limits(relative_l2=1, top1_agreement=1))
    assert report.top1_agreement == 0
    assert not report.passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_fail(value: float) -> None:
    logits = _REFERENCE.copy()
    logits[1, 1] = value
    report = compare("exported", logits, _REFERENCE, limits=Limits(relative_l2=1e9, top1_agreement=0))
    assert not report.passed
    assert report.to_dict()["relative_l2"] is None


def test_zero_reference_fails() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert not compare("exported", zeros, zeros, limits=FLOAT32_LIMITS).passed


def test_other_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="exported gives logits of shape"):
        compare("exported", _REFERENCE[:, :1], _REFERENCE, limits=FLOAT32_LIMITS)


@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (7, 8), (64, 64), (455, 500)])
def test_wilson_interval_is_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=2e-6)


def test_a_report_passes_if_every_stage_does() -> None:
    good = compare("exported", _REFERENCE, _REFERENCE, limits=FLOAT32_LIMITS)
    bad = compare("simplified", -_REFERENCE, _REFERENCE, limits=FLOAT32_LIMITS)
    assert ParityReport(stages=(good,)).passed
    assert not ParityReport(stages=(good, bad)).passed
