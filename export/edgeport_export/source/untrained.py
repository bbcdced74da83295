"""Networks that were never trained: told by what no training leaves, and given logits that a comparison can judge.

Shapes: B batch, K outputs.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeport_export.user_lines import say_error
from edgeport_models.weights import init_random
from edgeport_runtime.errors import ExportError

__all__ = ["is_untrained", "settle"]

_LARGE = 1e4  # of logits


def is_untrained(module: nn.Module, num_outputs: int, input_shape: tuple[int, int, int]) -> bool:
    """Whether the last layer is zero, or logits are huge and no BatchNorm layer has seen a batch.

    Args:
        module: in evaluation mode, gives (B, K).
        num_outputs: K.
        input_shape: C, H, W.
    """
    head = _head_of(module, num_outputs)
    if head is None:
        return False
    if not module.get_submodule(head).get_parameter("weight").any():
        return True
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms or any(norm.running_mean is None or norm.running_mean.any() for norm in norms):
        return False
    with torch.no_grad():
        logits_BK = module(torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0)))
    return not bool(logits_BK.abs().max() <= _LARGE)


def settle(module: nn.Module, num_outputs: int, input_shape: tuple[int, int, int], *, seed: int) -> None:
    """Give random weights logits that a comparison can judge, where the network's last layer can be told.

    Args:
        module: changed in place.
        num_outputs: of its last layer.
        input_shape: C, H, W.
        seed: of the random inputs.

    Raises:
        ExportError: if the network does not take that input.
    """
    head = _head_of(module, num_outputs)
    if head is None:
        return
    try:
        init_random(module, head=head, input_shape=input_shape, seed=seed)
    except Exception as error:
        told = "x".join(map(str, input_shape))
        raise ExportError(
            f"the network cannot run on an input of {told} (channels, height, width): it raises {say_error(error)}; "
            "set another --image-size"
        ) from error


def _head_of(module: nn.Module, num_outputs: int) -> str | None:
    """Name of the last layer with as many outputs."""
    heads = [
        name
        for name, layer in module.named_modules()
        if num_outputs in (getattr(layer, "out_features", None), getattr(layer, "out_channels", None))
        and isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    return heads[-1] if heads else None
