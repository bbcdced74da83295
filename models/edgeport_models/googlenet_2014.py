"""GoogLeNet as printed (Szegedy et al. 2015, first published in 2014 as arXiv:1409.4842).

Real 5x5 convolutions, local response normalization, biases and no BatchNorm, and two auxiliary heads for training.
Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeport_models.inception import GOOGLENET_MODULES, Inception, convolution
from edgeport_models.spec import IMAGENET, ModelSpec, check_size
from edgeport_runtime.pixels.preprocess import Size, sides_of

__all__ = ["SPECS", "GoogLeNet2014"]


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _norm() -> nn.LocalResponseNorm:
    # The paper gives no constants; these are Krizhevsky et al. 2012's.
    # Their alpha multiplies the sum over 5 maps, PyTorch's the mean.
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


class _AuxiliaryHead(nn.Module):
    """A small classifier beside the trunk (Szegedy et al. 2015, Section 5).

    Args:
        in_channels: of the feature map that it reads.
        sides: height and width of that map.
        num_classes: K.
    """

    def __init__(self, in_channels: int, sides: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.conv = convolution(in_channels, 128, 1)
        height, width = ((side - 5) // 3 + 1 for side in sides)
        self.fc1 = nn.Linear(128 * height * width, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = torch.relu(self.fc1(self.conv(self.pool(x_BCHW)).flatten(1)))
        logits_BK: Tensor = self.fc2(self.dropout(x))
        return logits_BK


class GoogLeNet2014(nn.Module):
    """GoogLeNet by Table 1.

    The auxiliary heads serve only training, so they exist only on request: their losses are added to that of
    the network, weighted by 0.3 (Section 5), and what is exported is built without them.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 32, with auxiliary heads 79.
        auxiliary: build the auxiliary heads, after modules 4a and 4d; they answer in training mode only.

    Raises:
        ValueError: if the image is smaller than the network's total stride, or than the auxiliary heads need.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: Size, auxiliary: bool = False) -> None:
        super().__init__()
        check_size(image_size, at_least=79 if auxiliary else 32)
        self.conv1 = convolution(in_channels, 64, 7, stride=2)
        self.norm1 = _norm()
        self.conv2 = nn.Sequential(convolution(64, 64, 1), convolution(64, 192, 3))
        self.norm2 = _norm()
        self.pool = _pool()
        width = 192
        for name, widths in GOOGLENET_MODULES.items():
            self.add_module(f"inception{name}", Inception(width, widths))
            width = widths.total
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(width, num_classes)
        self.aux1: _AuxiliaryHead | None = None
        self.aux2: _AuxiliaryHead | None = None
        if auxiliary:
            height, width = map(_side_of_4, sides_of(image_size))
            self.aux1 = _AuxiliaryHead(GOOGLENET_MODULES["4a"].total, (height, width), num_classes)
            self.aux2 = _AuxiliaryHead(GOOGLENET_MODULES["4d"].total, (height, width), num_classes)

    def forward(self, image_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Image (B, C, H, W) to logits (B, K); in training mode with auxiliary heads also theirs, (B, K) each."""
        x = self.norm1(self.pool(self.conv1(image_BCHW)))
        x = self.pool(self.norm2(self.conv2(x)))
        maps: dict[str, Tensor] = {}
        for name in GOOGLENET_MODULES:
            if name in ("4a", "5a"):
                x = self.pool(x)
            x = maps[name] = self.get_submodule(f"inception{name}")(x)
        logits_BK: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if not self.training or self.aux1 is None or self.aux2 is None:
            return logits_BK
        return logits_BK, self.aux1(maps["4a"]), self.aux2(maps["4d"])


def _side_of_4(side: int) -> int:
    """A side of the maps of modules 4a to 4e: four times halved, rounded up at the convolution and down at pooling."""
    side = (side + 1) // 2
    for _ in range(3):
        side //= 2
    return side


SPECS = (
    ModelSpec(
        name="googlenet_2014",
        factory=GoogLeNet2014,
        num_classes=1000,
        preprocess=IMAGENET,
        head="fc",
        num_params=6_998_552,
        source="Szegedy et al. 2015, Table 1",
        training_only=("aux1.", "aux2."),
        options={"auxiliary": (False, True)},
    ),
)
