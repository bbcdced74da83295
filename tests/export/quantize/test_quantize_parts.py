"""The pieces of quantization by themselves: ranges, losses, rounding, equalization, budgets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
from onnx import helper
from sklearn.metrics import f1_score

from contracts import make_contract
from edgeport_export.quantize.drop import Drop, measure_drop
from edgeport_export.quantize.histogram import METHODS, Histogram
from edgeport_export.quantize.recipes import Recipe
from edgeport_export.quantize.rounding import round_weight
from edgeport_export.quantize.search import search
from edgeport_export.quantize.static import StaticQuantizer
from edgeport_runtime import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


def _histogram(*parts: NDArray[np.float32]) -> Histogram:
    seen = Histogram()
    for part in parts:
        seen.add(part, low=float(part.min()), high=float(part.max()))
    return seen


def _error(values: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of 256 levels, by the definition."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    levels = np.clip(np.round(values / scale) + zero, 0, 255)
    return float(np.mean((values - (levels - zero) * scale) ** 2))


@pytest.fixture(scope="module")
def values() -> NDArray[np.float32]:
    """A wide tail, as activations have."""
    return np.random.default_rng(0).laplace(size=40_000).astype(np.float32)


def test_parts_count_like_the_whole(values: NDArray[np.float32]) -> None:
    parts = np.split(np.sort(np.abs(values)), 8)  # every part beyond the range of those before
    whole, streamed = _histogram(np.abs(values)), _histogram(*parts)
    assert (streamed.low, streamed.high, streamed.num_values) == (whole.low, whole.high, 40_000)
    for method in METHODS:
        np.testing.assert_allclose(streamed.range(method), whole.range(method), rtol=0.02)


def test_min_max_is_exact_and_holds_zero(values: NDArray[np.float32]) -> None:
    assert _histogram(values).range("min-max") == (float(values.min()), float(values.max()))
    assert _histogram(np.abs(values) + 1).range("min-max")[0] == 0
    low, high = _histogram(values).range("min-max", is_symmetric=True)
    assert -low == high == float(np.abs(values).max())


def test_percentile_cuts_the_outermost_values() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 1_000_000), [-50.0, 80.0]]).astype(np.float32)
    low, high = _histogram(values).range("percentile")
    assert -1.1 < low < -0.99
    assert 0.99 < high < 1.1


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_mse_has_a_smaller_error_than_the_other_methods(values: NDArray[np.float32], is_symmetric: bool) -> None:
    seen = _histogram(values)
    errors = {method: _error(values, *seen.range(method, is_symmetric=is_symmetric)) for method in METHODS}
    assert min(errors, key=lambda method: errors[method]) == "mse"
    assert errors["mse"] < 0.95 * errors["min-max"]  # measured: 0.91 and 0.83


def test_entropy_clips_a_tail_that_is_rare(values: NDArray[np.float32]) -> None:
    low, high = _histogram(values).range("entropy")
    assert values.min() < low < np.percentile(values, 1)
    assert np.percentile(values, 99) < high < values.max()


def test_clipping_and_noise_are_of_the_range(values: NDArray[np.float32]) -> None:
    seen = _histogram(values)
    assert seen.clipped(float(values.min()), float(values.max())) == 0
    assert seen.clipped(-2, 2) == pytest.approx((np.abs(values) > 2).mean(), abs=0.005)
    expected = 10 * np.log10(np.mean(values**2) / _error(values, -6, 6))
    assert seen.signal_to_noise(-6, 6) == pytest.approx(expected, abs=0.3)


def test_inputs_of_a_concatenation_have_its_range() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Clip", ["x"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
    ]
    model = helper.make_model(helper.make_graph(nodes, "parts", [], []))
    limits = {"a": 2.0, "b": 6.0, "c": 7.0}
    seen = {name: _histogram(np.linspace(0, high, 100, dtype=np.float32)) for name, high in limits.items()}
    recipe = Recipe(scheme="static", activations="uint8", layers=("Conv",), others=("Concat",), reason="", source="")
    quantizer = StaticQuantizer(model=model, recipe=recipe, ranges={}, histograms=seen)
    assert quantizer.with_method("min-max").ranges == dict.fromkeys("abc", (0.0, 7.0))
    alone = replace(quantizer, recipe=replace(recipe, others=()))
    assert alone.with_method("min-max").ranges == {name: (0.0, high) for name, high in limits.items()}


def test_zeros_alone_have_an_empty_range() -> None:
    assert _histogram(np.zeros(5, np.float32)).range("mse") == (0.0, 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    part = np.array([0, value], np.float32)
    with pytest.raises(QuantizeError, match="NaN or infinite"):
        Histogram().add(part, low=float(part.min()), high=float(part.max()))


def test_rounding_regards_the_inputs() -> None:
    rng = np.random.default_rng(0)
    inputs = (rng.standard_normal((2000, 4)) @ rng.standard_normal((4, 64))).astype(np.float32)  # much correlated
    weight = rng.standard_normal((16, 64)).astype(np.float32)
    rounded = round_weight(weight, inputs.T @ inputs, last=127)
    assert rounded is not None
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    levels = rounded / scale
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.abs(levels).max() <= 127.001
    np.testing.assert_allclose(np.abs(rounded).max(axis=1), np.abs(weight).max(axis=1), rtol=1e-6)
    nearest = np.round(weight / scale) * scale
    ours, theirs = (np.linalg.norm(inputs @ (w - weight).T) for w in (rounded, nearest))
    assert ours < 0.5 * theirs  # measured: 0.2


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight = np.ones((2, 3), np.float32)
    rounded = round_weight(weight, np.zeros((3, 3), np.float32), last=127)
    assert rounded is not None
    np.testing.assert_allclose(rounded, weight, rtol=1e-6)


def test_drop_of_top1_counts_images() -> None:
    contract = make_contract(num_classes=3)
    targets = np.arange(200) % 3
    reference = np.eye(3, dtype=np.float32)[targets]
    ours = reference.copy()
    ours[:10] = np.roll(ours[:10], 1, axis=1)  # 10 of 200 wrong
    drop = measure_drop(ours, reference, targets, contract)
    assert (drop.metric, drop.num_images, drop.float_score, drop.points) == ("top-1", 200, 100.0, 5.0)
    assert drop.interval[0] > 0
    assert not drop.is_noise
    # The binomial interval of 10 of 200 is 2.4 to 9.0 (Clopper-Pearson).
    assert 1.5 < drop.interval[0] < 3.5
    assert 6.5 < drop.interval[1] < 9.0
    assert measure_drop(ours, reference, None, contract).metric == "disagreement"
    assert measure_drop(ours, reference, None, contract).points == 5.0


def test_a_drop_that_goes_both_ways_is_noise() -> None:
    targets = np.arange(100) % 2
    reference, ours = np.eye(2, dtype=np.float32)[targets], np.eye(2, dtype=np.float32)[targets]
    reference[:4], ours[4:9] = reference[:4, ::-1], ours[4:9, ::-1]
    drop = measure_drop(ours, reference, targets, make_contract(num_classes=2))
    assert drop.points == 1.0
    assert drop.is_noise


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_drop_of_decisions_is_of_macro_f1(task: str) -> None:
    rng = np.random.default_rng(1)
    num_outputs = 1 if task == "binary" else 4
    reference, noise = rng.standard_normal((2, 300, num_outputs)).astype(np.float32)
    ours = reference + 0.3 * noise
    targets = (rng.standard_normal((300, num_outputs)) + reference > 0).astype(np.int64)
    targets = targets[:, 0] if task == "binary" else targets
    contract = make_contract(task=task, num_classes=2 if task == "binary" else 4)  # type: ignore[arg-type]
    drop = measure_drop(ours, reference, targets, contract)

    def score(outputs: NDArray[np.float32]) -> float:
        decided = (outputs >= 0).astype(int)
        return 100 * float(f1_score(targets, decided[:, 0] if task == "binary" else decided, average="macro"))

    assert drop.metric == "macro F1"
    assert drop.float_score == pytest.approx(score(reference), abs=1e-4)
    assert drop.points == pytest.approx(score(reference) - score(ours), abs=1e-4)
    assert drop.flips == tuple(((ours >= 0) != (reference >= 0)).sum(axis=0))
    assert sum(drop.flips) > 0


class _Layers:
    """Four layers; each adds its own loss when it is quantized."""

    model = None
    losses: ClassVar[dict[str, float]] = {"a": 0.2, "b": 3.0, "c": 0.1, "d": 1.0}

    def layers(self) -> list[str]:
        return list(self.losses)

    def quantize(self, layers: Collection[str]) -> float:
        return sum(self.losses[layer] for layer in layers)


class _Losses:
    def probe(self, model: float) -> float:
        return -model

    def drop(self, model: float) -> Drop:
        return Drop(
            metric="top-1", num_images=100, float_score=90.0, points=round(model, 3), interval=(0.0, 1.0), flips=None
        )


@pytest.mark.parametrize(
    ("budget", "returned", "left"),
    [
        (5.0, [], 4.3),
        (2.0, ["b"], 1.3),
        (0.5, ["b", "d"], 0.3),
        (0.1, ["b", "d", "a"], 0.1),
        (0.0, ["b", "d", "a"], 0.1),
    ],
)
def test_the_most_costly_layers_go_back_until_the_budget_is_met(
    budget: float, returned: list[str], left: float
) -> None:
    model, trades = search(_Layers(), _Losses(), max_drop=budget)  # type: ignore[arg-type]
    assert [trade.layer for trade in trades] == [None, *returned]
    assert trades[-1].drop.points == pytest.approx(left)
    assert model == pytest.approx(left)
