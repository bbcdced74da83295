"""How exact the original's own float32 is: its distance from the same in float64, by which others may be judged.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from edgeport_runtime.outputs.metrics import relative_l2
from edgeport_runtime.outputs.tasks import compared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from edgeport_export.parity.original import Original
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["NOT_IN_FLOAT64", "OwnDistance", "in_float64"]

NOT_IN_FLOAT64 = (RuntimeError, TypeError, ValueError, AssertionError)
"""What a module raises whose code, or whose operators, take float32 alone."""


@contextlib.contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """The module is in float64 meanwhile; its float32 values come back exactly."""
    module.double()
    try:
        yield
    finally:
        module.float()


class OwnDistance:
    """Distances of an original's float32 outputs from its float64 outputs, of the inputs that it was asked for.

    Args:
        original: what is run.
        batches: of the chain, float32 BCHW each.
        reference_BK: what it gave for them in float32, joined.
        contract: what the outputs mean.
    """

    def __init__(
        self,
        original: Original,
        batches: Sequence[NDArray[np.float32]],
        reference_BK: NDArray[np.float32],
        contract: Contract,
    ) -> None:
        self._original, self._batches, self._contract = original, list(batches), contract
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        self._reference_BK = reference_BK.copy()
        self._exact_BK = np.full(reference_BK.shape, np.nan)
        self._can_run = True

    @property
    def largest(self) -> float | None:
        """Of the inputs that were run; None if there is none."""
        known = self._known()
        return float(self.distances()[known].max()) if known.any() else None

    def run_last(self) -> None:
        """Run the last batch, for a figure that costs little."""
        self._run([len(self._batches) - 1])

    def run_all(self) -> None:
        """Run every batch that was not."""
        self._run([i for i, end in enumerate(self._ends) if not self._known()[end - 1]])

    def distances(self) -> NDArray[np.float64]:
        """Of each input; 0 where it was not run, or where the original does not run in float64."""
        known_B = self._known()
        result: NDArray[np.float64] = np.zeros(len(known_B))
        if known_B.any():
            ours_BK, exact_BK = compared(self._reference_BK[known_B], self._exact_BK[known_B], self._contract)
            result[known_B] = np.nan_to_num(relative_l2(ours_BK, exact_BK), posinf=0.0)
        return result

    def noise(self) -> NDArray[np.float64]:
        """What float32 leaves open of each input: its distance, or that of the median input's error, if larger.

        The error of a single input may be tiny by chance, most of all where two classes have one difference; its
        neighbours tell what the arithmetic is worth.
        """
        known_B, result = self._known(), self.distances()
        if known_B.any():
            ours_BK, exact_BK = compared(self._reference_BK[known_B], self._exact_BK[known_B], self._contract)
            usual = np.median(np.linalg.norm(ours_BK - exact_BK, axis=1))
            norm_B = np.maximum(np.linalg.norm(exact_BK, axis=1), np.finfo(np.float64).tiny)
            result[known_B] = np.maximum(result[known_B], usual / norm_B)
        return result

    def _known(self) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = np.isfinite(self._exact_BK).all(axis=1)
        return result

    def _run(self, numbers: list[int]) -> None:
        if not self._can_run or not numbers:
            return
        try:
            outputs = self._original.run_in_float64([self._batches[i] for i in numbers])
            for i, output_BK in zip(numbers, outputs, strict=True):
                self._exact_BK[self._ends[i] - len(self._batches[i]) : self._ends[i]] = output_BK
        except NOT_IN_FLOAT64:
            self._can_run = False
