"""What the last linear layer of a PyTorch network reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["read_features"]


def read_features(module: nn.Module, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The input (B, D) of the linear layer that ran last.

    Raises:
        ExportError: if no ``nn.Linear`` runs.
    """
    last: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...], __: Any) -> None:
        last[:] = [inputs[0].detach().clone()]

    hooks = [one.register_forward_hook(keep) for one in module.modules() if isinstance(one, nn.Linear)]
    try:
        with torch.no_grad():
            module(torch.tensor(x_BCHW))
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise ExportError("--features: no nn.Linear runs in the network; omit --features")
    features: NDArray[np.float32] = last[0].reshape(len(x_BCHW), -1).numpy()
    return features
