"""timm's ViT and ResNet, and DeiT, whose files have the same keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_models.weights.layout import Converted, Layout, first_with, rename
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

__all__ = ["RESNET", "VIT"]

# Parts of keys that belong to networks with other arithmetic than Dosovitskiy et al. 2021.
_OTHER_VIT = (
    "reg_token", "dist_token", "head_dist", "ls1", "ls2", "gamma_", "q_norm", "k_norm", "fc_norm", "norm_pre",
    "attn_pool", "pre_logits", "q_bias", "rel_pos",
)  # fmt: skip
# Networks whose keys are those of a plain ResNet, but not what they compute.
_OTHER_RESNETS = ("resnetaa", "resnetblur")

_LAYER = r"encoder.layers.encoder_layer_\1"
_VIT_RULES = (
    (r"cls_token", "class_token"),
    (r"pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj\.(\w+)", r"conv_proj.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(\w+)", rf"{_LAYER}.ln_\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", rf"{_LAYER}.self_attention.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", rf"{_LAYER}.self_attention.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", rf"{_LAYER}.mlp.0.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", rf"{_LAYER}.mlp.3.\2"),
    (r"norm\.(\w+)", r"encoder.ln.\1"),
    (r"head\.(\w+)", r"heads.head.\1"),
)


def _is_vit(keys: Iterable[str]) -> bool:
    return any(key.startswith(("patch_embed.proj.", "blocks.0.attn.")) for key in keys)


def _convert_vit(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Converted:
    other = first_with(state, _OTHER_VIT)
    if other is not None:
        raise WeightsError(f"they are for a variant of timm's ViT that EdgePort does not have (it holds {other})")
    pooling = config.get("global_pool", "token")
    if pooling != "token":
        raise WeightsError(f"config.json: global_pool is {pooling!r}; EdgePort reads timm's ViT with 'token' only")
    return Converted(state=rename(state, _VIT_RULES))


def _is_resnet(keys: Iterable[str]) -> bool:
    return any(key.startswith("layer1.0.conv1.") for key in keys)


def _convert_resnet(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Converted:
    deep = first_with(state, ("conv1.0.weight", ".se.", ".aa."))
    if deep is not None:
        raise WeightsError(
            f"they are for a variant of ResNet that EdgePort does not have: deep stem, attention, ... (it holds {deep})"
        )
    name = config.get("architecture")
    if isinstance(name, str) and name.startswith(_OTHER_RESNETS):
        raise WeightsError(f"config.json: architecture {name!r} is a variant of ResNet that EdgePort does not have")
    return Converted(state=dict(state))


VIT = Layout("timm ViT", _is_vit, _convert_vit)
RESNET = Layout("torchvision or timm ResNet", _is_resnet, _convert_resnet)
