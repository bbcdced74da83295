"""GoogLeNet (Szegedy et al. 2015) in torchvision's form and state-dict layout, and its Inception module.

torchvision follows the authors' later form: BatchNorm after each convolution, 3x3 instead of 5x5.
Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeport_models.inception import GOOGLENET_MODULES, InceptionWidths
from edgeport_models.initialization import start_near_identity
from edgeport_models.spec import IMAGENET, ModelSpec, check_size

if TYPE_CHECKING:
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["SPECS", "GoogLeNet"]

# Noise alone: float32 rounds 1.8e-5 of the logits away. A quarter of it: all synthetic images get the same logits.
_NOISE = 0.7


class _ConvBlock(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        start_near_identity(self.conv, scale=_NOISE)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x_BCHW)))


class _Inception(nn.Module):
    """Four branches side by side, joined by channel (Szegedy et al. 2015, Figure 2b)."""

    def __init__(self, in_channels: int, widths: InceptionWidths) -> None:
        super().__init__()
        self.branch1 = _ConvBlock(in_channels, widths.one, 1)
        self.branch2 = nn.Sequential(
            _ConvBlock(in_channels, widths.three_reduce, 1), _ConvBlock(widths.three_reduce, widths.three, 3)
        )
        # 3x3 where the paper has 5x5: so are torchvision's weights.
        self.branch3 = nn.Sequential(
            _ConvBlock(in_channels, widths.five_reduce, 1), _ConvBlock(widths.five_reduce, widths.five, 3)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), _ConvBlock(in_channels, widths.pool, 1)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x_BCHW) for branch in branches], dim=1)


class GoogLeNet(nn.Module):
    """GoogLeNet without auxiliary heads, in torchvision's state-dict layout.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 32; the weights do not depend on it.
        transform_input: undo ImageNet's mean and deviation and apply 0.5 and 0.5, with which torchvision's published
            weights were trained; takes three channels.

    Raises:
        ValueError: if the image is smaller than the network's total stride, or has no three channels to transform.
    """

    input_scale: Tensor
    input_shift: Tensor

    def __init__(self, *, num_classes: int, in_channels: int, image_size: Size, transform_input: bool = False) -> None:
        super().__init__()
        check_size(image_size, at_least=32)
        self.transform_input = transform_input
        if transform_input:
            if in_channels != 3:
                raise ValueError(f"transform_input takes 3 channels, not {in_channels}")
            mean_C, std_C = torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.std)
            self.register_buffer("input_scale", (std_C / 0.5)[:, None, None], persistent=False)
            self.register_buffer("input_shift", ((mean_C - 0.5) / 0.5)[:, None, None], persistent=False)
        self.conv1 = _ConvBlock(in_channels, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = _ConvBlock(64, 64, 1)
        self.conv3 = _ConvBlock(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        width = 192
        for name, widths in GOOGLENET_MODULES.items():
            self.add_module(f"inception{name}", _Inception(width, widths))
            width = widths.total
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        if self.transform_input:
            image_BCHW = image_BCHW * self.input_scale + self.input_shift
        x = self.maxpool1(self.conv1(image_BCHW))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        for name in GOOGLENET_MODULES:
            if name == "4a":
                x = self.maxpool3(x)
            if name == "5a":
                x = self.maxpool4(x)
            x = self.get_submodule(f"inception{name}")(x)
        logits_BK: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits_BK


SPECS = (
    ModelSpec(
        name="googlenet",
        factory=GoogLeNet,
        num_classes=1000,
        preprocess=IMAGENET,
        head="fc",
        num_params=6_624_904,
        source="Szegedy et al. 2015, Table 1",
        training_only=("aux1.", "aux2."),
        options={"transform_input": (False, True)},
        # torchvision's only published weights, googlenet-1378be20.pth: named by the digest's first digits.
        published={"1378be20": {"transform_input": True}},
    ),
)
