"""Ranges of activations from histograms that grow with the values, not with the number of images.

A range (low, high) is what the 256 levels of an activation are spread over; values beyond it are clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from edgeport_runtime.errors import QuantizeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "Histogram", "Method"]

Method: TypeAlias = Literal["mse", "min-max", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

_NUM_BINS = 4096
_NUM_LEVELS = 256
_PERCENTILE = 99.999
_FRACTIONS = np.linspace(0.2, 1.0, 81)


class Histogram:
    """Counts of values in bins of equal width around 0; the width doubles when a value lies outside.

    Attributes:
        low, high: smallest and largest value seen.
        num_values: values counted.
    """

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._limit = 0.0
        self._counts = np.zeros(_NUM_BINS, np.int64)

    @property
    def num_values(self) -> int:
        """Values counted so far."""
        return int(self._counts.sum())

    def add(self, values: NDArray[np.float32], *, low: float, high: float) -> None:
        """Count values.

        Args:
            values: of any shape; a sample of a large tensor is enough.
            low: smallest value of the whole tensor.
            high: its largest.

        Raises:
            QuantizeError: if a value is NaN or infinite.
        """
        if not (np.isfinite(low) and np.isfinite(high)):
            raise QuantizeError("it is NaN or infinite on a calibration image")
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if self._limit == 0.0:
            self._limit = float(2.0 ** np.ceil(np.log2(largest))) if largest > 0 else 0.0
        if self._limit == 0.0:  # nothing but zeros so far
            self._counts[_NUM_BINS // 2] += values.size
            return
        while largest > self._limit:
            self._double()
        scaled = values.ravel() * np.float32(_NUM_BINS / (2 * self._limit)) + np.float32(_NUM_BINS / 2)
        self._counts += np.bincount(np.clip(scaled, 0, _NUM_BINS - 1).astype(np.int64), minlength=_NUM_BINS)

    def range(self, method: Method, *, is_symmetric: bool = False) -> tuple[float, float]:
        """The range of a method; it always holds 0, which must be exact because convolutions pad with it.

        Args:
            method: ``min-max``: of all values; ``percentile``: without the 0.001% outermost values on either side;
                ``entropy``: the range whose 128 levels lose the least information (Migacz 2017, "8-bit inference with
                TensorRT"); ``mse``: the range with the smallest mean squared error (Sung et al. 2015, "Resiliency of
                deep neural networks under quantization").
            is_symmetric: low and high are to be opposite.
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if low == high:
            return 0.0, 0.0
        if is_symmetric:
            high = max(-low, high)
            low = -high
        if method == "min-max":
            return low, high
        if method == "percentile":
            return self._percentile(low, high, is_symmetric=is_symmetric)
        if method == "entropy" or is_symmetric:
            cost = self._divergence if method == "entropy" else self._squared_error
            return min(((low * f, high * f) for f in _FRACTIONS), key=lambda pair: cost(*pair))
        high = min((high * f for f in _FRACTIONS), key=lambda end: self._squared_error(low, end)) if high > 0 else high
        low = min((low * f for f in _FRACTIONS), key=lambda end: self._squared_error(end, high)) if low < 0 else low
        return low, high

    def clipped(self, low: float, high: float) -> float:
        """Fraction of the values outside a range."""
        width = 2 * self._limit / _NUM_BINS  # a bin that a bound cuts is counted as inside
        centres = self._centres()
        outside = (centres < low - width / 2) | (centres > high + width / 2)
        return float(self._counts[outside].sum() / max(1, self.num_values))

    def signal_to_noise(self, low: float, high: float) -> float:
        """Mean square of the values over that of their quantization error, in decibels."""
        power = float((self._counts * self._centres() ** 2).sum())
        noise = self._squared_error(low, high)
        return float(10 * np.log10(power / noise)) if noise > 0 and power > 0 else np.inf

    def _centres(self) -> NDArray[np.float64]:
        width = 2 * self._limit / _NUM_BINS
        return np.linspace(-self._limit + width / 2, self._limit - width / 2, _NUM_BINS, dtype=np.float64)

    def _double(self) -> None:
        quarter = _NUM_BINS // 4
        merged = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros(_NUM_BINS, np.int64)
        self._counts[quarter : quarter + len(merged)] = merged
        self._limit *= 2

    def _percentile(self, low: float, high: float, *, is_symmetric: bool) -> tuple[float, float]:
        share = np.cumsum(self._counts) / self.num_values
        tail = 1 - _PERCENTILE / 100
        edges = self._centres() + self._limit / _NUM_BINS
        first, last = int(np.searchsorted(share, tail)), int(np.searchsorted(share, 1 - tail))
        low = max(low, float(min(edges[max(0, first - 1)], 0.0)))
        high = min(high, float(max(edges[min(last, _NUM_BINS - 1)], 0.0)))
        if is_symmetric:
            high = max(-low, high)
            low = -high
        return low, high

    def _squared_error(self, low: float, high: float) -> float:
        if high <= low:
            return np.inf
        scale = (high - low) / (_NUM_LEVELS - 1)
        zero = np.round(-low / scale)
        centres = self._centres()
        levels = np.clip(np.round(centres / scale) + zero, 0, _NUM_LEVELS - 1)
        # A bin's width adds its own error where it is wide; the levels are what differs between ranges.
        error = (centres - (levels - zero) * scale) ** 2
        error[_NUM_BINS // 2 - 1 : _NUM_BINS // 2 + 1] = 0  # values around 0 are mostly exactly 0, after a ReLU
        return float((self._counts * error).sum())

    def _divergence(self, low: float, high: float) -> float:
        """Kullback-Leibler divergence of the distribution, clipped to the range, from itself on 128 levels."""
        centres = self._centres()
        counts = self._counts.astype(np.float64)
        middle = _NUM_BINS // 2
        counts[middle - 1 : middle + 1] = counts[[middle - 2, middle + 1]]  # exact zeros are no part of the shape
        inside = (centres >= low) & (centres <= high)
        p = counts[inside]
        num_levels = _NUM_LEVELS // 2
        if len(p) < num_levels:
            return np.inf
        groups = np.arange(len(p)) * num_levels // len(p)
        is_used = p > 0
        sums = np.bincount(groups, weights=p, minlength=num_levels)
        used = np.bincount(groups, weights=is_used, minlength=num_levels)
        q = np.where(is_used, sums[groups] / np.maximum(used[groups], 1), 0.0)
        p[0] += counts[centres < low].sum()
        p[-1] += counts[centres > high].sum()
        if not p.any() or not q.any():
            return np.inf
        p, q = p / p.sum(), q / q.sum()
        is_used = p > 0
        return float((p[is_used] * np.log(p[is_used] / np.maximum(q[is_used], 1e-12))).sum())
