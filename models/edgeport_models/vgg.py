"""VGG (Simonyan and Zisserman 2015), with and without BatchNorm, in torchvision's state-dict layout.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from edgeport_models.initialization import start_near_identity
from edgeport_models.spec import IMAGENET, ModelSpec, check_size

if TYPE_CHECKING:
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["SPECS", "VGG"]

_WIDTHS = (64, 128, 256, 512, 512)
_NOISE = 0.25  # with noise alone, torch and ONNX Runtime differ by 1.9e-5 of the logits (vgg19_bn)


class VGG(nn.Module):
    """3x3 convolutions in five stages, a pooling after each, three linear layers (Simonyan and Zisserman 2015).

    Args:
        depths: convolutions in each of the five stages.
        has_norm: a BatchNorm after each convolution.
        num_classes: K.
        in_channels: C.
        image_size: H and W in pixels, at least 32; the weights do not depend on it.

    Raises:
        ValueError: if the image is smaller than the network's total stride.
    """

    def __init__(
        self, *, depths: tuple[int, ...], has_norm: bool, num_classes: int, in_channels: int, image_size: Size
    ) -> None:
        super().__init__()
        check_size(image_size, at_least=32)
        layers: list[nn.Module] = []
        width = in_channels
        for depth, stage_width in zip(depths, _WIDTHS, strict=True):
            for _ in range(depth):
                convolution = nn.Conv2d(width, stage_width, 3, padding=1)
                start_near_identity(convolution, scale=_NOISE)
                layers.append(convolution)
                if has_norm:
                    layers.append(nn.BatchNorm2d(stage_width))
                layers.append(nn.ReLU(inplace=True))
                width = stage_width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        logits_BK: Tensor = self.classifier(self.avgpool(self.features(image_BCHW)).flatten(1))
        return logits_BK


class _Variant(NamedTuple):
    name: str
    column: str  # of the paper's Table 1
    depths: tuple[int, ...]
    num_params: int
    num_params_with_norm: int


_VARIANTS = (
    _Variant("vgg11", "A", (1, 1, 2, 2, 2), 132_863_336, 132_868_840),
    _Variant("vgg13", "B", (2, 2, 2, 2, 2), 133_047_848, 133_053_736),
    _Variant("vgg16", "D", (2, 2, 3, 3, 3), 138_357_544, 138_365_992),
    _Variant("vgg19", "E", (2, 2, 4, 4, 4), 143_667_240, 143_678_248),
)

SPECS = tuple(
    ModelSpec(
        name=f"{variant.name}_bn" if has_norm else variant.name,
        factory=partial(VGG, depths=variant.depths, has_norm=has_norm),
        num_classes=1000,
        preprocess=IMAGENET,
        head="classifier.6",
        num_params=variant.num_params_with_norm if has_norm else variant.num_params,
        source=f"Simonyan and Zisserman 2015, Table 1, {variant.column}" + (", with BatchNorm" if has_norm else ""),
    )
    for has_norm in (False, True)
    for variant in _VARIANTS
)
