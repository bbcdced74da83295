"""Batches of the size that a graph takes. Shapes: B images, C channels, H W image, K outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["run_each", "run_in_batches"]


def run_in_batches(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]], x_BCHW: NDArray[np.float32], batch: int | None
) -> NDArray[np.float32]:
    """Run any number of images on a graph that takes ``batch`` at once, or any number (None).

    The last batch is filled up with its own first image, which adds nothing to the ranges of its values.
    """
    if batch is None:
        return run(x_BCHW)
    parts = []
    for start in range(0, len(x_BCHW), batch):
        part = x_BCHW[start : start + batch]
        filling = [part[:1]] * (batch - len(part))
        parts.append(run(np.concatenate([part, *filling]) if filling else part)[: len(part)])
    return np.concatenate(parts)


def run_each(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]], x_BCHW: NDArray[np.float32], batch: int | None
) -> NDArray[np.float32]:
    """Run every image by itself, so that its outputs do not depend on its neighbours; as ``run_in_batches``."""
    return np.concatenate([run_in_batches(run, x_BCHW[i : i + 1], batch) for i in range(len(x_BCHW))])
