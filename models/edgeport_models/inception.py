"""The Inception module as printed (Szegedy et al. 2015, Figure 2): naive and with 1x1 reductions; no BatchNorm.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from edgeport_models.initialization import start_near_identity
from edgeport_models.spec import IMAGENET, ModelSpec, check_size

if TYPE_CHECKING:
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["GOOGLENET_MODULES", "SPECS", "Inception", "InceptionNaive", "InceptionWidths", "convolution"]

# Of googlenet.py; with it, float32 rounds 4e-6 to 7e-6 of googlenet_2014's logits away.
_NOISE = 0.7


class InceptionWidths(NamedTuple):
    """Channels of an Inception module (Szegedy et al. 2015, Table 1): each branch, and the 1x1 reduction before it."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        """Channels of the module's output."""
        return self.one + self.three + self.five + self.pool


# Szegedy et al. 2015, Table 1.
GOOGLENET_MODULES = {
    "3a": InceptionWidths(64, 96, 128, 16, 32, 32),
    "3b": InceptionWidths(128, 128, 192, 32, 96, 64),
    "4a": InceptionWidths(192, 96, 208, 16, 48, 64),
    "4b": InceptionWidths(160, 112, 224, 24, 64, 64),
    "4c": InceptionWidths(128, 128, 256, 24, 64, 64),
    "4d": InceptionWidths(112, 144, 288, 32, 64, 64),
    "4e": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5a": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5b": InceptionWidths(384, 192, 384, 48, 128, 128),
}


def convolution(in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, as large as its input over the stride, then ReLU.

    Kernels start with mean 0: without it, and without BatchNorm, the logits of different images are nearly the same
    (googlenet_2014 with random weights: they deviate by 0.1 instead of 0.5).
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
    start_near_identity(layer, scale=_NOISE)
    layer.weight.data -= layer.weight.data.mean(dim=(1, 2, 3), keepdim=True)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.ReLU())


class InceptionNaive(nn.Module):
    """1x1, 3x3 and 5x5 convolutions and a 3x3 max-pooling side by side (Szegedy et al. 2015, Figure 2a).

    Args:
        in_channels: C of the input.
        widths: channels of the three convolutions; the reductions and the projection are not used.

    Attributes:
        out_channels: the convolutions' channels and those of the input, which the pooling passes on.
    """

    def __init__(self, in_channels: int, widths: InceptionWidths) -> None:
        super().__init__()
        self.out_channels = widths.one + widths.three + widths.five + in_channels
        self.one = convolution(in_channels, widths.one, 1)
        self.three = convolution(in_channels, widths.three, 3)
        self.five = convolution(in_channels, widths.five, 5)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_channels, H, W)."""
        return torch.cat([self.one(x_BCHW), self.three(x_BCHW), self.five(x_BCHW), self.pool(x_BCHW)], dim=1)


class Inception(nn.Module):
    """The four branches with 1x1 reductions before the expensive ones (Szegedy et al. 2015, Figure 2b).

    Args:
        in_channels: C of the input.
        widths: channels of each branch and reduction.

    Attributes:
        out_channels: of all branches together.
    """

    def __init__(self, in_channels: int, widths: InceptionWidths) -> None:
        super().__init__()
        self.out_channels = widths.total
        self.one = convolution(in_channels, widths.one, 1)
        self.three = nn.Sequential(
            convolution(in_channels, widths.three_reduce, 1), convolution(widths.three_reduce, widths.three, 3)
        )
        self.five = nn.Sequential(
            convolution(in_channels, widths.five_reduce, 1), convolution(widths.five_reduce, widths.five, 5)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(in_channels, widths.pool, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_channels, H, W)."""
        return torch.cat([self.one(x_BCHW), self.three(x_BCHW), self.five(x_BCHW), self.pool(x_BCHW)], dim=1)


class _InceptionClassifier(nn.Module):
    """An Inception module on the image, global average pooling, and a linear layer: the module as a network to export.

    Args:
        module: which form; the widths are those of GoogLeNet's module 3a.
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 5; the weights do not depend on it.

    Raises:
        ValueError: if the image is smaller than the largest kernel.
    """

    def __init__(
        self, *, module: type[Inception | InceptionNaive], num_classes: int, in_channels: int, image_size: Size
    ) -> None:
        super().__init__()
        check_size(image_size, at_least=5)
        self.inception = module(in_channels, GOOGLENET_MODULES["3a"])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.inception.out_channels, num_classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.fc(self.avgpool(self.inception(image_BCHW)).flatten(1))
        return logits_BK


SPECS = tuple(
    ModelSpec(
        name=name,
        factory=partial(_InceptionClassifier, module=module),
        num_classes=10,
        preprocess=replace(IMAGENET, resize_size=32, image_size=28),  # 28: the grid of module 3a
        head="fc",
        num_params=num_params,
        source=f"Szegedy et al. 2015, {figure}",
    )
    for name, module, num_params, figure in (
        ("inception_naive", InceptionNaive, 8_552, "Figure 2a"),
        ("inception_reduced", Inception, 126_954, "Figure 2b"),
    )
)
