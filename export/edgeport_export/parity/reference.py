"""The original's own outputs: whether anything can be compared with them.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeport_runtime.errors import ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["check_reference", "leave_out_constants"]

_NOISE = 1e-6


def leave_out_constants(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batches: Sequence[NDArray[np.float32]],
    outputs: Sequence[NDArray[np.float32]],
    *,
    num_images: int,
    name: str = "PyTorch",
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], tuple[str, ...]]:
    """Put random values in the place of constant images to which the original has no answer.

    No camera gives such images, and a network that divides by the deviation of its input gives NaN for them, or, where
    it adds a small number to the deviation, rounding errors that it makes large.

    Args:
        run: the original, from BCHW to BK.
        batches: of the chain; the golden images come first.
        outputs: what it gave for them, BK each.
        num_images: how many golden images there are; they stay, constant or not.
        name: of the original.

    Returns:
        Batches of the same shapes, their outputs, and a note if any was left out.
    """
    batches, outputs = list(batches), list(outputs)
    start = num_left = 0
    for i, (batch_BCHW, outputs_BK) in enumerate(zip(batches, outputs, strict=True)):
        is_golden_B = np.arange(start, start + len(batch_BCHW)) < num_images
        start += len(batch_BCHW)
        is_constant_B = (np.ptp(batch_BCHW, axis=(2, 3)) == 0).all(axis=1) & ~is_golden_B
        if not is_constant_B.any():
            continue
        is_left_B = is_constant_B & (_says_nothing(outputs_BK) | ~_is_steady(run, batch_BCHW, outputs_BK))
        num_here = int(is_left_B.sum())
        if num_here:
            batches[i] = batch_BCHW.copy()
            shape = (num_here, *batch_BCHW.shape[1:])
            batches[i][is_left_B] = np.random.default_rng(i).standard_normal(shape, dtype=np.float32)
            outputs[i] = run(batches[i])
            num_left += num_here
    if not num_left:
        return batches, outputs, ()
    kind = "constant image is" if num_left == 1 else "constant images are"
    why = f"{name}'s own answer is NaN, rounding noise, or the same for all classes"
    return batches, outputs, (f"{num_left} {kind} not compared: {why}",)


def check_reference(
    reference_BK: NDArray[np.float32], contract: Contract, *, num_images: int, what: str = "the module"
) -> None:
    """Refuse outputs that nothing can be compared with.

    Args:
        reference_BK: what the original gave; the golden images come first.
        contract: tells the task.
        num_images: how many golden images there are.
        what: gave them.

    Raises:
        ParityError: if outputs are NaN, infinite or all equal, or the same for every image.
    """
    stage = "torch" if what == "the module" else "reference"
    is_finite_B = np.isfinite(reference_BK).all(axis=1)
    if not is_finite_B.all():
        row = int(is_finite_B.argmin())
        which = f"golden image {row + 1}" if row < num_images else "random values"
        raise ParityError(
            f"stage {stage}: {what}'s own outputs are NaN or infinite on {which}; look for a division by zero, such "
            "as by the deviation of a constant image, and add a small number to what is divided by"
        )
    is_flat = contract.task == "multiclass" and bool((np.ptp(reference_BK, axis=1) == 0).any())
    if is_flat or np.ptp(reference_BK) == 0:
        where = ", by --weights or in the factory" if stage == "torch" else ""
        raise ParityError(
            f"stage {stage}: {what}'s outputs are all equal, so nothing could be compared; give it trained weights"
            f"{where}"
        )
    if len(reference_BK) > 1 and not np.ptp(reference_BK, axis=0).any():
        raise ParityError(
            f"stage {stage}: {what} gives the same outputs for every image, so nothing could be compared; look for a "
            "part that is 0 for all of them, such as a ReLU of negative values, or a mean taken off"
        )


def _says_nothing(outputs_BK: NDArray[np.float32]) -> NDArray[np.bool_]:
    is_flat_B = (np.ptp(outputs_BK, axis=1) == 0) & (outputs_BK.shape[1] > 1)
    result: NDArray[np.bool_] = ~np.isfinite(outputs_BK).all(axis=1) | is_flat_B
    return result


def _is_steady(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batch_BCHW: NDArray[np.float32],
    outputs_BK: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Whether noise in the last digits moves the answer by no more than a hundred times as much."""
    noise_BCHW = np.random.default_rng(0).standard_normal(batch_BCHW.shape, dtype=np.float32)
    size = np.maximum(1, np.abs(batch_BCHW).max(axis=(1, 2, 3), keepdims=True))
    moved_BK = run(batch_BCHW + np.float32(_NOISE) * size * noise_BCHW)
    distance_B = np.linalg.norm(moved_BK - outputs_BK, axis=1)
    result: NDArray[np.bool_] = distance_B <= 100 * _NOISE * np.linalg.norm(outputs_BK, axis=1)
    return result
