"""Changes that a checkpoint needs before it fits: another image size, another number of channels.

Shapes: N tokens (grid cells, and the class token before them), D width, O and I channels of a convolution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgeport_models.attention import MultiHeadAttention
from edgeport_runtime.errors import InputError, WeightsError
from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeport_models.weights.layout import Converted
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["image_size_of", "resize_positions", "set_hyperparameters", "sum_channels"]

_POSITIONS, _PATCHES, _CLASS_TOKEN = "encoder.pos_embedding", "conv_proj.weight", "class_token"


def image_size_of(state: Mapping[str, torch.Tensor]) -> int | None:
    """Side in pixels of the images that a ViT's position embeddings are for; None for other state dicts."""
    if _POSITIONS not in state or _PATCHES not in state:
        return None
    positions, patches = state[_POSITIONS], state[_PATCHES]
    num_patches = positions.shape[1] - _num_extra(state) if positions.ndim == 3 else 0
    if patches.ndim != 4 or num_patches < 1:
        return None
    side = math.isqrt(num_patches)
    return side * patches.shape[-1] if side * side == num_patches else None


def _num_extra(state: Mapping[str, torch.Tensor]) -> int:
    """Position embeddings before those of the patches: one where there is a class token."""
    return int(_CLASS_TOKEN in state)


def resize_positions(
    state: Mapping[str, torch.Tensor], *, image_size: Size, source: str
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Interpolate a ViT's position embeddings to another image size, as timm does: bicubic, with antialiasing.

    The class token's embedding is kept (Dosovitskiy et al. 2021, Section 3.2, interpolate in the same way). Embeddings
    that are as many as the new grid has patches stay as they are: they are of a network that was trained on it.

    Args:
        state: in EdgePort's layout.
        image_size: of the new images in pixels.
        source: the checkpoint, for messages.

    Returns:
        The state dict, and what was done in words; as it was, and None, where nothing differs or it is no ViT.

    Raises:
        WeightsError: if the embeddings are neither those of the new grid nor of a square one, and a class token.
    """
    state = dict(state)
    positions_1ND, patches = state.get(_POSITIONS), state.get(_PATCHES)
    if positions_1ND is None or patches is None or positions_1ND.ndim != 3 or patches.ndim != 4:
        return state, None
    num_extra = _num_extra(state)
    num_patches = positions_1ND.shape[1] - num_extra
    side = math.isqrt(max(num_patches, 0))
    rows, columns = (pixels // patches.shape[-1] for pixels in sides_of(image_size))
    if rows * columns == num_patches or rows * columns == 0:
        is_other = 0 < num_patches == side * side and rows != columns
        return state, f"position embeddings taken for {rows}x{columns} patches, not {side}x{side}" if is_other else None
    if side < 1 or side * side != num_patches:
        token = " and a class token" if num_extra else ""
        raise WeightsError(
            f"weights {source}: the {positions_1ND.shape[1]} position embeddings are not those of a square grid{token}"
            f"{'' if rows == columns else f', nor of {rows}x{columns} patches'}"
        )
    grid_1DHW = positions_1ND[:, num_extra:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid_1DHW = nn.functional.interpolate(
        grid_1DHW, (rows, columns), mode="bicubic", antialias=True, align_corners=False
    )
    grid_1ND = grid_1DHW.flatten(2).transpose(1, 2).to(positions_1ND.dtype)
    state[_POSITIONS] = torch.cat([positions_1ND[:, :num_extra], grid_1ND], dim=1)
    return state, f"position embeddings interpolated from {side}x{side} to {rows}x{columns} patches"


def sum_channels(
    state: Mapping[str, torch.Tensor], module: nn.Module, *, requested: bool, source: str
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Add up the first layer's weights over its three input channels, for a network that takes one.

    Args:
        state: in EdgePort's layout.
        module: what the state dict is for.
        requested: whether the user asked for it.
        source: the checkpoint, for messages.

    Returns:
        The state dict, and what was done in words; as it was, and None, where it was not asked for nor needed.

    Raises:
        WeightsError: if it is needed and was not asked for.
        InputError: if it was asked for and the first layer has no three channels to add up.
    """
    state = dict(state)
    name, layer = next((name, child) for name, child in module.named_modules() if isinstance(child, nn.Conv2d))
    weight_OIHW = state.get(f"{name}.weight")
    if weight_OIHW is None or weight_OIHW.ndim != 4 or weight_OIHW[:, :1].shape != layer.weight[:, :1].shape:
        return state, None  # of another network: fitting it lists the difference
    if weight_OIHW.shape[1] != 3 or layer.in_channels != 1:
        if requested:
            raise InputError(
                f"--sum-channels: the first layer {name}.weight of {source} takes {weight_OIHW.shape[1]} channels and "
                f"the model takes {layer.in_channels}, so there are not 3 to sum to 1; omit the option"
            )
        return state, None
    if not requested:
        raise WeightsError(
            f"weights {source}: the first layer {name}.weight takes 3 channels, not 1; add --sum-channels to sum it "
            "over them"
        )
    state[f"{name}.weight"] = weight_OIHW.sum(dim=1, keepdim=True)
    return state, f"first layer summed over its 3 input channels ({name}.weight)"


def set_hyperparameters(module: nn.Module, converted: Converted) -> None:
    """Give a module the LayerNorm epsilon and the number of heads that its checkpoint was written with.

    Raises:
        InputError: if the width is not a multiple of the number of heads.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.LayerNorm) and converted.layer_norm_eps is not None:
            child.eps = converted.layer_norm_eps
        if isinstance(child, MultiHeadAttention) and converted.num_heads is not None:
            width = child.out_proj.in_features
            if width % converted.num_heads:
                raise InputError(
                    f"{name}: width {width} is not a multiple of the checkpoint's {converted.num_heads} heads"
                )
            child.num_heads = converted.num_heads
