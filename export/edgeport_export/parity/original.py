"""What every stage of an export is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["Original"]


class Original(Protocol):
    """A classifier as its author has it. Shapes: B batch, C channels, H W image, K outputs.

    Attributes:
        name: whose outputs they are, in messages.
        what: what gives them, in messages.
        is_early_in_float64: its float64 costs so little that one input is always run in it.
    """

    name: str
    what: str
    is_early_in_float64: bool

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its outputs (B, K), which are the contract's."""

    def run_in_float64(self, batches: Sequence[NDArray[np.float32]]) -> Iterable[NDArray[np.float64]]:
        """The same computed in float64, of each batch.

        Raises:
            RuntimeError, TypeError, ValueError, AssertionError: (``NOT_IN_FLOAT64``) if it does not run in it.
        """

    def check_rows(
        self, batches: Sequence[NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]], contract: Contract
    ) -> None:
        """Raise ExportError if an image's answer depends on its neighbours, or is another at each call."""

    def first_departure(self, path: Path, x_BCHW: NDArray[np.float32]) -> str | None:
        """Name the node of a failed stage's ``.onnx`` that departs first; None where that is not known."""

    def first_inexact(self, x_BCHW: NDArray[np.float32]) -> str | None:
        """Name the node where float32 itself departs from float64; None where that is not known."""
