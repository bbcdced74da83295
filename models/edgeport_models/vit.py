"""Vision Transformer (Dosovitskiy et al. 2021), in torchvision's state-dict layout.

Shapes: B batch, C channels, H W image, N tokens (patches and the class token), D width, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgeport_models.attention import MultiHeadAttention, sinusoidal_positions
from edgeport_models.spec import IMAGENET, ModelSpec
from edgeport_runtime.pixels.preprocess import PreprocessSpec, Size, as_size, sides_of

__all__ = ["SPECS", "VisionTransformer"]


class _Block(nn.Module):
    """One encoder block: attention and a two-layer perceptron, each after a norm and added to its input."""

    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = MultiHeadAttention(width, num_heads)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        # The two Identity modules stand where torchvision has dropout, so that the second layer is `mlp.3`.
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Identity(), nn.Linear(mlp_width, width), nn.Identity()
        )

    def forward(self, tokens_BND: Tensor) -> Tensor:
        tokens_BND = tokens_BND + self.self_attention(self.ln_1(tokens_BND))
        out_BND: Tensor = tokens_BND + self.mlp(self.ln_2(tokens_BND))
        return out_BND


class _Encoder(nn.Module):
    pos_embedding: Tensor

    def __init__(self, positions_1ND: Tensor, depth: int, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        if isinstance(positions_1ND, nn.Parameter):
            self.pos_embedding = positions_1ND
        else:  # not in the state dict: weights trained with other positions must not fit
            self.register_buffer("pos_embedding", positions_1ND, persistent=False)
        self.layers = nn.Sequential(
            OrderedDict((f"encoder_layer_{i}", _Block(width, num_heads, mlp_width)) for i in range(depth))
        )
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        out_BND: Tensor = self.ln(self.layers(tokens_BND + self.pos_embedding))
        return out_BND


class VisionTransformer(nn.Module):
    """An image as a sequence of patches, classified from a class token (Dosovitskiy et al. 2021, Figure 1).

    Positions may be sinusoidal in two dimensions, and the mean of all patches after the last norm may replace
    the class token, which is then left out (both Beyer et al. 2022, "Better plain ViT baselines").

    Args:
        patch_size: side of a patch in pixels.
        depth: number of encoder blocks.
        width: D.
        num_heads: attention heads per block.
        mlp_width: width of the perceptron's hidden layer.
        num_classes: K.
        in_channels: C.
        image_size: H and W, multiples of ``patch_size``.
        positions: ``learned`` or ``sinusoidal``; the class token's sinusoidal position is 0.
        pooling: ``token`` or ``mean``.

    Raises:
        ValueError: if the image size is not a multiple of the patch size, or a width not of 4 where positions need it.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        depth: int,
        width: int,
        num_heads: int,
        mlp_width: int,
        num_classes: int,
        in_channels: int,
        image_size: Size,
        positions: str = "learned",
        pooling: str = "token",
    ) -> None:
        super().__init__()
        rows, columns = (side // patch_size for side in sides_of(image_size))
        if as_size(rows * patch_size, columns * patch_size) != image_size:
            told = image_size if isinstance(image_size, int) else " ".join(map(str, image_size))
            raise ValueError(f"image size {told} is not a multiple of the patch size {patch_size}")
        self.conv_proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        nn.init.trunc_normal_(self.conv_proj.weight, std=(in_channels * patch_size**2) ** -0.5)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if pooling == "token" else None
        num_extra = int(pooling == "token")
        if positions == "learned":
            positions_1ND: Tensor = nn.Parameter(torch.empty(1, rows * columns + num_extra, width).normal_(std=0.02))
        else:
            positions_1ND = nn.functional.pad(sinusoidal_positions(rows, columns, width), (0, 0, num_extra, 0))[None]
        self.encoder = _Encoder(positions_1ND, depth, width, num_heads, mlp_width)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, num_classes)))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Image (B, C, H, W) to logits (B, K)."""
        patches_BND = self.conv_proj(image_BCHW).flatten(2).transpose(1, 2)
        if self.class_token is None:
            pooled_BD = self.encoder(patches_BND).mean(dim=1)
        else:
            class_token_B1D = self.class_token.expand(patches_BND.shape[0], -1, -1)
            pooled_BD = self.encoder(torch.cat([class_token_B1D, patches_BND], dim=1))[:, 0]
        logits_BK: Tensor = self.heads(pooled_BD)
        return logits_BK


_OPTIONS = {"positions": ("learned", "sinusoidal"), "pooling": ("token", "mean")}


class _Variant(NamedTuple):
    name: str
    patch_size: int
    depth: int
    width: int
    num_heads: int
    mlp_width: int
    num_params: int
    source: str


# Widths and depths: Dosovitskiy et al. 2021, Table 1; Ti and S: Touvron et al. 2021 (DeiT), Table 1.
_VARIANTS = (
    _Variant("vit_ti_16", 16, 12, 192, 3, 768, 5_717_416, "Touvron et al. 2021, Table 1"),
    _Variant("vit_s_16", 16, 12, 384, 6, 1536, 22_050_664, "Touvron et al. 2021, Table 1"),
    _Variant("vit_b_16", 16, 12, 768, 12, 3072, 86_567_656, "Dosovitskiy et al. 2021, Table 1"),
    _Variant("vit_b_32", 32, 12, 768, 12, 3072, 88_224_232, "Dosovitskiy et al. 2021, Table 1"),
    _Variant("vit_l_16", 16, 24, 1024, 16, 4096, 304_326_632, "Dosovitskiy et al. 2021, Table 1"),
    _Variant("vit_l_32", 32, 24, 1024, 16, 4096, 306_535_400, "Dosovitskiy et al. 2021, Table 1"),
    _Variant("vit_h_14", 14, 32, 1280, 16, 5120, 632_045_800, "Dosovitskiy et al. 2021, Table 1"),
)


def _spec(variant: _Variant) -> ModelSpec:
    factory = partial(
        VisionTransformer,
        patch_size=variant.patch_size,
        depth=variant.depth,
        width=variant.width,
        num_heads=variant.num_heads,
        mlp_width=variant.mlp_width,
    )
    return ModelSpec(
        name=variant.name,
        factory=factory,
        num_classes=1000,
        preprocess=IMAGENET,
        head="heads.head",
        num_params=variant.num_params,
        source=variant.source,
        options=_OPTIONS,
    )


_DIGITS = ModelSpec(
    name="vit_digits",
    factory=partial(VisionTransformer, patch_size=4, depth=4, width=48, num_heads=4, mlp_width=96),
    num_classes=10,
    preprocess=PreprocessSpec(
        color="grey",
        resize="shorter",
        resize_size=16,
        interpolation="bilinear",
        image_size=16,
        scale="unit",
        mean=(0.5,),
        std=(0.5,),
    ),
    head="heads.head",
    num_params=78_106,
    source="the form of Dosovitskiy et al. 2021, for images of digits",
    options=_OPTIONS,
)

SPECS = (*(_spec(variant) for variant in _VARIANTS), _DIGITS)
