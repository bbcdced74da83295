"""AlexNet: the one-tower form of torchvision, and the network of Krizhevsky et al. 2012 as printed.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgeport_models.spec import IMAGENET, ModelSpec, check_size
from edgeport_runtime.pixels.preprocess import Size, sides_of

__all__ = ["SPECS", "AlexNet", "AlexNet2012"]


class AlexNet(nn.Module):
    """One-tower AlexNet (Krizhevsky 2014, footnote 1), in torchvision's state-dict layout.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 63; the weights do not depend on it.

    Raises:
        ValueError: if nothing is left of the image after the third pooling.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: Size) -> None:
        super().__init__()
        check_size(image_size, at_least=63)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        logits_BK: Tensor = self.classifier(self.avgpool(self.features(image_BCHW)).flatten(1))
        return logits_BK


class AlexNet2012(nn.Module):
    """The network of the ImageNet challenge (Krizhevsky et al. 2012, Section 3 and Figure 2).

    The two GPUs of the paper are the two groups of the second, fourth and fifth convolution. Local response
    normalization (Section 3.3) follows the first two, pooling overlaps (Section 3.4).

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 67; 227 gives the sizes of the paper.

    Raises:
        ValueError: if nothing is left of the image after the third pooling.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: Size) -> None:
        super().__init__()
        check_size(image_size, at_least=67)
        self.conv1 = nn.Conv2d(in_channels, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        # The paper's alpha of 1e-4 multiplies the sum over 5 maps; PyTorch's multiplies their mean.
        self.norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        self.pool = nn.MaxPool2d(3, stride=2)
        height, width = ((side - 11) // 4 + 1 for side in sides_of(image_size))
        for _ in range(3):
            height, width = (height - 3) // 2 + 1, (width - 3) // 2 + 1
        self.fc6 = nn.Linear(256 * height * width, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout = nn.Dropout(0.5)
        for child in self.children():
            if isinstance(child, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(child.weight, nonlinearity="relu")
                nn.init.zeros_(child.bias)  # type: ignore[arg-type]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        x = self.pool(self.norm(torch.relu(self.conv1(image_BCHW))))
        x = self.pool(self.norm(torch.relu(self.conv2(x))))
        x = torch.relu(self.conv4(torch.relu(self.conv3(x))))
        x = self.pool(torch.relu(self.conv5(x))).flatten(1)
        x = torch.relu(self.fc6(self.dropout(x)))
        x = torch.relu(self.fc7(self.dropout(x)))
        logits_BK: Tensor = self.fc8(x)
        return logits_BK


SPECS = (
    ModelSpec(
        name="alexnet",
        factory=AlexNet,
        num_classes=1000,
        preprocess=IMAGENET,
        head="classifier.6",
        num_params=61_100_840,
        source="Krizhevsky 2014, footnote 1",
    ),
    ModelSpec(
        name="alexnet_2012",
        factory=AlexNet2012,
        num_classes=1000,
        preprocess=replace(IMAGENET, image_size=227),
        head="fc8",
        num_params=60_965_224,
        source="Krizhevsky et al. 2012, Figure 2",
    ),
)
