"""Residual networks (He et al. 2015): the ImageNet family in torchvision's layout, and the CIFAR family of Section 4.2.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from edgeport_models.initialization import start_near_identity
from edgeport_models.spec import IMAGENET, ModelSpec, check_size

if TYPE_CHECKING:
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["SPECS", "CifarResNet", "ResNet"]


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, Figure 5 left)."""

    expansion = 1
    has_shortcut = True

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.bn2(self.conv2(out))
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class _PlainBlock(_BasicBlock):
    """The same two convolutions with nothing added (He et al. 2015, Figure 3 middle)."""

    has_shortcut = False

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x_BCHW)))
        return self.relu(self.bn2(self.conv2(out)))  # type: ignore[no-any-return]


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (He et al. 2015, Figure 5 right), the stride in the 3x3."""

    expansion = 4
    has_shortcut = True

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class _PadShortcut(nn.Module):
    """Option A of He et al. 2015, Section 4.1: every second pixel, and zeros for the channels that are new."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return nn.functional.pad(x_BCHW[:, :, ::2, ::2], self.padding)


class ResNet(nn.Module):
    """ResNet for ImageNet (He et al. 2015, Table 1, shortcuts of option B), in torchvision's state-dict layout.

    Args:
        block: basic, bottleneck, or plain.
        depths: blocks in each of the four stages.
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 32; the weights do not depend on it.

    Raises:
        ValueError: if the image is smaller than the network's total stride.
    """

    def __init__(
        self,
        *,
        block: type[_BasicBlock | _Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int,
        in_channels: int,
        image_size: Size,
    ) -> None:
        super().__init__()
        check_size(image_size, at_least=32)
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, width = self._stage(block, 64, 64, depths[0], stride=1)
        self.layer2, width = self._stage(block, width, 128, depths[1], stride=2)
        self.layer3, width = self._stage(block, width, 256, depths[2], stride=2)
        self.layer4, width = self._stage(block, width, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)
        _init_convolutions(self)

    @staticmethod
    def _stage(
        block: type[_BasicBlock | _Bottleneck], in_channels: int, channels: int, depth: int, *, stride: int
    ) -> tuple[nn.Sequential, int]:
        width = channels * block.expansion
        projection = None
        if block.has_shortcut and (stride != 1 or in_channels != width):
            projection = nn.Sequential(_conv(in_channels, width, 1, stride), nn.BatchNorm2d(width))
        first = block(in_channels, channels, stride, projection)
        return nn.Sequential(first, *(block(width, channels, 1, None) for _ in range(depth - 1))), width

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image_BCHW))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits_BK: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits_BK


class CifarResNet(nn.Module):
    """ResNet for CIFAR-10 (He et al. 2015, Section 4.2): 6n+2 layers, shortcuts of option A.

    The state dict has the keys of the widespread pytorch_resnet_cifar10 checkpoints (``linear`` is the head).

    Args:
        block: basic or plain.
        num_blocks: n, blocks in each of the three stages.
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 4; the weights do not depend on it.

    Raises:
        ValueError: if the image is smaller than the network's total stride.
    """

    def __init__(
        self, *, block: type[_BasicBlock], num_blocks: int, num_classes: int, in_channels: int, image_size: Size
    ) -> None:
        super().__init__()
        check_size(image_size, at_least=4)
        self.conv1 = _conv(in_channels, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(block, 16, 16, num_blocks)
        self.layer2 = self._stage(block, 16, 32, num_blocks)
        self.layer3 = self._stage(block, 32, 64, num_blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        _init_convolutions(self)

    @staticmethod
    def _stage(block: type[_BasicBlock], in_channels: int, channels: int, depth: int) -> nn.Sequential:
        is_wider = in_channels != channels
        shortcut = _PadShortcut(in_channels, channels) if block.has_shortcut and is_wider else None
        first = block(in_channels, channels, 2 if is_wider else 1, shortcut)
        return nn.Sequential(first, *(block(channels, channels, 1, None) for _ in range(depth - 1)))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        x = self.relu(self.bn1(self.conv1(image_BCHW)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits_BK: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits_BK


# Branches start small so that depth does not amplify differences: Goyal et al. 2017, Section 5.1, start them at 0,
# which would leave the branches untested in an export of random weights. The sum over all blocks is bounded.
_BRANCH_SCALE = 0.25
_TOTAL_SCALE = 4.0


def _init_convolutions(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
    blocks = [child for child in module.modules() if isinstance(child, _BasicBlock | _Bottleneck)]
    scale = min(_BRANCH_SCALE, _TOTAL_SCALE / len(blocks))
    for block in blocks:
        if isinstance(block, _PlainBlock):
            for convolution in (block.conv1, block.conv2):
                start_near_identity(convolution, scale=scale / 2)
        else:
            last_norm = block.bn3 if isinstance(block, _Bottleneck) else block.bn2
            nn.init.constant_(last_norm.weight, scale)


class _Variant(NamedTuple):
    name: str
    block: type[_BasicBlock | _Bottleneck]
    depths: tuple[int, int, int, int]
    num_params: int


_VARIANTS = (
    _Variant("resnet18", _BasicBlock, (2, 2, 2, 2), 11_689_512),
    _Variant("resnet34", _BasicBlock, (3, 4, 6, 3), 21_797_672),
    _Variant("resnet50", _Bottleneck, (3, 4, 6, 3), 25_557_032),
    _Variant("resnet101", _Bottleneck, (3, 4, 23, 3), 44_549_160),
    _Variant("resnet152", _Bottleneck, (3, 8, 36, 3), 60_192_808),
    _Variant("plain18", _PlainBlock, (2, 2, 2, 2), 11_515_688),
    _Variant("plain34", _PlainBlock, (3, 4, 6, 3), 21_623_848),
)

_CIFAR = replace(IMAGENET, image_size=32, resize_size=32)

# name, block, n of He et al. 2015, Section 4.2, parameters
_CIFAR_VARIANTS = (
    ("resnet20", _BasicBlock, 3, 269_722),
    ("resnet32", _BasicBlock, 5, 464_154),
    ("resnet44", _BasicBlock, 7, 658_586),
    ("resnet56", _BasicBlock, 9, 853_018),
    ("resnet110", _BasicBlock, 18, 1_727_962),
    ("plain20", _PlainBlock, 3, 269_722),
    ("plain56", _PlainBlock, 9, 853_018),
)

SPECS = tuple(
    ModelSpec(
        name=variant.name,
        factory=partial(ResNet, block=variant.block, depths=variant.depths),
        num_classes=1000,
        preprocess=IMAGENET,
        head="fc",
        num_params=variant.num_params,
        source="He et al. 2015, Table 1",
    )
    for variant in _VARIANTS
) + tuple(
    ModelSpec(
        name=name,
        factory=partial(CifarResNet, block=block, num_blocks=num_blocks),
        num_classes=10,
        preprocess=_CIFAR,
        head="linear",
        num_params=num_params,
        source="He et al. 2015, Section 4.2",
    )
    for name, block, num_blocks, num_params in _CIFAR_VARIANTS
)
