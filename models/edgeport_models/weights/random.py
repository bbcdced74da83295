"""Random weights with which a comparison of two implementations is meaningful."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["init_random"]

_NUM_SAMPLES = 8


def init_random(module: nn.Module, *, head: str, input_shape: tuple[int, int, int], seed: int) -> None:
    """Set the module's statistics and head so that its logits are of order 1 and differ between inputs.

    The weights stay as the module drew them. BatchNorm layers take the statistics of random inputs (without them the
    activations of deep networks grow beyond float32's useful range), and the head is scaled so that the logits of
    those inputs have mean 0 and standard deviation 1 in each class, or less where a class hardly varies: dividing by
    little would make rounding errors large. A head without parameters, such as distances to fixed codes,
    stays as it is.

    Args:
        module: changed in place, left in evaluation mode.
        head: name of the last layer.
        input_shape: C, H, W.
        seed: of the random inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    # Blocks of colour under the noise: images that differ in more than noise, which pooling averages away.
    x_BCHW = torch.randn(_NUM_SAMPLES, *input_shape, generator=generator)
    blocks_BC44 = torch.randn(_NUM_SAMPLES, input_shape[0], 4, 4, generator=generator)
    x_BCHW = x_BCHW + nn.functional.interpolate(blocks_BC44, size=input_shape[1:])
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        if norms:
            _set_statistics(module, norms, x_BCHW)
        module.eval()
        layer = module.get_submodule(head)
        if not list(layer.parameters()):
            return
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise TypeError(f"the head {head} is neither a linear layer nor a convolution")
        if not layer.weight.any():  # as torchvision leaves that of a ViT
            layer.weight.normal_(std=layer.weight[0].numel() ** -0.5, generator=generator)
        logits_BK = module(x_BCHW)
        std = logits_BK.std(dim=0).clamp_min(logits_BK.abs().amax() * 0.1 + 1e-6)
        layer.weight.copy_(layer.weight / std.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            # What may follow a convolution, such as ReLU, goes with a factor, and not with a shift.
            shift = logits_BK.mean(dim=0) if isinstance(layer, nn.Linear) else 0
            layer.bias.copy_((layer.bias - shift) / std)


def _set_statistics(module: nn.Module, norms: list[nn.BatchNorm2d], x_BCHW: torch.Tensor) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average: one batch gives its own statistics
    module.train()
    module(x_BCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
