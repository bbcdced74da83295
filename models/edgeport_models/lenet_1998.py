"""LeNet-5 as printed (LeCun et al. 1998, Section II.B).

Shapes: B batch, C channels, H W image, M kernels, U units of the last hidden layer, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeport_models.spec import ModelSpec, check_size
from edgeport_runtime.pixels.preprocess import PreprocessSpec, Size, sides_of

__all__ = ["SPECS", "LeNet51998"]

_MNIST_SIZE = 28
_NUM_UNITS = 84  # of F6: one per pixel of a 7x12 bitmap

# LeCun et al. 1998, Table I: the maps of S2 that each map of C3 reads.
_S2_MAPS_OF_C3 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# Bitmaps of the digits 0 to 9, drawn for this project; the paper's Figure 3 shows the authors'.
_DIGITS = """
.#####. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
##...## ..##... ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .###... ##...## .....## ..####. ##..... ##..... .....## ##...## ##...##
##..### ...#... .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##.#### ...#... ....##. .....## ##..##. ######. ##..... ....##. ##...## ##...##
####.## ...#... ...##.. ..####. ##..##. .....## ######. ...##.. .#####. .######
###..## ...#... ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...#... .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
##...## ...#... ##...## ##...## ....##. ##...## ##...## ..##... ##...## ...##..
.#####. .#####. ####### .#####. ....##. .#####. .#####. ..##... .#####. .###...
"""


def _squash(x: Tensor) -> Tensor:
    """``A tanh(S a)``: f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, Equation 6 and Appendix A)."""
    return 1.7159 * torch.tanh(2 / 3 * x)


def _draw(parameter: Tensor, *, fan_in: int) -> None:
    """Normal with deviation ``fan_in ** -0.5``, which keeps the size of signals (LeCun et al. 1998b, Section 4.6).

    With the paper's own -2.4 / fan_in to 2.4 / fan_in (Section III.B) untrained logits are the same for every image up
    to 2e-4 (measured), and a comparison would not notice a wrong layer.
    """
    nn.init.normal_(parameter, std=fan_in**-0.5)


class _Subsampling(nn.Module):
    """The sum of 2x2 neighbours, times a coefficient per map, plus a bias per map."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(num_maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_maps, 1, 1))
        _draw(self.coefficient, fan_in=4)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x_BCHW, 2) * (4 * self.coefficient) + self.bias


class _PartialConvolution(nn.Module):
    """A 5x5 convolution that has the kernels of Table I only, in its order.

    Its dense kernel is put together from constants, so that a graph holds one ordinary convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        num_kernels = sum(map(len, _S2_MAPS_OF_C3))
        self.weight = nn.Parameter(torch.empty(num_kernels, 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(_S2_MAPS_OF_C3)))
        places, row = [], 0
        for maps in _S2_MAPS_OF_C3:
            _draw(self.weight.data[row : row + len(maps)], fan_in=25 * len(maps))
            for i in range(6):
                places.append(row if i in maps else num_kernels)  # the last row is a kernel of zeros
                row += i in maps
        self.places: Tensor
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernels_M55 = torch.cat([self.weight, torch.zeros_like(self.weight[:1])])
        dense = kernels_M55.index_select(0, self.places).reshape(-1, 6, 5, 5)
        return nn.functional.conv2d(x_BCHW, dense, self.bias)


class _RadialBasis(nn.Module):
    """Negated squared distances to fixed codes (LeCun et al. 1998, Equation 7): the nearest code has the largest logit.

    Ten classes have the bitmaps of the digits, any other number codes drawn from a fixed seed. The codes are a buffer:
    checkpoints hold them, training leaves them.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.tensor(_codes(num_classes)))

    def forward(self, units_BU: Tensor) -> Tensor:
        return -(units_BU[:, None] - self.weight).square().sum(dim=-1)


def _codes(num_classes: int) -> list[list[float]]:
    """K rows of 84 values, each -1 or 1."""
    if num_classes != 10:
        bits = np.random.default_rng(0).integers(0, 2, (num_classes, _NUM_UNITS))
    else:
        lines = np.array([list(line.replace(" ", "")) for line in _DIGITS.split("\n") if line])
        bits = (lines.reshape(12, 10, 7).transpose(1, 0, 2) == "#").reshape(10, _NUM_UNITS)
    codes: list[list[float]] = np.where(bits, 1.0, -1.0).tolist()
    return codes


class LeNet51998(nn.Module):
    """LeNet-5 with partial connections, trainable subsampling, scaled tanh and RBF output.

    A unit of C5 sees all of S4, which is 5x5 for the paper's 32x32 images; 28x28 images are padded to that.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W, at least 16.

    Raises:
        ValueError: if the image is too small for two convolutions and two subsamplings.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: Size) -> None:
        super().__init__()
        check_size(image_size, at_least=16)
        padding = 2 if image_size == _MNIST_SIZE else 0
        height, width = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in sides_of(image_size))
        self.c1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.s2 = _Subsampling(6)
        self.c3 = _PartialConvolution()
        self.s4 = _Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, (height, width))
        self.f6 = nn.Linear(120, _NUM_UNITS)
        self.output = _RadialBasis(num_classes)
        for layer in (self.c1, self.c5, self.f6):
            _draw(layer.weight, fan_in=layer.weight[0].numel())
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        x = image_BCHW
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = _squash(layer(x))
        logits_BK: Tensor = self.output(_squash(self.f6(x.flatten(1))))
        return logits_BK


SPECS = (
    ModelSpec(
        name="lenet5_1998",
        factory=LeNet51998,
        num_classes=10,
        preprocess=PreprocessSpec(
            color="grey",
            resize="shorter",
            resize_size=32,
            interpolation="bilinear",
            image_size=32,
            scale="unit",
            # Background at -0.1 and strokes at 1.175 (Section II.B), for light strokes on a dark background.
            mean=(0.1 / 1.275,),
            std=(1 / 1.275,),
        ),
        head="output",
        num_params=60_000,
        source="LeCun et al. 1998, Section II.B",
    ),
)
