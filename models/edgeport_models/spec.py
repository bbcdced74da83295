"""What EdgePort knows about an architecture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeport_runtime.pixels.preprocess import PreprocessSpec, Size, sides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

__all__ = ["IMAGENET", "ModelSpec", "check_size"]

IMAGENET = PreprocessSpec(
    color="rgb",
    resize="shorter",
    resize_size=256,
    interpolation="bilinear",
    image_size=224,
    scale="unit",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""torchvision's evaluation transform for ImageNet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """An architecture: how to build it, what it takes, and where it was published.

    Attributes:
        name: as on the command line.
        factory: makes the module from the keywords ``num_classes``, ``in_channels`` and ``image_size`` (in pixels: the
            side, or height and width).
        num_classes: default number of classes.
        preprocess: default input contract; its channels and image size are the defaults of ``build``.
        head: name of the last layer; its weight has one row per class.
        num_params: number of trainable parameters at the default size.
        source: paper and table.
        training_only: prefixes of keys that checkpoints may hold and the evaluated network does not use, such as
            those of auxiliary heads.
        options: choices that ``build`` takes besides the sizes, with the values allowed, the default first.
        published: options of published checkpoints that do not tell them, by the first digits of the file's SHA-256.
    """

    name: str
    factory: Callable[..., nn.Module]
    num_classes: int
    preprocess: PreprocessSpec
    head: str
    num_params: int
    source: str
    training_only: tuple[str, ...] = ()
    options: Mapping[str, tuple[str | bool, ...]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, str | bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.num_params < 1 or not self.name or not self.head:
            raise ValueError(f"incomplete specification of {self.name!r}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C, H, W at the default size."""
        return self.preprocess.input_shape

    def build(
        self,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
        image_size: Size | None = None,
        **options: str | bool,
    ) -> nn.Module:
        """The module, with PyTorch's usual random weights, in training mode.

        Args:
            num_classes: rows of the head.
            in_channels: channels of the input.
            image_size: height and width of the input in pixels, or its side where it is square.
            options: of ``self.options``; those left out take the first of their values.

        Raises:
            ValueError: if the architecture cannot take that size, or has no such option or value.
        """
        sizes = {
            "num_classes": self.num_classes if num_classes is None else num_classes,
            "in_channels": self.preprocess.num_channels if in_channels is None else in_channels,
            "image_size": self.preprocess.image_size if image_size is None else image_size,
        }
        for name, size in sizes.items():
            if min(sides_of(size)) < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        self.check_options(options)
        return self.factory(**sizes, **options)

    def check_options(self, options: Mapping[str, str | bool]) -> None:
        """Raise ValueError if the architecture has no such option, or the option no such value."""
        for name, value in options.items():
            if name not in self.options:
                raise ValueError(f"it has no option {name}; its options: {', '.join(self.options) or 'none'}")
            if value not in self.options[name]:
                allowed = ", ".join(map(str, self.options[name]))
                raise ValueError(f"option {name} is {value!r}; choose one of {allowed}")


def check_size(image_size: Size, *, at_least: int) -> None:
    """Raise ValueError if an image of that size, in pixels, is too small for a network."""
    if min(sides_of(image_size)) < at_least:
        side = min(sides_of(image_size))
        raise ValueError(f"image size {side} is too small for this network; use {at_least} or more")
