"""What the reference scripts share: random weights without constants that hide a mistake, inputs, and logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


LAST_IN_BOTTLENECK = ("bn3.weight", "layer.2.normalization.weight")


def colour_blocks(num_images: int, size: int) -> torch.Tensor:
    """Images that differ in more than noise, which pooling would average away."""
    blocks_BCHW = nn.functional.interpolate(torch.randn(num_images, 3, 4, 4), size=(size, size))
    return blocks_BCHW + torch.randn(num_images, 3, size, size)


@torch.no_grad()
def randomize(model: nn.Module, head: nn.Linear, forward: Callable[[torch.Tensor], torch.Tensor], size: int) -> None:
    """Random values in every parameter that writers start with a constant, and logits of order 1."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.4, 0.8) if norms else nn.init.uniform_(parameter, 0.7, 1.3)
            if name.endswith(LAST_IN_BOTTLENECK):  # or depth amplifies float32's rounding beyond 1e-5 of the logits
                parameter *= 0.2
        elif parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
        elif parameter.ndim == 3:  # class token and position embeddings
            nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(head.weight, std=0.04)
    x_BCHW = colour_blocks(8, size)
    for norm in norms:
        norm.momentum = None
    model.train()
    forward(x_BCHW)
    model.eval()
    for norm in norms:
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    head.weight /= forward(x_BCHW).std(dim=0).mean()
    head.bias -= 0.5 * forward(x_BCHW).mean(dim=0)


@torch.no_grad()
def save_logits(path: Path, forward: Callable[[torch.Tensor], torch.Tensor], size: int) -> None:
    x_BCHW = colour_blocks(4, size)
    np.savez(path, input=x_BCHW.numpy(), logits=forward(x_BCHW).numpy())
