"""LeNet-5 (LeCun et al. 1998) in the form that later became common.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeport_models.spec import ModelSpec, check_size
from edgeport_runtime.pixels.preprocess import PreprocessSpec, Size, sides_of

__all__ = ["SPECS", "LeNet5"]

_MNIST_SIZE = 28


class LeNet5(nn.Module):
    """LeNet-5 with average pooling, tanh and a linear output (LeCun et al. 1998, Section II.B and Figure 2).

    The paper's partial connections of C3, trainable subsampling and RBF output are not in the common form. Images of
    28x28 pixels are padded by the first convolution to the paper's 32x32 field, so both sizes share their weights.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W, at least 16.

    Raises:
        ValueError: if the image is too small for two convolutions and two poolings.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: Size) -> None:
        super().__init__()
        check_size(image_size, at_least=16)
        padding = 2 if image_size == _MNIST_SIZE else 0
        height, width = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in sides_of(image_size))
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        x = self.pool(torch.tanh(self.conv1(image_BCHW)))
        x = self.pool(torch.tanh(self.conv2(x))).flatten(1)
        logits_BK: Tensor = self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))
        return logits_BK


SPECS = (
    ModelSpec(
        name="lenet5",
        factory=LeNet5,
        num_classes=10,
        preprocess=PreprocessSpec(
            color="grey",
            resize="shorter",
            resize_size=32,
            interpolation="bilinear",
            image_size=32,
            scale="unit",
            mean=(0.1307,),
            std=(0.3081,),
        ),
        head="fc3",
        num_params=61_706,
        source="LeCun et al. 1998, Figure 2",
    ),
)
