"""Rounds weights so that the error of the layer's output is smallest, not that of each weight.

Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained transformers", Section 3:
weights are rounded one column of inputs after another, and the error of each is spread over the columns to come, by the
second moments of the layer's inputs. Shapes: O outputs, I inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["round_weight"]

_BLOCK = 128
_DAMPING = 0.01  # of the mean of the diagonal, as in the paper


def round_weight(
    weight_OI: NDArray[np.float32], moment_II: NDArray[np.float32], *, last: int
) -> NDArray[np.float32] | None:
    """Round a weight to a symmetric grid for each output, whose largest weight is its last level.

    Args:
        weight_OI: float weight.
        moment_II: second moments of the layer's inputs.
        last: level of an output's largest weight, such as 127.

    Returns:
        The rounded weight, in float; None if the moments are too ill-conditioned to tell.
    """
    weight, moment = torch.tensor(weight_OI), torch.tensor(moment_II)
    scale_O = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / last
    diagonal = moment.diagonal()
    diagonal[diagonal == 0] = 1  # an input that is always 0: its weight does not matter
    diagonal += _DAMPING * diagonal.mean()
    order = torch.argsort(diagonal, descending=True, stable=True)
    weight, moment = weight[:, order], moment[order][:, order]
    largest_O = weight.abs().argmax(dim=1)  # stays the last level: the grid is read off it again
    ends_O = weight.gather(1, largest_O[:, None])[:, 0]
    lower, info = torch.linalg.cholesky_ex(moment)
    if int(info):
        return None
    factor, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(info) or not bool(torch.isfinite(factor).all()):
        return None
    rounded = torch.empty_like(weight)
    for start in range(0, weight.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[1])
        errors = torch.empty(weight.shape[0], stop - start)
        for i in range(start, stop):
            column = (weight[:, i] / scale_O).round().clamp(-last, last) * scale_O
            column = torch.where(largest_O == i, ends_O, column)
            error = (weight[:, i] - column) / factor[i, i]
            weight[:, i:stop] -= torch.outer(error, factor[i, i:stop])
            rounded[:, i], errors[:, i - start] = column, error
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    result: NDArray[np.float32] = rounded[:, torch.argsort(order)].numpy()
    return result
