"""Metrics of the parity chain on small arrays with known answers."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import special, stats

from contracts import make_contract
from edgeport_export.parity.compare import FLOAT32_LIMITS, Limits, ParityReport, compare

if TYPE_CHECKING:
    from edgeport_runtime.bundle.contract import Task

_REFERENCE = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
_compare = partial(compare, contract=make_contract())


def test_equal_logits_pass() -> None:
    report = _compare("exported", _REFERENCE.copy(), _REFERENCE, limits=FLOAT32_LIMITS)
    assert report.passed
    assert (report.max_abs, report.relative_l2, report.kl, report.agreement) == (0, 0, 0, 1)
    assert report.cosine == pytest.approx(1, abs=1e-12)


def test_figures_are_those_of_the_worst_sample() -> None:
    logits = _REFERENCE + np.array([[0.0, 0.0], [0.3, -0.1]], np.float32)
    report = _compare("exported", logits, _REFERENCE, limits=FLOAT32_LIMITS)
    assert report.max_abs == pytest.approx(0.3, rel=1e-6)
    # Without their means, the logits are (-2.5, 2.5), and the differences (0.2, -0.2).
    assert report.relative_l2 == pytest.approx(0.08, rel=1e-6)
    p, q = (np.exp(v) / np.exp(v).sum() for v in (_REFERENCE[1].astype(float), logits[1].astype(float)))
    assert report.kl == pytest.approx(stats.entropy(p, q), rel=1e-6)
    assert not report.passed


def test_one_flipped_class_fails_whatever_the_distance() -> None:
    reference = np.array([[1.0, 1.0 + 1e-6]], np.float32)
    report = _compare("exported", reference[:, ::-1].copy(), reference, limits=Limits(relative_l2=1, agreement=1))
    assert report.agreement == 0
    assert not report.passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_fail(value: float) -> None:
    logits = _REFERENCE.copy()
    logits[1, 1] = value
    report = _compare("exported", logits, _REFERENCE, limits=Limits(relative_l2=1e9, agreement=0))
    assert not report.passed
    assert report.to_dict()["relative_l2"] is None


def test_zero_reference_fails() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert not _compare("exported", zeros, zeros, limits=FLOAT32_LIMITS).passed


def test_other_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="exported gives outputs of shape"):
        _compare("exported", _REFERENCE[:, :1], _REFERENCE, limits=FLOAT32_LIMITS)


def test_a_report_passes_if_every_stage_does() -> None:
    good = _compare("exported", _REFERENCE, _REFERENCE, limits=FLOAT32_LIMITS)
    bad = _compare("simplified", -_REFERENCE, _REFERENCE, limits=FLOAT32_LIMITS)
    assert ParityReport(stages=(good,)).passed
    assert not ParityReport(stages=(good, bad)).passed


@pytest.mark.parametrize("masked", [-1e9, -1e4, 1e3])
def test_a_masked_class_hides_no_difference_of_the_others(masked: float) -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((6, 5)).astype(np.float32)
    outputs = reference + np.float32(0.01) * rng.standard_normal((6, 5)).astype(np.float32)
    reference[:, 2] = outputs[:, 2] = masked
    limits = Limits(relative_l2=1, agreement=0, over="images")
    assert 0.005 < _compare("variant int8", outputs, reference, limits=limits).relative_l2 < 0.02
    outputs[3, 2] += 128  # where the masked class itself departs, it counts
    assert _compare("variant int8", outputs, reference, limits=limits).relative_l2 > 1


def test_two_classes_of_which_one_is_constant_are_compared() -> None:
    reference = np.stack([np.zeros(4), np.arange(1, 5)], axis=1).astype(np.float32)
    assert _compare("exported", reference, reference, limits=FLOAT32_LIMITS).passed
    assert not _compare("exported", reference * 1.01, reference, limits=FLOAT32_LIMITS).passed


def test_decisions_that_flip_are_counted_by_label() -> None:
    contract = make_contract("multilabel", 3, thresholds=(0.5, 0.9, 0.1))
    boundary = special.logit([0.5, 0.9, 0.1])
    reference = np.stack([boundary + 0.01, boundary - 0.01, boundary + 0.01]).astype(np.float32)
    outputs = reference.copy()
    outputs[0, 1] -= 0.02
    outputs[2, 1] -= 0.02
    outputs[2, 2] -= 0.02
    report = compare("exported", outputs, reference, limits=Limits(relative_l2=1, agreement=1), contract=contract)
    assert report.flips == (0, 2, 1)
    assert report.agreement == pytest.approx(1 / 3)
    assert not report.passed
    assert report.to_dict()["flips"] == [0, 2, 1]


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_divergence_is_scipys_for_logits_and_for_probabilities(task: Task) -> None:
    num_classes = 2 if task == "binary" else 4
    contract = make_contract(task, num_classes)
    rng = np.random.default_rng(0)
    reference, outputs = rng.standard_normal((2, 5, contract.num_outputs)).astype(np.float32)
    if task == "multiclass":
        p, q = special.softmax(reference, axis=1), special.softmax(outputs, axis=1)
        expected = stats.entropy(p, q, axis=1).max()
    else:
        p, q = special.expit(reference.astype(float)), special.expit(outputs.astype(float))
        expected = (special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)).sum(axis=1).max()
    limits = Limits(relative_l2=9, agreement=0)
    assert compare("exported", outputs, reference, limits=limits, contract=contract).kl == pytest.approx(expected, 1e-5)
    in_graph = make_contract(task, num_classes, output="probabilities")
    report = compare("exported", q.astype(np.float32), p.astype(np.float32), limits=limits, contract=in_graph)
    assert report.kl == pytest.approx(expected, 1e-4)


def test_a_single_logit_near_zero_is_measured_against_all_of_them() -> None:
    contract = make_contract("binary")
    reference = np.array([[1.0], [1e-6], [-1.0]], np.float32)
    report = compare("exported", reference + 2e-6, reference, limits=FLOAT32_LIMITS, contract=contract)
    assert report.relative_l2 == pytest.approx(2e-6 / math.sqrt(2 / 3), rel=0.05)
    assert report.passed
