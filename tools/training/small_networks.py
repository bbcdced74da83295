"""Four small mobile networks for images of 32x32 pixels with one channel, for `tools/train.py` and the int8 benchmark.

Each keeps what makes its original hard to quantize, at a width that a core trains in minutes: depthwise convolutions
and ReLU6 (MobileNetV2), channel shuffle (ShuffleNetV2), group convolutions with squeeze-and-excite (RegNetY), and SiLU
with both (EfficientNet). Shapes: B images, C channels, H W image, K classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["efficientnet", "mobilenet_v2", "regnet_y", "shufflenet_v2"]


class _ConvNorm(nn.Sequential):
    """A convolution of the same padding, its norm, and an activation where there is one."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(width), *([] if act is None else [act()]))


class _SqueezeExcite(nn.Module):
    """Hu et al. 2018, "Squeeze-and-Excitation Networks", Section 3, as 1x1 convolutions."""

    def __init__(self, channels: int, width: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1), act(), nn.Conv2d(width, channels, 1), nn.Sigmoid()
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = x_BCHW * self.scale(x_BCHW)
        return scaled


class _Inverted(nn.Module):
    """An inverted residual with a linear bottleneck (Sandler et al. 2018, "MobileNetV2", Figure 4)."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kernel: int = 3,
        stride: int,
        expand: int,
        act: Callable[[], nn.Module],
        excites: bool = False,
    ) -> None:
        super().__init__()
        inner = channels * expand
        self.body = nn.Sequential(
            *([] if expand == 1 else [_ConvNorm(channels, inner, act=act)]),
            _ConvNorm(inner, inner, kernel, stride=stride, groups=inner, act=act),
            *([_SqueezeExcite(inner, max(4, channels // 4), act)] if excites else []),
            _ConvNorm(inner, width, act=None),
        )
        self.is_residual = stride == 1 and channels == width

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW: torch.Tensor = self.body(x_BCHW)
        return x_BCHW + y_BCHW if self.is_residual else y_BCHW


def _inverted_network(
    stages: list[tuple[int, int, int, int, int]],
    *,
    width: int,
    num_classes: int,
    act: Callable[[], nn.Module],
    excites: bool,
) -> nn.Module:
    """Stages of (channels, blocks, stride, expansion, kernel) between a stem and a head."""
    channels = 16
    layers: list[nn.Module] = [_ConvNorm(1, channels, 3, act=act)]
    for out, num, stride, expand, kernel in stages:
        for i in range(num):
            step = stride if i == 0 else 1
            block = _Inverted(channels, out, kernel=kernel, stride=step, expand=expand, act=act, excites=excites)
            layers.append(block)
            channels = out
    layers += [_ConvNorm(channels, width, act=act), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def mobilenet_v2(num_classes: int = 10) -> nn.Module:
    """Sandler et al. 2018, with fewer and narrower stages."""
    stages = [(16, 1, 2, 1, 3), (24, 2, 1, 4, 3), (32, 2, 2, 4, 3), (64, 3, 1, 4, 3), (96, 2, 2, 4, 3)]
    return _inverted_network(stages, width=256, num_classes=num_classes, act=nn.ReLU6, excites=False)


def efficientnet(num_classes: int = 10) -> nn.Module:
    """Tan and Le 2019, "EfficientNet", with fewer and narrower stages."""
    stages = [(16, 1, 2, 1, 3), (24, 2, 1, 4, 3), (32, 2, 2, 4, 5), (64, 3, 1, 4, 3), (96, 2, 2, 4, 5)]
    return _inverted_network(stages, width=256, num_classes=num_classes, act=nn.SiLU, excites=True)


class _Shuffle(nn.Module):
    """A unit of ShuffleNetV2 (Ma et al. 2018, Figure 3 c and d)."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        half = width // 2
        inner = channels if stride == 2 else half
        self.body = nn.Sequential(
            _ConvNorm(inner, half),
            _ConvNorm(half, half, 3, stride=stride, groups=half, act=None),
            _ConvNorm(half, half),
        )
        self.side = (
            nn.Sequential(_ConvNorm(inner, inner, 3, stride=2, groups=inner, act=None), _ConvNorm(inner, half))
            if stride == 2
            else None
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.side is None:
            left, right = x_BCHW.chunk(2, dim=1)
            joined = torch.cat([left, self.body(right)], dim=1)
        else:
            joined = torch.cat([self.side(x_BCHW), self.body(x_BCHW)], dim=1)
        return nn.functional.channel_shuffle(joined, 2)


def shufflenet_v2(num_classes: int = 10) -> nn.Module:
    """Ma et al. 2018, "ShuffleNet V2", with fewer and narrower stages."""
    channels = 24
    layers: list[nn.Module] = [_ConvNorm(1, channels, 3, stride=2)]
    for width, num, stride in ((96, 3, 1), (192, 4, 2), (256, 2, 2)):
        first = _ConvNorm(channels, width) if stride == 1 else _Shuffle(channels, width, stride=2)
        layers += [first, *(_Shuffle(width, width, stride=1) for _ in range(num - 1))]
        channels = width
    layers += [_ConvNorm(channels, 320), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, num_classes)]
    return nn.Sequential(*layers)


class _RegNetBlock(nn.Module):
    """A block of RegNetY (Radosavovic et al. 2020, "Designing Network Design Spaces", Section 4)."""

    def __init__(self, channels: int, width: int, *, stride: int, group_width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _ConvNorm(channels, width),
            _ConvNorm(width, width, 3, stride=stride, groups=width // group_width),
            _SqueezeExcite(width, max(4, channels // 4), nn.ReLU),
            _ConvNorm(width, width, act=None),
        )
        is_same = stride == 1 and channels == width
        self.side = nn.Identity() if is_same else _ConvNorm(channels, width, stride=stride, act=None)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.side(x_BCHW) + self.body(x_BCHW))


def regnet_y(num_classes: int = 10) -> nn.Module:
    """Radosavovic et al. 2020, RegNetY with three stages."""
    widths = [24, 24, 24, 56, 56, 56, 152, 152]
    blocks = [
        _RegNetBlock(channels, width, stride=1 if channels == width else 2, group_width=8)
        for channels, width in pairwise(widths)
    ]
    stem = _ConvNorm(1, widths[0], 3, stride=2)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))
